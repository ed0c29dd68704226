"""An app run in memory, by ASGI messages, without a server.

Rules of this module:

* It behaves as Hypercorn does where it matters: after the last byte of a
  response, and when the client leaves, `receive` says `http.disconnect`.
* The lifespan runs in the test's own nursery; leaving `running` shuts it down.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import trio

from trioweb import App

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass
class Exchange:
    """One request and what has come back for it so far."""

    body_chunks: Sequence[bytes]
    sent: list[Message] = field(default_factory=list)
    # The client leaves once so many body messages of the response have come.
    leaves_after: float = math.inf
    complete: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    received: int = 0

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {k.decode("latin-1"): v.decode("latin-1") for k, v in self.sent[0]["headers"]}

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    async def receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        if self.received < len(self.body_chunks) and not self.left.is_set():
            chunk = self.body_chunks[self.received]
            self.received += 1
            more = self.received < len(self.body_chunks)
            return {"type": "http.request", "body": chunk, "more_body": more}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)
        if len(self.sent) > self.leaves_after:
            self.left.set()
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete.set()
            self.left.set()


class Client:
    """Sends requests to an app, each as one call of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Sequence[bytes] = b"",
        json: Any = None,
        headers: dict[str, str] | Sequence[tuple[str, str]] = (),
        leaves_after: float = math.inf,
        **scope: Any,
    ) -> Exchange:
        """Send a request; returns when the call does.  `scope` overrides what the server says."""
        fields = list(headers.items() if isinstance(headers, dict) else headers)
        if json is not None:
            body = _dump(json)
            fields.append(("content-type", "application/json"))
        chunks = [body] if isinstance(body, bytes) else list(body)
        if any(chunks) and not any(name == "content-length" for name, _ in fields):
            fields.append(("content-length", str(sum(map(len, chunks)))))
        exchange = Exchange(chunks, leaves_after=leaves_after)
        await self._app(
            {**http_scope(method, target, fields), **scope}, exchange.receive, exchange.send
        )
        return exchange


@asynccontextmanager
async def running(app: App) -> AsyncIterator[Client]:
    """The app between the start and the end of its lifespan."""
    started, shut_down = trio.Event(), trio.Event()
    answers: list[Message] = []

    async def receive() -> Message:
        if not started.is_set():
            return {"type": "lifespan.startup"}
        await shut_down.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        answers.append(message)
        started.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, {"type": "lifespan", "state": {}}, receive, send)
        await started.wait()
        assert answers[0]["type"] == "lifespan.startup.complete", answers[0]
        yield Client(app)
        shut_down.set()
    assert answers[-1]["type"] == "lifespan.shutdown.complete", answers[-1]


def http_scope(method: str, target: str, fields: Sequence[tuple[str, str]]) -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.1"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in fields],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()
