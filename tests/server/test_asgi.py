"""ASGI as the specification has it: by messages, and with apps that nobody here wrote."""

import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import fastapi
import pytest
import quart_trio
import starlette.requests
import starlette.responses
import trio
from quart import request as quart_request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.routing import Route
from trio.testing import MockClock, Sequencer, wait_all_tasks_blocked

from trioweb._asgi import DISCARDS_UNREAD_BODY
from trioweb.server import ClientGone, ProtocolMisuse, ServerLimits, StartupFailed

from ..support.log_records import messages
from ..support.server_driver import (
    GET,
    Client,
    EachParser,
    ParserName,
    Recorder,
    Response,
    echo,
    http_app,
    respond,
    serving,
    statuses,
    without_bugs,
)

KIB = 1024
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
WAIT_FOR_CONTINUE = POST[:-2] + b"Expect: 100-continue\r\n\r\n"


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server has logged as somebody's failure."""
    return messages(caplog, "trioweb.server", level=logging.ERROR)


async def scope_of(raw: bytes, http: str = "h11", **options: Any) -> Any:
    """The scope that an app gets for this request."""
    app = Recorder()
    async with serving(app, http=http, **options) as server:
        client = server.connect()
        assert statuses(bytes(await ask(client, raw))) == [200]
    [scope] = app.scopes
    return scope


async def ask(client: Client, raw: bytes) -> bytes:
    """Send it, be done, and read all that comes."""
    await client.send(raw)
    await client.stream.send_eof()
    return await client.rest()


# Scope


@EachParser
async def test_every_key_of_the_scope(http: ParserName, autojump_clock: MockClock) -> None:
    app = Recorder()
    async with serving(app, http=http) as server:
        client = server.connect(client=("192.0.2.1", 5000), server=("192.0.2.2", 80))
        await client.ask(
            b"POST /a%20b/%C3%A9%2Fc;d//?x=%20&y#z HTTP/1.1\r\nHost: Example.com\r\n"
            b"X-Twice: 1\r\ncontent-length: 0\r\nx-twice:\t2 \r\nEmpty:\r\nOther: caf\xe9\r\n\r\n"
        )
        await client.leave()
    assert app.scopes == [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/a b/é/c;d//",
            "raw_path": b"/a%20b/%C3%A9%2Fc;d//",
            "query_string": b"x=%20&y",
            "root_path": "",
            "headers": [
                (b"host", b"Example.com"),
                (b"x-twice", b"1"),
                (b"content-length", b"0"),
                (b"x-twice", b"2"),
                (b"empty", b""),
                (b"other", b"caf\xe9"),
            ],
            "client": ("192.0.2.1", 5000),
            "server": ("192.0.2.2", 80),
            "extensions": {"http.response.trailers": {}, DISCARDS_UNREAD_BODY: {}},
            "state": {},
        }
    ]


@EachParser
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", {"http_version": "1.0", "headers": []}),
        (GET, {"client": None, "server": None, "query_string": b""}),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", {"path": "*", "raw_path": b"*"}),
        (
            b"GET http://u:p@Y:1/a?b HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n",
            {
                "path": "/a",
                "query_string": b"b",
                "headers": [(b"host", b"Y:1"), (b"a", b"b")],
                "scheme": "http",
            },
        ),
        (
            b"GET https://y?b HTTP/1.1\r\nHost: x\r\n\r\n",
            {"path": "/", "raw_path": b"/", "query_string": b"b", "scheme": "http"},
        ),
        (b"GET http://y HTTP/1.0\r\n\r\n", {"path": "/", "headers": [(b"host", b"y")]}),
        (b"BREW /%ff%zz HTTP/1.1\r\nHost: x\r\n\r\n", {"method": "BREW", "path": "/�%zz"}),
        (b"CONNECT y:1 HTTP/1.1\r\nHost: y:1\r\n\r\n", {"method": "CONNECT", "path": "y:1"}),
    ],
)
async def test_the_scope_of(
    raw: bytes, expected: dict[str, Any], http: ParserName, autojump_clock: MockClock
) -> None:
    scope = await scope_of(raw, http)
    assert {key: scope[key] for key in expected} == expected


