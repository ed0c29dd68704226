"""Sockets as this operating system has them: what others have differently, or not at all.

Rules of this module:

* What a system lacks is left out, or nobody knows: the server works without.
* A process that is forked gives its copies of our sockets up at once.  A connection ends when the
  last copy of its socket is closed, which would be when the child ends.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import socket
import sys
import weakref
from typing import Any

from . import _limits


def _found(module: str) -> Any:
    """None where this system hasn't that module."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        return None


_fcntl, _termios = _found("fcntl"), _found("termios")

# Whether who waits for a socket to be readable hears of it when our side stops receiving.
SHUTDOWN_ENDS_WAITING = sys.platform != "win32"

# macOS and Linux have it.
_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)

# On Windows SO_REUSEADDR would let anybody else listen on the same port.
_ADDRESS_OPTION = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
_REUSEPORT = getattr(socket, "SO_REUSEPORT", None)

_ours: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def unsent(sock: socket.socket) -> int | None:
    """How many bytes the kernel holds that the client hasn't got; None if nobody knows."""
    if _fcntl is None or _termios is None:
        return None
    try:
        size = _fcntl.ioctl(sock, _termios.TIOCOUTQ, bytes(4))
    except OSError:
        return None
    return int.from_bytes(size, sys.byteorder)


def prepare_listener(sock: socket.socket, *, reuse_port: bool) -> None:
    """Before it is bound to a port.  Raises OSError."""
    sock.setsockopt(socket.SOL_SOCKET, _ADDRESS_OPTION, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if reuse_port:
        if _REUSEPORT is None:
            raise OSError(errno.EOPNOTSUPP, "this system can't share a port (SO_REUSEPORT)")
        sock.setsockopt(socket.SOL_SOCKET, _REUSEPORT, 1)


def prepare_connection(sock: socket.socket) -> None:
    """For TCP: what is sent goes out at once, and not too much of it waits in the kernel."""
    with contextlib.suppress(OSError):  # a client that has left already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _NOTSENT_LOWAT is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _limits.MAX_UNSENT)


def keep_from_children(sock: socket.socket) -> None:
    """Have a process that is forked from this one close its copy."""
    _ours.add(sock)


def close_in_child() -> None:
    for sock in tuple(_ours):
        sock.close()


# Where nothing can be forked this makes a dict.
getattr(os, "register_at_fork", dict)(after_in_child=close_in_child)
