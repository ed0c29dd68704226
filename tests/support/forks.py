"""Processes that a test forks from its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# How a child that waits ends when its parent tells it so, and by Ctrl-C.
ENDED, INTERRUPTED = 0, 5


@contextmanager
def forked(prepare: Callable[[], object] = lambda: None) -> Iterator[int]:
    """A child that waits for a signal, or for the end of the block; gives its id.

    It runs `prepare` first, and may be signalled before that.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover - another process
        try:
            prepare()
            os.close(writing)
            os.read(reading, 1)
            os._exit(ENDED)
        except KeyboardInterrupt:
            os._exit(INTERRUPTED)
        finally:
            os._exit(1)
    try:
        yield child
    finally:
        os.close(writing)
        os.close(reading)


def exit_code(child: int) -> int:
    """How a child has ended: its status, or the number of the signal that ended it, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
