"""The request: what it says of itself, its body, and the one reader of `receive`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    ClientDisconnect,
    HTTPException,
    Limits,
    Request,
    RequestValidationError,
    task,
)
from trioweb._http import exchange as exchanges
from trioweb._http.inbox import Inbox
from trioweb._limits import MAX_QUERY_FIELDS, READ_AHEAD

from ..support.asgi import Client, Message, http_scope, running
from ..support.exchanges import exchange_of

DISCONNECT: Message = {"type": "http.disconnect"}


class Wire:
    """A server's `receive`: says what it was given, one message a call, then waits."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._messages = list(messages)
        self.calls = 0

    async def receive(self) -> Message:
        self.calls += 1
        await trio.lowlevel.checkpoint()
        if not self._messages:
            await trio.sleep_forever()
        # Not before the last checkpoint: a call that is cancelled loses no message.
        return self._messages.pop(0)


def pieces(*chunks: bytes) -> list[Message]:
    """A body's messages; the last one says so."""
    last = len(chunks) - 1
    return [
        {"type": "http.request", "body": chunk, "more_body": n < last}
        for n, chunk in enumerate(chunks)
    ]


@task(when="sent")
async def when_sent() -> None: ...


def request_of(
    target: str = "/",
    fields: Sequence[tuple[str, str]] = (),
    messages: Iterable[Message] = (),
    *,
    app: App | None = None,
    max_body_size: int = 1000,
    **scope: Any,
) -> Request:
    whole = {**http_scope("POST", target, fields), **scope}
    return Request(exchange_of(whole, Wire(messages).receive, app, max_body_size))


# Where it went


@pytest.mark.parametrize(
    ("hosts", "netloc"),
    [
        (["example.com"], "example.com"),
        (["example.com:8080"], "example.com:8080"),
        (["example.com:"], "example.com:"),
        (["192.0.2.1:80"], "192.0.2.1:80"),
        (["[2001:db8::1]"], "[2001:db8::1]"),
        (["[2001:db8::1]:443"], "[2001:db8::1]:443"),
        # None of these is one host: what the server listens on stands in.
        ([], "127.0.0.1:8000"),
        ([""], "127.0.0.1:8000"),
        (["a/b?c"], "127.0.0.1:8000"),
        (["evil.com/.."], "127.0.0.1:8000"),
        (["evil.com#"], "127.0.0.1:8000"),
        (["user@evil.com"], "127.0.0.1:8000"),
        (["a b"], "127.0.0.1:8000"),
        (["a\n"], "127.0.0.1:8000"),
        (["é"], "127.0.0.1:8000"),
        (["a:123456"], "127.0.0.1:8000"),
        (["::1"], "127.0.0.1:8000"),
        (["one.com", "two.com"], "127.0.0.1:8000"),
        (["one.com", "one.com"], "127.0.0.1:8000"),
    ],
)
def test_the_path_is_the_routed_one_whatever_the_host_says(hosts: list[str], netloc: str) -> None:
    request = request_of("/items/3?page=2", [("host", host) for host in hosts])
    assert request.url.path == "/items/3"
    assert request.url.query == "page=2"
    assert request.url.netloc == netloc
    assert str(request.url) == f"http://{netloc}/items/3?page=2"


@pytest.mark.parametrize(
    ("server", "netloc"),
    [
        (("10.0.0.1", 80), "10.0.0.1:80"),
        (("::1", 80), "[::1]:80"),
        (("/run/app.sock", None), "localhost"),
        (None, "localhost"),
    ],
)
def test_without_a_host_it_is_the_address_of_the_server(server: Any, netloc: str) -> None:
    assert request_of(server=server).url.netloc == netloc


