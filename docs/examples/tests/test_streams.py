"""Streams both ways, piece by piece, and clients that leave."""

from collections.abc import AsyncIterator

import pytest
import trio

from trioweb import App, ClientDisconnect, Request, StreamingResponse
from trioweb.testing import client

app = App()
events: list[str] = []


@app.get("/ticks")
async def ticks():
    async def each_minute() -> AsyncIterator[str]:
        try:
            for minute in range(60):
                yield f"{minute}\n"
                await trio.sleep(60)
        finally:
            events.append("ticks closed")

    return StreamingResponse(each_minute())


@app.post("/files")
async def upload(request: Request):
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
    except ClientDisconnect:
        events.append(f"left after {size} bytes")
        raise
    return {"size": size}


async def test_a_stream_piece_by_piece(autojump_clock):
    async with client(app) as c, c.stream("GET", "/ticks") as response:
        assert response.status_code == 200
        assert await anext(response) == b"0\n"
        assert trio.current_time() == 0
        assert await anext(response) == b"1\n"
        assert trio.current_time() == 60
    # Leaving the block before the last piece is the client leaving.
    assert events.pop() == "ticks closed"


async def test_a_client_that_leaves_at_a_chosen_byte(autojump_clock):
    async with client(app) as c:
        response = await c.get("/ticks", disconnect_after=3)
        assert response.content == b"0\n1"
        assert not response.is_complete
    assert events.pop() == "ticks closed"


async def test_a_client_that_loses_patience(autojump_clock):
    async with client(app) as c:
        with trio.move_on_after(90):
            await c.get("/ticks")
    assert events.pop() == "ticks closed"


async def test_an_upload_in_pieces():
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async with client(app) as c:
        response = await c.post("/files", content=pieces())
        assert response.json() == {"size": 6}


async def test_a_client_that_leaves_within_its_upload():
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise ConnectionResetError

    async with client(app) as c:
        with pytest.raises(ConnectionResetError):  # what the pieces raise comes out
            await c.post("/files", content=pieces())
    assert events.pop() == "left after 3 bytes"
