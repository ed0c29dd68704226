"""The server's edges: proxies, the access log, sockets that are slow, and what comes too late."""

from __future__ import annotations

import fcntl
import functools
import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trioweb._asgi import ServerExchange
from trioweb._cli.statuses import report
from trioweb.server import (
    ClientGone,
    LifespanFailed,
    ParserName,
    ProtocolMisuse,
    Server,
    ServerLimits,
    _limits,
    serve,
)
from trioweb.server._access import AccessLog, Answer
from trioweb.server._connection import Connection
from trioweb.server._errors import BadRequest
from trioweb.server._forwarded import TrustedPeers
from trioweb.server._limits import MAX_WAITING_LOG_LINES, MIB, READ_AHEAD
from trioweb.server._output import CONTINUE
from trioweb.server._receiving import Exchange
from trioweb.server._strict import ParsedHead, check_head
from trioweb.server._transport import (
    Patience,
    SocketTransport,
    StreamTransport,
    send_all,
)

from ..support.log_records import messages
from ..support.server_clients import RESET, connected, listening, patient
from ..support.server_driver import (
    GET,
    Client,
    EachParser,
    Recorder,
    echo,
    http_app,
    respond,
    serving,
    statuses,
)

# Who the client is, behind proxies.


@pytest.mark.parametrize(
    ("peers", "host", "trusted"),
    [
        (["127.0.0.1"], "127.0.0.1", True),
        (["127.0.0.1"], "::ffff:127.0.0.1", True),
        (["127.0.0.1"], "127.0.0.2", False),
        (["10.0.0.0/8", "::1"], "10.1.2.3", True),
        (["10.0.0.0/8", "::1"], "::1", True),
        (["*"], "anybody", True),
        (["127.0.0.1"], "proxy.example", False),
        (["127.0.0.1"], "", True),
        ([], "", False),
        ([], "127.0.0.1", False),
    ],
)
def test_peers_are_trusted_by_address_and_network(
    peers: list[str], host: str, trusted: bool
) -> None:
    assert TrustedPeers(peers).trusts(host) is trusted


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy"):
        TrustedPeers(["proxy.example"])


@pytest.mark.parametrize(
    ("fields", "client", "scheme"),
    [
        (b"X-Forwarded-For: 1.2.3.4\r\n", ("1.2.3.4", 0), "http"),
        (b"X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.1\r\n", ("1.2.3.4", 0), "http"),
        (b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", ("1.2.3.4", 0), "http"),
        (b"X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n", ("10.0.0.2", 0), "http"),
        (b"X-Forwarded-For: \r\n", ("10.0.0.9", 5), "http"),
        (b"X-Forwarded-Proto: https\r\n", ("10.0.0.9", 5), "https"),
        (b"X-Forwarded-Proto: gopher\r\n", ("10.0.0.9", 5), "http"),
        (b"X-Forwarded-Host: evil\r\n", ("10.0.0.9", 5), "http"),
    ],
)
@EachParser
async def test_a_trusted_peer_says_for_whom_it_asks(
    http: ParserName, fields: bytes, client: tuple[str, int], scheme: str
) -> None:
    seen = await _scope_of(http, fields, peer="10.0.0.9")
    assert (seen["client"], seen["scheme"]) == (client, scheme)


@EachParser
async def test_anybody_else_only_says_it(http: ParserName) -> None:
    seen = await _scope_of(http, b"X-Forwarded-For: 1.2.3.4\r\n", peer="9.9.9.9")
    assert seen["client"] == ("9.9.9.9", 5)


async def _scope_of(http: ParserName, fields: bytes, peer: str) -> Any:
    app = Recorder()
    async with serving(app, http=http, forwarded_allow_ips=["10.0.0.0/8"]) as running:
        client = running.connect(client=(peer, 5))
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % fields)
        await wait_all_tasks_blocked()
    [scope] = app.scopes
    return scope


# The access log.


