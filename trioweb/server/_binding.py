"""Sockets to listen on: bound to a host and a port or to a file, or given by somebody.

Rules of this module:

* What can't be had is refused with what was asked for, what is wrong with it, and what to do.
* All addresses of a host have one port, the system's choice too.
* A file is taken away only if it is a socket on which nobody listens any more.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from . import _limits
from ._config import AnySocket
from ._system import prepare_listener

logger = logging.getLogger("trioweb.server")

UNIX: Any = getattr(socket, "AF_UNIX", None)  # not on Windows

# An address that this machine doesn't have; where a host has others, it is left out.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_HOST_HINT = (
    "a host is a name or an address of this machine, such as 127.0.0.1, ::1, or * for all, without"
    " a scheme, a port or brackets"
)

# A family, and an address in it as `bind` takes it.
FamilyAddress = tuple[int, tuple[Any, ...]]


def _refusal(name: str, why: str, code: int | None) -> OSError:
    return OSError(code or errno.EINVAL, f"can't listen on {name}: {why}")


def _why(exc: OSError, hints: Mapping[int, str]) -> str:
    return hints.get(exc.errno or 0) or exc.strerror or str(exc)


# Given.


def adopted(given: AnySocket) -> socket.socket:
    """A socket of the caller's; it is the server's from here on.  Raises OSError."""
    if isinstance(given, int):
        name = f"descriptor {given}"
        try:
            os.fstat(given)  # a negative one is no ValueError here
            sock = socket.socket(fileno=given)
        except OSError as exc:
            raise _refusal(name, _descriptor_hint(exc), exc.errno) from None
    elif isinstance(given, socket.socket):
        name, sock = f"{given!r}", given
    else:
        name = f"{given!r}"
        sock = socket.socket(given.family, given.type, given.proto, fileno=given.detach())
    try:
        _check_given(sock, name)
    except OSError:
        sock.close()
        raise
    return sock


def _descriptor_hint(exc: OSError) -> str:
    hints = {
        errno.EBADF: "nothing is open there; the process that starts this one has to hand it on",
        errno.ENOTSOCK: "it is open, but no socket; give that of a bound socket",
    }
    return _why(exc, hints)


def _check_given(sock: socket.socket, name: str) -> None:
    """Raises OSError for one on which nobody can listen."""
    if sock.fileno() < 0:
        raise _refusal(name, "it is closed; give a socket that is bound", errno.EBADF)
    families = (socket.AF_INET, socket.AF_INET6, UNIX)
    if sock.family not in families or sock.type != socket.SOCK_STREAM:
        raise _refusal(
            name,
            "it is a socket of another kind; TCP and Unix stream sockets can be listened on",
            errno.EPROTOTYPE,
        )
    address = sock.getsockname()
    if not (address if sock.family == UNIX else address[1]):
        raise _refusal(name, "it isn't bound to an address; bind it first", errno.EINVAL)
    sock.set_inheritable(False)  # programs that the app starts mustn't hold it open


def listen(sock: socket.socket, name: str, backlog: int) -> None:
    """Begin to listen, without blocking.  Raises OSError."""
    sock.setblocking(False)
    try:
        sock.listen(backlog)
    except OSError as exc:
        hints = {
            errno.EADDRINUSE: "somebody listens there already; choose another port, or end it",
            errno.EINVAL: "it is a connection; a socket is needed that is bound, not connected"
            " (systemd: Accept=no)",
        }
        raise _refusal(name, _why(exc, hints), exc.errno) from None


# Host and port.


async def bound(host: str | None, port: int, *, reuse_port: bool) -> list[socket.socket]:
    """One for each of the host's addresses, all with one port.  Raises OSError."""
    name = _written(host or "*", port)
    if not 0 <= port <= 65535:
        raise ValueError(f"can't listen on {name}: a port is a number from 0 to 65535")
    addresses = await _resolved(host, port, name)
    for _ in range(_limits.PORT_ATTEMPTS - 1):
        try:
            return _bound_to_all(addresses, name, reuse_port)
        except OSError as exc:
            # The system chose a port that is free at the first address, not at another one.
            if port or exc.errno != errno.EADDRINUSE:
                raise
    return _bound_to_all(addresses, name, reuse_port)


