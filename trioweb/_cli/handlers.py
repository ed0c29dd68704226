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

# By its number: the handler that is set here, and what a forked process has in its place.
_set: dict[int, Handler] = {}
_childs: dict[int, Handler] = {}

_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

# What a thread that forks had blocked before.
_forking = threading.local()


def set_handler(number: int, handler: Handler) -> Handler:
    """`signal.signal`, for this process alone; returns the handler that was there."""
    before = signal.signal(number, handler)
    if number not in _childs:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        _childs[number] = signal.SIG_IGN if before is signal.SIG_IGN else default
    _set[number] = handler
    return before


def keep_to_this_process(*sockets: socket.socket) -> None:
    """Close these in every process that is forked from this one."""
    _sockets.update(sockets)


def _before_fork() -> None:
    """A child may be told to end before it has taken its first step."""
    _forking.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _set)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.blocked)


def forget_in_child() -> None:
    """In a process that was just forked: signals do what they do by default."""
    if not _set:
        return
    signal.set_wakeup_fd(-1)
    for number, handler in _set.items():
        if signal.getsignal(number) == handler:  # else it is the app's
            signal.signal(number, _childs[number])
    for sock in tuple(_sockets):
        sock.close()


def _after_fork_in_child() -> None:
    forget_in_child()
    _after_fork()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork,
    after_in_child=_after_fork_in_child,
)


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
        set_handler(number, _end)
    try:
        yield
    finally:
        for number in without:
            set_handler(number, signal.SIG_DFL)


@contextlib.contextmanager
def prompt_actions() -> Iterator[None]:
    """The same at once, though the main thread is in a library and runs no Python: for imports."""
    if os.getpid() != FIRST_PROCESS:
        yield
        return
    hearing, wakeup = socket.socketpair()
    keep_to_this_process(hearing, wakeup)
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
                if number in _set and _set[number] is _end:
                    _end(number, None)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
