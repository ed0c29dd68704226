"""An app behind the real server, in memory: an ASGI app that speaks HTTP to it.

Rules of this module:

* Each call is an HTTP request over a memory stream to a `Server` without listeners, and
  its answer made ASGI's messages again: whoever tests an app by ASGI can test it so.
* The client's side is h11's: it takes nothing for HTTP that isn't.
* A connection is used again when its last response has ended; a client that leaves
  closes its own.
"""

from __future__ import annotations

from typing import Any

import h11
import trio
import trio.testing

from .._asgi import ASGIApp, Message
from ..server import LifespanFailed, Server, ServerConfig, StartupFailed
from ..server._limits import READ_SIZE, ServerLimits
from ..server._parsers import ParserName
from ..server._server import run_server


class Wire:
    """The connections to one app's server."""

    def __init__(self, app: ASGIApp, limits: ServerLimits | None, http: ParserName) -> None:
        self._app = app
        self._config = ServerConfig(limits=limits, http=http, forwarded_allow_ips=())
        self._idle: list[_ClientConnection] = []
        self._failure: str | None = None  # how the lifespan ended

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._run_server(receive, send)
        else:
            await self._request(scope, receive, send)

    async def _run_server(self, receive: Any, send: Any) -> None:
        """The server lives as long as the lifespan that whoever tests asks for."""
        await receive()
        async with trio.open_nursery() as nursery:
            try:
                self._server: Server = await nursery.start(self._serve)
            except StartupFailed as exc:
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._server.shutdown()
        for connection in self._idle:
            await connection.stream.aclose()
        if self._failure is not None:
            await send({"type": "lifespan.shutdown.failed", "message": self._failure})

    async def _serve(self, *, task_status: trio.TaskStatus[Server]) -> None:
        try:
            await run_server(self._app, self._config, (), task_status=task_status)
        except StartupFailed:
            raise
        except LifespanFailed as exc:
            self._failure = str(exc)

    def open_stream(self) -> trio.abc.HalfCloseableStream:
        """The client's end of a new connection."""
        ours, theirs = trio.testing.memory_stream_pair()
        self._server.serve_stream(theirs)
        return ours

    async def _request(self, scope: Any, receive: Any, send: Any) -> None:
        connection = self._idle.pop() if self._idle else _ClientConnection(self.open_stream())
        is_over = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.upload, scope, receive)
                await connection.download(send)
                nursery.cancel_scope.cancel()
            is_over = True
        finally:
            if not is_over:
                await trio.aclose_forcefully(connection.stream)
        if connection.can_be_used_again():
            self._idle.append(connection)
        else:
            await connection.stream.aclose()


class _ClientConnection:
    """One connection, from the client's side."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    def can_be_used_again(self) -> bool:
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    async def upload(self, scope: Any, receive: Any) -> None:
        """Send the request; then wait for the client to leave."""
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        await self._send(
            h11.Request(method=scope["method"], target=target, headers=scope["headers"])
        )
        while (message := await receive())["type"] == "http.request":
            if body := message.get("body", b""):
                await self._send(h11.Data(data=body))
            if not message.get("more_body", False):
                await self._send(h11.EndOfMessage())
        if self._h11.their_state is not h11.DONE:
            await self.stream.aclose()

    async def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            await self.stream.send_all(data)

    async def download(self, send: Any) -> None:
        """Receive the response, and pass it on message by message."""
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                await send(_start(event))
            elif isinstance(event, h11.Data):
                await send(_body(bytes(event.data), more_body=True))
            elif isinstance(event, h11.EndOfMessage):
                await send(_body(b"", more_body=False))
                return
            elif isinstance(event, h11.ConnectionClosed):
                return

    async def _next_event(self) -> h11.Event:
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                self._h11.receive_data(bytes(await self.stream.receive_some(READ_SIZE)))
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            return h11.ConnectionClosed()  # by the server, or by the client itself
        assert not isinstance(event, type)  # PAUSED comes only after the end of a response
        return event


def _start(response: h11.Response) -> Message:
    fields = list(response.headers)
    return {"type": "http.response.start", "status": response.status_code, "headers": fields}


def _body(body: bytes, *, more_body: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more_body}