async def test_a_root_path_stands_in_front(autojump_clock: MockClock) -> None:
    scope = await scope_of(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", root_path="/é/")
    assert (scope["root_path"], scope["path"]) == ("/é", "/é/a")
    assert scope["raw_path"] == b"/%C3%A9/a"


async def test_what_an_app_does_to_its_scope_is_gone_with_the_request(
    autojump_clock: MockClock,
) -> None:
    scopes: list[str] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(repr(scope))
        for extension in scope["extensions"].values():
            extension["mine"] = True
        scope["extensions"].clear()
        scope["asgi"]["version"] = "9"
        scope["headers"].append((b"a", b"b"))
        scope["state"] = scope["path"] = "changed"
        await respond(send)

    async with serving(app) as server:
        client = server.connect()
        for _ in range(2):
            assert (await client.ask(GET)).status == 200
    assert scopes[0] == scopes[1]


# Receive


async def test_a_body_in_pieces(autojump_clock: MockClock) -> None:
    messages: list[Any] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not messages or messages[-1].get("more_body"):
            messages.append(await receive())
        await respond(send)

    async with serving(app) as server:
        client = server.connect()
        await client.send(POST)
        for piece in (b"he", b"l", b"lo"):
            await wait_all_tasks_blocked()
            await client.send(piece)
        await client.response()
    assert messages == [
        {"type": "http.request", "body": b"he", "more_body": True},
        {"type": "http.request", "body": b"l", "more_body": True},
        {"type": "http.request", "body": b"lo", "more_body": False},
    ]


@EachParser
@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (GET, b""),
        (POST + b"hello", b"hello"),
        (CHUNKED + b"2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nx: y\r\n\r\n", b"hello"),
        (CHUNKED + b"0\r\n\r\n", b""),
    ],
)
async def test_a_body_however_it_is_framed(
    raw: bytes, body: bytes, http: ParserName, autojump_clock: MockClock
) -> None:
    async with serving(echo, http=http) as server:
        client = server.connect()
        for _ in range(3):
            assert (await client.ask(raw)).body == body


