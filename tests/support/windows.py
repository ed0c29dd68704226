"""A process that has of Python what Windows has, as near as this system comes to it.

Rules of this module:

* `python -m tests.support.windows ARGUMENTS` is `trioweb ARGUMENTS` there.
* Trio and the standard library come first: they have code of their own for each system.  What
  trioweb imports after that finds the Unix modules and functions missing.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import ssl  # noqa: F401  which needs some of what goes
import subprocess  # noqa: F401
import sys
from collections.abc import Iterator
from typing import Any

import trio  # noqa: F401

MODULES = ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty", "pty", "posix")

ATTRIBUTES: dict[Any, tuple[str, ...]] = {
    os: (
        *("fork", "forkpty", "register_at_fork", "getuid", "geteuid", "getgid", "getegid"),
        *("setuid", "setgid", "chown", "fchmod", "fchown", "killpg", "getpgid", "setsid"),
        *("memfd_create", "posix_fadvise", "sendfile", "sched_getaffinity", "mkfifo", "umask"),
        *("pread", "pwrite", "uname", "wait", "WNOHANG", "EX_OK"),
    ),
    signal: (
        *("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGPIPE", "SIGKILL"),
        *("pthread_sigmask", "pthread_kill", "sigwait", "sigpending", "siginterrupt"),
        *("SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK", "alarm", "setitimer"),
    ),
    socket: (
        *("AF_UNIX", "SO_REUSEPORT", "TCP_NOTSENT_LOWAT", "MSG_DONTWAIT", "MSG_NOSIGNAL"),
        *("SCM_RIGHTS", "CMSG_LEN", "SO_PEERCRED", "sethostname", "TCP_DEFER_ACCEPT"),
    ),
    selectors: ("EpollSelector", "PollSelector"),
}


def _missing() -> Iterator[tuple[Any, str]]:
    for place, names in ATTRIBUTES.items():
        yield from ((place, name) for name in names if hasattr(place, name))


def _socketpair(*_: int) -> tuple[socket.socket, socket.socket]:
    """As Python makes it where the system has none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _address = server.accept()
    return ours, theirs


def become() -> None:
    """For the whole process: there is no way back."""
    assert "trio" in sys.modules  # its own choice was made as it was imported
    for module in MODULES:
        sys.modules[module] = None  # type: ignore[assignment]
    for place, name in list(_missing()):
        delattr(place, name)
    # One value of each of these is a name that is looked up.
    socket.SO_EXCLUSIVEADDRUSE = socket.SO_REUSEADDR  # type: ignore[attr-defined]
    socket.socketpair = _socketpair  # type: ignore[assignment]
    sys.platform = "win32"


def main() -> None:
    become()
    from trioweb._cli.main import main as trioweb

    sys.exit(trioweb())


if __name__ == "__main__":
    main()
