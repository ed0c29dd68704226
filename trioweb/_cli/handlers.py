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

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class OwnHandlers:
    """What a process has set for itself alone."""

    def __init__(self) -> None:
        # By its number: the handler that is set, and what a forked process has in its place.
        self._set: dict[int, Handler] = {}
        self._childs: dict[int, Handler] = {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._forking = threading.local()

    def set(self, number: int, handler: Handler) -> Handler:
        """As `signal.signal` does; returns the handler that was there."""
        before = signal.signal(number, handler)
        if number not in self._childs:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            self._childs[number] = signal.SIG_IGN if before is signal.SIG_IGN else default
        self._set[number] = handler
        return before

    def keep(self, *sockets: socket.socket) -> None:
        """A forked process has these closed."""
        self._sockets.update(sockets)

    def forget(self) -> None:
        """In a process that was just forked: signals do what they do by default."""
        if not self._set:
            return
        signal.set_wakeup_fd(-1)
        for number, handler in self._set.items():
            if signal.getsignal(number) == handler:  # else it is the app's
                signal.signal(number, self._childs[number])
        for sock in tuple(self._sockets):
            sock.close()

    def block(self) -> None:
        """Before a process is forked: it may be told to end before it has taken a step."""
        self._forking.before = signal.pthread_sigmask(signal.SIG_BLOCK, self._set)

    def unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.before)


own = OwnHandlers()
os.register_at_fork(after_in_child=own.forget)  # and only then lets signals in
os.register_at_fork(before=own.block, after_in_parent=own.unblock, after_in_child=own.unblock)


# The first process of a container.

FIRST_PROCESS = 1  # the id that it has there

# Without a handler they end every process but that one.  SIGINT has Python's handler.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


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