async def test_each_answer_is_a_line(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="trioweb.access")
    async with serving(echo, access_log=True) as running:
        client = running.connect(client=("1.2.3.4", 5))
        await client.send(b'GET /a"b\\n HTTP/1.1\r\nHost: x\r\n\r\nBAD\r\n\r\n')
        await trio.sleep(0.5)
    first, second = messages(caplog)
    assert first.startswith('1.2.3.4:5 "GET /a\\"b\\\\n HTTP/1.1" 200 ')
    assert second.startswith('1.2.3.4:5 "- - HTTP/-" 400 ')
    record = caplog.records[0]
    plain = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime"}
    parts = {name: value for name, value in record.__dict__.items() if name not in plain}
    assert parts.pop("milliseconds") >= 0
    assert parts.pop("size") > 0
    assert json.dumps(parts, sort_keys=True) == json.dumps(
        {
            "client": "1.2.3.4:5",
            "http_version": "1.1",
            "method": "GET",
            "status": 200,
            "target": '/a\\"b\\\\n',
        }
    )


def test_a_log_that_cant_keep_up_loses_lines_and_says_how_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = AccessLog()
    for _ in range(MAX_WAITING_LOG_LINES + 3):
        log.add(Answer("-", b"GET", b"/", b"1.1", 200, 1, 0.0))
    log.flush()
    assert caplog.messages == ["3 lines of the access log were lost: it can't keep up"]


# Sockets.


class Hesitating(socket.socket):
    """Says once that it isn't ready although it was waited for; then what `fails` says."""

    hesitates = True
    fails = False

    def _take_a_turn(self) -> None:
        if self.fails:
            raise ConnectionResetError
        if self.hesitates:
            self.hesitates = False
            raise BlockingIOError

    def recv(self, *args: Any) -> bytes:
        self._take_a_turn()
        return super().recv(*args)

    def send(self, *args: Any) -> int:
        self._take_a_turn()
        return super().send(*args)


def pair() -> tuple[Hesitating, socket.socket]:
    ours, theirs = socket.socketpair()
    hesitating = Hesitating(ours.family, ours.type, fileno=ours.detach())
    hesitating.setblocking(False)
    return hesitating, theirs


async def test_a_socket_that_wasnt_ready_is_waited_for_again() -> None:
    ours, theirs = pair()
    with theirs:
        transport = SocketTransport(ours)
        theirs.send(b"in")
        assert await transport.receive() == b"in"
        ours.hesitates = True
        assert await transport.send_some(memoryview(b"out")) == 3
        assert theirs.recv(10) == b"out"
        ours.hesitates = True
        assert transport.send_nowait(b"out") == 0
        assert (transport.has_data(), transport.backlog() is not None) == (False, True)
        await transport.close(abort=True)


class GrowingKernel(StreamTransport):
    """Takes on and on what nobody reads, as kernels do while their buffers grow."""

    def __init__(self, taken: int, seconds: float) -> None:
        super().__init__(memory_stream_pair()[0])
        self._taken, self._seconds = taken, seconds
        self._held = 0

    async def send_some(self, data: memoryview) -> int:
        await trio.sleep(self._seconds)
        self._held += self._taken
        return self._taken

    def backlog(self) -> int:
        return self._held


async def test_what_only_the_kernel_takes_buys_a_reader_no_time(autojump_clock: MockClock) -> None:
    transport = GrowingKernel(taken=64 * 1024, seconds=0.5)
    with pytest.raises(ClientGone, match="doesn't read"):
        await send_all(transport, bytes(MIB * 16), Patience(2.0))
    assert trio.current_time() == pytest.approx(2.0)


async def test_not_every_kernel_tells_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(*_: Any) -> bytes:
        raise OSError

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    ours, theirs = pair()
    with theirs:
        assert SocketTransport(ours).backlog() is None
        await SocketTransport(ours).close()


async def test_what_has_come_is_there_without_waiting() -> None:
    ours, theirs = pair()
    with theirs:
        ours.setblocking(False)
        transport = SocketTransport(ours)
        assert transport.receive_nowait() is None
        theirs.send(b"in")
        assert transport.receive_nowait() == b"in"
        theirs.shutdown(socket.SHUT_WR)
        assert transport.receive_nowait() == b""
        await transport.close()


