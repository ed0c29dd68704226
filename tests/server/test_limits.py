"""Every limit of the server, its answer, and when that comes: to the moment, in virtual time."""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import App, Limits, Request
from trioweb._asgi import DISCARDS_UNREAD_BODY, ASGIApp
from trioweb.server import ServerLimits
from trioweb.server._limits import (
    LINGER_SIZE,
    LINGER_TIME,
    MAX_SKIPPED_BODY,
    MAX_UNSENT,
    MIN_RATE,
    READ_SIZE,
)
from trioweb.server._transport import SocketTransport

from ..support.server_clients import PATIENCE, connected, listening, patient, request
from ..support.server_driver import (
    GET,
    Client,
    EachParser,
    ParserName,
    Running,
    dribble,
    echo,
    http_app,
    respond,
    serving,
    statuses,
)

KIB = 1024
MIB = 1024 * KIB

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"

# The defaults are the contract's.
HEAD_TIMEOUT = 10.0
BODY_TIMEOUT = 15.0
WRITE_TIMEOUT = 30.0
IDLE_TIMEOUT = 5.0


def close_to(seconds: float) -> Any:
    """That moment; sums of tenths aren't exact."""
    return pytest.approx(seconds, abs=1e-6)


class Gate:
    """An app whose requests wait until they are let go, and are counted meanwhile."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.begun = trio.Event()
        self._open = trio.Event()

    def open(self) -> None:
        self._open.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        self.begun.set()
        await self._open.wait()
        self.waiting -= 1
        await echo(scope, receive, send)


@asynccontextmanager
async def client_of(app: ASGIApp, http: ParserName, **options: Any) -> AsyncIterator[Client]:
    """The only client of a server."""
    async with serving(app, http=http, **options) as running:
        yield running.connect()


async def answered_at(client: Client) -> tuple[int, float]:
    """The status of the next answer, and when it came."""
    status = (await client.response()).status
    return status, trio.current_time()


async def test_the_defaults_are_the_contracts() -> None:
    assert ServerLimits() == ServerLimits(
        max_target_size=8 * KIB,
        max_head_size=16 * KIB,
        max_fields=100,
        head_timeout=HEAD_TIMEOUT,
        body_timeout=BODY_TIMEOUT,
        write_timeout=WRITE_TIMEOUT,
        idle_timeout=IDLE_TIMEOUT,
        max_connections=1_000,
        max_requests=256,
        max_connection_requests=1_000,
    )


@pytest.mark.parametrize("name", [field.name for field in fields(ServerLimits)])
def test_a_limit_that_makes_no_sense_is_refused_by_name(name: str) -> None:
    value: Any
    for value in (0, -1, True, "1", None, math.nan):
        with pytest.raises(ValueError, match=f"{name}="):
            ServerLimits(**{name: value})


def test_a_time_has_no_upper_bound_and_a_count_is_whole() -> None:
    assert ServerLimits(idle_timeout=math.inf).idle_timeout == math.inf
    with pytest.raises(ValueError, match="max_requests"):
        ServerLimits(max_requests=1.5)  # type: ignore[arg-type]


# Sizes.


async def answer_to(http: ParserName, data: bytes, **limits: int) -> int:
    """The status of the answer to these bytes; a refusal closes the connection."""
    async with client_of(echo, http, limits=ServerLimits(**limits)) as client:
        answer = await client.ask(data)
        if answer.status >= 400:
            assert answer[b"connection"] == [b"close"]
            await client.stream.send_eof()
            assert await client.rest() == b""
        return answer.status


def with_target(size: int) -> bytes:
    return b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * (size - 1))


@EachParser
@pytest.mark.parametrize("size", [8 * KIB, 100])
async def test_a_target_is_as_long_as_it_may_be_or_414(http: ParserName, size: int) -> None:
    assert await answer_to(http, with_target(size), max_target_size=size) == 200
    assert await answer_to(http, with_target(size + 1), max_target_size=size) == 414


@EachParser
async def test_a_target_that_doesnt_end_is_refused_before_it_does(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with client_of(echo, http) as client:
        await client.send(b"GET /" + b"a" * 8 * KIB + b"a" * 100)
        assert await answered_at(client) == (414, 0)
        await client.leave()


def with_head(size: int) -> bytes:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: %b\r\n\r\n"
    return head % (b"a" * (size - len(head) + len(b"%b")))


@EachParser
@pytest.mark.parametrize("size", [16 * KIB, 200])
async def test_a_head_is_as_large_as_it_may_be_or_431(http: ParserName, size: int) -> None:
    assert len(with_head(size)) == size
    assert await answer_to(http, with_head(size), max_head_size=size) == 200
    assert await answer_to(http, with_head(size + 1), max_head_size=size) == 431


def with_fields(count: int) -> bytes:
    more = b"".join(b"X-%d: y\r\n" % i for i in range(count - 1))
    return b"GET / HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n"


@EachParser
@pytest.mark.parametrize("count", [100, 3])
async def test_as_many_fields_as_there_may_be_or_431(http: ParserName, count: int) -> None:
    assert await answer_to(http, with_fields(count), max_fields=count) == 200
    assert await answer_to(http, with_fields(count + 1), max_fields=count) == 431


@EachParser
async def test_as_many_trailers_as_there_may_be(http: ParserName) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    for count, status in ((100, 200), (101, 431)):
        trailers = b"".join(b"X-%d: y\r\n" % i for i in range(count))
        assert await answer_to(http, head + trailers + b"\r\n") == status


def measuring() -> App:
    """An app that takes bodies of ten bytes at the most, and says how long they are."""
    app = App(limits=Limits(max_body_size=10))

    @app.post("/")
    async def measure(request: Request) -> int:
        return len(await request.body())

    return app


@EachParser
async def test_a_body_that_says_it_is_too_long_is_413_before_a_byte_of_it_is_read(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with serving(measuring(), http=http) as running:
        client = running.connect_lockstep()
        await client.send(POST + b"Content-Length: 11\r\n\r\n")
        assert await answered_at(client) == (413, 0)
        await client.leave()
        client = running.connect()
        assert (await client.ask(POST + b"Content-Length: 10\r\n\r\n0123456789")).body == b"10"


@EachParser
async def test_a_body_in_chunks_is_counted_as_it_comes(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with serving(measuring(), http=http) as running:
        client = running.connect()
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        await client.send(b"5\r\n01234\r\n5\r\n56789\r\n")
        with trio.move_on_after(1) as scope:
            await client.stream.receive_some()
        assert scope.cancelled_caught  # it isn't answered yet
        await client.send(b"1\r\n!\r\n")  # and no end
        assert (await client.response()).status == 413
        await client.leave()


# Sizes: bodies that the app leaves unread.


UNREAD = 65 * MIB


@EachParser
@pytest.mark.parametrize("field", [b"Content-Length: %d" % UNREAD, b"Transfer-Encoding: chunked"])
async def test_a_body_that_the_app_doesnt_read_is_cut_at_the_servers_limit(
    field: bytes, http: ParserName, autojump_clock: MockClock
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert DISCARDS_UNREAD_BODY in scope["extensions"]
        await respond(send, b"no matter")

    piece = bytes(64 * KIB)
    if b"chunked" in field:
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
    async with serving(app, http=http) as running, trio.open_nursery() as nursery:
        client = running.connect_lockstep()
        nursery.start_soon(expect_ok, client)
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % field)
        sent = await sent_until_cut(client, piece, UNREAD)
    assert LINGER_SIZE <= sent <= LINGER_SIZE + MAX_SKIPPED_BODY + 2 * READ_SIZE


async def sent_until_cut(client: Client, piece: bytes, size: int) -> int:
    """Send it over and over; how many bytes the server took before it closed."""
    for sent in range(0, size, len(piece)):
        try:
            await client.send(piece)
        except trio.BrokenResourceError:
            return sent
    return size  # pragma: no cover  that would be all of it


async def expect_ok(client: Client) -> None:
    assert (await client.response()).status == 200
    assert await client.rest() == b""


@EachParser
@pytest.mark.parametrize(("size", "goes_on"), [(MAX_SKIPPED_BODY, True), (2 * MIB, False)])
async def test_a_small_body_that_the_app_doesnt_read_leaves_the_connection_open(
    size: int, goes_on: bool, http: ParserName, autojump_clock: MockClock
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)

    async with serving(app, http=http) as running:
        client = running.connect()
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
        answer = await client.ask(head + bytes(size))
        assert answer.status == 200
        if goes_on:
            assert (await client.ask(GET)).status == 200
        else:  # who keeps its connections is told so, or its next request would be lost
            assert (b"connection", b"close") in answer.fields
            assert await client.rest() == b""


# Times: heads.


async def ends_at(client: Client) -> tuple[float, bytes]:
    """When the server closes, and all that came until then."""
    data = await client.rest()
    return trio.current_time(), data


@asynccontextmanager
async def dribbling(client: Client, pieces: bytes, seconds: float) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble, client, pieces, seconds)
        yield
        nursery.cancel_scope.cancel()


@EachParser
async def test_a_client_that_says_nothing_is_left_when_a_head_would_be_late(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with client_of(echo, http) as client:
        assert await ends_at(client) == (close_to(HEAD_TIMEOUT), b"")


@EachParser
@pytest.mark.parametrize("beginning", [b"G", GET[:-1], b"\r\nG", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_stalls_is_408_at_its_time(
    http: ParserName, beginning: bytes, autojump_clock: MockClock
) -> None:
    async with serving(echo, http=http) as running:
        client = running.connect()
        await trio.sleep(3)
        await client.send(beginning)
        answer = await client.response()
        assert (answer.status, answer[b"connection"]) == (408, [b"close"])
        assert trio.current_time() == close_to(3 + HEAD_TIMEOUT)
        assert await ends_at(client) == (close_to(3 + HEAD_TIMEOUT), b"")
        # The client doesn't close its side: that is waited for, a while.
        await trio.sleep(LINGER_TIME - 0.001)
        assert running.server.statistics().connections_open == 1
        await trio.sleep(0.002)
        assert running.server.statistics().connections_open == 0


@EachParser
@pytest.mark.parametrize("seconds", [0.5, 3, 9])
async def test_a_head_that_dribbles_has_no_more_time(
    http: ParserName, seconds: float, autojump_clock: MockClock
) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 1_000
    async with client_of(echo, http) as client, dribbling(client, head, seconds):
        assert await answered_at(client) == (408, close_to(HEAD_TIMEOUT))


@EachParser
@pytest.mark.parametrize("seconds", [1, 4])
async def test_nor_has_one_that_dribbles_empty_lines(
    http: ParserName, seconds: float, autojump_clock: MockClock
) -> None:
    async with client_of(echo, http) as client, dribbling(client, b"\r\n", seconds):
        with trio.fail_after(2 * HEAD_TIMEOUT + LINGER_TIME):
            await client.rest()


@EachParser
async def test_the_head_of_a_later_request_has_the_same_time(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with client_of(echo, http) as client:
        await client.ask(GET)
        await trio.sleep(4)
        await client.send(GET[:5])
        assert await answered_at(client) == (408, close_to(4 + HEAD_TIMEOUT))
        await client.leave()


@EachParser
async def test_so_has_a_head_whose_beginning_came_with_the_request_before(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with client_of(echo, http) as client:
        await client.ask(GET + GET[:5])
        assert await answered_at(client) == (408, close_to(HEAD_TIMEOUT))
        await client.leave()


@EachParser
async def test_other_times_can_be_set(http: ParserName, autojump_clock: MockClock) -> None:
    limits = ServerLimits(head_timeout=0.5, idle_timeout=0.25)
    async with serving(echo, http=http, limits=limits) as running:
        client = running.connect()
        await client.send(b"G")
        assert await answered_at(client) == (408, close_to(0.5))
        await client.leave()
        client = running.connect()
        await client.ask(GET)
        assert await ends_at(client) == (close_to(0.75), b"")


# Times: keep-alive.


@EachParser
async def test_an_idle_connection_is_closed_without_a_word(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with client_of(echo, http) as client:
        for number in range(3):
            await client.ask(GET)
            assert trio.current_time() == close_to(4 * number)
            await trio.sleep(4 if number < 2 else 0)
        assert await ends_at(client) == (close_to(8 + IDLE_TIMEOUT), b"")


def answering_late(seconds: float) -> ASGIApp:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(seconds)
        await echo(scope, receive, send)

    return app


def returning_late(seconds: float) -> ASGIApp:
    """An app that answers at once, and does something after that."""

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        await trio.sleep(seconds)

    return app


@EachParser
async def test_a_request_that_takes_long_isnt_idle(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with client_of(answering_late(100), http) as client:
        await client.send(GET)
        assert await answered_at(client) == (200, 100)
        assert await ends_at(client) == (close_to(100 + IDLE_TIMEOUT), b"")


async def test_a_request_that_came_in_time_is_served_though_its_server_was_busy(
    autojump_clock: MockClock,
) -> None:
    """Nobody looked when it came; when somebody does, its connection seems idle for too long."""
    patient(autojump_clock)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/block":
            autojump_clock.jump(0.4)  # as it goes on while a handler computes
        await echo(scope, receive, send)

    limits = ServerLimits(idle_timeout=0.3)
    async with (
        listening(app, limits=limits) as server,
        connected(server.urls[0]) as busy,
        connected(server.urls[0]) as client,
    ):
        await busy.ask(GET)
        await client.ask(GET)
        await busy.send(request("/block"))
        await client.send(GET)
        assert (await client.response()).status == 200
        assert (await busy.response()).status == 200


@EachParser
async def test_a_call_that_outlives_its_response_keeps_no_connection(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with client_of(returning_late(100), http) as client:
        await client.ask(GET)
        when, data = await ends_at(client)
        # The sweep finds out, within two of its rounds.
        assert IDLE_TIMEOUT <= when <= IDLE_TIMEOUT + 0.3
        assert data == b""


# Times: bodies.


class Uploads:
    """An app that reads bodies, and says how each ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, str, int]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        self.ends.append((trio.current_time(), message["type"], size))
        await respond(send, b"%d" % size)