@pytest.mark.parametrize(
    ("host", "hostname", "port"),
    [
        ("Example.com", "example.com", None),
        ("example.com:8080", "example.com", 8080),
        ("example.com:", "example.com", None),
        ("[2001:DB8::1]", "2001:db8::1", None),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
    ],
)
def test_the_host_has_a_name_and_a_port(host: str, hostname: str, port: int | None) -> None:
    url = request_of(fields=[("host", host)]).url
    assert (url.hostname, url.port) == (hostname, port)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a%20b", "/a b"),
        ("/%C3%A9", "/é"),
        ("/a%2Fb", "/a%2Fb"),
        ("/100%2541", "/100%41"),
        ("/a%0Ab", "/a\nb"),
    ],
)
def test_a_url_is_written_as_it_was_sent(target: str, path: str) -> None:
    url = request_of(target, [("host", "h")]).url
    assert url.path == path
    assert url.raw_path == target
    assert str(url) == f"http://h{target}"


@pytest.mark.parametrize("raw_path", [None, b""])
def test_without_a_raw_path_the_url_is_encoded_anew(raw_path: bytes | None) -> None:
    request = request_of("/", [("host", "h")], path="/a b%41\n?", raw_path=raw_path)
    assert str(request.url) == "http://h/a%20b%2541%0A%3F"
    assert repr(request) == "<Request POST /a%20b%2541%0A%3F>"


def test_the_text_of_a_request_is_one_line_whatever_was_sent() -> None:
    request = request_of("/", path="/x", raw_path=b"/a%0A<b>\r\n\xe9")
    assert repr(request) == "<Request POST /a%0A%3Cb%3E%0D%0A%E9>"


def test_a_scope_may_leave_out_what_asgi_says_it_may() -> None:
    scope = http_scope("GET", "/a", [])
    for optional in ("scheme", "query_string", "raw_path", "client", "server", "root_path"):
        scope.pop(optional, None)
    request = Request(exchange_of(scope, trio.sleep_forever, App(), 1))
    assert str(request.url) == "http://localhost/a"
    assert request.query_params == {}
    assert request.client is None
    assert request.state.__dict__ == {}


def test_the_client_is_its_address() -> None:
    client = request_of(client=["192.0.2.1", 1234]).client
    assert client is not None
    assert (client.host, client.port) == ("192.0.2.1", 1234)


def test_method_headers_and_cookies_are_those_of_the_scope() -> None:
    request = request_of(fields=[("Cookie", "a=1"), ("X-Y", "z"), ("cookie", "b=2")])
    assert request.method == "POST"
    assert request.headers["x-y"] == "z"
    assert request.headers is request.headers
    assert request.cookies == {"a": "1", "b": "2"}
    assert request.cookies is request.cookies
    assert request.url is request.url


@pytest.mark.parametrize("root_path", ["", "/api", "/api/"])
async def test_url_for_is_absolute(root_path: str) -> None:
    app = App()

    @app.get("/items/{name}")
    async def item(name: str) -> None: ...

    request = request_of("/", [("host", "h")], app=app, root_path=root_path, scheme="https")
    assert request.url_for("item", name="a/b") == f"https://h{root_path.rstrip('/')}/items/a%2Fb"
    assert request.app is app


# The query


def test_the_last_of_a_repeated_query_field_counts_and_getlist_has_all() -> None:
    params = request_of("/?a=1&b=&a=2&c").query_params
    assert params["a"] == "2"
    assert params.getlist("a") == ["1", "2"]
    assert params.getlist("missing") == []
    assert dict(params) == {"a": "2", "b": "", "c": ""}
    assert len(params) == 3
    assert "missing" not in params
    assert repr(params) == "QueryParams({'a': ['1', '2'], 'b': [''], 'c': ['']})"


def test_what_getlist_returns_is_the_callers() -> None:
    params = request_of("/?a=1").query_params
    params.getlist("a").append("2")
    assert params.getlist("a") == ["1"]


def test_a_query_is_decoded() -> None:
    assert request_of("/?%C3%A9+x=a%26b%3D+c").query_params == {"é x": "a&b= c"}


@pytest.mark.parametrize("query", [b"a=%ff", b"a=\xc3\xa9", b"%ff=a"])
def test_a_query_that_is_no_utf_8_is_a_400(query: bytes) -> None:
    request = request_of(query_string=query)
    with pytest.raises(HTTPException, match="not UTF-8") as caught:
        _ = request.query_params
    assert caught.value.status_code == 400


