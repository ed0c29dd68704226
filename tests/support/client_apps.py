"""An app and a client of `trioweb.testing`, as the tests of that room use them.

Rules of this module:

* The apps promise nothing: they say what they were sent, or note in a list what they come to.
* However the block of `client` is left, no task is left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from trioweb import (
    App,
    BackgroundTasks,
    ClientDisconnect,
    PlainTextResponse,
    Request,
    StreamingResponse,
    testing,
)
from trioweb.testing import Client

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def echo() -> App:
    """Answers with what it was sent."""
    app = App()

    @app.route("/{path:path}", methods=METHODS)
    async def show(request: Request, path: str) -> dict[str, Any]:
        return {
            "method": request.method,
            "url": str(request.url),
            "path": request.scope["path"],
            "query": {name: request.query_params.getlist(name) for name in request.query_params},
            "headers": [[k.decode(), v.decode("latin-1")] for k, v in request.scope["headers"]],
            "cookies": dict(request.cookies),
            "body": (await request.body()).decode(),
        }

    @app.head("/{path:path}")
    async def head(path: str) -> PlainTextResponse:
        return PlainTextResponse("never sent")

    return app


def stream_app(events: list[str]) -> App:
    app = App()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for piece in (b"one", b"", b"two", b"three"):
                events.append(piece.decode())
                yield piece
            events.append("end")
        finally:
            events.append("closed")

    @app.get("/")
    async def stream(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(events.append, "task")
        return StreamingResponse(pieces(), 202, {"x-more": "1", "set-cookie": "a=1"})

    @app.get("/endless")
    async def endless(tasks: BackgroundTasks) -> StreamingResponse:
        async def more() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"more"
            finally:
                events.append("closed")

        tasks.add_task(events.append, "task")
        return StreamingResponse(more())

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise LookupError("broken")

        return StreamingResponse(pieces())

    return app


def upload_app(events: list[object]) -> App:
    app = App()

    @app.post("/")
    async def take(request: Request) -> int:
        size = 0
        try:
            async for piece in request.stream():
                events.append(piece)
                size += len(piece)
                await trio.sleep(1)
        except ClientDisconnect:
            events.append("left")
            raise
        return size

    @app.post("/early")
    async def early() -> str:
        return "early"

    @app.post("/json")
    async def read(body: dict[str, int]) -> dict[str, int]:
        return body

    return app


class Pieces:
    """No generator, and nothing to close."""

    def __init__(self) -> None:
        self._left = [b"b", b"a"]

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


@asynccontextmanager
async def client(app: App, **options: Any) -> AsyncIterator[Client]:
    """The client of all these tests: however its block is left, no task is left."""
    before = trio.lowlevel.current_statistics().tasks_living
    try:
        async with testing.client(app, **options) as c:
            yield c
    finally:
        assert trio.lowlevel.current_statistics().tasks_living == before