class Listener:
    """An app that reads its request, waits for what comes next, and may then answer."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            while not self.seen or self.seen[-1]["type"] != "http.disconnect":
                self.seen.append(await receive())
            self.seen.append(await receive())
            await send({"type": "http.response.start", "status": 200})
            for _ in range(2):
                with pytest.raises(OSError, match="left") as caught:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                assert isinstance(caught.value, ClientGone)


@pytest.mark.parametrize("raw", [GET, POST + b"hello", POST + b"hel", CHUNKED + b"2\r\nh"])
async def test_a_client_that_leaves(
    raw: bytes, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = Listener()
    async with serving(app) as server:
        client = server.connect()
        await client.send(raw)
        await wait_all_tasks_blocked()
        await client.leave()
    assert [message["type"] for message in app.seen[-2:]] == ["http.disconnect"] * 2
    assert errors(caplog) == []


@pytest.mark.parametrize("raw", [GET, POST + b"hello", GET + GET])
async def test_a_client_that_has_left_before_its_answer_is_nobodys_failure(
    raw: bytes, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(1)
        await respond(send, b"hello")

    async with serving(app) as server:
        client = server.connect()
        await client.send(raw)
        await wait_all_tasks_blocked()
        await client.leave()
        await trio.sleep(2)
        assert server.in_flight == 0
    assert errors(caplog) == []


async def test_after_the_response_there_is_nothing_to_receive(autojump_clock: MockClock) -> None:
    messages: list[Any] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)
        messages.append(await receive())
        messages.append(await receive())

    async with serving(app) as server:
        client = server.connect()
        await client.ask(GET)
        assert (await client.ask(GET)).status == 200
    assert messages == [{"type": "http.disconnect"}] * 4


async def test_who_waits_for_the_client_to_leave_is_told_of_the_end_of_the_response(
    autojump_clock: MockClock,
) -> None:
    told: list[Any] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            told.append(await receive())

        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            nursery.start_soon(listen)
            await wait_all_tasks_blocked()
            await respond(send)

    async with serving(app) as server:
        client = server.connect()
        # The second comes while the first is watched for its client's leaving.
        await client.send(GET + GET)
        assert [(await client.response()).status for _ in range(2)] == [200, 200]
    assert told == [{"type": "http.disconnect"}] * 4


async def test_a_receive_that_is_cancelled_loses_nothing(autojump_clock: MockClock) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            with trio.move_on_after(0.5):
                await receive()
        await echo(scope, receive, send)

    async with serving(app) as server:
        client = server.connect()
        await client.send(POST)
        await trio.sleep(2)
        assert (await client.ask(b"hello")).body == b"hello"


# Send


@pytest.mark.parametrize("kind", ["http.request", "websocket.accept", "", "http.response.push"])
async def test_other_messages_are_refused(kind: str, autojump_clock: MockClock) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ProtocolMisuse, match="an HTTP response has no message"):
            await send({"type": kind})
        await respond(send)

    async with serving(app) as server:
        assert (await server.connect().ask(GET)).status == 200


async def test_trailers(autojump_clock: MockClock) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "trailers": True})
        await send({"type": "http.response.body", "body": b"hello"})
        await send({"type": "http.response.trailers", "headers": [(b"a", b"b")]})

    async with serving(app) as server:
        client = server.connect()
        for _ in range(2):
            found = await client.ask(GET)
            assert (found.body, found.trailers) == (b"hello", [(b"a", b"b")])


async def test_a_streamed_response_arrives_as_it_is_made(autojump_clock: MockClock) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for n in range(3):
            await trio.sleep(1)
            await send({"type": "http.response.body", "body": b"%d" % n, "more_body": True})
        await send({"type": "http.response.body"})

    arrived: list[float] = []
    async with serving(app) as server:
        client = server.connect()
        began = trio.current_time()
        await client.send(GET)
        for _ in range(3):
            await client.stream.receive_some()
            arrived.append(trio.current_time() - began)
    assert arrived == [1, 2, 3]


async def test_a_response_that_was_cancelled_on_its_way_ends_the_connection(
    autojump_clock: MockClock,
) -> None:
    """Nothing that follows can be taken for the rest of it."""
    calls = 0

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        with trio.move_on_after(0.05):
            await respond(send, b"a" * 200 * KIB)

    async with serving(app) as server:
        client = server.connect_lockstep()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, GET + GET)
            await trio.sleep(1)
            assert len(await client.rest()) < 100 * KIB
    assert calls == 1


async def test_a_slow_reader_gets_its_responses_one_after_the_other(
    autojump_clock: MockClock,
) -> None:
    """Its connection is served by one task at a time, also when the first takes long."""
    app_calls = 0

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal app_calls
        app_calls += 1
        await respond(send, b"%d" % app_calls * 200 * KIB)

    async with serving(app) as server:
        client = server.connect_lockstep()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, GET + GET)
            await trio.sleep(3)
            assert app_calls == 1
            first, second = await client.response(), await client.response()
        await wait_all_tasks_blocked()
        assert server.in_flight == 0
        await client.leave()
    assert first.body == b"1" * 200 * KIB
    assert second.body == b"2" * 200 * KIB


# What an app may do wrong


async def returns(scope: Any, receive: Any, send: Any) -> None:
    pass


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise ZeroDivisionError


async def starts_and_raises(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    raise ZeroDivisionError


async def starts_and_returns(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})


async def sends_body_first(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"hello"})


def answers(body: Any, *headers: Any, status: Any = 200) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def raises_a_group(scope: Any, receive: Any, send: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises, scope, receive, send)


async def cancels_itself(scope: Any, receive: Any, send: Any) -> None:
    with trio.CancelScope() as scope_of_its_own:
        scope_of_its_own.cancel()
        await trio.lowlevel.checkpoint()


@EachParser
@pytest.mark.parametrize(
    "app",
    [
        returns,
        raises,
        starts_and_raises,
        starts_and_returns,
        sends_body_first,
        raises_a_group,
        cancels_itself,
        answers(b"hello", (b"content-length", b"4")),
        answers(b"hello", (b"content-length", b"6")),
        answers(b"hello", (b"content-length", b"x")),
        answers(b"hello", (b"x", b"y\r\nevil: yes")),
        answers(b"hello", (b"x\r\nevil", b"y")),
        answers(b"hello", ("x", "y")),
        answers(b"hello", (b"x", "y")),
        answers(b"hello", b"x"),
        answers("hello"),
        answers(None),
        answers(5),
        answers(b"", status=100),
        answers(b"", status="200"),
    ],
)
async def test_an_app_that_fails_is_answered_for(
    app: Any, http: ParserName, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(http_app(app), http=http) as server:
        client = server.connect()
        found = await client.ask(b"GET /bad?a HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        assert found.status == 500
        assert found[b"connection"] == [b"close"]
        assert b"evil" not in repr(found.fields).encode()
        await client.leave()
        assert server.in_flight == 0
        assert (await server.connect().ask(GET)).status == 500  # the server goes on
    assert errors(caplog)[0].startswith("GET /bad?a")
    assert len(errors(caplog)) == 2


async def breaks_off(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hel", "more_body": True})


async def breaks_off_raising(scope: Any, receive: Any, send: Any) -> None:
    await breaks_off(scope, receive, send)
    raise ZeroDivisionError


def sends_pieces(*pieces: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


@pytest.mark.parametrize(
    "app",
    [
        breaks_off,
        breaks_off_raising,
        sends_pieces(b"hel"),
        sends_pieces(b"hel", b"lo!"),
        sends_pieces(b"hel", "lo"),
        sends_pieces(b"hel", None),
    ],
)
async def test_a_response_that_breaks_off_is_not_taken_for_whole(
    app: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(http_app(app)) as server:
        client = server.connect()
        await client.send(GET + GET)
        received = await client.rest()
        assert server.in_flight == 0
    assert b"hel" in received
    assert statuses(received) == [200]
    assert not received.endswith((b"0\r\n\r\n", b"hello"))
    assert len(errors(caplog)) == 1


async def test_what_comes_after_the_response_is_the_apps_own_failure(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"hello")
        with pytest.raises(ProtocolMisuse):
            await send({"type": "http.response.body", "body": b"more"})
        raise ZeroDivisionError

    async with serving(app) as server:
        client = server.connect()
        for _ in range(2):
            assert (await client.ask(GET)).body == b"hello"
    assert errors(caplog) == ["GET / failed"] * 2


async def test_an_app_that_catches_the_refusal_may_answer(autojump_clock: MockClock) -> None:
    """As middleware does that turns exceptions into responses."""

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ProtocolMisuse):
            await answers(b"hello", (b"content-length", b"4"), (b"a", b"\n"))(scope, receive, send)
        await respond(send, b"sorry", status=500)

    async with serving(app) as server:
        client = server.connect()
        for _ in range(2):
            found = await client.ask(GET)
            assert (found.status, found.body) == (500, b"sorry")


# Lifespan


async def test_state_of_the_lifespan_is_in_each_scope(autojump_clock: MockClock) -> None:
    states: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            scope["state"]["shared"] = states
            scope["state"]["number"] = 1
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            states.append("closed")
            await send({"type": "lifespan.shutdown.complete"})
        else:
            state = scope["state"]
            state["shared"].append(state["number"])
            state["number"] += 1  # a copy: the next one gets 1 again
            await respond(send)

    async with serving(app) as server:
        client = server.connect()
        for _ in range(2):
            await client.ask(GET)
        assert states == [1, 1]
    assert states == [1, 1, "closed"]


async def test_a_lifespan_that_fails_is_not_served(autojump_clock: MockClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.RaisesGroup(pytest.RaisesExc(StartupFailed, match="no database")):
        async with serving(app):
            pytest.fail("it was served")  # pragma: no cover


# Requests on one connection


@EachParser
async def test_answers_come_in_order_one_at_a_time(
    http: ParserName, autojump_clock: MockClock
) -> None:
    running = 0

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await trio.sleep(1 / (1 + len(scope["path"])))  # the later ones would be faster
        running -= 1
        await echo(scope, receive, send)

    requests = [
        b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n%2d" % (b"a" * n, n)
        for n in range(30)
    ]
    async with serving(app, http=http) as server:
        client = server.connect()
        await client.send(b"".join(requests))
        await trio.sleep(30)  # all of them wait to be read
        bodies = [(await client.response()).body for _ in requests]
    assert bodies == [b"%2d" % n for n in range(30)]


async def test_what_follows_a_bad_request_is_not_served(autojump_clock: MockClock) -> None:
    app = Recorder()
    async with serving(app) as server:
        received = await ask(server.connect(), GET + b"GET / HTTP/9.9\r\n\r\n" + GET)
    assert statuses(received) == [200, 505]
    assert len(app.scopes) == 1


@EachParser
async def test_continue_is_said_when_the_body_is_asked_for(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with serving(echo, http=http) as server:
        client = server.connect()
        await client.send(WAIT_FOR_CONTINUE)
        assert await client.stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        found = await client.ask(b"hello")
        assert (found.body, found.informational) == (b"hello", ())
        assert (await client.ask(GET)).status == 200  # and the connection goes on


async def test_continue_is_not_said_where_the_body_has_come(autojump_clock: MockClock) -> None:
    async with serving(echo) as server:
        found = await server.connect().ask(WAIT_FOR_CONTINUE + b"hello")
    assert (found.body, found.informational) == (b"hello", ())


async def test_who_is_not_asked_for_the_body_does_not_send_it(autojump_clock: MockClock) -> None:
    async with serving(Recorder()) as server:
        client = server.connect()
        found = await client.ask(WAIT_FOR_CONTINUE)
        assert (found.informational, found[b"connection"]) == ((), [b"close"])
        await client.stream.send_eof()
        assert await client.rest() == b""


@EachParser
@pytest.mark.parametrize("expectation", [b"200-ok", b"100-continue, other"])
async def test_other_expectations(
    expectation: bytes, http: ParserName, autojump_clock: MockClock
) -> None:
    app = Recorder()
    async with serving(app, http=http) as server:
        raw = POST[:-2] + b"Expect: %b\r\n\r\nhello" % expectation
        assert statuses(await ask(server.connect(), raw + GET)) == [417]
    assert app.scopes == []


@EachParser
async def test_head(http: ParserName, autojump_clock: MockClock) -> None:
    app = http_app(answers(b"hello", (b"content-length", b"5")))
    async with serving(app, http=http) as server:
        client = server.connect()
        found = await client.ask(GET.replace(b"GET", b"HEAD"), "HEAD")
        assert (found[b"content-length"], found.body) == ([b"5"], b"")
        assert (await client.ask(GET)).body == b"hello"


@EachParser
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"x/1, y"])
async def test_an_upgrade_is_left_alone(
    protocol: bytes, http: ParserName, autojump_clock: MockClock
) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocol
    async with serving(echo, http=http) as server:
        client = server.connect()
        assert (await client.ask(GET[:-2] + upgrade)).status == 200
        assert (await client.ask(POST[:-2] + upgrade + b"hello")).body == b"hello"
        assert (await client.ask(GET)).status == 200


@EachParser
@pytest.mark.parametrize("fields", [b"", b"Connection: keep-alive\r\n"])
async def test_nothing_follows_a_connect(
    fields: bytes, http: ParserName, autojump_clock: MockClock
) -> None:
    app = Recorder()
    async with serving(app, http=http) as server:
        raw = b"CONNECT y:1 HTTP/1.1\r\nHost: y:1\r\n%b\r\n" % fields
        received = await ask(server.connect(), raw + GET)
    assert statuses(received) == [200]
    assert b"connection: close" in received
    assert [scope["method"] for scope in app.scopes] == ["CONNECT"]


@EachParser
async def test_http_1_0_keeps_a_connection_if_asked(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with serving(echo, http=http) as server:
        client = server.connect()
        for _ in range(2):
            found = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert found[b"connection"] == [b"keep-alive"]
        assert (await client.ask(b"GET / HTTP/1.0\r\n\r\n"))[b"connection"] == [b"close"]
        assert await client.rest() == b""


@pytest.mark.parametrize("raw", [GET, POST + b"hello", CHUNKED + b"0\r\n\r\n", GET + GET])
async def test_a_client_that_closes_its_side_gets_its_answers(
    raw: bytes, autojump_clock: MockClock
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(1)
        await echo(scope, receive, send)

    async with serving(app) as server:
        received = await ask(server.connect(), raw)
    assert statuses(received) == [200] * raw.count(b"HTTP/1.1")


@pytest.mark.parametrize("raw", [POST + b"hel", CHUNKED + b"3\r\nhe", CHUNKED + b"0\r\n"])
async def test_a_request_that_ends_too_early_is_the_clients_fault(
    raw: bytes, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo) as server:
        assert [s for s in statuses(await ask(server.connect(), raw)) if s != 400] == []
    assert errors(caplog) == []


@pytest.mark.parametrize(
    ("raw", "served"),
    [
        (POST + b"hello", True),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", True),
        (POST.replace(b"5", b"99999") + b"a" * 99_999, False),
        (CHUNKED + b"zzz\r\n", False),
    ],
)
async def test_a_body_that_nobody_has_read(
    raw: bytes, served: bool, autojump_clock: MockClock
) -> None:
    """It's read away, or the connection closed: never taken for a request."""
    app = Recorder()
    async with serving(app) as server:
        received = await ask(server.connect(), raw + GET)
    assert statuses(received) == [200, 200] if served else [200]
    assert len(app.scopes) == len(statuses(received))


