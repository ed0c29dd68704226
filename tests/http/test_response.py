"""Responses in one piece: what is sent, what is refused, and how an early answer ends."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    HTMLResponse,
    HTTPException,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Request,
    Response,
    StreamingResponse,
    _limits,
)

from ..support.asgi import Client, Exchange, Message, http_scope
from ..support.log_records import messages

Make = Callable[[], Any]


class Picture(Response):
    media_type = "image/png"


class Money:
    pass


async def answer(make: Make, method: str = "GET", **options: Any) -> Exchange:
    """What an app answers whose handler returns what `make` makes."""
    app = App()

    @app.route("/", methods=["GET", "POST", "HEAD"])
    async def handler() -> Any:
        return make()

    return await Client(app)(method, "/", **options)


# Kinds


@pytest.mark.parametrize(
    ("make", "content_type", "body"),
    [
        (lambda: Response(b"\xff"), None, b"\xff"),
        (lambda: Response("é"), None, "é".encode()),
        (lambda: Response(bytearray(b"a")), None, b"a"),
        (lambda: Response(memoryview(b"a")), None, b"a"),
        (lambda: Response(), None, b""),
        (lambda: Response("a", media_type="text/css"), "text/css; charset=utf-8", b"a"),
        (lambda: Response("a", media_type="text/x; charset=x"), "text/x; charset=x", b"a"),
        (lambda: Response("a", media_type="image/svg+xml"), "image/svg+xml", b"a"),
        (lambda: Picture(b"a"), "image/png", b"a"),
        (lambda: Picture(b"a", media_type="image/gif"), "image/gif", b"a"),
        (lambda: JSONResponse({"é": [1, None]}), "application/json", '{"é":[1,null]}'.encode()),
        (lambda: JSONResponse(None), "application/json", b"null"),
        (lambda: HTMLResponse("<p>é"), "text/html; charset=utf-8", "<p>é".encode()),
        (lambda: PlainTextResponse("é"), "text/plain; charset=utf-8", "é".encode()),
    ],
)
async def test_each_kind_has_its_type_and_the_length_of_its_body(
    make: Make, content_type: str | None, body: bytes
) -> None:
    exchange = await answer(make)
    assert exchange.status == 200
    assert exchange.headers.pop("content-length") == str(len(body))
    assert exchange.headers.get("content-type") == content_type
    assert exchange.body == body
    assert [message["type"] for message in exchange.sent] == [
        "http.response.start",
        "http.response.body",
    ]
    assert exchange.sent[-1]["more_body"] is False


async def test_head_has_the_fields_of_get_and_no_body() -> None:
    get = await answer(lambda: PlainTextResponse("hello", headers={"x": "y"}))
    head = await answer(lambda: PlainTextResponse("hello", headers={"x": "y"}), "HEAD")
    assert head.raw_headers == get.raw_headers
    assert head.headers["content-length"] == "5"
    assert head.body == b""


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("kind", [Response, HTMLResponse])
async def test_204_and_304_have_neither_body_nor_length(status: int, kind: type[Response]) -> None:
    exchange = await answer(lambda: kind(None, status, {"etag": "x", "content-length": "5"}))
    assert exchange.status == status
    assert "content-length" not in exchange.headers
    assert exchange.headers["etag"] == "x"
    assert exchange.body == b""


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("make", [lambda s: Response("a", s), lambda s: JSONResponse(None, s)])
def test_a_body_where_none_may_be_is_refused(status: int, make: Callable[[int], Any]) -> None:
    with pytest.raises(ValueError, match=f"status {status} has no body"):
        make(status)


@pytest.mark.parametrize("content", [1, ["a"], {"a": 1}, Money()])
def test_what_is_no_text_is_refused_and_told_where_it_belongs(content: object) -> None:
    with pytest.raises(TypeError, match=r"not .*; JSONResponse takes what JSON can hold"):
        PlainTextResponse(content)


@pytest.mark.parametrize("status", [-1, 0, 99, 100, 101, 199, 600, 1000, "200", 200.0, None])
@pytest.mark.parametrize("kind", [Response, JSONResponse, StreamingResponse, RedirectResponse])
def test_what_is_no_status_of_a_response_is_refused(kind: Any, status: Any) -> None:
    with pytest.raises(ValueError, match="isn't the status of a response"):
        kind("", status)


@pytest.mark.parametrize("status", [200, 299, 599, HTTPStatus.CREATED])
async def test_a_status_is_sent(status: int) -> None:
    assert (await answer(lambda: Response("a", status))).status == status


# Header fields


async def test_your_fields_go_before_ours_but_the_length_of_a_known_body_is_ours() -> None:
    headers = {"Content-Type": "text/csv", "Content-Length": "999", "X-Own": "é"}
    exchange = await answer(lambda: JSONResponse([1], headers=headers))
    assert exchange.raw_headers == [
        (b"content-length", b"3"),
        (b"content-type", b"text/csv"),
        (b"x-own", b"\xe9"),
    ]


async def test_fields_can_be_added_until_it_is_returned() -> None:
    def make() -> Response:
        response = Response()
        response.headers["x-one"] = "1"
        response.headers.append("x-one", "2")
        return response

    fields = (await answer(make)).raw_headers
    assert fields == [(b"content-length", b"0"), (b"x-one", b"1"), (b"x-one", b"2")]


async def test_responses_share_no_fields() -> None:
    headers = {"x": "1"}
    first, second = Response(headers=headers), Response(headers=headers)
    first.headers["x"] = "2"
    assert (headers, second.headers["x"]) == ({"x": "1"}, "1")


# Cookies


def set_cookies(response: Response) -> list[str]:
    return response.headers.getlist("set-cookie")


def test_a_cookie_has_safe_defaults() -> None:
    response = Response()
    response.set_cookie("id", "1")
    response.set_cookie("id", "a b")
    assert set_cookies(response) == ["id=1; Path=/; SameSite=lax", 'id="a b"; Path=/; SameSite=lax']


def test_a_cookie_has_every_attribute_it_is_given() -> None:
    response = Response()
    response.set_cookie(
        "id",
        "1",
        max_age=60,
        expires=datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC),
        path="/a",
        domain="example.com",
        secure=True,
        httponly=True,
        samesite="none",
        partitioned=True,
    )
    assert set_cookies(response) == [
        "id=1; Max-Age=60; Expires=Mon, 03 Feb 2031 04:05:06 GMT; Path=/a; Domain=example.com; "
        "SameSite=none; Secure; HttpOnly; Partitioned"
    ]


def test_a_cookie_is_deleted_with_the_attributes_it_was_set_with() -> None:
    response = Response()
    response.delete_cookie("id")
    response.delete_cookie(
        "id",
        "/a",
        "example.com",
        secure=True,
        httponly=True,
        samesite="strict",
        partitioned=True,
    )
    gone = 'id=""; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT'
    assert set_cookies(response) == [
        f"{gone}; Path=/; SameSite=lax",
        f"{gone}; Path=/a; Domain=example.com; SameSite=strict; Secure; HttpOnly; Partitioned",
    ]


# Redirects


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("/a?b=c#d", "/a?b=c#d"),
        ("https://h:1/é?ü=日", "https://h:1/%C3%A9?%C3%BC=%E6%97%A5"),
        ('/a b\t<>"\\^`{|}', "/a%20b%09%3C%3E%22%5C%5E%60%7B%7C%7D"),
        ("/100%25", "/100%25"),
        ("http://[::1]/", "http://[::1]/"),
    ],
)
async def test_a_redirects_url_is_percent_encoded(url: str, location: str) -> None:
    exchange = await answer(lambda: RedirectResponse(url, headers={"location": "/no", "x": "y"}))
    assert exchange.status == 307
    assert exchange.headers == {"content-length": "0", "x": "y", "location": location}


class Link:
    """A URL of some library's."""

    def __str__(self) -> str:
        return "https://h/a b"