BODIES = pytest.mark.parametrize(
    "head",
    [
        POST + b"Content-Length: 100000\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n186a0\r\n",
    ],
    ids=["length", "chunked"],
)


@EachParser
@BODIES
async def test_a_body_that_stalls_is_408_and_the_app_hears_of_it(
    http: ParserName, head: bytes, autojump_clock: MockClock
) -> None:
    uploads = Uploads()
    async with client_of(uploads, http) as client:
        answer = await client.ask(head + b"abc")
        assert (answer.status, answer[b"connection"]) == (408, [b"close"])
        assert trio.current_time() == close_to(BODY_TIMEOUT)
        assert uploads.ends == [(close_to(BODY_TIMEOUT), "http.disconnect", 3)]
        await client.leave()


@EachParser
@BODIES
@pytest.mark.parametrize("seconds", [0.5, 4, 14])
async def test_a_body_that_dribbles_has_no_more_time_than_its_bytes_buy(
    http: ParserName, head: bytes, seconds: float, autojump_clock: MockClock
) -> None:
    async with client_of(Uploads(), http) as client:
        await client.send(head)
        async with dribbling(client, b"a", seconds):
            assert (await client.response()).status == 408
            bought = BODY_TIMEOUT / seconds / MIN_RATE
            assert BODY_TIMEOUT <= trio.current_time() <= BODY_TIMEOUT + bought + 0.01