async def test_a_body_that_nobody_reads_and_that_comes_slowly(autojump_clock: MockClock) -> None:
    """While it's read away, the connection is still one task's."""
    app = Recorder()
    async with serving(app) as server:
        client = server.connect()
        await client.ask(POST + b"hel")
        await trio.sleep(1)
        assert (await client.ask(b"lo" + GET)).status == 200
        assert server.in_flight == 0
    assert len(app.scopes) == 2


async def test_a_body_that_nobody_reads_and_that_never_comes(autojump_clock: MockClock) -> None:
    async with serving(Recorder()) as server:
        client = server.connect()
        await client.ask(POST + b"hel")
        began = trio.current_time()
        assert await client.rest() == b""
        assert 1 < trio.current_time() - began < 10
        assert server.in_flight == 0


async def test_line_ends_one_by_one_buy_no_time(autojump_clock: MockClock) -> None:
    """A head has so many seconds, whatever stands in front of it."""
    limits = ServerLimits(head_timeout=10)
    async with serving(echo, limits=limits) as server:
        client = server.connect()
        with trio.move_on_after(60) as patience, pytest.raises(trio.BrokenResourceError):
            await drip(client, b"\r\n")
        assert not patience.cancelled_caught
        assert trio.current_time() < 30


async def drip(client: Client, data: bytes) -> None:
    """A byte now and then, for ever."""
    while True:
        for byte in data:
            await client.send(bytes([byte]))
            await trio.sleep(4)


