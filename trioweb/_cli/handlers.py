"""Signal handlers: whose they are, and what a signal does before there is one.

Rules of this module:

* A handler belongs to the process that has set it.  In one that is forked from it, by
  `multiprocessing` or `os.fork`, signals do what they do by default, and no socket is ours: what is
  to end the child would be heard by its parent, and the child would go on.
* The kernel has no default actions for the first process of a container.  There a signal that has
  no handler yet ends the process all the same, with the status that a shell would show.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from .systems import HANG_UP, block_signals, register_at_fork, set_blocked_signals

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class OwnHandlers:
    """What a process has set for itself alone."""

    def __init__(self) -> None:
        self._set: dict[int, Handler] = {}
        self._ignored: set[int] = set()  # those that were, before they were set
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._forking = threading.local()

    def set(self, number: int, handler: Handler) -> Handler:
        """As `signal.signal` does; returns the handler that was there."""
        before = signal.signal(number, handler)
        if number not in self._set and before is signal.SIG_IGN:
            self._ignored.add(number)
        self._set[number] = handler
        return before

    def keep(self, *sockets: socket.socket) -> None:
        """A forked process has these closed."""
        self._sockets.update(sockets)

    def block(self) -> None:
        """Before a process is forked: it may be told to end before it has taken a step."""
        self._forking.before = block_signals(self._set)

    def unblock(self) -> None:
        set_blocked_signals(self._forking.before)

    def enter_child(self) -> None:
        """In a process that was just forked: signals do what they do by default."""
        forgotten = self._forget() if self._set else []
        # What has come ends the child here: an exception of Python's would be lost.
        self.unblock()
        if signal.SIGINT in forgotten and signal.SIGINT not in self._ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _forget(self) -> list[int]:
        """Returns the signals whose handlers were ours; the others' are the app's."""
        signal.set_wakeup_fd(-1)
        for sock in tuple(self._sockets):
            sock.close()
        ours = [number for number in self._set if signal.getsignal(number) == self._set[number]]
        for number in ours:
            action = signal.SIG_IGN if number in self._ignored else signal.SIG_DFL
            signal.signal(number, action)
        self._set.clear()
        return ours


own = OwnHandlers()
register_at_fork(before=own.block, after_in_parent=own.unblock, after_in_child=own.enter_child)


# The first process of a container.

FIRST_PROCESS = 1  # the id that it has there

# Without a handler they end every process but that one.  SIGINT has Python's handler.
_ENDING = (signal.SIGTERM, *HANG_UP)


def is_unhandled(number: int) -> bool:
    """Whether it does what it does by default: it is neither ignored nor handled by anybody."""
    return signal.getsignal(number) in (signal.SIG_DFL, _end)


@contextlib.contextmanager
def default_actions() -> Iterator[None]:
    """In the block, signals without a handler end the process, though it is a container's first."""
    if os.getpid() != FIRST_PROCESS:
        yield
        return
    without = [number for number in _ENDING if is_unhandled(number)]
    for number in without:
        own.set(number, _end)
    try:
        yield
    finally:
        for number in without:
            own.set(number, signal.SIG_DFL)


@contextlib.contextmanager
def prompt_actions() -> Iterator[None]:
    """The same at once, though the main thread is in a library and runs no Python: for imports."""
    if os.getpid() != FIRST_PROCESS:
        yield
        return
    hearing, wakeup = socket.socketpair()
    own.keep(hearing, wakeup)
    wakeup.setblocking(False)
    threading.Thread(target=_end_when_told, args=(hearing,), daemon=True).start()
    signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        wakeup.shutdown(socket.SHUT_RDWR)
        wakeup.close()


def _end_when_told(hearing: socket.socket) -> None:
    with hearing:
        while numbers := hearing.recv(4096):
            for number in numbers:
                if signal.getsignal(number) is _end:
                    _end(number, None)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
