"""The access log: one line for each answer, written off the hot path.

Rules of this module:

* An answer costs the appending of a tuple; lines are made when the sweep comes by.
* What a client wrote is escaped: one answer is one line, and its quotes are ours.
* A log that can't keep up loses lines, says how many, and holds nothing up.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from . import _limits

logger = logging.getLogger("trioweb.access")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.  `size`: its bytes, head and all; `seconds`: from the request's head on."""

    client: str
    method: bytes
    target: bytes
    version: bytes
    status: int
    size: int
    seconds: float


class AccessLog:
    def __init__(self) -> None:
        self._waiting: deque[Answer] = deque()
        self._lost = 0

    def add(self, answer: Answer) -> None:
        if len(self._waiting) < _limits.MAX_WAITING_LOG_LINES:
            self._waiting.append(answer)
        else:
            self._lost += 1

    def flush(self) -> None:
        """Write what waits."""
        while self._waiting:
            answer = self._waiting.popleft()
            logger.info(
                '%s "%s %s HTTP/%s" %d %d %.1fms',
                answer.client,
                escaped(answer.method),
                escaped(answer.target),
                escaped(answer.version),
                answer.status,
                answer.size,
                answer.seconds * 1000,
                extra={"answer": answer},
            )
        if self._lost:
            logger.warning("%d lines of the access log were lost: it can't keep up", self._lost)
            self._lost = 0


def escaped(text: bytes) -> str:
    """One line of visible ASCII, whatever it was; its quotes can't be taken for ours."""
    escaped = text.decode("latin-1").encode("unicode_escape").decode("ascii")
    return escaped.replace('"', '\\"')