# Calls that go on after their response


async def test_a_call_that_goes_on_leaves_its_connection(autojump_clock: MockClock) -> None:
    order = Sequencer()
    ended: list[str] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, scope["path"].encode())
        if scope["path"] == "/slow":
            async with order(1):
                ended.append(scope["path"])

    async with serving(app) as server:
        client = server.connect()
        assert (await client.ask(GET.replace(b"/ ", b"/slow "))).body == b"/slow"
        async with order(0):
            await trio.sleep(1)
            assert server.in_flight == 0
            for _ in range(3):
                assert (await client.ask(GET)).body == b"/"
        await trio.sleep(1)
        assert ended == ["/slow"]
        assert (await client.ask(GET)).body == b"/"  # what was left behind takes nothing with it
        assert server.in_flight == 0


async def test_a_call_that_goes_on_may_fail_and_listen(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)
        await trio.sleep(1)
        assert await receive() == {"type": "http.disconnect"}
        raise ZeroDivisionError

    async with serving(app) as server:
        client = server.connect()
        for _ in range(3):
            assert (await client.ask(GET)).status == 200
            await trio.sleep(0.5)
    assert errors(caplog) == ["GET / failed"] * 3


async def test_a_handed_over_connection_is_gone_with_its_client(autojump_clock: MockClock) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)
        await trio.sleep(10)

    async with serving(app) as server:
        client = server.connect()
        await client.ask(GET)
        await trio.sleep(1)
        await client.leave()
        await wait_all_tasks_blocked()
        assert server.server.statistics().connections_open == 0
        began = trio.current_time()
    assert trio.current_time() - began < 10  # the call ends before the server does


