"""The ledger: in which state each task of an app is, in counts that always add up.

Rules of this module:

* A task is entered once and is in one state at any time; every move between
  states goes through here.
* Tasks are added from worker threads too, so a move is made under a lock; they
  end on Trio's thread only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import trio

T = TypeVar("T")

TaskState = Literal[
    "pending", "running", "done", "failed", "timed_out", "cancelled", "abandoned", "skipped"
]
STATES: tuple[TaskState, ...] = (
    "pending",
    "running",
    "done",
    "failed",
    "timed_out",
    "cancelled",
    "abandoned",
    "skipped",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatistics:
    """How many tasks are in which state, of all that were `added` since the app started.

    `pending + running + done + failed + timed_out + cancelled + abandoned + skipped`
    is `added`.
    """

    added: int
    pending: int
    running: int
    done: int
    failed: int
    timed_out: int
    cancelled: int
    abandoned: int
    skipped: int


class Ledger(Generic[T]):
    """The tasks of one app, counted by state, and those that run."""

    def __init__(self) -> None:
        self._counts: dict[TaskState, int] = dict.fromkeys(STATES, 0)
        self._running: dict[T, None] = {}
        # Those that failed, while somebody is told of it.
        self._reported: dict[T, None] = {}
        # While a shutdown is reported on: who ends otherwise than done.
        self._casualties: list[tuple[T, TaskState]] | None = None
        self._lock = threading.RLock()
        self._idle: trio.Event | None = None  # made when somebody waits

    @property
    def pending(self) -> int:
        return self._counts["pending"]

    @property
    def is_closing(self) -> bool:
        """Whether casualties are noted, to be reported together."""
        return self._casualties is not None

    @property
    def is_idle(self) -> bool:
        return self._counts["pending"] + self._counts["running"] + len(self._reported) == 0

    async def wait_idle(self) -> None:
        """Returns when no task waits or runs, or is reported.  Call it on Trio's thread."""
        while not self.is_idle:
            if self._idle is None:
                self._idle = trio.Event()
            await self._idle.wait()

    @contextmanager
    def reporting(self, task: T) -> Iterator[None]:
        """A task's failure is being told of: that is a part of it, for whoever waits."""
        self._reported[task] = None
        try:
            yield
        finally:
            del self._reported[task]
            self._notice_idle()

    def _notice_idle(self) -> None:
        if self._idle is not None and self.is_idle:
            self._idle.set()
            self._idle = None

    def enter(self, task: T) -> None:
        with self._lock:
            self._counts["pending"] += 1

    def move(self, task: T, old: TaskState, new: TaskState) -> None:
        with self._lock:
            self._counts[old] -= 1
            self._counts[new] += 1
            if new == "running":
                self._running[task] = None
            elif old == "running":
                del self._running[task]
            if self._casualties is not None and new not in ("running", "done", "skipped"):
                self._casualties.append((task, new))
            if self._idle is not None:
                self._notice_idle()

    def keep_casualties(self, casualties: list[tuple[T, TaskState]] | None) -> None:
        """From now on, note there who ends otherwise than done, and how; None: nowhere."""
        with self._lock:
            self._casualties = casualties

    def reported(self) -> list[T]:
        """The tasks that have failed and whose failure is being told of."""
        return list(self._reported)

    def running(self) -> list[T]:
        """The tasks that run, those that began first in front."""
        with self._lock:
            return list(self._running)

    def statistics(self) -> TaskStatistics:
        with self._lock:
            return TaskStatistics(added=sum(self._counts.values()), **self._counts)
