"""Processes that a test forks from its own."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# How a child that waits ends when its parent tells it so, and by a KeyboardInterrupt.
ENDED, INTERRUPTED = 0, 5

# Seconds.  Only ends a wait that will never be answered.
TIMEOUT = 20.0


class Child:
    """A child that was forked; `ended` is a pipe's end, which nobody but it holds open."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self._ended = ended
        self._code: int | None = None

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """How it ended: its status, or the number of the signal that ended it, negative."""
        if self._code is None:
            if not select.select([self._ended], [], [], TIMEOUT)[0]:
                self.kill(signal.SIGKILL)  # pragma: no cover - what it was told, it missed
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


@contextmanager
def forked(prepare: Callable[[], object] = lambda: None) -> Iterator[Child]:
    """A child that waits for a signal, or for the end of the block.

    It runs `prepare` first, and may be signalled before that.
    """
    reading, writing = os.pipe()
    ended, living = os.pipe()
    pid = os.fork()
    if not pid:  # pragma: no cover - another process
        _live(prepare, reading, writing)
    os.close(living)
    child = Child(pid, ended)
    try:
        yield child
    finally:
        os.close(writing)
        child.wait()
        os.close(reading)
        os.close(ended)


def _live(
    prepare: Callable[[], object], reading: int, writing: int
) -> None:  # pragma: no cover - another process
    with suppress(BaseException):
        try:
            prepare()
            os.close(writing)
            os.read(reading, 1)
            os._exit(ENDED)
        except KeyboardInterrupt:
            os._exit(INTERRUPTED)
    os._exit(1)