def test_a_query_has_only_so_many_fields() -> None:
    fields = "&".join(f"f{n}=1" for n in range(MAX_QUERY_FIELDS))
    assert len(request_of("/?" + fields).query_params) == MAX_QUERY_FIELDS
    request = request_of(f"/?{fields}&more=1")
    with pytest.raises(HTTPException, match=f"more than {MAX_QUERY_FIELDS} fields") as caught:
        _ = request.query_params
    assert caught.value.status_code == 400


# State


async def test_the_state_begins_with_the_lifespans_and_one_requests_is_not_anothers() -> None:
    shared: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, Any]]:
        yield {"db": shared, "user": "nobody"}

    app = App(lifespan=lifespan)

    @app.get("/{name}")
    async def handler(name: str, request: Request) -> list[str]:
        seen: str = request.state.user
        request.state.user = name
        own: str = request.state.user
        request.state.db.append(name)
        return [seen, own]

    async with running(app) as client:
        assert (await client("GET", "/ann")).json() == ["nobody", "ann"]
        assert (await client("GET", "/bob")).json() == ["nobody", "bob"]
    assert shared == ["ann", "bob"]


# Its tasks


async def test_a_request_that_is_over_takes_no_more_tasks() -> None:
    app = App()
    requests: list[Request] = []

    @app.get("/")
    async def handler(request: Request) -> None:
        requests.append(request)

    await Client(app)("GET", "/")
    with pytest.raises(RuntimeError, match="is over"):
        requests[0].tasks.add_task(trio.lowlevel.checkpoint)


async def test_the_tasks_of_a_request_that_failed_are_skipped() -> None:
    app = App()
    tasks: list[BackgroundTask] = []

    @app.get("/")
    async def handler(request: Request) -> None:
        tasks.append(request.tasks.add_task(trio.lowlevel.checkpoint))
        raise HTTPException(409)

    await Client(app)("GET", "/")
    assert [task.state for task in tasks] == ["skipped"]


# The body


async def test_the_body_is_all_pieces_and_stays() -> None:
    wire = Wire(pieces(b"one ", b"", b"two"))
    request = Request(exchange_of(http_scope("POST", "/", []), wire.receive))
    assert await request.body() == b"one two"
    assert await request.body() == b"one two"
    assert wire.calls == 3


async def test_a_stream_is_the_pieces_as_they_arrive() -> None:
    wire = Wire(pieces(b"one", b"", b"two"))
    request = Request(exchange_of(http_scope("POST", "/", []), wire.receive))
    calls = []
    async for piece in request.stream():
        calls.append((piece, wire.calls))
    assert calls == [(b"one", 1), (b"two", 3)]


@pytest.mark.parametrize("body", [b"", b"one"])
async def test_a_body_that_was_read_can_be_streamed_again_and_again(body: bytes) -> None:
    request = request_of(messages=pieces(body), max_body_size=3)
    assert await request.body() == body
    for _ in range(2):
        assert [piece async for piece in request.stream()] == ([body] if body else [])


@pytest.mark.parametrize("consume", [True, False])
async def test_a_stream_can_not_be_read_again(consume: bool) -> None:
    request = request_of(messages=pieces(b"one", b"two"))
    async for _ in request.stream():
        if not consume:
            break  # leaves no generator behind: that would be a warning, an error here
    with pytest.raises(RuntimeError, match="streamed, or another task reads it"):
        await request.body()
    with pytest.raises(RuntimeError, match="streamed, or another task reads it"):
        request.stream()


async def test_of_two_tasks_that_read_one_gets_the_body_and_the_other_an_error() -> None:
    request = request_of(messages=pieces(b"one", b"two"))
    outcomes: list[object] = []

    async def read() -> None:
        try:
            outcomes.append(await request.body())
        except RuntimeError as exc:
            outcomes.append(type(exc))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
    assert outcomes == [RuntimeError, b"onetwo"]