@EachParser
async def test_chunk_sizes_and_extensions_that_dribble_are_408_too(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with client_of(Uploads(), http) as client:
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        async with dribbling(client, b"1;a=aaaaaaaaaaaaaaaaaaaa\r\nx\r\n", 2):
            assert (await client.response()).status == 408
            assert trio.current_time() <= BODY_TIMEOUT + 0.1


@EachParser
async def test_a_slow_but_steady_body_takes_as_long_as_it_takes(
    http: ParserName, autojump_clock: MockClock
) -> None:
    uploads = Uploads()
    async with client_of(uploads, http) as client:
        await client.send(POST + b"Content-Length: 131072\r\n\r\n")
        for _ in range(128):
            await trio.sleep(1)
            await client.send(b"a" * MIN_RATE)
        assert (await client.response()).body == b"131072"
        assert uploads.ends == [(128, "http.request", 131072)]


@EachParser
async def test_an_app_that_is_slow_to_ask_costs_its_client_no_time(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with client_of(answering_late(10 * BODY_TIMEOUT), http) as client:
        await client.send(POST + b"Content-Length: 4\r\n\r\nab")
        await trio.sleep(11 * BODY_TIMEOUT - 1)
        await client.send(b"cd")
        assert (await client.response()).body == b"abcd"


@EachParser
async def test_a_body_that_nobody_asked_for_is_waited_for_a_moment_only(
    http: ParserName, autojump_clock: MockClock
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"no, thanks")

    async with serving(app, http=http) as running:
        client = running.connect()
        await client.send(POST + b"Content-Length: 100\r\n\r\n")
        async with dribbling(client, b"a", 0.5):
            assert (await client.response()).body == b"no, thanks"
            when, data = await ends_at(client)
            assert when <= 2 * LINGER_TIME + 0.1
            assert data == b""
        assert running.in_flight == 0


# Times: readers.


class Downloads:
    """An app that sends more than anybody holds, and says how that ended."""

    def __init__(self, *, in_one_piece: bool, size: int = MIB) -> None:
        self.ends: list[tuple[float, str]] = []
        self._pieces = [b"x" * size] if in_one_piece else [b"x" * KIB] * (size // KIB)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for piece in self._pieces[:-1]:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": self._pieces[-1]})
        except OSError as exc:
            self.ends.append((trio.current_time(), str(exc)))
        else:
            self.ends.append((trio.current_time(), "sent"))


PIECES = pytest.mark.parametrize("in_one_piece", [False, True])
GONE = "the client doesn't read what it is sent"


@asynccontextmanager
async def downloading(
    app: ASGIApp, http: ParserName, requests: bytes = GET
) -> AsyncIterator[Client]:
    """A client that has asked; what it hasn't read is held by the server alone."""
    async with serving(app, http=http) as running:
        client = running.connect_lockstep()
        await client.send(requests)
        yield client


async def read_slowly(client: Client, size: int, seconds: float, *, within: float) -> int:
    """So many bytes every so many seconds, until the server closes; how many came."""
    total = 0
    with trio.move_on_after(within), contextlib.suppress(trio.BrokenResourceError):
        while data := await client.stream.receive_some(size):
            total += len(data)
            await trio.sleep(seconds)
    return total


@EachParser
@PIECES
async def test_a_reader_that_stalls_is_left_and_the_app_hears_of_it(
    http: ParserName, in_one_piece: bool, autojump_clock: MockClock
) -> None:
    app = Downloads(in_one_piece=in_one_piece)
    async with serving(app, http=http) as running:
        client = running.connect_lockstep()
        await client.send(GET)
        await trio.sleep(WRITE_TIMEOUT - 0.001)
        assert app.ends == []
        assert running.server.statistics().connections_open == 1
        await trio.sleep(0.002)
        assert app.ends == [(close_to(WRITE_TIMEOUT), GONE)]
        assert running.server.statistics().connections_open == 0


@EachParser
@PIECES
@pytest.mark.parametrize(("size", "seconds"), [(1, 0.5), (100, 1), (1, 29)])
async def test_a_reader_that_dribbles_has_no_more_time_than_its_bytes_buy(
    http: ParserName, in_one_piece: bool, size: int, seconds: float, autojump_clock: MockClock
) -> None:
    app = Downloads(in_one_piece=in_one_piece)
    async with downloading(app, http) as client:
        total = await read_slowly(client, size, seconds, within=2 * WRITE_TIMEOUT)
        [(when, why)] = app.ends
        assert why == GONE
        assert WRITE_TIMEOUT - 1 <= when <= WRITE_TIMEOUT + (total + KIB) / MIN_RATE


@EachParser
@PIECES
async def test_a_reader_above_the_rate_gets_all_of_it(
    http: ParserName, in_one_piece: bool, autojump_clock: MockClock
) -> None:
    app = Downloads(in_one_piece=in_one_piece, size=256 * KIB)
    async with downloading(app, http) as client:
        total = await read_slowly(client, MIN_RATE * 5 // 4, 1, within=300)
        assert [why for _, why in app.ends] == ["sent"]
        assert total > 256 * KIB


@EachParser
async def test_a_reader_that_stalls_gets_nothing_after_the_gap(
    http: ParserName, autojump_clock: MockClock
) -> None:
    """The response broke off: what is written after it would be taken for a part of it."""
    app = Downloads(in_one_piece=True)
    async with downloading(app, http, GET + GET) as client:
        await trio.sleep(WRITE_TIMEOUT + 1)
        total = await read_slowly(client, 64 * KIB, 0, within=60)
        assert len(app.ends) == 1
        assert total < MIB


async def test_a_socket_is_read_above_the_rate_and_isnt_cut_off(
    autojump_clock: MockClock,
) -> None:
    """Its kernel buffers take megabytes at a time: that it doesn't take more now means little."""
    patient(autojump_clock)
    app = Downloads(in_one_piece=True, size=16 * MIB)
    limits = ServerLimits(write_timeout=0.5)
    async with (
        listening(app, limits=limits) as server,
        connected(server.urls[0], receive_buffer=64 * KIB) as client,
    ):
        await client.send(GET)
        await read_slowly(client, 20 * KIB, 0.05, within=1.0)  # 400 times the rate
        assert app.ends == []
        server.cancel()


class Remembering(socket.socket):
    """A listening socket that remembers whom it has accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.accepted: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, Any]:
        sock, address = super().accept()
        self.accepted.append(sock)
        return sock, address


async def test_what_the_kernel_holds_for_a_reader_is_bounded() -> None:
    """By itself it takes megabytes: memory, and time until a reader that stalls is seen."""
    app = Downloads(in_one_piece=True, size=16 * MIB)
    listener = Remembering()
    async with (
        listening(app, sockets=[listener]) as server,
        connected(server.urls[0], receive_buffer=4 * KIB) as client,
    ):
        await client.send(GET)
        await client.stream.receive_some(1)
        backlog = SocketTransport(listener.accepted[0]).backlog()
        assert backlog is not None
        assert backlog < 2 * MAX_UNSENT
        server.cancel()


@EachParser
async def test_a_long_download_isnt_idle(http: ParserName, autojump_clock: MockClock) -> None:
    """The app has made its last call; the client reads steadily, longer than it may be idle."""
    app = Downloads(in_one_piece=True, size=MIB)
    async with downloading(app, http) as client:
        total = await read_slowly(client, 64 * KIB, 2, within=300)
        assert [why for _, why in app.ends] == ["sent"]
        assert total > MIB


@EachParser
async def test_a_pipelined_request_waits_for_a_long_download(
    http: ParserName, autojump_clock: MockClock
) -> None:
    size = MIB
    calls: list[float] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(trio.current_time())
        await respond(send, b"xy"[len(calls) - 1 :][:1] * size)

    async with downloading(app, http, GET + GET) as client:
        received = b""
        with trio.move_on_after(300):
            while data := await client.stream.receive_some(64 * KIB):
                received += data
                await trio.sleep(0.5)
        assert received.count(b"x" * size) == 1
        assert received.count(b"y" * size) == 1
        assert calls[1] > 7


# Counts.


async def asked(client: Client, answers: list[int]) -> None:
    answers.append((await client.ask(GET)).status)


@EachParser
async def test_past_so_many_requests_in_flight_there_is_503(http: ParserName) -> None:
    gate = Gate()
    async with serving(gate, http=http, limits=ServerLimits(max_requests=2)) as running:
        answers: list[int] = []
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(asked, running.connect(), answers)
            await wait_all_tasks_blocked()
            client = running.connect()
            refusal = await client.ask(GET)
            assert refusal.status == 503
            assert refusal[b"retry-after"] == [b"1"]
            assert refusal[b"connection"] == [b"close"]
            assert gate.waiting == gate.most == 2
            await client.leave()
            gate.open()
        assert answers == [200, 200]
        assert running.in_flight == 0
        assert (await running.connect().ask(GET)).status == 200


@EachParser
async def test_who_sends_a_body_slowly_takes_nobodys_place(
    http: ParserName, autojump_clock: MockClock
) -> None:
    """Else so many slow bodies as there may be requests were a wall for everybody else."""
    limits = ServerLimits(max_requests=1, body_timeout=15)
    async with serving(echo, http=http, limits=limits) as running:
        slow = [running.connect() for _ in range(5)]
        for client in slow:
            await client.send(POST + b"Content-Length: 3\r\n\r\n1")
        await wait_all_tasks_blocked()
        assert running.in_flight == 0
        assert (await running.connect().ask(GET)).status == 200
        reader = running.connect_lockstep()
        await reader.send(POST + b"Content-Length: 9999\r\n\r\n" + b"x" * 9999)
        await wait_all_tasks_blocked()
        assert running.in_flight == 0
        assert (await running.connect().ask(GET)).status == 200
        await slow[0].send(b"23")
        assert (await slow[0].response("POST")).status == 200
        answers = [statuses(await client.rest()) for client in slow[1:]]
        assert answers == [[408]] * 4
        assert running.in_flight == 0


@EachParser
async def test_who_is_refused_for_that_leaves_no_body_behind(
    http: ParserName, autojump_clock: MockClock
) -> None:
    gate = Gate()
    async with serving(gate, http=http, limits=ServerLimits(max_requests=1)) as running:
        await running.connect().send(GET)
        await wait_all_tasks_blocked()
        client = running.connect()
        await client.send(POST + b"Content-Length: 50\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert statuses(await client.rest()) == [503]
        gate.open()


@EachParser
async def test_a_refusal_reaches_its_client(http: ParserName) -> None:
    """Who is told to come back later isn't reset before it has read that."""
    gate = Gate()
    limits = ServerLimits(max_requests=1)
    async with (
        listening(gate, http=http, limits=limits) as server,
        connected(server.urls[0]) as holder,
        connected(server.urls[0]) as client,
    ):
        await holder.send(GET)
        await gate.begun.wait()
        await client.send(GET)
        assert statuses(await client.rest()) == [503]
        gate.open()
        assert (await holder.response()).status == 200


@EachParser
async def test_a_call_that_outlives_its_response_is_no_request_in_flight(
    http: ParserName, autojump_clock: MockClock
) -> None:
    app = returning_late(10)
    async with serving(app, http=http, limits=ServerLimits(max_requests=1)) as running:
        await running.connect().ask(GET)
        await trio.sleep(0.5)
        assert running.in_flight == 0
        assert (await running.connect().ask(GET)).status == 200


@EachParser
@pytest.mark.parametrize("count", [1, 3])
async def test_the_last_request_of_a_connection_says_so(http: ParserName, count: int) -> None:
    limits = ServerLimits(max_connection_requests=count)
    async with serving(echo, http=http, limits=limits) as running:
        client = running.connect()
        said = [(await client.ask(GET))[b"connection"] for _ in range(count)]
        assert said == [[]] * (count - 1) + [[b"close"]]
        assert await client.rest() == b""
        client = running.connect()
        await client.send(GET * (count + 2))
        await client.stream.send_eof()
        assert statuses(await client.rest()) == [200] * count


@pytest.mark.parametrize("leaving", ["closes", "idles", "stalls"])
async def test_past_so_many_connections_nobody_is_accepted_until_one_ends(
    leaving: str, autojump_clock: MockClock
) -> None:
    patient(autojump_clock)
    limits = ServerLimits(max_connections=2, head_timeout=0.2, idle_timeout=0.2)
    gate = Gate()
    gate.open()
    async with listening(gate, limits=limits) as server:
        [url] = server.urls
        async with connected(url) as one, connected(url) as two, connected(url) as three:
            await one.ask(GET)
            await three.send(GET)
            if leaving == "stalls":
                await two.send(b"G")
            with trio.move_on_after(0.1) as scope:
                await three.response()
            assert scope.cancelled_caught
            if leaving == "closes":
                await two.leave()
            with trio.fail_after(5):
                assert (await three.response()).status == 200


async def test_places_are_given_back_by_clients_that_come_and_go() -> None:
    async with listening(echo, limits=ServerLimits(max_connections=3)) as server:
        for _ in range(20):
            async with connected(server.urls[0]) as client:
                with trio.fail_after(PATIENCE):
                    assert (await client.ask(GET)).status == 200


async def test_limits_come_with_an_app_and_can_be_given_to_the_server() -> None:
    app = App(limits=Limits(max_target_size=10))

    async def status(running: Running) -> int:
        client = running.connect()
        answer = await client.ask(b"GET /0123456789 HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.leave()
        return answer.status

    async with serving(app) as running:
        assert await status(running) == 414
    async with serving(app, limits=ServerLimits()) as running:
        assert await status(running) == 404


@pytest.mark.parametrize(("own", "status"), [(None, 431), (ServerLimits(), 404)])
async def test_middleware_doesnt_hide_the_limits_of_its_app(
    own: ServerLimits | None, status: int
) -> None:
    """The app says them as it starts; those that the server was given go before."""
    app = App(limits=Limits(max_head_size=1_000))

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    async with serving(middleware, limits=own) as running:
        client = running.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n" % (b"a" * 3_000))
        assert (await client.response()).status == status