async def test_a_socket_that_was_reset_is_a_client_that_has_left() -> None:
    ours, theirs = pair()
    with theirs:
        ours.fails = True
        transport = SocketTransport(ours)
        theirs.send(b"in")
        with pytest.raises(ClientGone):
            await transport.receive()
        with pytest.raises(ClientGone):
            transport.receive_nowait()
        with pytest.raises(ClientGone):
            transport.send_nowait(b"out")
        with pytest.raises(ClientGone):
            await transport.send_some(memoryview(b"out"))
        await transport.close()
        with pytest.raises(ClientGone):
            await transport.send_eof()


class Broken(trio.abc.Stream):
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None: ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise trio.ClosedResourceError

    async def aclose(self) -> None:
        raise trio.BrokenResourceError


class BrokenAtTheEnd(Broken, trio.abc.HalfCloseableStream):
    async def send_eof(self) -> None:
        raise trio.BrokenResourceError


async def test_a_stream_that_only_sends_and_receives_has_no_end_to_say() -> None:
    transport = StreamTransport(Broken())
    await transport.send_eof()
    with pytest.raises(ClientGone):
        await transport.send_some(memoryview(b"x"))
    with pytest.raises(ClientGone):
        await transport.receive()
    await transport.close()


async def test_an_end_that_cant_be_said_is_a_client_that_has_left() -> None:
    with pytest.raises(ClientGone):
        await StreamTransport(BrokenAtTheEnd()).send_eof()


# What comes in the moment in which its connection was to end.


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Those of all servers, as they are taken over."""
    taken_over: list[Connection] = []
    run = Connection.run

    async def note_and_run(self: Connection, exchange: Exchange | None = None) -> None:
        taken_over.append(self)
        await run(self, exchange)

    monkeypatch.setattr(Connection, "run", note_and_run)
    return taken_over


@pytest.mark.parametrize(("request_", "status"), [(GET, 200), (b"BAD\r\n\r\n", 400)])
async def test_a_request_that_comes_as_its_connection_ends_is_answered(
    request_: bytes, status: int, connections: list[Connection]
) -> None:
    async with serving(echo) as running:
        client: Client = running.connect()
        await wait_all_tasks_blocked()
        await client.send(request_)
        connections[0].expire()
        await wait_all_tasks_blocked()
        answer = bytes(await client.stream.receive_some())
        assert statuses(answer) == [status]
        assert b"\r\nconnection: close\r\n" in answer
        await client.stream.aclose()
        await wait_all_tasks_blocked()
        assert running.server.statistics().connections_open == 0


async def test_two_tasks_cant_send_at_once() -> None:
    refused: list[str] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = {"type": "http.response.body", "body": b"x" * 100, "more_body": True}
        await send({"type": "http.response.start", "status": 200, "headers": []})

        async def other() -> None:
            await wait_all_tasks_blocked()
            with pytest.raises(ProtocolMisuse) as caught:
                await send(body)
            refused.append(str(caught.value))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await send(body)

    async with serving(app) as running:
        client = running.connect_lockstep()
        await client.send(GET)
        await wait_all_tasks_blocked()
    assert refused == ["another task is within send; messages have an order"]


# Calls that outlive their response, and what is left of them.


async def test_a_connection_that_is_to_close_doesnt_wait_for_the_rest_of_the_call(
    autojump_clock: MockClock,
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"all")
        await trio.sleep(10)

    async with serving(app) as running:
        client = running.connect()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join([bytes(piece) async for piece in client.stream])
        assert answer.endswith(b"all")
        assert trio.current_time() < 1


async def test_a_late_request_whose_call_goes_on_doesnt_keep_the_connection(
    connections: list[Connection], autojump_clock: MockClock
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)
        await trio.sleep(10)

    async with serving(app) as running:
        client = running.connect()
        await wait_all_tasks_blocked()
        await client.send(GET)
        connections[0].expire()
        answer = b"".join([bytes(piece) async for piece in client.stream])
        assert statuses(answer) == [200]


async def test_what_fails_while_it_is_cancelled_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def fail() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in its cleanup")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail)

    async with serving(app) as running:
        await running.connect().send(GET)
        await wait_all_tasks_blocked()
        running.server.cancel()
    assert caplog.messages == ["failed while it was cancelled"]


async def test_receive_and_send_are_of_what_a_framework_of_ours_may_call() -> None:
    exchanges: list[ServerExchange] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange: Exchange = receive.__self__
        assert exchange is send.__self__
        exchanges.append(exchange)  # which mypy holds against the protocol
        assert exchange.take_body(0) == b""
        await respond(send)
        assert exchange.send_whole(200, (), b"") is None  # there is a response

    async with serving(app) as running:
        assert (await running.connect().ask(GET)).status == 200
    assert exchanges[0].is_of_trioweb


async def test_a_glance_reads_no_more_ahead_than_is_allowed() -> None:
    exchanges: list[Exchange] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange: Exchange = receive.__self__
        exchanges.append(exchange)
        await receive()
        exchange.buffer += bytes(READ_AHEAD + 1)
        with trio.CancelScope() as scope_:
            scope_.cancel()
            await receive()
        exchange.buffer.clear()
        await respond(send)

    async with serving(app) as running:
        client = running.connect()
        await client.send(GET)
        await client.stream.aclose()
        await wait_all_tasks_blocked()
    assert len(exchanges) == 1


@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_who_has_left_is_seen_before_the_loop_turns(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks may have less time than others take for their turn."""
    monkeypatch.setattr(_limits, "GLANCE_TIME", 0.0)
    asked, left = trio.Event(), trio.Event()
    heard: list[str] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        asked.set()
        await left.wait()
        with trio.CancelScope() as scope_:
            scope_.cancel()
            heard.append((await receive())["type"])

    async with listening(app) as server:
        async with connected(server.urls[0]) as client:
            await client.send(GET)
            await asked.wait()
            assert isinstance(client.stream, trio.SocketStream)
            if how == "resets":
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        left.set()
    assert heard == ["http.disconnect"]