name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


async def test_contextvars_are_gone_with_their_request(autojump_clock: MockClock) -> None:
    found: list[str] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(name.get())
        name.set(scope["path"])
        await respond(send)
        if scope["path"] == "/slow":
            await trio.sleep(1)
            found.append(name.get())

    async with serving(app) as server:
        client = server.connect()
        await client.send(GET + GET.replace(b"/ ", b"/slow "))
        for _ in range(2):
            await client.response()
        await trio.sleep(0.5)  # the connection is handed over
        for _ in range(2):
            await client.ask(GET)
        await trio.sleep(1)
        await server.connect().ask(GET)
    assert found == ["nobody"] * 4 + ["/slow", "nobody"]


# Starlette


class Forever:
    """A stream that goes on until it's closed."""

    def __init__(self) -> None:
        self.closed = False
        self.steps = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"piece"
                self.steps += 1
                await trio.sleep(1)
        finally:
            self.closed = True


class ClosingResponse(starlette.responses.StreamingResponse):
    """Starlette's own leaves a generator to the garbage collector when its client has left."""

    async def __call__(self, *args: Any) -> None:
        stream: Any = self.body_iterator
        async with contextlib.aclosing(stream):
            await super().__call__(*args)


def starlette_app(endpoint: Any, **options: Any) -> Any:
    return Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])], **options)


