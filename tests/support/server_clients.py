"""Servers and their clients on real sockets, where a socket is the point.

Rules of this module:

* Everything is on the loopback interface, and on a port of the system's choice.
* What was opened within a block is closed at its end, whatever happened.
* Under a mock clock a socket's bytes still need the machine's time: `patient` says how much.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import h11
import trio
from trio.testing import MockClock

from trioweb._asgi import ASGIApp
from trioweb.server import Server, serve
from trioweb.server._strict import RequestHead

from .server_driver import Client, heads_noted, without_bugs

# The option SO_LINGER of a socket whose close is a reset.
RESET = struct.pack("ii", 1, 0)

# Seconds.  Generous: they only end what would wait for ever.
PATIENCE = 30.0
# How long nothing may come of a socket before a clock jumps.
BYTES_ON_THEIR_WAY = 0.02  # seconds


def patient(clock: MockClock) -> None:
    """For a test with sockets: the clock waits for what is on its way through the kernel."""
    clock.autojump_threshold = BYTES_ON_THEIR_WAY


@asynccontextmanager
async def listening(app: ASGIApp, **options: Any) -> AsyncIterator[Server]:
    """The app behind a server that listens; leaving it shuts the server down."""
    with without_bugs():
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, app, **{"port": 0, **options}))
            yield server
            await server.shutdown()


def address_of(url: str) -> tuple[str, int]:
    """Where to connect for a server's URL; one that listens everywhere is on the loopback, too."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return everywhere.get(parts.hostname, parts.hostname), parts.port


@asynccontextmanager
async def connected(url: str, *, receive_buffer: int | None = None) -> AsyncIterator[Client]:
    """A client of the server at this URL."""
    host, port = address_of(url)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    with sock:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect((host, port))
        yield Client(trio.SocketStream(sock))


@asynccontextmanager
async def connected_to_file(path: str) -> AsyncIterator[Client]:
    async with await trio.open_unix_socket(path) as stream:
        yield Client(stream)


def is_refused(url: str) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(address_of(url)) == errno.ECONNREFUSED


async def begin_shutdown(server: Server) -> None:
    """Tell the server to shut down; it hasn't had a turn yet when others have theirs."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await server.shutdown()  # which goes on


def request(target: str, method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@dataclass(eq=False)
class Load:
    """Clients that ask and ask until their connections end, and what each of them saw.

    `read` are the requests whose heads the server has read; of so many `requests` it is `enough`.
    """

    requests: int
    enough: trio.Event = field(default_factory=trio.Event)
    read: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def note(self, head: RequestHead) -> None:
        self.read.add(int(head.target[1:]))
        if len(self.read) == self.requests:
            self.enough.set()

    async def run_client(self, url: str) -> None:
        async with connected(url) as client:
            with contextlib.suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
                while await self._ask(client):
                    pass

    async def _ask(self, client: Client) -> bool:
        """One request and its answer; whether there can be another one."""
        number = next(self._numbers)
        answer = await client.ask(request(f"/{number}"))
        assert answer.status != 200 or answer.body == b"%d" % number
        self.answered.add(number)
        return b"close" not in answer[b"connection"]


async def run_under_load(app: ASGIApp, *, connections: int, requests: int, **options: Any) -> Load:
    """Shut a server down among so many clients that ask without a pause.

    It happens when it has read the heads of so many requests.
    """
    load = Load(requests)
    with trio.fail_after(PATIENCE), heads_noted(load.note):
        async with trio.open_nursery() as clients, listening(app, **options) as server:
            for _ in range(connections):
                clients.start_soon(load.run_client, server.urls[0])
            await load.enough.wait()
    return load
