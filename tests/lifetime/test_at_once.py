"""Our framework on our own server: what they do in one step, as nobody but the clock can tell.

The same app stands behind middleware that wraps `receive` and `send`, as ASGI's middleware
does: there it takes messages.  What a client reads has to be the same, byte by byte.
"""

from __future__ import annotations

import functools
from array import array
from typing import Any, cast

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    HTMLResponse,
    JSONResponse,
    Limits,
    Request,
    Response,
    task,
)
from trioweb.server._receiving import Exchange

from ..support.server_driver import EachParser, ParserName, http_app, serving, without_date


class Item(msgspec.Struct):
    name: str
    price: float


ITEM = b'{"name": "thing", "price": 1.5}'


class Rendered(Response):
    """What a subclass may return by mistake."""

    def render(self, content: Any) -> Any:
        return content


def changed() -> Response:
    response: Any = Response()
    response.body = "text"
    return cast("Response", response)


RESPONSES: dict[str, Any] = {
    "plain": lambda: {"a": 1},
    "none": lambda: None,
    "empty": lambda: Response(),
    "created": lambda: JSONResponse([1], 201),
    "no-content": lambda: Response(None, 204),
    "not-modified": lambda: Response(None, 304, {"etag": '"x"'}),
    "own-fields": lambda: HTMLResponse("é", headers={"x-own": "é", "content-type": "text/csv"}),
    "own-length": lambda: JSONResponse([1], headers={"content-length": "999"}),
    "closes": lambda: JSONResponse([1], headers={"connection": "close"}),
    "dated": lambda: JSONResponse([1], headers={"date": "Thu, 01 Jan 1970 00:00:00 GMT"}),
    "large": lambda: Response(b"x" * 300_000),
    "text": lambda: Rendered("text"),
    "nothing": lambda: Rendered(None),
    "changed": changed,
    "wide": lambda: Rendered(memoryview(array("I", [1] * 4))),
    "bytearray": lambda: Rendered(bytearray(b"bytes")),
    "task": lambda: JSONResponse([1], background=BackgroundTask(trio.sleep, 0)),
}


def make_app() -> App:
    app = App(limits=Limits(max_body_size=100))

    @app.get("/made/{name}")
    @app.head("/made/{name}")
    @app.post("/made/{name}")
    async def made(name: str) -> Any:
        return RESPONSES[name]()

    @app.get("/beside/{name}")
    async def beside(name: str, nursery: trio.Nursery) -> Any:
        return RESPONSES[name]()

    @app.post("/items")
    async def create(item: Item) -> Item:
        return item

    @app.post("/optional")
    async def optional(item: Item | None = None) -> Item | None:
        return item

    @app.post("/waits")
    async def waits(item: Item) -> Item:
        await trio.lowlevel.checkpoint()
        return item

    @app.post("/read")
    async def read(request: Request) -> list[str]:
        return [(await request.body()).decode(), (await request.body()).decode()]

    @app.post("/streamed")
    async def streamed(request: Request) -> list[str]:
        return [piece.decode() async for piece in request.stream()]

    @app.post("/streamed-again")
    async def streamed_again(request: Request) -> list[str]:
        body = await request.body()
        return [body.decode(), *[piece.decode() async for piece in request.stream()]]

    @app.post("/unread")
    async def unread() -> str:
        return "unread"

    return app


