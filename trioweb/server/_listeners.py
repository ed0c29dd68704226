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

from ._addresses import Bind, Descriptor, HostPort, UnixPath, read_bind
from ._config import AnySocket, ServerConfig
from ._scope import Address


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
    listeners: list[Listener] = []
    try:
        for given in config.sockets:
            listeners.append(_adopted(given, opened, scheme))
        for place in _places(config, have_some=bool(listeners)):
            listeners += await _opened(place, config, opened, scheme)
        for listener in listeners:
            listener.socket.setblocking(False)
            listener.socket.listen(config.backlog)
    except BaseException:
        for listener in listeners:
            listener.close()
        for sock in opened:
            sock.close()
        raise
    return listeners


def _places(config: ServerConfig, *, have_some: bool) -> list[Bind]:
    """Where to listen beside the sockets that were given.  Raises ValueError."""
    places = [_read(text) for text in config.bind]
    if config.uds is not None:
        places.append(UnixPath(os.fspath(config.uds)))
    return places if places or have_some else [HostPort(config.host, config.port)]


def _read(text: str) -> Bind:
    try:
        return read_bind(text)
    except ValueError as exc:
        raise ValueError(f"bind={text!r}: {exc}") from None


async def _opened(
    place: Bind, config: ServerConfig, opened: list[socket.socket], scheme: str
) -> list[Listener]:
    if isinstance(place, UnixPath):
        return [_bound_to_file(place.path, config.uds_permissions, opened)]
    if isinstance(place, Descriptor):
        return [_adopted(place.number, opened, scheme)]
    bound = await _bound(place.host, place.port, opened, reuse_port=config.reuse_port)
    return [_listener(sock, scheme) for sock in bound]


def _adopted(given: AnySocket, opened: list[socket.socket], scheme: str) -> Listener:
    """A socket of the caller's; it is the server's from here on."""
    if isinstance(given, int):
        sock = socket.socket(fileno=given)
    elif isinstance(given, socket.socket):
        sock = given
    else:
        sock = socket.socket(given.family, given.type, given.proto, fileno=given.detach())
    opened.append(sock)
    return _listener(sock, scheme)


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
    bound: list[socket.socket] = []
    for family, kind, proto, _, address in found:
        sock = socket.socket(family, kind, proto)
        opened.append(sock)
        bound.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(sock, address, f"{host or '*'}:{port}")
    return bound


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


def _bound_to_file(path: str, permissions: int | None, opened: list[socket.socket]) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.append(sock)
    _remove_stale(path)
    _bind(sock, path, path)
    if permissions is not None:
        os.chmod(path, permissions)  # nobody can connect before it listens
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
