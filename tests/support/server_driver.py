"""What the tests of the server share: an app behind the real server, and its clients.

Rules of this module:

* The server is the real one on a pair of memory streams, with its sweep and its drain;
  all that is ours is how many bytes one of its reads gives (`cut`).
* A client reads with h11: it takes nothing for HTTP that isn't.
* A bug of the server's is a failed test, never only a line of a log.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import h11
import pytest
import trio
import trio.testing

from trioweb._asgi import ASGIApp, ServerEvent
from trioweb.server import Server, ServerConfig
from trioweb.server._heads import HeadReader
from trioweb.server._server import run_server
from trioweb.server._strict import ParsedHead, RequestHead

ParserName = Literal["h11", "httptools"]
H = TypeVar("H", ParsedHead, RequestHead)

PARSERS: tuple[ParserName, ...] = ("h11", "httptools")
EachParser = pytest.mark.parametrize("http", PARSERS)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True)
class Response:
    """A whole final response, and the status of each informational one before it."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    informational: tuple[int, ...] = ()

    def __getitem__(self, name: bytes) -> list[bytes]:
        """The values of the fields of that name."""
        return [value for key, value in self.fields if key == name]


class Client:
    """A client's end of a connection."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._unread = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def response(self, method: str = "GET") -> Response:
        """The next response, to a request of that method.  Raises h11's error for what is none."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        if self._unread:
            parser.receive_data(self._unread)
        events: list[h11.Event] = []
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                parser.receive_data(bytes(await self.stream.receive_some()))
            else:
                assert not isinstance(event, type)
                events.append(event)
        self._unread = parser.trailing_data[0]
        return _response(events, event)

    async def ask(self, data: bytes, method: str = "GET") -> Response:
        await self.send(data)
        return await self.response(method)

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        received = self._unread
        async for data in self.stream:
            received += data
        return received

    async def leave(self) -> None:
        await self.stream.aclose()


def _response(events: list[h11.Event], end: h11.EndOfMessage) -> Response:
    informational = [event for event in events if isinstance(event, h11.InformationalResponse)]
    [head] = [event for event in events if isinstance(event, h11.Response)]
    return Response(
        head.status_code,
        list(head.headers),
        b"".join(event.data for event in events if isinstance(event, h11.Data)),
        list(end.headers),
        tuple(event.status_code for event in informational),
    )


class Happenings:
    """What a server tells of, from now on."""

    def __init__(self, server: Server) -> None:
        self.events: list[ServerEvent] = []
        self._happened = trio.Event()
        self._send, self._receive = trio.open_memory_channel[ServerEvent](math.inf)
        server.listen(self._hear)

    def _hear(self, event: ServerEvent) -> None:
        self.events.append(event)
        self._send.send_nowait(event)
        self._happened.set()
        self._happened = trio.Event()

    async def wait(self) -> None:
        """For something to happen from now on."""
        await self._happened.wait()

    async def next_of(self, kind: type[ServerEvent]) -> None:
        """For the next event of this kind that nobody has waited for here."""
        while not isinstance(await self._receive.receive(), kind):
            pass


class Running:
    """A server that runs."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def connect(self, sizes: Iterable[int] = (), **options: Any) -> Client:
        """A new connection.  The server's reads give as many bytes as `sizes` say, then all."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.take_over(cut(theirs, iter(sizes)), **options)
        return Client(ours)

    def connect_lockstep(self) -> Client:
        """A new connection that holds nothing: what is sent waits until it is read."""
        ours, theirs = trio.testing.lockstep_stream_pair()
        self.take_over(theirs)
        return Client(ours)

    def take_over(self, stream: trio.abc.Stream, **options: Any) -> None:
        self.server.serve_stream(stream, **options)

    @property
    def in_flight(self) -> int:
        return self.server.statistics().requests_in_flight


async def dribble(client: Client, pieces: bytes, seconds: float) -> None:
    """A byte every few seconds, over and over, until the connection breaks."""
    with suppress(trio.BrokenResourceError):
        while True:
            for byte in pieces:
                await client.send(bytes([byte]))
                await trio.sleep(seconds)


def cut(stream: Any, sizes: Iterator[int]) -> trio.abc.HalfCloseableStream:
    return trio.StapledStream(stream.send_stream, _Cut(stream.receive_stream, sizes))


class _Cut(trio.abc.ReceiveStream):
    def __init__(self, stream: trio.abc.ReceiveStream, sizes: Iterator[int]) -> None:
        self._stream = stream
        self._sizes = sizes

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(next(self._sizes, max_bytes)))

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def serving(app: ASGIApp, **options: Any) -> AsyncIterator[Running]:
    """The app behind a server; leaving it shuts the server down, and waits for that."""
    with without_bugs():
        async with trio.open_nursery() as nursery:
            config = ServerConfig(**{"forwarded_allow_ips": (), **options})
            server = await nursery.start(run_server, app, config, ())
            yield Running(server)
            await server.shutdown()


@contextmanager
def without_bugs() -> Iterator[None]:
    """What the server takes for a bug of its own fails the test."""
    found = _Bugs(logging.CRITICAL)
    logger = logging.getLogger("trioweb.server")
    logger.addHandler(found)
    try:
        yield
    finally:
        logger.removeHandler(found)
    assert found.records == [], found.records


class _Bugs(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


@contextmanager
def heads_noted(note: Callable[[RequestHead], None]) -> Iterator[None]:
    """`note` is called with each head that a server has read."""
    depth = 0

    def noting(read: Callable[[HeadReader, Any], RequestHead | None]) -> Any:
        def read_and_note(self: HeadReader, data: Any) -> RequestHead | None:
            nonlocal depth
            depth += 1
            try:
                head = read(self, data)
            finally:
                depth -= 1
            if head is not None and not depth:  # `take` may ask `recall`
                note(head)
            return head

        return read_and_note

    with pytest.MonkeyPatch.context() as patch:
        for name in ("recall", "take"):
            patch.setattr(HeadReader, name, noting(getattr(HeadReader, name)))
        yield


def http_app(handle: ASGIApp) -> ASGIApp:
    """An app that knows no lifespans."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await handle(scope, receive, send)

    return app


@http_app
async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers 200 with the request's body, for every method and path."""
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    await respond(send, body)


async def respond(send: Any, body: bytes = b"", *, status: int = 200) -> None:
    """A whole response."""
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


class Recorder:
    """An app that keeps the scopes of its requests, and answers each."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.scopes.append(scope)
            await respond(send)


def as_h11_gives(head: H) -> H:
    """The parsers' one difference: h11 writes the name of a coding, which has no case, lower."""
    fields = [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in head.fields]
    return head._replace(fields=fields)


def without_date(answer: bytes) -> bytes:
    """What a server has sent, but for what changes from second to second."""
    return re.sub(rb"date: [^\r]*\r\n", b"", answer)


def statuses(answer: bytes) -> list[int]:
    """Of the final responses in what a server has sent."""
    found = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)]
    return [status for status in found if status >= 200]