# Odds and ends.


async def test_a_unix_socket_may_be_given(tmp_path: Path) -> None:
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(tmp_path / "web"))
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(functools.partial(serve, echo, sockets=[given]))
        assert server.urls == (f"unix:{tmp_path / 'web'}",)
        await server.shutdown()
    assert (tmp_path / "web").exists()  # who has made it takes it away


def test_a_length_is_no_longer_than_a_number_can_be() -> None:
    fields = [(b"host", b"x"), (b"content-length", b"1" * 20)]
    with pytest.raises(BadRequest, match="malformed content-length"):
        check_head(ParsedHead(b"POST", b"/", b"1.1", fields), ServerLimits())


def test_a_lifespan_that_failed_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert report(LifespanFailed("disk full")) == 1
    assert caplog.messages == ["the app's lifespan failed: disk full"]


# Who holds up what.


@EachParser
async def test_100_continue_holds_up_no_end(http: ParserName, autojump_clock: MockClock) -> None:
    """Its client doesn't read it: that mustn't outlast the server."""
    async with serving(echo, http=http) as running:
        client = running.connect_lockstep()
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        await client.send(head)
        await trio.sleep(1)
        running.server.cancel()
        await running.server.wait_closed()
        assert trio.current_time() == 1


async def test_100_continue_is_said_at_once_where_there_is_room() -> None:
    async with listening(echo) as server, connected(server.urls[0]) as client:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        await client.send(head)
        assert await client.stream.receive_some() == CONTINUE
        await client.send(b"!")
        assert (await client.response("POST")).status == 200


async def test_a_socket_ends_for_who_reads_it_after_what_has_come() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        transport = SocketTransport(ours)
        theirs.send(b"last")
        assert transport.end_receiving()
        assert [await transport.receive(), await transport.receive()] == [b"last", b""]
    assert not transport.end_receiving()


@EachParser
async def test_places_are_counted_once(http: ParserName, autojump_clock: MockClock) -> None:
    """A body that is read away when nobody works on it, and one that is read beside a send."""

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/both":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await respond(send, b"x" * 100_000)
        else:
            await respond(send)

    async with serving(app, http=http) as running:
        for target in (b"/unread", b"/both") * 3:
            head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" % target
            await running.connect_lockstep().send(head)
            await wait_all_tasks_blocked()
            assert running.in_flight == 0
    assert running.in_flight == 0


