"""The ledger: in which state each task of an app is, in counts that always add up.

Rules of this module:

* A task is entered once and is in one state at any time; every move between
  states is made here, and nowhere else.
* Tasks are added from worker threads too, under the lock of whoever adds them; all
  else happens on Trio's thread.  So each count has one who writes it, and no lock of
  its own: four locks cost a tenth of a small task.
* What is pending isn't counted but worked out: the counts add up whenever they are read.
* Who listens hears of each move when it is made.  Where nobody does, a move costs one look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import trio

TaskState = Literal[
    "pending", "running", "done", "failed", "timed_out", "cancelled", "abandoned", "skipped"
]
# How a task can end, and what a report says of it.
END_STATES: dict[TaskState, str] = {
    "done": "finished",
    "failed": "failed",
    "timed_out": "timed out",
    "cancelled": "cancelled",
    "abandoned": "abandoned",
    "skipped": "skipped",
}


class Task(Protocol):
    """What the ledger needs to know of a task."""

    state: TaskState
    started_at: float | None
    ended_at: float | None
    waiter: trio.Event | None


T = TypeVar("T", bound=Task)


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

    # Told of each task whose state has changed; None while nobody listens.
    hear: Callable[[T], object] | None = None
    # Whether a shutdown is reported on: its report names the tasks that are cancelled.
    is_closing: bool = False

    def __init__(self) -> None:
        self.added: int = 0
        self.left: int = 0  # of those that were added, how many are pending no more
        self._ended: dict[TaskState, int] = dict.fromkeys(END_STATES, 0)
        self._running: dict[T, None] = {}
        # Those that failed, while somebody is told of it.
        self._reported: dict[T, None] = {}
        self._idle: trio.Event | None = None  # made when somebody waits

    @property
    def pending(self) -> int:
        return self.added - self.left

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

    def enter(self, task: T) -> None:
        """A task was added.  Whoever adds holds a lock, the same for all."""
        self.added += 1
        if self.hear is not None:
            self.hear(task)

    def begin(self, task: T, now: float) -> None:
        """A pending task runs."""
        task.started_at = now
        task.state = "running"
        self._running[task] = None
        self.left += 1
        if self.hear is not None:
            self.hear(task)

    def end(self, task: T, state: TaskState, now: float | None = None) -> None:
        """A task, pending or running, is in an end state."""
        task.ended_at = trio.current_time() if now is None else now
        task.state = state
        if task in self._running:
            del self._running[task]
        else:
            self.left += 1
        self._ended[state] += 1
        if task.waiter is not None:
            task.waiter.set()
        if self.hear is not None:
            self.hear(task)
        if self._idle is not None:
            self._notice_idle()

    def reported(self) -> list[T]:
        """The tasks that have failed and whose failure is being told of."""
        return list(self._reported)

    def running(self) -> list[T]:
        """The tasks that run, those that began first in front."""
        return list(self._running)

    def statistics(self) -> TaskStatistics:
        # In this order: to another thread a task on its way may seem to wait, never to be two.
        ended, running, added = self._ended.copy(), len(self._running), self.added
        pending = added - running - sum(ended.values())
        return TaskStatistics(added=added, pending=pending, running=running, **ended)
