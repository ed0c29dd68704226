"""The access log: one line for each answer, written off the hot path.

Rules of this module:

* An answer costs the appending of a tuple; lines are made when the sweep comes by.
* What a client wrote is escaped: one answer is one line, and its quotes are ours.
* The parts are attributes of the record, text and numbers alone: JSON can be made of them.
* A log that can't keep up loses lines, says how many, and holds nothing up.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from . import _limits
from ._errors import log_bug

logger = logging.getLogger("trioweb.access")


_LINE = (
    '%(client)s "%(method)s %(target)s HTTP/%(http_version)s" %(status)d %(size)d'
    " %(milliseconds).1fms"
)


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
        """Write what waits.  An answer that can't be written is left out, and logged."""
        while self._waiting:
            answer = self._waiting.popleft()
            try:
                _write(answer)
            except Exception:
                log_bug()
        if self._lost:
            logger.warning("%d lines of the access log were lost: it can't keep up", self._lost)
            self._lost = 0


def _write(answer: Answer) -> None:
    parts = _parts(answer)
    logger.info(_LINE, parts, extra=parts)


def _parts(answer: Answer) -> dict[str, str | int | float]:
    return {
        "client": answer.client,
        "method": escaped(answer.method),
        "target": escaped(answer.target),
        "http_version": escaped(answer.version),
        "status": answer.status,
        "size": answer.size,
        "milliseconds": answer.seconds * 1000,
    }


def escaped(text: bytes) -> str:
    """One line of visible ASCII, whatever it was; its quotes can't be taken for ours."""
    escaped = text.decode("latin-1").encode("unicode_escape").decode("ascii")
    return escaped.replace('"', '\\"')
