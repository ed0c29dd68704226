"""What comes back: whole responses, and streams piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, RedirectResponse, Response, StreamingResponse
from trioweb.testing import IncompleteResponse

from ..support.client_apps import client, stream_app


async def test_a_response() -> None:
    app = App()

    @app.get("/")
    async def fields() -> Response:
        body = "grün".encode("latin-1")
        response = Response(body, 201, media_type="text/plain; charset=latin-1")
        response.headers.append("x-more", "1")
        response.headers.append("X-More", "2")
        return response

    async with client(app) as c:
        response = await c.get("/")
        assert response.status_code == 201
        assert response.headers["CONTENT-TYPE"] == "text/plain; charset=latin-1"
        assert response.headers.getlist("x-more") == ["1", "2"]
        assert response.content == "grün".encode("latin-1")
        assert response.text == "grün"
        assert repr(response) == "<ClientResponse 201, 4 bytes read>"
        with pytest.raises(ValueError, match="codec can't decode"):
            response.json()
        assert c.app is app


async def test_redirects_are_responses() -> None:
    app = App()

    @app.get("/")
    async def away() -> RedirectResponse:
        return RedirectResponse("/there")

    async with client(app) as c:
        response = await c.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/there")
    assert response.text == ""


async def test_a_handlers_exception_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/")
    async def fail() -> None:
        raise LookupError("nothing here")

    async with client(app) as c:
        assert (await c.get("/")).status_code == 500
    [record] = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "nothing here"


# --- Streams.


async def test_a_stream_is_read_piece_by_piece(autojump_clock: MockClock) -> None:
    events: list[str] = []
    async with client(stream_app(events)) as c:
        async with c.stream("GET", "/") as response:
            assert response.status_code == 202
            assert response.headers["x-more"] == "1"
            assert response.cookies == c.cookies == {"a": "1"}
            assert not response.is_complete
            await trio.sleep(10)
            assert events == ["one"]  # the app waits until it is taken
            assert await anext(response) == b"one"
            assert response.content == b"one"
            await trio.sleep(10)
            assert events == ["one", ""]
            assert [piece async for piece in response] == [b"two", b"three"]
            assert response.is_complete
            assert response.content == b"onetwothree"
            assert await response.read() == b"onetwothree"
        await c.wait_tasks()
    assert events == ["one", "", "two", "three", "end", "closed", "task"]


async def test_a_stream_that_is_left_is_left_by_the_client(autojump_clock: MockClock) -> None:
    events: list[str] = []
    async with client(stream_app(events)) as c:
        async with c.stream("GET", "/endless") as response:
            assert await anext(response) == b"more"
        with pytest.raises(trio.ClosedResourceError):
            await anext(response)
        await c.wait_tasks()
    assert not response.is_complete
    assert events == ["closed", "task"]


async def test_reading_can_be_cancelled_and_taken_up_again(autojump_clock: MockClock) -> None:
    app = App()

    @app.get("/")
    async def slow() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(3):
                await trio.sleep(10)
                yield b"%d" % number

        return StreamingResponse(pieces())

    async with client(app) as c, c.stream("GET", "/") as response:
        while not response.is_complete:
            with trio.move_on_after(3):
                await response.read()
        assert response.content == b"012"


async def test_a_broken_stream_is_an_incomplete_response() -> None:
    async with client(stream_app([])) as c:
        with pytest.raises(IncompleteResponse, match="ended within its response"):
            await c.get("/broken")
        async with c.stream("GET", "/broken") as response:
            with pytest.raises(IncompleteResponse):
                await response.read()
            assert response.content == b"one"
            assert not response.is_complete


async def test_what_is_raised_in_a_stream_comes_out_as_it_is() -> None:
    async with client(stream_app([])) as c:
        with pytest.raises(ZeroDivisionError):
            async with c.stream("GET", "/"):
                raise ZeroDivisionError


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("raise_for_status", "response.status_code == 200"),
        ("is_success", "response.status_code == 200"),
        ("url", "what the test has asked for"),
        ("iter_lines", "(await response.read()).splitlines()"),
        ("reason_phrase", "http.HTTPStatus(response.status_code).phrase"),
    ],
)
async def test_what_other_clients_responses_have_is_told_of(name: str, right: str) -> None:
    async with client(App()) as c:
        response = await c.get("/")
    assert not hasattr(response, name)
    with pytest.raises(AttributeError) as missing:
        getattr(response, name)
    _, wrong, shown = str(missing.value).split("\n")
    assert wrong == f"    wrong:  response.{name}"
    assert shown.startswith(f"    right:  {right}")


async def test_what_other_clients_have_is_told_of() -> None:
    async with client(App()) as c:
        for name in ("websocket_connect", "aclose", "base_url"):
            assert not hasattr(c, name)
            with pytest.raises(AttributeError, match=rf"wrong:  c\.{name}\n    right:  "):
                getattr(c, name)
