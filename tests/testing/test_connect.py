"""trioweb.testing.connect: an app behind the embedded server, in memory."""

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import App, BackgroundTasks, Limits, Request, StreamingResponse
from trioweb.server import ParserName, StartupFailed
from trioweb.testing import IncompleteResponse, connect
from trioweb.testing._wire import Wire

EachParser = pytest.mark.parametrize("http", ["h11", "httptools"])


def make_app(**options: Any) -> App:
    app = App(**options)

    @app.post("/echo")
    async def echo(request: Request) -> Any:
        return {"body": (await request.body()).decode(), "query": dict(request.query_params)}

    @app.get("/items/{number}")
    async def item(number: int, tasks: BackgroundTasks) -> int:
        tasks.add_task(trio.sleep, 60)
        return number

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            for number in range(3):
                await trio.sleep(1)
                yield str(number)

        return StreamingResponse(pieces())

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "a beginning"
            raise OSError("no more")

        return StreamingResponse(pieces())

    return app


@EachParser
async def test_requests_go_through_the_server(http: ParserName, autojump_clock: MockClock) -> None:
    async with connect(make_app(), http=http) as c:
        got = await c.get("/items/3")
        assert (got.status_code, got.json()) == (200, 3)
        assert "date" in got.headers  # the app sets none: the server does
        posted = await c.post("/echo?a=1", content="x" * 100_000)
        assert posted.json() == {"body": "x" * 100_000, "query": {"a": "1"}}
        assert (await c.head("/items/3")).content == b""
        assert c.app.statistics().running == 2
        await c.wait_tasks()
        assert c.app.statistics().done == 2


async def test_a_body_may_come_in_pieces() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one, "
        yield b""
        yield b"two"

    async with connect(make_app()) as c:
        response = await c.post("/echo", content=pieces())
        assert response.json()["body"] == "one, two"


async def test_a_stream_arrives_piece_by_piece(autojump_clock: MockClock) -> None:
    async with connect(make_app()) as c, c.stream("GET", "/stream") as response:
        assert [piece async for piece in response] == [b"0", b"1", b"2"]
        assert trio.current_time() == 3


async def test_a_client_that_leaves_closes_its_connection(autojump_clock: MockClock) -> None:
    async with connect(make_app()) as c:
        response = await c.get("/stream", disconnect_after=1)
        assert (response.content, response.is_complete) == (b"0", False)
        assert (await c.get("/items/1")).json() == 1


async def test_a_response_that_breaks_off_is_incomplete(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(make_app()) as c:
        with pytest.raises(IncompleteResponse):
            await c.get("/broken")
        assert (await c.get("/items/1")).json() == 1


async def test_a_connection_is_used_again_until_the_server_closes_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[trio.abc.Stream] = []
    open_stream = Wire.open_stream

    def noted(wire: Wire) -> trio.abc.HalfCloseableStream:
        stream = open_stream(wire)
        opened.append(stream)
        return stream

    monkeypatch.setattr(Wire, "open_stream", noted)
    async with connect(make_app(limits=Limits(max_connection_requests=2))) as c:
        for number in range(4):
            assert (await c.get(f"/items/{number}")).json() == number
            await wait_all_tasks_blocked()
    assert len(opened) == 2


async def test_what_no_client_would_send_can_be_sent(autojump_clock: MockClock) -> None:
    async with connect(make_app()) as c:
        stream = c.open_stream()
        await stream.send_all(b"GET /items/x HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/9.9\r\n\r\n")
        await wait_all_tasks_blocked()
        answers = bytes(await stream.receive_some())
        assert answers.startswith(b"HTTP/1.1 422 ")
        assert b"HTTP/1.1 505 " in answers


class NoDatabase(AbstractAsyncContextManager[None]):
    async def __aenter__(self) -> None:
        raise OSError("no database")

    async def __aexit__(self, *exc: object) -> None: ...


async def test_a_startup_that_fails_is_raised() -> None:
    with pytest.raises(StartupFailed, match="no database"):
        async with connect(make_app(lifespan=lambda app: NoDatabase())):
            ...


async def test_a_lifespan_that_fails_at_the_end_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        raise OSError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        async with connect(make_app(lifespan=lifespan)) as c:
            await c.post("/echo")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_client_may_expect_100_continue(autojump_clock: MockClock) -> None:
    async with connect(make_app()) as c:
        response = await c.post("/echo", content="x", headers={"expect": "100-continue"})
        assert response.json()["body"] == "x"


async def test_a_request_in_flight_has_the_drain_timeout_of_the_app(
    autojump_clock: MockClock,
) -> None:
    app = make_app(drain_timeout=60)
    bodies: list[bytes] = []

    @app.get("/slow")
    async def slow() -> str:
        await trio.sleep(50)
        return "done"

    async def ask() -> None:
        bodies.append((await c.get("/slow")).content)

    async with trio.open_nursery() as nursery, connect(app) as c:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
    assert bodies == [b'"done"']


async def test_a_request_in_flight_ends_with_the_shutdown(autojump_clock: MockClock) -> None:
    app = make_app(drain_timeout=1)
    statuses: list[object] = []

    async def ask() -> None:
        with pytest.raises(IncompleteResponse):
            statuses.append(await c.get("/stream"))

    async with trio.open_nursery() as nursery:
        async with connect(app) as c:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
        assert trio.current_time() < 2
    assert statuses == []