async def test_a_redirect_may_go_to_a_url_of_any_class() -> None:
    assert RedirectResponse(Link()).headers["location"] == "https://h/a%20b"  # type: ignore[arg-type]
    app = App()

    @app.get("/{path:path}")
    async def again(path: str, request: Request) -> RedirectResponse:
        return RedirectResponse(request.url, HTTPStatus.SEE_OTHER)

    exchange = await Client(app)("GET", "/a%2Fb?c=d", headers={"host": "h:1"})
    assert exchange.status == 303
    assert exchange.headers["location"] == "http://h:1/a%2Fb?c=d"


def test_a_status_of_the_standard_librarys_is_a_plain_number_from_then_on() -> None:
    response = JSONResponse({}, HTTPStatus.CREATED)
    assert type(response.status_code) is int
    response.status_code = HTTPStatus.ACCEPTED
    assert str(response.status_code) == "202"


@pytest.mark.parametrize("url", [None, b"/", 3, ["/"], object(), Link])
def test_what_is_no_url_is_refused_where_it_is_given(url: Any) -> None:
    with pytest.raises(TypeError, match=r"^RedirectResponse takes a URL"):
        RedirectResponse(url)


@pytest.mark.parametrize("media_type", [5, b"text/plain", ["text/plain"]])
def test_a_media_type_is_text(media_type: Any) -> None:
    with pytest.raises(TypeError):
        Response("x", media_type=media_type)


