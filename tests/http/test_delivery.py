"""`when="sent"`: the client is looked for before the last byte that it waits for, and not after."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, Request, Response, StreamingResponse, task
from trioweb._limits import LARGE_RESPONSE

from ..support.asgi import Client, Exchange, Message, running

LARGE = b"x" * (3 * LARGE_RESPONSE)


def app_with(response: Any, *, wants_delivery: bool = True) -> tuple[App, list[str]]:
    app = App()
    ran: list[str] = []

    @task(when="sent")
    async def sent() -> None:
        ran.append("sent")

    async def anyhow() -> None:
        ran.append("anyhow")

    @app.get("/")
    async def root(request: Request) -> Response:
        request.tasks.add_task(sent if wants_delivery else anyhow)
        made: Response = response()
        return made

    return app, ran


async def ask(app: App, method: str = "GET", leaves_after: float = math.inf) -> Exchange:
    async with running(app) as client:
        return await client(method, "/", leaves_after=leaves_after)


def bodies(exchange: Exchange) -> list[int]:
    """The sizes of the pieces."""
    return [len(message["body"]) for message in exchange.sent[1:]]


async def test_of_a_large_response_the_last_byte_is_kept_back() -> None:
    app, ran = app_with(lambda: Response(LARGE))
    exchange = await ask(app)
    assert exchange.body == LARGE
    assert exchange.headers["content-length"] == str(len(LARGE))
    assert bodies(exchange) == [len(LARGE) - 1, 1]
    assert ran == ["sent"]


@pytest.mark.parametrize(
    ("size", "wants_delivery"), [(len(LARGE), False), (LARGE_RESPONSE, True), (0, True)]
)
async def test_nobody_else_pays_for_it(size: int, wants_delivery: bool) -> None:
    app, ran = app_with(lambda: Response(b"x" * size), wants_delivery=wants_delivery)
    assert bodies(await ask(app)) == [size]
    assert len(ran) == 1


async def test_head_has_no_byte_to_keep_back() -> None:
    app, ran = app_with(lambda: Response(LARGE))
    assert bodies(await ask(app, "HEAD")) == [0]
    assert ran == ["sent"]


@pytest.mark.parametrize("leaves_after", [0, 1])
async def test_who_leaves_within_a_large_response_has_not_got_it(
    leaves_after: int, autojump_clock: MockClock
) -> None:
    """The server takes all messages all the same, as Hypercorn does."""
    app, ran = app_with(lambda: Response(LARGE))
    assert (await ask(app, leaves_after=leaves_after)).left.is_set()
    assert ran == []


class Leaving(Client):
    """A client that leaves as soon as it has so many bytes of the body."""

    def __init__(self, app: App, size: int) -> None:
        self._size = size
        super().__init__(self._wrapped(app))

    def _wrapped(self, app: App) -> Any:
        async def call(scope: Any, receive: Any, send: Any) -> None:
            exchange = send.__self__

            async def send_and_leave(message: Message) -> None:
                await send(message)
                if len(exchange.body) >= self._size:
                    exchange.left.set()

            await app(scope, receive, send_and_leave)

        return call


@pytest.mark.parametrize("is_whole", [True, False])
async def test_who_has_all_that_it_was_promised_may_leave(
    is_whole: bool, autojump_clock: MockClock
) -> None:
    """A stream says how long it is, and does something after its last piece."""
    cleaned_up: list[bool] = []

    async def pieces() -> AsyncIterator[str]:
        yield "12345"
        await trio.sleep(1)
        yield "67890"
        await trio.sleep(1)
        cleaned_up.append(True)

    def response() -> Response:
        headers = {"X-Other": "1", "Content-Length": "10"}
        return StreamingResponse(pieces(), headers=headers)

    app, ran = app_with(response)
    async with running(app):
        await Leaving(app, 10 if is_whole else 5)("GET", "/")
    assert cleaned_up == [True] * is_whole
    assert ran == ["sent"] * is_whole


async def test_of_a_stream_without_a_length_the_end_is_the_last_byte(
    autojump_clock: MockClock,
) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "1234567890"
        await trio.sleep(1)

    app, ran = app_with(lambda: StreamingResponse(pieces()))
    async with running(app):
        await Leaving(app, 10)("GET", "/")
    assert ran == []
