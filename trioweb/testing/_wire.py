"""The wire to an app behind the embedded server: an ASGI app that speaks HTTP to that server.

Rules of this module:

* Each call is an HTTP request over a memory stream to a `Server` without listeners; the response
  is made ASGI's messages again.  So a client that calls an app can call this in its place.
* h11 is the client's side of the connection: it accepts nothing that isn't HTTP.
* A connection is used again when its last response has ended; a client that leaves closes the
  connection of its request.
"""

from __future__ import annotations

import h11
import trio
import trio.testing

from .._asgi import APP_SETTINGS, AppSettings, ASGIApp, Message, Receive, Scope, Send
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
        self._failure: str | None = None  # of the lifespan, while or after it served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_server(receive, send)
        else:
            await self._request(scope, receive, send)

    async def _run_server(self, receive: Receive, send: Send) -> None:
        """The server lives from this lifespan's startup to its shutdown."""
        await receive()
        async with trio.open_nursery() as nursery:
            try:
                self._server: Server = await nursery.start(self._serve)
            except StartupFailed as exc:
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
                return
            await send(_startup_complete(self._server))
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

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = self._idle.pop() if self._idle else _ClientConnection(self.open_stream())
        has_ended = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.upload, scope, receive)
                await connection.download(send)
                nursery.cancel_scope.cancel()
            has_ended = True
        finally:
            if not has_ended:
                await trio.aclose_forcefully(connection.stream)
        if connection.can_be_used_again():
            self._idle.append(connection)
        else:
            await connection.stream.aclose()


class _ClientConnection:
    """The client's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    def can_be_used_again(self) -> bool:
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    async def upload(self, scope: Scope, receive: Receive) -> None:
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

    async def download(self, send: Send) -> None:
        """Receive the response, and send it on message by message."""
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                await send(_head_message(event))
            elif isinstance(event, h11.Data):
                await send(_body_message(bytes(event.data), more_body=True))
            elif isinstance(event, h11.EndOfMessage):
                await send(_body_message(b"", more_body=False))
                return
            elif isinstance(event, h11.ConnectionClosed):
                return

    async def _next_event(self) -> h11.Event:
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                self._h11.receive_data(bytes(await self.stream.receive_some(READ_SIZE)))
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            return h11.ConnectionClosed()  # the server closed it, or the client did
        assert not isinstance(event, type)  # h11 pauses only past the end of a response
        return event


def _startup_complete(server: Server) -> Message:
    """Whoever calls the wire waits for requests in flight for as long as the server does."""
    settings = AppSettings(
        drain_timeout=server.drain_timeout,
        cleanup_timeout=server.cleanup_timeout or 0,
        limits=None,
    )
    return {"type": "lifespan.startup.complete", APP_SETTINGS: settings}


def _head_message(response: h11.Response) -> Message:
    fields = list(response.headers)
    return {"type": "http.response.start", "status": response.status_code, "headers": fields}


def _body_message(body: bytes, *, more_body: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more_body}
