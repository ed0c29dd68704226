"""Clients that want to hold a server up, and honest ones that are to be served all the same.

Rules of this module:

* Loopback only.  An attacker doesn't come back once it was shown the door.
* Each knows nothing of the server but its address; whether it is gone is asked of the server.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

from .server_clients import connected, request
from .server_driver import GET, Client, Response, dribble

Attack = Callable[[str, float], Awaitable[None]]

SMALL_WINDOW = 4_096  # bytes
BETWEEN_REQUESTS = 0.01  # seconds, of an honest client
LARGE = "/large"  # where a server has something to download


async def slow_head(url: str, seconds: float) -> None:
    """A head that never ends, a byte now and then."""
    await _dribble(url, seconds, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"a")


async def slow_body(url: str, seconds: float) -> None:
    """A body that doesn't end for days, a byte now and then."""
    await _dribble(
        url, seconds, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", b"a"
    )


async def slow_chunks(url: str, seconds: float) -> None:
    """A chunk that has no end of its size."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;x="
    await _dribble(url, seconds, head, b"a")


async def empty_lines(url: str, seconds: float) -> None:
    """Empty lines where a request is due, half a one at a time."""
    await _dribble(url, seconds, b"\r", b"\n\r")


async def silence(url: str, seconds: float) -> None:
    """Nothing at all."""
    async with _attacking(url) as client:
        await client.rest()


async def slow_reader(url: str, seconds: float) -> None:
    """A download, read a byte now and then."""
    async with _attacking(url, receive_buffer=SMALL_WINDOW) as client:
        await client.send(request(LARGE))
        await _read_slowly(client, seconds)


async def _read_slowly(client: Client, seconds: float) -> None:
    while True:
        await client.stream.receive_some(1)
        await trio.sleep(seconds)


ATTACKS: dict[str, Attack] = {
    "slow heads": slow_head,
    "slow bodies": slow_body,
    "slow chunks": slow_chunks,
    "empty lines": empty_lines,
    "silence": silence,
    "slow readers": slow_reader,
}


@asynccontextmanager
async def _attacking(url: str, *, receive_buffer: int | None = None) -> AsyncIterator[Client]:
    with suppress(trio.BrokenResourceError, OSError):
        async with connected(url, receive_buffer=receive_buffer) as client:
            yield client


async def _dribble(url: str, seconds: float, beginning: bytes, pieces: bytes) -> None:
    """Send on and on, whatever comes back, until the connection is closed."""
    async with _attacking(url) as client, trio.open_nursery() as nursery:
        await client.send(beginning)
        nursery.start_soon(_leave_at_end, client, nursery.cancel_scope)
        await dribble(client, pieces, seconds)


async def _leave_at_end(client: Client, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError):
        await client.rest()
    scope.cancel()


async def attack(url: str, name: str, count: int, seconds: float) -> None:
    """So many at once, with so long between their bytes; returns when all were shown the door.

    Who reads slowly isn't: what the kernel holds for it comes first.  It is to be cancelled.
    """
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(ATTACKS[name], url, seconds)


class Honest:
    """A client that asks, waits for the answer, and asks again; it notes the seconds of each."""

    def __init__(self, pause: float) -> None:
        self.seconds: list[float] = []
        self._pause = pause

    async def run(self, url: str) -> None:
        async with connected(url) as client:
            while True:
                began = time.perf_counter()
                answer = await client.ask(GET)
                self.seconds.append(time.perf_counter() - began)
                assert answer.status == 200
                await trio.sleep(self._pause)


@asynccontextmanager
async def honest(
    url: str, count: int = 4, *, pause: float = BETWEEN_REQUESTS
) -> AsyncIterator[Honest]:
    """So many honest clients, while the block runs."""
    them = Honest(pause)
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(them.run, url)
        yield them
        nursery.cancel_scope.cancel()


async def pipeline(url: str, count: int) -> list[Response]:
    """So many requests in one write, and their answers."""
    async with connected(url) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.send, b"".join(request(f"/{i}") for i in range(count)))
        return [await client.response() for _ in range(count)]
