"""A body that nobody read by the end of the response is said to be gone, on each server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, Depends, Request, Response, StreamingResponse
from trioweb._asgi import ASGIApp

from ..support.asgi import Client, running
from ..support.server_driver import serving

GONE = "the request's body went with the end of the response"
LONG = b"x" * 1_000_000

Read = Callable[[Request], Awaitable[Any]]


async def read_body(request: Request) -> Any:
    return await request.body()


async def read_json(request: Request) -> Any:
    return await request.json()


async def read_stream(request: Request) -> Any:
    return [piece async for piece in request.stream()]


class Told:
    """What whoever reads too late is told."""

    def __init__(self, read: Read) -> None:
        self.answers: list[str] = []
        self._read = read

    async def read(self, request: Request) -> None:
        try:
            self.answers.append(repr(await self._read(request)))
        except Exception as exc:
            self.answers.append(f"{type(exc).__name__}: {exc}")

    @property
    def says_gone(self) -> bool:
        return bool(self.answers) and all(
            answer.startswith(f"RuntimeError: {GONE}") for answer in self.answers
        )


async def ask_asgi(app: App, body: bytes) -> None:
    async with running(app) as client:
        await client("POST", "/", body=[body[:10], body[10:]])


async def ask_behind_middleware(app: App, body: bytes) -> None:
    """On our server, which then doesn't meet the app itself."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        async def receive_on() -> Any:
            return await receive()

        async def send_on(message: Any) -> None:
            await send(message)

        await app(scope, receive_on, send_on)

    await _ask_served(middleware, body)


async def ask_served(app: App, body: bytes) -> None:
    await _ask_served(app, body)


async def _ask_served(app: ASGIApp, body: bytes) -> None:
    async with serving(app) as server:
        client = server.connect()
        async with trio.open_nursery() as nursery:
            head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            nursery.start_soon(client.send, head + body)
            assert (await client.response()).status == 200


Servers = pytest.mark.parametrize("ask", [ask_asgi, ask_served, ask_behind_middleware])
Reads = pytest.mark.parametrize("read", [read_body, read_json, read_stream])


@Servers
@Reads
@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("body", [b'{"an": "order"}', LONG])
async def test_a_task_that_reads_too_late_is_told_so(
    ask: Any, read: Read, streams: bool, body: bytes, autojump_clock: MockClock
) -> None:
    app, told = App(), Told(read)

    @app.post("/")
    async def root(request: Request) -> Any:
        request.tasks.add_task(told.read, request)
        return StreamingResponse(iter(["ok"])) if streams else "ok"

    await ask(app, body)
    assert told.says_gone, told.answers


@Servers
@Reads
@pytest.mark.parametrize("scope", ["request", "response"])
async def test_so_is_a_dependency_that_reads_as_it_is_left(
    ask: Any, read: Read, scope: Any, autojump_clock: MockClock
) -> None:
    app, told = App(), Told(read)

    async def reads_at_the_end(request: Request) -> AsyncIterator[None]:
        yield
        await told.read(request)

    @app.post("/", dependencies=[Depends(reads_at_the_end, scope=scope)])
    async def root() -> str:
        return "ok"

    await ask(app, b'{"an": "order"}')
    assert told.says_gone, told.answers


@Servers
async def test_before_the_response_it_is_there(ask: Any, autojump_clock: MockClock) -> None:
    app, told = App(), Told(read_body)

    async def reads_before(request: Request) -> AsyncIterator[None]:
        yield
        await told.read(request)

    @app.post("/", dependencies=[Depends(reads_before, scope="function")])
    async def root() -> str:
        return "ok"

    await ask(app, b"body")
    assert told.answers == ["b'body'"]


@Servers
async def test_what_was_read_stays(ask: Any, autojump_clock: MockClock) -> None:
    app, body, stream = App(), Told(read_body), Told(read_stream)

    @app.post("/")
    async def root(request: Request) -> str:
        request.tasks.add_task(body.read, request)
        request.tasks.add_task(stream.read, request)
        await request.body()
        return "ok"

    await ask(app, b"a body")
    assert (body.answers, stream.answers) == (["b'a body'"], ["[b'a body']"])


@Servers
async def test_a_part_is_not_taken_for_the_whole(ask: Any, autojump_clock: MockClock) -> None:
    """A handler read a piece, and left the rest to a task."""
    app = App()

    async def read_on(request: Request) -> Any:
        return [piece async for piece in pieces[0]]

    told = Told(read_on)
    pieces: list[AsyncIterator[bytes]] = []

    @app.post("/")
    async def root(request: Request) -> str:
        request.tasks.add_task(told.read, request)
        pieces.append(request.stream())
        await anext(pieces[0])
        return "ok"

    await ask(app, LONG)
    assert told.says_gone, told.answers


@Servers
async def test_a_stream_that_was_read_up_stays_at_its_end(
    ask: Any, autojump_clock: MockClock
) -> None:
    app = App()

    async def read_on(request: Request) -> Any:
        return [piece async for piece in pieces[0]]

    told = Told(read_on)
    pieces: list[AsyncIterator[bytes]] = []

    @app.post("/")
    async def root(request: Request) -> str:
        request.tasks.add_task(told.read, request)
        pieces.append(request.stream())
        assert b"".join([piece async for piece in pieces[0]]) == b"all of it"
        return "ok"

    await ask(app, b"all of it")
    assert told.answers == ["[]"]


async def test_who_waits_for_the_rest_as_the_response_ends_is_told(
    autojump_clock: MockClock,
) -> None:
    app, told = App(), Told(read_body)

    @app.post("/")
    async def root(request: Request, nursery: trio.Nursery) -> str:
        nursery.start_soon(told.read, request)
        return "ok"

    async with running(app):
        await Client(waiting(app))("POST", "/", headers=[("content-length", "9")])
    assert told.says_gone, told.answers


def waiting(app: App) -> ASGIApp:
    """Its client never sends the body that it has announced; the end wakes who waits for it."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        async def receive_the_end() -> Any:
            await send.__self__.left.wait()
            return {"type": "http.disconnect"}

        await app(scope, receive_the_end, send)

    return call


@Servers
@Reads
async def test_a_request_without_a_body_has_an_empty_one_for_ever(
    ask: Any, read: Read, autojump_clock: MockClock
) -> None:
    app, told = App(), Told(read)

    @app.post("/")
    async def root(request: Request) -> str:
        request.tasks.add_task(told.read, request)
        return "ok"

    await ask(app, b"")
    expected: dict[Read, str] = {
        read_body: "b''",
        read_stream: "[]",
        read_json: "RequestValidationError",
    }
    assert told.answers[0].startswith(expected[read])


async def test_a_stream_that_broke_off_takes_the_body_with_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app, told = App(), Told(read_body)

    async def failing() -> AsyncIterator[str]:
        yield "a"
        raise ValueError

    @app.post("/")
    async def root(request: Request) -> Response:
        request.tasks.add_task(told.read, request)
        return StreamingResponse(failing())

    await ask_asgi(app, b"a body of some length")
    assert told.says_gone, told.answers


async def test_its_body_may_be_long_where_nobody_says_how_long(autojump_clock: MockClock) -> None:
    """HTTP/2 has bodies without a length."""
    app, told = App(), Told(read_body)

    @app.post("/")
    async def root(request: Request) -> str:
        request.tasks.add_task(told.read, request)
        return "ok"

    async with running(app) as client:
        await client("POST", "/", body=b"", http_version="2")
    assert told.says_gone, told.answers
