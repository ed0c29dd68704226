"""One request between app and client: who leaves when, and uploads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, PlainTextResponse, Request, StreamingResponse
from trioweb.testing import IncompleteResponse

from ..support.client_apps import Pieces, client, echo, stream_app, upload_app


async def test_a_call_that_sends_nothing_is_an_incomplete_response() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    async with client(App(), asgi=silent) as c:
        with pytest.raises(IncompleteResponse):
            await c.get("/")


# --- The client leaves.


@pytest.mark.parametrize(
    ("after", "content"), [(0, b""), (2, b"mo"), (4, b"more"), (5, b"morem"), (8, b"moremore")]
)
async def test_a_client_leaves_at_a_chosen_byte(
    after: int, content: bytes, autojump_clock: MockClock
) -> None:
    events: list[str] = []
    async with client(stream_app(events)) as c:
        response = await c.get("/endless", disconnect_after=after)
        assert response.content == content
        assert not response.is_complete
        await c.wait_tasks()
    assert events == ["closed", "task"]


async def test_the_app_hears_of_it_before_it_can_go_on(autojump_clock: MockClock) -> None:
    """Every time, though this stream has but two pieces to go, and never waits."""
    for _ in range(20):
        events: list[str] = []
        async with client(stream_app(events)) as c:
            await c.get("/", disconnect_after=1)
        assert "end" not in events
        assert "closed" in events


@pytest.mark.parametrize("after", [11, 100])
async def test_a_client_that_would_leave_later_has_it_all(after: int) -> None:
    events: list[str] = []
    async with client(stream_app(events)) as c:
        response = await c.get("/", disconnect_after=after)
        assert response.content == b"onetwothree"
        assert response.is_complete == (after > 11)


@pytest.mark.parametrize(("after", "is_complete"), [(9, False), (10, True), (11, True)])
async def test_leaving_within_a_body_in_one_piece(after: int, is_complete: bool) -> None:
    app = App()

    @app.get("/")
    async def whole() -> PlainTextResponse:
        return PlainTextResponse("0123456789")

    async with client(app) as c:
        response = await c.get("/", disconnect_after=after)
    assert response.content == b"0123456789"[:after]
    assert response.is_complete == is_complete


async def test_a_cancelled_request_is_a_client_that_leaves(autojump_clock: MockClock) -> None:
    app = App()
    events: list[str] = []

    @app.post("/")
    async def slow() -> str:
        events.append("begin")
        await trio.sleep(10)
        events.append("end")
        return "nobody reads this"

    async with client(app) as c:
        with trio.move_on_after(5) as scope:
            await c.post("/")
        assert scope.cancelled_caught
        assert events == ["begin"]
    assert events == ["begin", "end"]  # a POST runs to its end, and is waited for


# --- Uploads.


async def test_pieces_are_asked_for_as_they_are_taken(autojump_clock: MockClock) -> None:
    events: list[object] = []
    begin = trio.current_time()
    asked: list[float] = []

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two", b"three"):
            asked.append(trio.current_time() - begin)
            yield piece

    async with client(upload_app(events)) as c:  # which takes one each second
        response = await c.post("/", content=pieces())
        assert response.json() == 11
    assert events == [b"one", b"two", b"three"]
    assert asked == [0, 0, 1]


async def test_any_iterable_and_the_fields_for_it() -> None:
    async with client(echo()) as c:
        seen = (await c.post("/", content=Pieces())).json()
        assert (seen["body"], seen["headers"][1:]) == ("ab", [["transfer-encoding", "chunked"]])
        headers = {"content-length": "2"}
        seen = (await c.post("/", content=Pieces(), headers=headers)).json()
        assert (seen["body"], seen["headers"][1:]) == ("ab", [["content-length", "2"]])


async def test_an_upload_that_fails_is_a_client_that_leaves(autojump_clock: MockClock) -> None:
    events: list[object] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise ConnectionResetError("the client's")

    async with client(upload_app(events)) as c:
        with pytest.raises(ConnectionResetError, match="the client's"):
            await c.post("/", content=pieces())
    assert events == [b"one", "left"]


async def test_an_upload_that_is_cancelled_is_a_client_that_leaves(
    autojump_clock: MockClock,
) -> None:
    events: list[object] = []
    closed = False

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            yield b"one"
            await trio.sleep_forever()
        finally:
            closed = True

    async with client(upload_app(events)) as c:
        with trio.move_on_after(5):
            await c.post("/", content=pieces())
        assert closed
    assert events == [b"one", "left"]


async def test_an_upload_that_nobody_reads_is_closed(autojump_clock: MockClock) -> None:
    closed = False

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            while True:
                await trio.sleep(0.1)
                yield b"more"
        finally:
            closed = True

    async with client(upload_app([])) as c:
        response = await c.post("/early", content=pieces())
        assert response.json() == "early"
        assert closed


async def test_an_upload_within_a_stream() -> None:
    """A conversation: the response begins before the request has ended."""
    app = App()

    @app.post("/")
    async def shout(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in request.stream():
                yield piece.upper()

        return StreamingResponse(pieces())

    say, said = trio.open_memory_channel[bytes](0)
    async with client(app) as c, c.stream("POST", "/", content=said) as response:
        await say.send(b"one")
        assert await anext(response) == b"ONE"
        await say.send(b"two")
        assert await anext(response) == b"TWO"
        await say.aclose()
        assert await response.read() == b"ONETWO"


async def test_a_client_that_is_done_uploads_no_more() -> None:
    """The app's last message is taken while a piece of the request waits."""

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

    waiting = trio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        waiting.set()  # pragma: no cover  nobody takes the first one

    async with client(App(), asgi=deaf) as c:
        async with c.stream("POST", "/", content=pieces()) as response:
            await response.read()
            await trio.testing.wait_all_tasks_blocked()
        async with c.stream("POST", "/", content=pieces(), disconnect_after=1) as response:
            await response.read()
            await trio.testing.wait_all_tasks_blocked()
    assert not waiting.is_set()
