"""The ledger: in which state each task of an app is, in counts that always add up.

Rules of this module:

* A task is entered once and is in one state at any time; every move between
  states goes through here.
* Tasks are added from worker threads too, under the lock of whoever adds them; all
  else happens on Trio's thread.  So each count has one who writes it, and no lock of
  its own: four locks cost a tenth of a small task.
* What is pending isn't counted but worked out: the counts add up whenever they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import trio

T = TypeVar("T")

TaskState = Literal[
    "pending", "running", "done", "failed", "timed_out", "cancelled", "abandoned", "skipped"
]
END_STATES: tuple[TaskState, ...] = (
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
        self._added = 0
        self._left = 0  # of those that were added, how many are pending no more
        self._ended: dict[TaskState, int] = dict.fromkeys(END_STATES, 0)
        self._running: dict[T, None] = {}
        # Those that failed, while somebody is told of it.
        self._reported: dict[T, None] = {}
        # While a shutdown is reported on: who ends otherwise than done.
        self._casualties: list[tuple[T, TaskState]] | None = None
        self._idle: trio.Event | None = None  # made when somebody waits

    @property
    def pending(self) -> int:
        return self._added - self._left

    @property
    def is_closing(self) -> bool:
        """Whether casualties are noted, to be reported together."""
        return self._casualties is not None

    @property
    def is_idle(self) -> bool:
        return not (self.pending or self._running or self._reported)

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

    def enter(self) -> None:
        """A task was added.  Whoever adds holds a lock, the same for all."""
        self._added += 1

    def begin(self, task: T) -> None:
        """A pending task runs."""
        self._running[task] = None
        self._left += 1

    def end(self, task: T, state: TaskState) -> None:
        """A task, pending or running, is in an end state."""
        if task in self._running:
            del self._running[task]
        else:
            self._left += 1
        self._ended[state] += 1
        if self._casualties is not None and state not in ("done", "skipped"):
            self._casualties.append((task, state))
        if self._idle is not None:
            self._notice_idle()

    def keep_casualties(self, casualties: list[tuple[T, TaskState]] | None) -> None:
        """From now on, note there who ends otherwise than done, and how; None: nowhere."""
        self._casualties = casualties

    def reported(self) -> list[T]:
        """The tasks that have failed and whose failure is being told of."""
        return list(self._reported)

    def running(self) -> list[T]:
        """The tasks that run, those that began first in front."""
        return list(self._running)

    def statistics(self) -> TaskStatistics:
        # In this order: to another thread a task on its way may seem to wait, never to be two.
        ended, running, added = self._ended.copy(), len(self._running), self._added
        pending = added - running - sum(ended.values())
        return TaskStatistics(added=added, pending=pending, running=running, **ended)