async def test_json_is_decoded_and_what_is_none_is_a_422() -> None:
    assert await request_of(messages=pieces(b'{"a":', b" [1]}")).json() == {"a": [1]}
    for wrong in (b"", b"{", b"\xff"):
        request = request_of(messages=pieces(wrong))
        with pytest.raises(RequestValidationError) as caught:
            await request.json()
        assert [problem["loc"][0] for problem in caught.value.errors()] == ["body"]


async def test_json_that_is_none_is_answered_with_its_place() -> None:
    app = App()

    @app.post("/")
    async def handler(request: Request) -> Any:
        return await request.json()

    answer = await Client(app)("POST", "/", body=b"[1,")
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"


# Its size


async def test_a_declared_size_over_the_limit_is_refused_before_a_byte_is_read() -> None:
    wire = Wire([])
    scope = http_scope("POST", "/", [("content-length", "11")])
    request = Request(exchange_of(scope, wire.receive, max_body_size=10))
    with pytest.raises(HTTPException, match="larger than 10 bytes") as caught:
        await request.body()
    assert caught.value.status_code == 413
    assert wire.calls == 0


async def test_a_body_of_just_the_limit_is_read() -> None:
    request = request_of(
        fields=[("content-length", "10")], messages=pieces(b"12345", b"67890"), max_body_size=10
    )
    assert await request.body() == b"1234567890"


async def test_a_chunked_body_is_counted() -> None:
    wire = Wire(pieces(b"12345", b"67890", b"1", b"never read"))
    scope = http_scope("POST", "/", [("transfer-encoding", "chunked")])
    stream = Request(exchange_of(scope, wire.receive, max_body_size=10)).stream()
    assert await anext(stream) == b"12345"
    assert await anext(stream) == b"67890"
    with pytest.raises(HTTPException, match="larger than 10 bytes") as caught:
        await anext(stream)
    assert caught.value.status_code == 413
    assert wire.calls == 3


@pytest.mark.parametrize(
    ("declared", "status"),
    [
        ("", 400),
        ("-1", 400),
        ("1.0", 400),
        ("²", 400),
        ("x", 400),
        ("9" * 21, 413),
        ("9" * 5000, 413),
    ],
)
async def test_a_content_length_that_can_not_be_meant_is_refused(
    declared: str, status: int
) -> None:
    wire = Wire([])
    scope = http_scope("POST", "/", [("content-length", declared)])
    with pytest.raises(HTTPException) as caught:
        await Request(exchange_of(scope, wire.receive)).body()
    assert caught.value.status_code == status
    assert wire.calls == 0


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/app", 10, 200),
        ("/app", 11, 413),
        ("/more", 20, 200),
        ("/more", 21, 413),
        ("/less", 6, 413),
    ],
)
async def test_a_routes_limit_goes_before_the_apps(path: str, size: int, status: int) -> None:
    app = App(limits=Limits(max_body_size=10))

    async def handler(request: Request) -> int:
        return len(await request.body())

    app.post("/app")(handler)
    app.post("/more", max_body_size=20)(handler)
    app.post("/less", max_body_size=5)(handler)
    assert (await Client(app)("POST", path, body=b"x" * size)).status == status
    chunked = [b"x" * (size - 1), b"x"]
    fields = {"transfer-encoding": "chunked", "content-length": "0"}
    assert (await Client(app)("POST", path, body=chunked, headers=fields)).status == status


async def test_the_413_is_on_its_way_before_a_byte_is_read() -> None:
    app = App(limits=Limits(max_body_size=10))
    events: list[str] = []

    @app.post("/")
    async def handler(request: Request) -> None:
        await request.body()

    async def spied(scope: Any, receive: Any, send: Any) -> None:
        async def spied_receive() -> Message:
            events.append("receive")
            message: Message = await receive()
            return message

        async def spied_send(message: Message) -> None:
            events.append(f"send {message.get('status', '')}{message.get('body', b'').decode()}")
            await send(message)

        await app(scope, spied_receive, spied_send)

    exchange = await Client(spied)("POST", "/", body=b"x" * 11)
    assert exchange.status == 413
    assert events[:2] == ["send 413", 'send {"detail":"The body is larger than 10 bytes"}']
    assert events[2:] == ["receive", "send "]


# The client leaves