async def _resolved(host: str | None, port: int, name: str) -> list[FamilyAddress]:
    try:
        found = await trio.socket.getaddrinfo(
            None if host in ("", "*") else host,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except socket.gaierror as exc:
        why = f"can't listen on {name}: no address is known for that ({exc.strerror}); {_HOST_HINT}"
        raise socket.gaierror(exc.errno, why) from None
    except ValueError:  # no name at all: it has a part that is empty or too long, or a zero byte
        raise _refusal(name, f"that is no host; {_HOST_HINT}", errno.EINVAL) from None
    # A hosts file may have an address twice.
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound_to_all(
    addresses: Sequence[FamilyAddress], name: str, reuse_port: bool
) -> list[socket.socket]:
    """Without those that the machine doesn't have, as long as there are others."""
    opened: list[socket.socket] = []
    absent: OSError | None = None
    with contextlib.ExitStack() as stack:
        for family, (host, port, *rest) in addresses:
            port = port or (opened[0].getsockname()[1] if opened else 0)
            try:
                sock = _bound_to(family, (host, port, *rest), name, reuse_port)
            except OSError as exc:
                if exc.errno not in _ABSENT:
                    raise
                absent = exc
            else:
                opened.append(stack.enter_context(sock))
        if not opened:
            assert absent is not None  # a name has one address at least
            raise absent
        stack.pop_all()
    if absent is not None:
        logger.info("an address is left out: %s", absent.strerror)
    return opened


def _bound_to(family: int, address: tuple[Any, ...], name: str, reuse_port: bool) -> socket.socket:
    here = name if address[0] in name else f"{name} ({address[0]})"
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise _refusal(here, _port_hint(exc, address[1]), exc.errno) from None
    try:
        prepare_listener(sock, reuse_port=reuse_port)
        sock.bind(address)
    except OSError as exc:
        sock.close()
        raise _refusal(here, _port_hint(exc, address[1]), exc.errno) from None
    return sock


def _port_hint(exc: OSError, port: int) -> str:
    forbidden = (
        "not permitted; ports below 1024 are for root, choose a higher one"
        if 0 < port < 1024
        else "not permitted; the system forbids this address or port, choose another"
    )
    hints = {
        errno.EADDRINUSE: "somebody listens there already; choose another port, or end it",
        errno.EACCES: forbidden,
        errno.EPERM: forbidden,
        errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 or 0.0.0.0 work",
        errno.EINVAL: "that is no whole address (fe80::1 needs its interface, fe80::1%eth0);"
        " 127.0.0.1 or 0.0.0.0 work",
        errno.EAFNOSUPPORT: "this machine has no such kind of address; 127.0.0.1 or 0.0.0.0 work",
    }
    return _why(exc, hints)


def _written(host: str, port: int) -> str:
    host = host if host.isprintable() else repr(host)
    return f"[{host}]:{port}" if host.count(":") > 1 and "[" not in host else f"{host}:{port}"


# A file.


def bound_to_file(path: str, permissions: int | None) -> socket.socket:
    """A Unix socket that is bound to this path.  Raises OSError."""
    if not os.path.basename(path) or "\0" in path:
        why = "a Unix socket needs a path that ends with its name"
        raise _refusal(f"unix:{path!r}", why, errno.EINVAL)
    if UNIX is None:
        raise _refusal(
            path, "this system has no Unix sockets for Python; give a port", errno.EAFNOSUPPORT
        )
    sock = socket.socket(UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        if permissions is not None:
            os.chmod(path, permissions)  # nobody can connect before it listens
    except OSError as exc:
        sock.close()
        raise _refusal(path, _file_hint(exc, path), exc.errno or errno.ENAMETOOLONG) from None
    return sock


def _remove_stale(path: str) -> None:
    """Take away a socket that nobody listens on any more, and nothing else."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):  # which leads nowhere
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # who listens may have no more room for one
        with contextlib.suppress(BlockingIOError):
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def _file_hint(exc: OSError, path: str) -> str:
    folder = os.path.dirname(os.path.abspath(path))
    forbidden = f"not permitted; it needs a folder that this user may write, and {folder} isn't"
    too_long = (
        f"its path has {len(os.fsencode(path))} bytes, and a Unix socket's may have little more"
        " than 100; choose a shorter one"
    )
    missing = f"there is no folder {folder}; make it, or choose another path"
    hints = {
        0: too_long,  # Python refuses it before the system does
        errno.ENAMETOOLONG: too_long,
        errno.EACCES: forbidden,
        errno.EPERM: forbidden,
        errno.EROFS: forbidden,
        errno.EADDRINUSE: "somebody listens there already; choose another path, or end it",
        errno.EEXIST: "it isn't a socket; choose another path, or remove it",
        errno.EISDIR: f"it isn't a socket, but a folder; choose a name in it, {path}/app.sock",
        errno.ENOENT: forbidden if os.path.isdir(folder) else missing,
        errno.ENOTDIR: f"{folder} isn't a folder; choose another path",
        errno.EPROTOTYPE: "it is a socket of another kind; choose another path, or remove it",
    }
    return _why(exc, hints)
