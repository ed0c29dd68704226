"""Listeners: where connections come from.

Rules of this module:

* A listener is a listening, non-blocking socket, and the URL that leads to it.
* What was made here is taken away again: a Unix socket's file too, if it's still ours.  That this
  can't be done ends nothing: it is logged.
* It is this process that listens: a process that is forked from it, as `multiprocessing` does, has
  the sockets closed.  Otherwise it would hold the port when this one has ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from ._addresses import Bind, Descriptor, HostPort, UnixPath, read_bind
from ._binding import UNIX, adopted, bound, bound_to_file, listen
from ._config import ServerConfig
from ._forwarded import Address
from ._system import keep_from_children

logger = logging.getLogger("trioweb.server")


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket; `address` is where it listens, as ASGI's `server` says it."""

    socket: socket.socket
    address: Address
    url: str
    file: os.stat_result | None = None  # of a Unix socket that was bound here

    def close(self) -> None:
        """Does nothing the second time."""
        if self.socket.fileno() < 0:
            return
        with _contained(f"{self.url} can't be closed"):
            self.socket.close()
        if self.file is not None:
            with _contained(f"{self.address[0]} can't be removed, and stays as a stale socket"):
                _remove(self.address[0], self.file)


@contextlib.contextmanager
def _contained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        logger.warning("%s: %s", what, exc.strerror)


def _remove(path: str, file: os.stat_result) -> None:
    """What took its place in the meantime is somebody else's."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(path), file):
            os.unlink(path)


async def open_listeners(config: ServerConfig) -> list[Listener]:
    """All that were asked for; host and port only if nothing else was.  Raises OSError."""
    scheme = "http" if config.ssl_context is None else "https"
    listeners: list[Listener] = []
    try:
        for given in config.sockets:
            listeners.append(_listener(adopted(given), scheme))
        for place in _places(config, have_some=bool(listeners)):
            listeners += await _opened(place, config, scheme)
        for listener in listeners:
            listen(listener.socket, listener.url, config.backlog)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    for listener in listeners:
        keep_from_children(listener.socket)
    return listeners


def _places(config: ServerConfig, *, have_some: bool) -> list[Bind]:
    """Where to listen beside the sockets that were given.  Raises ValueError."""
    binds = [config.bind] if isinstance(config.bind, str) else config.bind
    places = [_read(text) for text in binds]
    if config.uds is not None:
        places.append(UnixPath(os.fspath(config.uds)))
    return places if places or have_some else [HostPort(config.host, config.port)]


def _read(text: str) -> Bind:
    try:
        return read_bind(text)
    except ValueError as exc:
        raise ValueError(f"bind={text!r}: {exc}") from None


async def _opened(place: Bind, config: ServerConfig, scheme: str) -> list[Listener]:
    if isinstance(place, UnixPath):
        return [_listener_on_file(place.path, config.uds_permissions)]
    if isinstance(place, Descriptor):
        return [_listener(adopted(place.number), scheme)]
    sockets = await bound(place.host, place.port, reuse_port=config.reuse_port)
    return [_listener(sock, scheme) for sock in sockets]


def _listener(sock: socket.socket, scheme: str) -> Listener:
    name = sock.getsockname()
    if sock.family == UNIX:
        path = os.fsdecode(name)
        return Listener(sock, (path, None), f"unix:{path.replace(chr(0), '@')}")
    host, port = name[:2]
    written = f"[{host}]" if ":" in host else host
    return Listener(sock, (host, port), f"{scheme}://{written}:{port}")


def _listener_on_file(path: str, permissions: int | None) -> Listener:
    sock = bound_to_file(path, permissions)
    return Listener(sock, (path, None), f"unix:{path}", os.stat(path))
