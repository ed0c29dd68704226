"""Sockets as this operating system has them: what others have differently, or not at all.

Rules of this module:

* What a system lacks is left out, or nobody knows: the server works without.
* A process that is forked gives its copies of our sockets up at once.  A connection ends when the
  last copy of its socket is closed, which would be when the child ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import weakref

from . import _limits

if sys.platform == "win32":

    def unsent(sock: socket.socket) -> int | None:
        """How many bytes the kernel holds that the client hasn't got; None if nobody knows."""
        return None

else:
    import fcntl
    import termios

    def unsent(sock: socket.socket) -> int | None:
        """How many bytes the kernel holds that the client hasn't got; None if nobody knows."""
        try:
            size = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
        except OSError:
            return None
        return int.from_bytes(size, sys.byteorder)


# Whether who waits for a socket to be readable hears of it when our side stops receiving.
SHUTDOWN_ENDS_WAITING = sys.platform != "win32"

# macOS and Linux have it.
_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)

_ours: weakref.WeakSet[socket.socket] = weakref.WeakSet()


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


if sys.platform != "win32":
    os.register_at_fork(after_in_child=close_in_child)
