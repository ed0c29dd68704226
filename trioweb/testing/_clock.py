"""The clock of a test: virtual time stands still while a thread works.

Rules of this module:

* A thread takes real time.  A clock that jumps whenever no task can run would jump past every
  timeout meanwhile, so it has to wait for the thread.
* Which task waits for a thread is seen from outside, in `trio.to_thread.run_sync`, whoever called
  it: a library that has imported it by name is seen as well.
* It never waits for ever: a thread may be waiting for the program's time itself.
* Another clock than one that jumps is left alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import trio
import trio.testing

from .._concurrency.context import frames_of

# How long a thread may work, while nothing else happens, before time goes on.
THREAD_TIME = 5.0  # seconds, real ones

_IN_THREAD = trio.to_thread.run_sync.__code__


@contextmanager
def time_for_threads() -> Iterator[None]:
    """Within the block, the run's autojump clock doesn't jump while a task waits for a thread."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock):
        yield
        return
    holds = _holds.get(None)
    if holds is None:
        _holds.set(holds := _Holds(clock))
    holds.enter()
    try:
        yield
    finally:
        holds.exit()


class _Holds(trio.abc.Instrument):
    """Those of one run, which share its clock: the tasks that wait for a thread now."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock
        self._threshold = clock.autojump_threshold
        self._users = 0
        self._waiting: set[trio.lowlevel.Task] = set()

    def enter(self) -> None:
        self._users += 1
        if self._users == 1:
            trio.lowlevel.add_instrument(self)

    def exit(self) -> None:
        self._users -= 1
        if not self._users:
            trio.lowlevel.remove_instrument(self)
            for task in tuple(self._waiting):
                self.task_scheduled(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if _waits_for_thread(task):
            if not self._waiting:
                self._threshold = self._clock.autojump_threshold
                self._clock.autojump_threshold = max(self._threshold, THREAD_TIME)
            self._waiting.add(task)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if task in self._waiting:
            self._waiting.remove(task)
            if not self._waiting:
                self._clock.autojump_threshold = self._threshold


_holds: trio.lowlevel.RunVar[_Holds | None] = trio.lowlevel.RunVar("trioweb_testing_holds", None)


def _waits_for_thread(task: trio.lowlevel.Task) -> bool:
    """Whether it is in `run_sync`, and waits there for the thread and for nothing else."""
    # The last two are Trio's own, of whatever waits to be woken.
    innermost = deque((frame.f_code for frame in frames_of(task)), maxlen=3)
    return len(innermost) == 3 and innermost[0] is _IN_THREAD
