"""What every world knows of itself: its trace, its violations, its log and its end.

Rules of this module:

* It only writes down; invariants judge when the world has ended.  What can be seen at one moment
  only is a violation at that moment.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import trio

from trioweb import App

# Where an object lies in memory is no seed's doing.
_ADDRESS = re.compile("0x[0-9a-f]+")


class Plan(Protocol):
    """What has to be known of any world's plan."""

    @property
    def drain_timeout(self) -> float: ...


PlanT = TypeVar("PlanT", bound=Plan)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record of trioweb's log."""

    at: float
    level: int
    text: str
    exc: BaseException | None


class BaseWorld(Generic[PlanT]):
    """What one run writes down; times are infinite until they have come."""

    def __init__(self, seed: int, plan: PlanT) -> None:
        self.seed = seed
        self.plan = plan
        self.trace: list[str] = []
        self.violations: list[str] = []
        self.log: list[LogLine] = []
        self.is_open = False  # the database that the lifespan holds open
        self.shut_down_at = math.inf
        self.cancelled_at = math.inf
        self.app: App

    @property
    def app_cancelled_at(self) -> float:
        """From when on the app cancels what is left."""
        return min(self.shut_down_at + self.plan.drain_timeout, self.cancelled_at)

    def note(self, event: str) -> None:
        same = _ADDRESS.sub("0x…", event)
        self.trace.append(f"{trio.current_time():10.3f}  {same}")

    def violate(self, problem: str) -> None:
        self.trace.append(f"VIOLATION: {problem}")
        self.violations.append(problem)

    def expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.violate(problem)

    def add_to_log(self, line: LogLine) -> None:
        self.note(f"log: {line.text} {line.exc!r}")
        self.log.append(line)

    @contextmanager
    def database(self) -> Iterator[None]:
        """Open within: for the lifespan."""
        self.is_open = True
        try:
            yield
        finally:
            self.is_open = False
            self.note("the lifespan closes")

    def touch(self, who: str) -> None:
        """Use the database."""
        self.expect(self.is_open, f"{who} ran after the lifespan closed")

    async def clean_up(self, seconds: float) -> None:
        """What a `finally` does that mustn't be cut short."""
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)


class LogWatch(logging.Handler):
    """Hears what trioweb logs."""

    def __init__(self, world: BaseWorld[Any]) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        exc = record.exc_info[1] if record.exc_info is not None else None
        line = LogLine(trio.current_time(), record.levelno, record.getMessage(), exc)
        self._world.add_to_log(line)