@pytest.mark.parametrize("bad", [b"ZZ\r\n", b""], ids=["bad chunk", "stalled"])
@EachParser
async def test_a_bad_body_leaves_the_answers_before_it_whole(
    http: ParserName, bad: bytes, autojump_clock: MockClock
) -> None:
    """Closing at once would reset the connection, and what is on its way would be lost."""
    patient(autojump_clock)

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await receive()
        else:
            await respond(send, b"x" * 150_000)

    limits = ServerLimits(body_timeout=0.1)
    async with (
        listening(app, http=http, limits=limits) as server,
        connected(server.urls[0], receive_buffer=4096) as client,
    ):
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(GET + head + bad)
        answers = [await client.response(), await client.response()]
        assert [len(answers[0].body), answers[1].status] == [150_000, 400 if bad else 408]


async def test_what_an_app_says_after_it_was_refused_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"
        raise ZeroDivisionError

    async with serving(app) as running:
        client = running.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
        assert statuses(await client.rest()) == [400]


async def test_an_app_without_a_lifespan_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            raise RuntimeError("no database")
        await respond(send)

    async with serving(app) as running:
        assert (await running.connect().ask(GET)).status == 200
    [record] = caplog.records
    assert record.getMessage() == "the app has no lifespan, it is served without"
    assert record.exc_info
    assert str(record.exc_info[1]) == "no database"


# Who is refused, and why.


WEBSOCKET = (
    b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@EachParser
@pytest.mark.parametrize(
    ("sent", "status", "logged"),
    [
        (b"BAD\r\n\r\n", 400, "refused 1.2.3.4:5: malformed request line"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n", 400, "refused 1.2.3.4:5: a control"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "refused 1.2.3.4:5: "),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505, "refused 1.2.3.4:5: the version is neither"),
        (
            b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            400,
            "refused POST /a of 1.2.3.4:5: malformed chunk size",
        ),
        (
            b"GET /ws HTTP/1.1\r\nHost: x\r\n%b\r\n" % WEBSOCKET,
            403,
            "refused GET /ws of 1.2.3.4:5: WebSockets aren't served here",
        ),
    ],
)
async def test_who_is_refused_is_logged_with_the_reason(
    http: ParserName,
    sent: bytes,
    status: int,
    logged: str,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="trioweb.server")
    async with serving(echo, http=http) as running:
        client = running.connect(client=("1.2.3.4", 5))
        await client.send(sent + GET)
        answer = await client.rest()
    assert statuses(answer) == [status]
    [line] = messages(caplog)
    assert line.startswith(logged)
    # The client reads it too.
    assert answer.endswith(line.partition(": ")[2].encode() + b"\n")


async def test_a_reason_is_one_line_of_so_many_characters(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """h11 quotes what it was given."""

    def parse(raw: bytes) -> ParsedHead:
        raise BadRequest(400, 'é "quoted"\r\n\x1b[31m' + "x" * 1_000)

    monkeypatch.setattr("trioweb.server._parsers.parse_with_h11", parse)
    caplog.set_level(logging.INFO, logger="trioweb.server")
    async with serving(echo, http="h11") as running:
        await running.connect(client=("1.2.3.4", 5)).ask(GET)
    [line] = messages(caplog)
    reason = line.removeprefix("refused 1.2.3.4:5: ")
    assert len(reason) == 200
    assert reason.startswith(r"\xc3\xa9 \"quoted\"\r\n\x1b[31mxxx")


async def test_a_websocket_is_refused_where_there_is_a_route(autojump_clock: MockClock) -> None:
    app = Recorder()
    async with serving(app, access_log=True) as running:
        client = running.connect()
        await client.send(b"GET /ws HTTP/1.1\r\nHost: x\r\n%b\r\n" % WEBSOCKET)
        answer = await client.rest()
    assert app.scopes == []
    assert statuses(answer) == [403]
    assert b"WebSockets aren't served here" in answer