@EachParser
async def test_starlette_routes(http: ParserName, autojump_clock: MockClock) -> None:
    async def item(request: starlette.requests.Request) -> starlette.responses.Response:
        body = await request.body()
        return starlette.responses.JSONResponse(
            [request.path_params, dict(request.query_params), body.decode()]
        )

    app = Starlette(routes=[Route("/items/{id:int}", item, methods=["GET", "POST"])])
    async with serving(app, http=http) as server:
        client = server.connect()
        post = POST.replace(b"/ ", b"/items/5?a=b ") + b"hello"
        assert (await client.ask(post)).body == b'[{"id":5},{"a":"b"},"hello"]'
        assert (await client.ask(GET)).status == 404
        assert (await client.ask(post.replace(b"POST", b"PATCH"))).status == 405


async def test_starlette_streams(autojump_clock: MockClock) -> None:
    async def stream() -> AsyncIterator[str]:
        for n in range(3):
            await trio.sleep(1)
            yield str(n)

    async def endpoint(request: starlette.requests.Request) -> starlette.responses.Response:
        return starlette.responses.StreamingResponse(stream())

    async with serving(starlette_app(endpoint)) as server:
        client = server.connect()
        for _ in range(2):
            found = await client.ask(GET)
            assert (found.body, found[b"transfer-encoding"]) == (b"012", [b"chunked"])


