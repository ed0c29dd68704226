"""Listeners: where connections come from.

Rules of this module:

* A listener is a listening, non-blocking socket, and the URL that leads to it.
* Whatever can't be bound says what to do about it.
* What was made here is taken away again: a Unix socket's file too, if it's still ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass

import trio

from . import _limits
from ._config import AnySocket, ServerConfig
from ._forwarded import Address


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket; `address` is where it listens, as ASGI's `server` says it."""

    socket: socket.socket
    address: Address
    url: str
    file: os.stat_result | None = None  # of a Unix socket that was bound here

    def close(self) -> None:
        self.socket.close()
        path = self.address[0]
        if self.file is not None and _is_same_file(path, self.file):
            os.unlink(path)


async def open_listeners(config: ServerConfig) -> list[Listener]:
    """All that were asked for; host and port only if nothing else was.  Raises OSError."""
    scheme = "http" if config.ssl_context is None else "https"
    opened: list[socket.socket] = []
    try:
        given = [_adopted(sock) for sock in config.sockets]
        opened += given
        listeners = [_listener(sock, scheme) for sock in given]
        if config.uds is not None:
            listeners.append(_bound_to_file(os.fspath(config.uds), opened))
        if not listeners:
            bound = await _bound(config.host, config.port, opened, reuse_port=config.reuse_port)
            listeners = [_listener(sock, scheme) for sock in bound]
        for listener in listeners:
            listener.socket.setblocking(False)
            listener.socket.listen(_limits.BACKLOG)
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return listeners


def _adopted(sock: AnySocket) -> socket.socket:
    """A socket of the caller's; it is the server's from here on."""
    if isinstance(sock, int):
        return socket.socket(fileno=sock)
    if isinstance(sock, socket.socket):
        return sock
    return socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())


def _listener(sock: socket.socket, scheme: str) -> Listener:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return Listener(sock, (name, None), f"unix:{name}")
    host, port = name[:2]
    written = f"[{host}]" if ":" in host else host
    return Listener(sock, (host, port), f"{scheme}://{written}:{port}")


async def _bound(
    host: str | None, port: int, opened: list[socket.socket], *, reuse_port: bool
) -> list[socket.socket]:
    found = await trio.socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    for family, kind, proto, _, address in found:
        sock = socket.socket(family, kind, proto)
        opened.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(sock, address, f"{host or '*'}:{port}")
    return opened


def _bind(sock: socket.socket, address: object, name: str) -> None:
    try:
        sock.bind(address)  # type: ignore[arg-type]
    except OSError as exc:
        hints = {
            errno.EADDRINUSE: "somebody listens there already; choose another port, or end it",
            errno.EACCES: "not permitted; ports below 1024 are for root, choose a higher one",
            errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 or 0.0.0.0 work",
        }
        hint = hints.get(exc.errno or 0, exc.strerror)
        raise OSError(exc.errno, f"can't listen on {name}: {hint}") from None


def _bound_to_file(path: str, opened: list[socket.socket]) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.append(sock)
    _remove_stale(path)
    _bind(sock, path, path)
    return Listener(sock, (path, None), f"unix:{path}", os.stat(path))


def _remove_stale(path: str) -> None:
    """Take away a socket that nobody listens on any more, and nothing else."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EADDRINUSE, f"can't listen on {path}: it isn't a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def _is_same_file(path: str, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), file)
    except FileNotFoundError:
        return False