async def test_a_redirect_may_have_another_status() -> None:
    assert (await answer(lambda: RedirectResponse("/", 303))).status == 303


# Nothing that was not meant gets out


def with_cookie(**cookie: Any) -> Response:
    response = Response()
    response.set_cookie(**{"key": "id", **cookie})
    return response


def appended(name: str, value: str) -> Response:
    response = Response()
    response.headers.append(name, value)
    return response


def raising(headers: Mapping[str, str]) -> Response:
    raise HTTPException(400, headers=headers)


def no_cookie(**cookie: Any) -> Response:
    response = Response()
    response.delete_cookie(**{"key": "id", **cookie})
    return response


SLOTS: dict[str, Callable[[str], Any]] = {
    "header value": lambda text: Response(headers={"x": text}),
    "header name": lambda text: Response(headers={text: "x"}),
    "header value appended": lambda text: appended("x", text),
    "header name appended": lambda text: appended(text, "x"),
    "header of JSON": lambda text: JSONResponse({}, headers={"x": text}),
    "header of a stream": lambda text: StreamingResponse(iter(()), headers={"x": text}),
    "header of a redirect": lambda text: RedirectResponse("/", headers={"x": text}),
    "header of an HTTPException": lambda text: raising({"x": text}),
    "header name of an HTTPException": lambda text: raising({text: "x"}),
    "media type": lambda text: Response("", media_type=text),
    "media type of a stream": lambda text: StreamingResponse(iter(()), media_type=text),
    "cookie name": lambda text: with_cookie(key=text),
    "cookie value": lambda text: with_cookie(value=text),
    "cookie path": lambda text: with_cookie(path=text),
    "cookie domain": lambda text: with_cookie(domain=text),
    "cookie expires": lambda text: with_cookie(expires=text),
    "cookie samesite": lambda text: with_cookie(samesite=text),
    "deleted cookie's name": lambda text: no_cookie(key=text),
    "deleted cookie's path": lambda text: no_cookie(path=text),
    "deleted cookie's domain": lambda text: no_cookie(domain=text),
    "location": RedirectResponse,
}
INJECTIONS = [
    *("a\r\nInjected: 1", "a\nInjected: 1", "a\rInjected: 1", "a\0Injected", "a\x0bInjected"),
    *("a\x7fInjected", "\nInjected", "Injected\r"),
]


@pytest.mark.parametrize("slot", SLOTS)
async def test_every_slot_lets_out_what_was_meant(slot: str) -> None:
    exchange = await answer(lambda: SLOTS[slot]("lax"))
    assert exchange.status in (200, 307, 400)
    assert b"lax" in b"".join(name + value for name, value in exchange.raw_headers)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("text", INJECTIONS)
