"""A load of connections that each ask again as soon as they have their answer.

Rules of this module:

* Whatever comes is counted by its status; a connection that breaks, or ends without an answer, by
  the word for it, and its client connects anew.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import h11
import trio

from .server_driver import Client

BROKEN = "broken"


class ClosedLoop:
    """`answers`: how many of each status there were; `wanted`: how many more to ask for, if set."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[trio.abc.HalfCloseableStream]],
        target: str = "/",
        methods: tuple[str, ...] = ("GET",),
    ) -> None:
        self.answers: Counter[int | str] = Counter()
        self.wanted: int | None = None
        self._connect = connect
        self._target = target
        self._methods: Iterator[str] = itertools.cycle(methods)

    async def run(self, connections: int) -> None:
        """Returns when all that was wanted has been answered; without that, never."""
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(self._ask_and_ask)

    async def measure(self, connections: int, *, warm_up: float, seconds: float) -> float:
        """Answers with status 200 a second, after some time in which they don't count."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run, connections)
            await trio.sleep(warm_up)
            before, since = self.answers[200], trio.current_time()
            await trio.sleep(seconds)
            rate = (self.answers[200] - before) / (trio.current_time() - since)
            nursery.cancel_scope.cancel()
        return rate

    @property
    def _wants_more(self) -> bool:
        return self.wanted is None or self.wanted > 0

    async def _ask_and_ask(self) -> None:
        while self._wants_more:
            stream = await self._connect()
            async with stream:
                await self._ask_on(Client(stream))

    async def _ask_on(self, client: Client) -> None:
        goes_on = True
        while goes_on and self._wants_more:
            if self.wanted is not None:
                self.wanted -= 1
            method = next(self._methods)
            request = f"{method} {self._target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            try:
                response = await client.ask(request.encode(), method)
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                self.answers[BROKEN] += 1
                return
            self.answers[response.status] += 1
            goes_on = response[b"connection"] != [b"close"]


def to_file(path: Path) -> Callable[[], Awaitable[trio.abc.HalfCloseableStream]]:
    """How to connect to a Unix socket."""

    async def connect() -> trio.abc.HalfCloseableStream:
        return await trio.open_unix_socket(path)

    return connect


def to_port(port: int) -> Callable[[], Awaitable[trio.abc.HalfCloseableStream]]:
    async def connect() -> trio.abc.HalfCloseableStream:
        return await trio.open_tcp_stream("127.0.0.1", port)

    return connect