def wrapped(app: App, *, receive_too: bool = True, send_too: bool = True) -> Any:
    """The app behind middleware that wraps what a server gives it."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        async def our_receive() -> Any:
            return await receive()

        async def our_send(message: Any) -> None:
            await send(message)

        await app(scope, our_receive if receive_too else receive, our_send if send_too else send)

    return middleware


def request(target: str, body: bytes | None = None, *fields: str, method: str = "GET") -> bytes:
    if body is not None:
        method, fields = "POST", (*fields, f"content-length: {len(body)}")
    lines = [f"{method} {target} HTTP/1.1", "host: x", *fields, "", ""]
    return "\r\n".join(lines).encode() + (body or b"")


CHUNKED = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(ITEM), ITEM)
CONVERSATIONS: dict[str, list[bytes]] = {
    **{name: [request(f"/made/{name}") + request("/made/plain")] for name in RESPONSES},
    **{f"{name} beside": [request(f"/beside/{name}") * 2] for name in RESPONSES},
    **{f"HEAD {name}": [request(f"/made/{name}", method="HEAD")] for name in RESPONSES},
    **{f"POST {name}": [request(f"/made/{name}", b"unread")] for name in RESPONSES},
    "nothing there": [request("/nothing")],
    "two at a time": [request("/made/plain") * 2],
    "HTTP/1.0": [b"GET /made/plain HTTP/1.0\r\n\r\n"],
    "HTTP/1.0 that stays": [b"GET /made/plain HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"],
    "it says close": [request("/made/plain", None, "connection: close")],
    "body": [request("/items", ITEM)],
    "body, and the next request": [request("/items", ITEM) + request("/made/plain")],
    "body for a handler that waits": [request("/waits", ITEM)],
    "body that is none": [request("/items", b"{")],
    "body that says it is no JSON": [request("/items", ITEM, "content-type: text/plain")],
    "body in two pieces": [request("/items", ITEM)[:-5], ITEM[-5:] + request("/made/plain")],
    "body that is late": [request("/items", ITEM)[: -len(ITEM)], ITEM],
    "body that is empty": [request("/optional", b"")],
    "no body": [request("/optional", method="POST")],
    "no body where one has to be": [request("/items", method="POST")],
    "chunked body": [
        request("/items", None, "transfer-encoding: chunked", method="POST") + CHUNKED
    ],
    "body that is too long": [request("/items", b"x" * 101) + request("/made/plain")],
    "body just as long as it may be": [request("/read", b"x" * 100)],
    "body that is waited for": [request("/items", ITEM, "expect: 100-continue")],
    "body that breaks off": [request("/items", ITEM)[:-1]],
    "body read twice": [request("/read", ITEM)],
    "body streamed": [request("/streamed", ITEM)],
    "body streamed after it was read": [request("/streamed-again", ITEM)],
    "body that nobody reads": [request("/unread", ITEM) + request("/made/plain")],
}


async def answers(app: Any, pieces: list[bytes], http: ParserName) -> bytes:
    """All that a client reads that sends these, and then says that it is done."""
    async with serving(app, http=http) as server:
        client = server.connect()
        for piece in pieces:
            await client.send(piece)
            await wait_all_tasks_blocked()
        assert isinstance(client.stream, trio.StapledStream)
        await client.stream.send_stream.aclose()
        return await client.rest()


# One after the other, several servers may run it; to make it takes longer than most conversations.
shared_app = functools.cache(make_app)


@EachParser
@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_client_reads_the_same_as_with_messages(
    name: str, http: ParserName, autojump_clock: MockClock
) -> None:
    pieces = CONVERSATIONS[name]
    with_messages = await answers(wrapped(shared_app()), pieces, http)
    assert with_messages.startswith(b"HTTP/1.1 ") or "breaks off" in name
    for receive_too, send_too in ((False, False), (True, False), (False, True)):
        app = wrapped(shared_app(), receive_too=receive_too, send_too=send_too)
        assert without_date(await answers(app, pieces, http)) == without_date(with_messages)


@pytest.mark.parametrize("target", ["/items", "/waits", "/read"])
async def test_no_message_is_needed(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("receive", "send"):
        monkeypatch.setattr(Exchange, name, lambda *message: "nothing that can be awaited")
    assert (await answers(make_app(), [request(target, ITEM)], "h11")).startswith(b"HTTP/1.1 200 ")


@EachParser
async def test_a_head_that_middleware_makes_a_get_has_the_fields_of_one(http: ParserName) -> None:
    def rewriting(app: Any) -> Any:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "method": "GET"}, receive, send)

        return middleware

    head = [request("/made/plain", method="HEAD")]
    found = without_date(await answers(rewriting(http_app(make_app())), head, http))
    assert found == without_date(await answers(make_app(), head, http))


async def test_middleware_with_methods_of_its_own_sees_each_message() -> None:
    class Responder:
        """Whose names are ours, too."""

        take_body = send_whole = "somebody else's"

        def __init__(self, receive: Any, send: Any) -> None:
            self._receive, self._send = receive, send
            self.seen: list[str] = []

        async def receive(self) -> Any:
            message = await self._receive()
            self.seen.append(message["type"])
            return message

        async def send(self, message: Any) -> None:
            self.seen.append(message["type"])
            await self._send(message)

    app, seen = make_app(), []

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        responder = Responder(receive, send)
        await app(scope, responder.receive, responder.send)
        if scope["type"] == "http":
            seen.extend(responder.seen)

    await answers(middleware, [request("/items", ITEM)], "h11")
    assert seen == ["http.request", "http.response.start", "http.response.body"]


async def test_what_middleware_has_sent_is_sent() -> None:
    def starting(app: Any) -> Any:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 202, "headers": []})
            await app(scope, receive, send)

        return http_app(middleware)

    asked = [request("/made/plain")]
    with_messages = await answers(starting(wrapped(make_app())), asked, "h11")
    assert with_messages.startswith(b"HTTP/1.1 500 ")  # a second start is a mistake, and is told
    found = without_date(await answers(starting(make_app()), asked, "h11"))
    assert found == without_date(with_messages)


async def test_what_middleware_has_read_of_a_body_is_gone_for_the_app() -> None:
    app, read = make_app(), []

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            read.append(await receive())
        await app(scope, receive, send)

    # Not an empty body: the rest never comes, as the client has nothing more to say.
    answer = await answers(middleware, [request("/read", ITEM)], "h11")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert [message["body"] for message in read] == [ITEM]


async def test_a_large_answer_that_nobody_reads_ends_with_the_drain(
    autojump_clock: MockClock,
) -> None:
    app = App(drain_timeout=3, cleanup_timeout=100)

    @app.post("/")
    async def large(item: Item) -> Response:
        return Response(b"x" * 1_000_000)

    @app.get("/")
    async def large_too() -> Response:
        return Response(b"x" * 1_000_000)

    async with serving(app) as server:
        for asked in (request("/"), request("/", ITEM)):
            client = server.connect_lockstep()
            await client.send(asked)
        await wait_all_tasks_blocked()
        assert server.in_flight == 0  # who waits for a client takes nobody's place
        began = trio.current_time()
        await server.server.shutdown()
        assert trio.current_time() - began == 3


async def test_a_task_hears_whether_its_client_was_there(autojump_clock: MockClock) -> None:
    app, ran = App(), []

    @task(when="sent")
    async def receipt(number: int) -> None:
        ran.append(number)

    @app.post("/{number:int}")
    async def handler(number: int, item: Item, tasks: BackgroundTasks) -> None:
        tasks.add_task(receipt, number)

    async with serving(app) as server:
        client = server.connect()
        assert (await client.ask(request("/1", ITEM))).status == 200
        await wait_all_tasks_blocked()
    assert ran == [1]


@pytest.mark.parametrize("bad", [{"x": "a\nb"}, {"ü": "x"}])
async def test_what_cannot_be_sent_is_refused_with_nothing_sent(
    bad: dict[str, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App()

    @app.get("/")
    async def handler() -> Response:
        response = Response(b"x")
        raw = [(name.encode(), value.encode()) for name, value in bad.items()]
        monkeypatch.setattr(type(response.headers), "raw", raw)
        return response

    assert (await answers(app, [request("/")], "h11")).startswith(b"HTTP/1.1 500 ")
    assert "can't be sent" in caplog.text