async def test_no_slot_lets_a_control_character_out(
    slot: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is an error on the line that set it, one record in the log and a plain 500."""
    exchange = await answer(lambda: SLOTS[slot](text))
    assert exchange.status == 500
    assert exchange.json() == {"detail": "Internal Server Error"}
    assert b"njected" not in b"".join(name + value for name, value in exchange.raw_headers)
    assert messages(caplog) == ["GET / failed"]
    assert caplog.records[0].exc_info is not None
    assert isinstance(caplog.records[0].exc_info[1], ValueError)


@pytest.mark.parametrize("slot", sorted(SLOTS.keys() - {"location"}))
async def test_no_slot_lets_out_what_a_field_can_not_hold(
    slot: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = await answer(lambda: SLOTS[slot]("日"))
    assert exchange.status == 500
    assert messages(caplog) == ["GET / failed"]


# JSON that can't be


@pytest.mark.parametrize("make", [lambda: Money(), lambda: JSONResponse({"price": Money()})])
async def test_what_json_can_not_hold_is_a_500_that_names_its_type(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = await answer(make)
    assert exchange.status == 500
    assert exchange.json() == {"detail": "Internal Server Error"}
    assert messages(caplog) == ["GET / failed"]
    assert (
        "\nTypeError: Money can't be encoded as JSON; where a handler returns it, " in caplog.text
    )


# Tasks it brings along


@pytest.mark.parametrize(
    "make",
    [
        lambda tasks: JSONResponse(1, background=tasks),
        lambda tasks: RedirectResponse("/", background=tasks),
        lambda tasks: StreamingResponse(iter(()), background=tasks),
    ],
)
@pytest.mark.parametrize("wrap", [lambda task: task, lambda task: BackgroundTasks([task])])
async def test_a_response_brings_tasks_along(
    make: Callable[[Any], Response], wrap: Callable[[Any], Any]
) -> None:
    app = App()
    task = BackgroundTask(trio.lowlevel.checkpoint)

    @app.get("/")
    async def handler() -> Response:
        return make(wrap(task))

    await Client(app)("GET", "/")
    assert task.state == "done"


# The rest of the request


class Upload:
    """A server whose client keeps sending: a piece each `interval` seconds, `size` in all."""

    def __init__(self, piece: bytes, size: float, interval: float = 0.0) -> None:
        self._piece = piece
        self._left = size
        self._interval = interval
        self.events: list[tuple[str, float]] = []

    async def receive(self) -> Message:
        await trio.sleep(self._interval)
        if self._left <= 0:
            self.events.append(("end", trio.current_time()))
            await trio.sleep_forever()
        self._left -= len(self._piece)
        self.events.append(("piece", trio.current_time()))
        return {"type": "http.request", "body": self._piece, "more_body": self._left > 0}

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        kind = "head" if message["type"] == "http.response.start" else "body"
        last = kind == "body" and not message["more_body"]
        self.events.append(("last" if last else kind, trio.current_time()))

    @property
    def order(self) -> list[str]:
        return [event for event, _ in self.events]


async def respond_early(upload: Any, method: str = "POST") -> None:
    app = App()

    @app.route("/", methods=[method])
    async def handler() -> str:
        return "no, thanks"

    scope = http_scope(method, "/", [("transfer-encoding", "chunked")])
    await app(scope, upload.receive, upload.send)


async def test_what_is_unread_after_an_early_answer_is_discarded_before_its_end(
    autojump_clock: MockClock,
) -> None:
    upload = Upload(b"x" * 1000, 3000)
    await respond_early(upload)
    assert upload.order == ["head", "body", "piece", "piece", "piece", "last"]


async def test_discarding_has_its_time(autojump_clock: MockClock) -> None:
    upload = Upload(b"x", 10**6, interval=0.3)
    start = trio.current_time()
    await respond_early(upload)
    assert upload.order[:2] == ["head", "body"]
    assert upload.events[1][1] == start
    assert upload.events[-1] == ("last", start + _limits.LINGER_TIME)
    assert upload.order.count("piece") == 6


async def test_discarding_has_its_size(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_limits, "LINGER_SIZE", 5000)
    upload = Upload(b"x" * 1000, 10**9, interval=0.1)
    await respond_early(upload)
    assert upload.order == ["head", "body", *["piece"] * 5, "last"]


async def test_a_client_that_never_sends_what_it_said_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    upload = Upload(b"", 0)
    start = trio.current_time()
    await respond_early(upload)
    assert upload.events[-1] == ("last", start + _limits.LINGER_TIME)


class FullQueue:
    """A server that takes the end of a response only when its queue of messages was read.

    Its queue holds ten, its client has more, and sends them when there is room.
    """

    def __init__(self, messages: int) -> None:
        self._to_queue, self._queue = trio.open_memory_channel[Message](10)
        self._left = messages
        self._drained = trio.Event()
        self.complete = False

    async def fill(self) -> None:
        while self._left:
            self._left -= 1
            message = {"type": "http.request", "body": b"x" * 1000, "more_body": self._left > 0}
            await self._to_queue.send(message)

    async def receive(self) -> Message:
        message = await self._queue.receive()
        if not message["more_body"]:
            self._drained.set()
        return message

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.body" and not message["more_body"]:
            await self._drained.wait()
            self.complete = True


@pytest.mark.parametrize("linger_size", [0, 5000, _limits.LINGER_SIZE])
async def test_the_end_is_sent_while_discarding_goes_on(
    linger_size: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is discarded before it, the last message waits for more, and gets it."""
    monkeypatch.setattr(_limits, "LINGER_SIZE", linger_size)
    server = FullQueue(100)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.fill)
            await respond_early(server)
    assert server.complete


