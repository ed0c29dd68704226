"""A body that nobody reads: the server takes no more of it than its limit, whoever the app is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from trioweb import App, Request
from trioweb._asgi import ASGIApp
from trioweb.server._limits import LINGER_SIZE

from ..support.server_clients import address_of, listening
from ..support.server_driver import EachParser, ParserName

MIB = 1024 * 1024  # bytes
SIZE = 65 * MIB
PIECE = bytes(64 * 1024)
# What the kernels at both ends may have taken, which the server never saw.
IN_KERNELS = 16 * MIB

HEAD = (
    f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    f"Content-Length: {SIZE}\r\n\r\n"
).encode()


async def bare(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    await send(head)
    await send({"type": "http.response.body", "body": b"{}"})


def ours() -> ASGIApp:
    app = App()

    @app.post("/", max_body_size=2 * SIZE)
    async def root() -> dict[str, str]:
        return {}

    return app


def ours_that_has_looked() -> ASGIApp:
    """It listened for the client's leaving, and so has read ahead."""
    app = App()

    @app.post("/", max_body_size=2 * SIZE)
    async def root(request: Request) -> dict[str, str]:
        with trio.move_on_after(0.01):
            await request.wait_disconnected()
        return {}

    return app


def ours_behind(app: ASGIApp) -> ASGIApp:
    """Middleware that looks at each message, as many do."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def receiving() -> Any:
            return await receive()

        async def sending(message: Any) -> None:
            await send(message)

        await app(scope, receiving, sending)

    return wrapped


APPS: dict[str, Callable[[], ASGIApp]] = {
    "bare": lambda: bare,
    "ours": ours,
    "ours, that has looked": ours_that_has_looked,
    "ours behind middleware": lambda: ours_behind(ours()),
}


@pytest.mark.parametrize("app", APPS)
@EachParser
async def test_a_large_body_that_is_not_read_is_cut_at_the_servers_limit(
    app: str, http: ParserName
) -> None:
    async with (
        listening(APPS[app](), http=http) as server,
        await trio.open_tcp_stream(*address_of(server.urls[0])) as client,
    ):
        await client.send_all(HEAD)
        sent, answer = await upload(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"{}")
    assert sent <= LINGER_SIZE + IN_KERNELS, f"{sent / MIB:.1f} MiB were taken"


async def upload(client: trio.SocketStream) -> tuple[int, bytes]:
    """Send the body for as long as anybody takes it; how much that was, and the answer."""
    sent, answer = 0, b""

    async def read() -> None:
        nonlocal answer
        with suppress(trio.BrokenResourceError):
            async for data in client:
                answer += data

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with suppress(trio.BrokenResourceError):  # the server has closed
                while True:
                    assert sent < SIZE, "all of it was taken"
                    await client.send_all(PIECE)
                    sent += len(PIECE)
    return sent, answer
