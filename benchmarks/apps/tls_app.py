"""Bytes down and up, as a bare ASGI app, so that what they cost is the server's."""

from __future__ import annotations

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["path"] == "/up":
        await _take(receive, send)
    else:
        _, size, piece = scope["path"].strip("/").split("/")
        await _give(int(size), int(piece), send)


async def _live(receive: Any, send: Any) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _take(receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"%d" % size
    await _start(len(body), send)
    await send({"type": "http.response.body", "body": body})


async def _give(size: int, piece: int, send: Any) -> None:
    await _start(size, send)
    data = bytes(piece)
    while size > 0:
        size -= len(data)
        body = data if size >= 0 else data[:size]
        await send({"type": "http.response.body", "body": body, "more_body": size > 0})


async def _start(size: int, send: Any) -> None:
    fields = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