async def test_a_client_that_leaves_within_the_body_is_a_disconnect() -> None:
    request = request_of(messages=[*pieces(b"one", b"two")[:1], DISCONNECT])
    stream = request.stream()
    assert await anext(stream) == b"one"
    for _ in range(2):
        with pytest.raises(ClientDisconnect):
            await anext(stream)


async def test_a_client_that_leaves_after_the_body_has_sent_it_all() -> None:
    request = request_of(messages=[*pieces(b"one"), DISCONNECT])
    assert await request.body() == b"one"
    await request.wait_disconnected()
    assert [piece async for piece in request.stream()] == [b"one"]


@pytest.mark.parametrize("has_left", [False, True])
async def test_whether_the_client_has_left_is_asked_for_some_turns(
    has_left: bool, mock_clock: MockClock
) -> None:
    """Under load the time is over before the server's own reader has had its turn."""
    to_app, messages = trio.open_memory_channel[Message](1)

    async def take_long_turns() -> None:
        turns = 0
        while True:
            turns += 1
            mock_clock.jump(1)
            if has_left and turns == 3:
                to_app.send_nowait(DISCONNECT)
            await trio.lowlevel.checkpoint()

    exchange = exchange_of(http_scope("GET", "/", []), messages.receive)
    exchange.tasks.add_task(when_sent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_long_turns)
        assert await exchange.is_client_there() != has_left
        nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_within_the_body_is_no_error_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    app = App()
    ended: list[type[BaseException]] = []

    @app.post("/")
    async def handler(request: Request) -> None:
        try:
            await request.body()
        except BaseException as exc:
            ended.append(type(exc))
            raise

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    wire = Wire([*pieces(b"one", b"two")[:1], DISCONNECT])
    await app(http_scope("POST", "/", [("content-length", "6")]), wire.receive, send)
    assert ended == [ClientDisconnect]
    assert [r for r in caplog.records if r.levelname != "INFO"] == []
    assert sent[0]["status"] == 400


# The inbox


async def read_all(inbox: Inbox) -> bytes:
    read = b""
    while (chunk := await inbox.next_chunk()) is not None:
        read += chunk
    return read


async def test_one_task_reads_and_one_watches_and_receive_has_one_caller() -> None:
    inside = 0
    most = 0
    wire = Wire([*pieces(*[b"%d" % n for n in range(10)]), DISCONNECT])

    async def receive() -> Message:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            return await wire.receive()
        finally:
            inside -= 1

    inbox = Inbox(receive)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.wait_disconnected)
        nursery.start_soon(inbox.wait_disconnected)
        assert await read_all(inbox) == b"0123456789"
    assert most == 1


async def test_watching_reads_ahead_so_much_and_goes_on_when_it_is_read() -> None:
    half = b"x" * (READ_AHEAD // 2)
    messages = pieces(*[half] * 8)
    wire = Wire([*messages, DISCONNECT])
    inbox = Inbox(wire.receive)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.wait_disconnected)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.calls == 3  # the first to go past it
        assert await inbox.next_chunk() == half
        await trio.testing.wait_all_tasks_blocked()
        assert wire.calls == 4
        assert await read_all(inbox) == half * 7
    assert wire.calls == len(messages) + 1


async def test_discarding_ends_at_the_size_or_at_the_end_of_the_body() -> None:
    wire = Wire(pieces(*[b"x" * 10] * 5))
    inbox = Inbox(wire.receive)
    await inbox.discard(15)
    assert wire.calls == 2
    assert not inbox.over
    await inbox.discard(1000)
    assert inbox.over
    assert wire.calls == 5


async def test_an_error_of_the_server_reaches_both_who_wait() -> None:
    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        raise OSError("broken")

    inbox = Inbox(receive)
    errors: list[str] = []

    async def expect(wait: Any) -> None:
        with pytest.raises(OSError, match="broken") as caught:
            await wait()
        errors.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, inbox.next_chunk)
        nursery.start_soon(expect, inbox.wait_disconnected)
    assert errors == ["broken"] * 2


async def cancel_after(checkpoints: int, scope: trio.CancelScope) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()