async def test_a_starlette_stream_stops_when_its_client_leaves(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Forever()

    async def endpoint(request: starlette.requests.Request) -> starlette.responses.Response:
        return ClosingResponse(source.pieces())

    async with serving(starlette_app(endpoint)) as server:
        client = server.connect()
        await client.send(GET)
        await trio.sleep(2.5)
        await client.leave()
        await trio.sleep(2)
        assert server.in_flight == 0
        assert (source.steps, source.closed) == (3, True)
    assert errors(caplog) == []


async def test_starlette_notices_a_client_that_has_left(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bool] = []

    async def endpoint(request: starlette.requests.Request) -> starlette.responses.Response:
        await request.body()
        while True not in seen and len(seen) < 10:
            await trio.sleep(1)
            seen.append(await request.is_disconnected())
        return starlette.responses.Response()

    async with serving(starlette_app(endpoint)) as server:
        client = server.connect()
        await client.send(GET)
        await trio.sleep(2.5)
        await client.leave()
    assert seen == [False, False, True]
    assert errors(caplog) == []


async def test_starlette_runs_its_tasks_after_the_response(autojump_clock: MockClock) -> None:
    ran: list[float] = []

    async def task(seconds: float) -> None:
        await trio.sleep(seconds)
        ran.append(trio.current_time())

    async def endpoint(request: starlette.requests.Request) -> starlette.responses.Response:
        return starlette.responses.PlainTextResponse("hello", background=BackgroundTask(task, 5))

    async with serving(starlette_app(endpoint)) as server:
        client = server.connect()
        began = trio.current_time()
        for _ in range(3):  # the next request doesn't wait for the task of the last one
            assert (await client.ask(GET)).body == b"hello"
        assert trio.current_time() - began < 1
        await trio.sleep(6)
        assert len(ran) == 3


async def test_starlette_keeps_state_of_its_lifespan(autojump_clock: MockClock) -> None:
    closed = False

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        nonlocal closed
        yield {"name": "database"}
        closed = True

    async def endpoint(request: starlette.requests.Request) -> starlette.responses.Response:
        return starlette.responses.PlainTextResponse(request.state.name)

    async with serving(starlette_app(endpoint, lifespan=lifespan)) as server:
        assert (await server.connect().ask(GET)).body == b"database"
        assert not closed
    assert closed


async def test_starlette_sends_files(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(range(256)) * 1_000)

    async def endpoint(request: starlette.requests.Request) -> starlette.responses.Response:
        return starlette.responses.FileResponse(path)

    async with serving(starlette_app(endpoint)) as server:
        client = server.connect()
        assert (await client.ask(GET)).body == path.read_bytes()
        partial = await client.ask(GET[:-2] + b"Range: bytes=256-511\r\n\r\n")
        assert (partial.status, partial.body) == (206, bytes(range(256)))
        await client.leave()


async def test_starlette_reports_what_an_endpoint_raises(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def endpoint(request: starlette.requests.Request) -> starlette.responses.Response:
        raise ZeroDivisionError

    async with serving(starlette_app(endpoint)) as server:
        client = server.connect()
        for _ in range(2):  # Starlette answers and raises: the connection goes on
            assert (await client.ask(GET)).body == b"Internal Server Error"
    assert errors(caplog) == ["GET / failed"] * 2


# FastAPI


@EachParser
async def test_fastapi(http: ParserName, autojump_clock: MockClock) -> None:
    log: list[str] = []

    async def session() -> AsyncIterator[str]:
        log.append("open")
        try:
            yield "session"
        finally:
            log.append("closed")

    async def audit(text: str) -> None:
        await trio.sleep(1)
        log.append(text)

    app = fastapi.FastAPI()

    @app.post("/items/{id}")
    async def create(
        id: int,
        name: str,
        used: Annotated[str, fastapi.Depends(session)],
        tasks: fastapi.BackgroundTasks,
        size: Annotated[int, fastapi.Body(embed=True)],
    ) -> dict[str, Any]:
        tasks.add_task(audit, f"audit {id}")
        return {"id": id, "name": name, "used": used, "size": size}

    def post(path: bytes, body: bytes) -> bytes:
        fields = b"Host: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        return b"POST %b HTTP/1.1\r\n%b\r\n%b" % (path, fields, body)

    async with serving(app, http=http) as server:
        client = server.connect()
        found = await client.ask(post(b"/items/5?name=ada", b'{"size": 3}'))
        assert found.body == b'{"id":5,"name":"ada","used":"session","size":3}'
        assert found[b"content-type"] == [b"application/json"]
        assert (await client.ask(post(b"/items/x?name=ada", b'{"size": 3}'))).status == 422
        assert (await client.ask(GET)).status == 404
        await trio.sleep(2)
    assert sorted(log) == ["audit 5", "closed", "closed", "open", "open"]


# Quart-Trio


def quart_app() -> Any:
    app = quart_trio.QuartTrio(__name__)

    @app.route("/<name>", methods=["GET", "POST"])
    async def named(name: str) -> Any:
        data = await quart_request.get_data(as_text=True)
        return {"name": name, "data": data, "host": quart_request.host}

    @app.route("/stream")
    async def stream() -> Any:
        async def pieces() -> AsyncIterator[str]:
            for n in range(3):
                await trio.sleep(1)
                yield str(n)

        return pieces()

    @app.route("/broken")
    async def broken() -> Any:
        raise ZeroDivisionError

    return app


@EachParser
async def test_quart_trio(http: ParserName, autojump_clock: MockClock) -> None:
    def at(path: bytes, raw: bytes = GET) -> bytes:
        return raw.replace(b"/ ", path + b" ", 1)

    async with serving(quart_app(), http=http) as server:
        client = server.connect()
        found = await client.ask(at(b"/ada", POST) + b"hello")
        assert found.body == b'{"data":"hello","host":"x","name":"ada"}\n'
        for _ in range(2):
            assert (await client.ask(at(b"/stream"))).body == b"012"
        assert (await client.ask(at(b"/broken"))).status == 500
        assert (await client.ask(at(b"/a/b"))).status == 404
        await wait_all_tasks_blocked()
        assert server.in_flight == 0


async def test_quart_trio_stops_when_its_client_leaves(autojump_clock: MockClock) -> None:
    cancelled: list[float] = []
    app = quart_trio.QuartTrio(__name__)

    @app.route("/")
    async def wait() -> Any:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time())

    async with serving(app) as server:
        client = server.connect()
        await client.send(GET)
        await trio.sleep(2)
        left = trio.current_time()
        await client.leave()
        await trio.sleep(1)
    assert cancelled == [left]


# The driver of these tests


def test_a_bug_of_the_servers_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="a bug"), without_bugs():
        logging.getLogger("trioweb.server").critical("a bug")
    with without_bugs():
        logging.getLogger("trioweb.server").error("an app's failure")


def test_all_fields_of_a_name_are_found() -> None:
    assert Response(200, [(b"a", b"b"), (b"a", b"c")], b"")[b"a"] == [b"b", b"c"]
