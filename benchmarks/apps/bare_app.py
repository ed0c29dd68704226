"""ASGI without a framework: the least that an app on the same server does."""

from __future__ import annotations

import json
from typing import Any

from . import work

JSON = [(b"content-type", b"application/json")]
STREAM = [(b"content-type", b"application/octet-stream")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["path"] == "/stream":
        await stream(send)
    else:
        await read_item(int(scope["path"].removeprefix("/items/")), send)


async def read_item(item_id: int, send: Any) -> None:
    body = json.dumps(work.item(item_id)).encode()
    headers = [*JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": STREAM})
    async for chunk in work.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