BODY = [b"%d," % n for n in range(6)]


async def test_a_watcher_cancelled_at_any_step_takes_nothing_from_the_reader() -> None:
    """And the reader goes on when it was the watcher that received for both."""
    cancelled = 0
    for checkpoints in range(3 * len(BODY)):
        inbox = Inbox(Wire([*pieces(*BODY), DISCONNECT]).receive)
        watching = trio.CancelScope()

        async def watch(watching: trio.CancelScope = watching, inbox: Inbox = inbox) -> None:
            with watching:
                await inbox.wait_disconnected()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(cancel_after, checkpoints, watching)
            assert await read_all(inbox) == b"".join(BODY)
            await inbox.wait_disconnected()
        cancelled += watching.cancelled_caught
    assert cancelled >= len(BODY) - 1


@pytest.mark.parametrize("watched", [True, False])
async def test_a_reader_cancelled_at_any_step_leaves_the_rest_for_the_next(watched: bool) -> None:
    cancelled = 0
    for checkpoints in range(3 * len(BODY)):
        inbox = Inbox(Wire([*pieces(*BODY), DISCONNECT]).receive)
        reading = trio.CancelScope()
        read: list[bytes | None] = []

        async with trio.open_nursery() as nursery:
            if watched:
                nursery.start_soon(inbox.wait_disconnected)
            nursery.start_soon(cancel_after, checkpoints, reading)
            with reading:
                while None not in read:
                    read.append(await inbox.next_chunk())
            rest = await read_all(inbox)
        assert b"".join(filter(None, read)) + rest == b"".join(BODY)
        cancelled += reading.cancelled_caught
    assert cancelled >= len(BODY) - 1


async def test_a_discarder_cancelled_at_any_step_can_be_followed_by_another() -> None:
    cancelled = 0
    for checkpoints in range(3 * len(BODY)):
        wire = Wire(pieces(*BODY))
        inbox = Inbox(wire.receive)
        discarding = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_after, checkpoints, discarding)
            with discarding:
                await inbox.discard(1000)
        await inbox.discard(1000)
        assert inbox.over
        cancelled += discarding.cancelled_caught
    assert cancelled >= len(BODY) - 1


async def test_a_body_that_never_comes_is_waited_for_until_cancelled(
    autojump_clock: MockClock,
) -> None:
    request = request_of(messages=pieces(b"one", b"two")[:1])
    with trio.move_on_after(60) as scope:
        await request.body()
    assert scope.cancelled_caught
    with pytest.raises(RuntimeError, match="can't be read twice"):
        await request.body()


def test_a_request_is_described_in_one_line_whatever_its_method() -> None:
    request = request_of("/", method="G\nT <b>")
    assert repr(request) == "<Request G%0AT%20%3Cb%3E />"


async def test_a_body_that_was_read_streams_past_a_limit_lowered_since() -> None:
    request = request_of(messages=pieces(b"abc"))
    assert await request.body() == b"abc"
    request.max_body_size = 1
    assert [piece async for piece in request.stream()] == [b"abc"]


@pytest.mark.parametrize(("http_version", "may"), [("1.1", False), ("2", True), ("3", True)])
async def test_past_http_1_a_body_may_come_without_its_length(http_version: str, may: bool) -> None:
    """So it is looked for, and thrown away, before the last message."""
    wire = Wire(pieces(b"unread"))
    scope = {**http_scope("POST", "/", []), "http_version": http_version}
    await exchange_of(scope, wire.receive).send_last(b"")
    assert (wire.calls > 0) is may


# Tasks


def test_a_thread_that_asks_first_and_the_rest_get_one_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = Request(exchange_of(http_scope("GET", "/", []), trio.sleep_forever))
    made: list[BackgroundTasks] = []

    class Later:
        """A lock that somebody else has held, and made the list meanwhile."""

        def __enter__(self) -> None:
            monkeypatch.undo()
            made.append(request.tasks)

        def __exit__(self, *exc: object) -> None:
            pass

    monkeypatch.setattr(exchanges, "_making", Later())
    assert [request.tasks] == made