async def test_a_request_without_a_body_is_not_asked_for_one() -> None:
    exchange = await answer(lambda: "x")
    assert exchange.received == 0
    exchange = await answer(lambda: "x", "POST", headers={"content-length": "0"})
    assert exchange.received == 0


async def test_a_body_that_was_read_is_not_asked_for_again() -> None:
    app = App()

    @app.post("/")
    async def handler(data: dict[str, int]) -> dict[str, int]:
        return data

    exchange = await Client(app)("POST", "/", json={"a": 1})
    assert exchange.json() == {"a": 1}
    assert len(exchange.sent) == 2


async def test_over_http_2_any_request_may_have_a_body() -> None:
    """Nothing in its header fields says so: its end has to be seen."""
    exchange = await answer(lambda: "x", "POST", body=[b"1", b"2"], http_version="2", headers={})
    assert exchange.received == 2
    assert exchange.json() == "x"
    assert exchange.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_server_that_fails_to_send_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.get("/")
    async def handler() -> str:
        return "x"

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("broken")

    await app(http_scope("GET", "/", []), trio.sleep_forever, send)
    assert messages(caplog) == ["GET / failed too late to be answered"]
    assert caplog.records[0].levelno == logging.ERROR


# What is no background task, and no iterator


def pieces() -> None: ...


async def whole() -> None: ...


@pytest.mark.parametrize("background", [[BackgroundTask(len, "")], whole, (), 0])
def test_background_is_a_task_or_a_list_of_the_right_kind(background: Any) -> None:
    makers: list[Any] = [Response, JSONResponse, lambda **options: RedirectResponse("/", **options)]
    for make in makers:
        with pytest.raises(TypeError, match="isn't a task; take BackgroundTask"):
            make(background=background)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (pieces, "takes an iterator: StreamingResponse(pieces()), not (pieces)"),
        (5, "takes an iterator of str or bytes, not int"),
        (None, "takes an iterator of str or bytes, not NoneType"),
    ],
)
def test_stream_of_what_is_no_iterator(content: Any, text: str) -> None:
    with pytest.raises(TypeError, match=re.escape(text)):
        StreamingResponse(content)


def test_stream_of_a_coroutine() -> None:
    content: Any = whole()
    with pytest.raises(TypeError, match="whole has no yield in it"):
        StreamingResponse(content)


@pytest.mark.parametrize("status", ["404", None, "Not Found"])
def test_an_exceptions_status_is_a_number(status: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"HTTPException(404, {status!r}), not ")):
        HTTPException(status)


@pytest.mark.parametrize("status_code", [99, 600, 199, "200"])
def test_a_status_is_checked_when_it_is_set(status_code: Any) -> None:
    response = JSONResponse({})
    with pytest.raises(ValueError, match="the status of a response"):
        response.status_code = status_code
    assert response.status_code == 200


@pytest.mark.parametrize("status_code", [204, 304])
async def test_the_status_at_the_time_of_sending_decides_on_a_body(status_code: int) -> None:
    response = JSONResponse({"a": 1})
    response.status_code = status_code
    exchange = await answer(lambda: response)
    assert (exchange.status, exchange.body) == (status_code, b"")
    assert "content-length" not in exchange.headers


async def test_a_subclass_says_its_status_itself() -> None:
    class MultiStatus(JSONResponse):
        @property
        def status_code(self) -> int:
            return 207

        @status_code.setter
        def status_code(self, status_code: int) -> None: ...

    assert (await answer(lambda: MultiStatus({}))).status == 207
