"""The test client: every promise of `trioweb.testing`, about apps that promise nothing."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    ClientDisconnect,
    HTTPException,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Request,
    Response,
    Retry,
    StreamingResponse,
    task,
    testing,
)
from trioweb.testing import Client, IncompleteResponse

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def echo() -> App:
    """Answers with what it was sent."""
    app = App()

    @app.route("/{path:path}", methods=METHODS)
    async def show(request: Request, path: str) -> dict[str, Any]:
        return {
            "method": request.method,
            "url": str(request.url),
            "path": request.scope["path"],
            "query": {name: request.query_params.getlist(name) for name in request.query_params},
            "headers": [[k.decode(), v.decode("latin-1")] for k, v in request.scope["headers"]],
            "cookies": dict(request.cookies),
            "body": (await request.body()).decode(),
        }

    @app.head("/{path:path}")
    async def head(path: str) -> PlainTextResponse:
        return PlainTextResponse("never sent")

    return app


@asynccontextmanager
async def client(app: App, **options: Any) -> AsyncIterator[Client]:
    """The client of all these tests: however its block is left, no task is left."""
    before = trio.lowlevel.current_statistics().tasks_living
    try:
        async with testing.client(app, **options) as c:
            yield c
    finally:
        assert trio.lowlevel.current_statistics().tasks_living == before


# --- What is sent.


@pytest.mark.parametrize("method", METHODS)
async def test_a_method_for_each_method(method: str) -> None:
    async with client(echo()) as c:
        response = await getattr(c, method.lower())("/a")
        assert response.json()["method"] == method
        assert (await c.request(method, "/a")).json()["method"] == method


async def test_head_has_fields_and_no_body() -> None:
    async with client(echo()) as c:
        response = await c.head("/")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Length"] == "10"
    assert response.is_complete


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("/", "http://testserver/"),
        ("/a?b=1", "http://testserver/a?b=1"),
        ("/a?b=1#fragment", "http://testserver/a?b=1"),
        ("/grün/a b?q=ü&r=a b", "http://testserver/gr%C3%BCn/a%20b?q=%C3%BC&r=a%20b"),
        ("/a%20b?q=%20", "http://testserver/a%20b?q=%20"),
        ("//evil/a", "http://testserver//evil/a"),
        ("http://testserver/a?b", "http://testserver/a?b"),
        ("https://example.org:8443", "https://example.org:8443/"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
    ],
)
async def test_urls(url: str, seen: str) -> None:
    async with client(echo()) as c:
        assert (await c.get(url)).json()["url"] == seen


async def test_the_path_is_decoded_as_servers_do() -> None:
    async with client(echo()) as c:
        assert (await c.get("/gr%C3%BCn/ß")).json()["path"] == "/grün/ß"


@pytest.mark.parametrize("url", ["a", "", "ftp://testserver/", "http:///a"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    async with client(echo()) as c:
        with pytest.raises(ValueError, match="neither a path nor an absolute URL") as caught:
            await c.get(url)
    assert "wrong:  await c.get(" in str(caught.value)


async def test_the_server_is_the_one_of_the_url() -> None:
    app = App()

    @app.get("/")
    async def server(request: Request) -> list[Any]:
        return [*request.scope["server"], request.scope["scheme"]]

    async with client(app, base_url="https://example.org/") as c:
        assert (await c.get("/")).json() == ["example.org", 443, "https"]
        assert (await c.get("http://localhost:8000/")).json() == ["localhost", 8000, "http"]
        assert (await c.get("http://localhost/")).json() == ["localhost", 80, "http"]


async def test_params() -> None:
    params = {"n": 3, "tags": ["a", "b&c"], "yes": True, "none": None, "ü": "ß"}
    seen = {"n": ["3"], "tags": ["a", "b&c"], "yes": ["true"], "ü": ["ß"]}
    async with client(echo()) as c:
        assert (await c.get("/", params=params)).json()["query"] == seen
        assert (await c.get("/?x=1", params=[("x", 2), ("y", (3, 4))])).json()["query"] == {
            "x": ["1", "2"],
            "y": ["3", "4"],
        }


async def test_headers_of_the_request_replace_those_of_the_client() -> None:
    async with client(echo(), headers={"X-One": "1", "X-Two": "2"}) as c:
        fields = (await c.get("/", headers=[("x-two", "3"), ("X-Two", "4")])).json()["headers"]
        assert fields == [
            ["host", "testserver"],
            ["x-one", "1"],
            ["x-two", "3"],
            ["x-two", "4"],
        ]
        [host, *_] = (await c.get("/", headers={"Host": "example.org"})).json()["headers"]
    assert host == ["x-one", "1"]


@pytest.mark.parametrize("headers", [{"x": "a\r\nb: c"}, {"x": "€"}, {"ü": "1"}])
async def test_header_fields_that_no_client_can_send_are_refused(headers: dict[str, str]) -> None:
    async with client(echo()) as c:
        with pytest.raises(ValueError, match=r"header|ascii"):
            await c.get("/", headers=headers)


class Item(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("options", "body", "fields"),
    [
        ({}, "", [["content-length", "0"]]),
        ({"content": b"abc"}, "abc", [["content-length", "3"]]),
        ({"content": "ü"}, "ü", [["content-length", "2"]]),
        (
            {"json": None},
            "null",
            [["content-type", "application/json"], ["content-length", "4"]],
        ),
        (
            {"json": Item("a"), "headers": {"content-type": "text/json"}},
            '{"name":"a"}',
            [["content-length", "12"], ["content-type", "text/json"]],
        ),
    ],
)
async def test_bodies(options: dict[str, Any], body: str, fields: list[list[str]]) -> None:
    async with client(echo()) as c:
        seen = (await c.post("/", **options)).json()
    assert seen["body"] == body
    assert seen["headers"] == [["host", "testserver"], *fields]


async def test_one_body_only() -> None:
    async with client(echo()) as c:
        with pytest.raises(ValueError, match="json= or content="):
            await c.post("/", json=1, content=b"1")


@pytest.mark.parametrize(
    ("option", "right"),
    [
        ("data", "content=, as in content=urlencode({...}) with its content-type, or json="),
        ("jsn", "json="),
        ("header", "headers="),
        ("follow_redirects", 'await c.get(response.headers["location"])'),
        ("timeout", "with trio.fail_after(5): await c.get(...)"),
        (
            "verify",
            "some of params, headers, cookies, json, content, disconnect_after",
        ),
    ],
)
async def test_an_option_that_does_not_exist(option: str, right: str) -> None:
    options: Any = {option: 1}
    async with client(echo()) as c:
        with pytest.raises(TypeError) as raised:
            await c.post("/", **options)
    assert str(raised.value) == (
        f"a request has no option {option!r}\n"
        f"    wrong:  await c.post(..., {option}=...)\n    right:  {right}"
    )


async def test_a_request_without_body_declares_none() -> None:
    async with client(echo()) as c:
        assert (await c.get("/")).json()["headers"] == [["host", "testserver"]]


# --- What comes back.


async def test_a_response() -> None:
    app = App()

    @app.get("/")
    async def fields() -> Response:
        body = "grün".encode("latin-1")
        response = Response(body, 201, media_type="text/plain; charset=latin-1")
        response.headers.append("x-more", "1")
        response.headers.append("X-More", "2")
        return response

    async with client(app) as c:
        response = await c.get("/")
        assert response.status_code == 201
        assert response.headers["CONTENT-TYPE"] == "text/plain; charset=latin-1"
        assert response.headers.getlist("x-more") == ["1", "2"]
        assert response.content == "grün".encode("latin-1")
        assert response.text == "grün"
        assert repr(response) == "<ClientResponse 201, 4 bytes read>"
        with pytest.raises(ValueError, match="codec can't decode"):
            response.json()
        assert c.app is app


async def test_redirects_are_responses() -> None:
    app = App()

    @app.get("/")
    async def away() -> RedirectResponse:
        return RedirectResponse("/there")

    async with client(app) as c:
        response = await c.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/there")
    assert response.text == ""


async def test_a_handlers_exception_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/")
    async def fail() -> None:
        raise LookupError("nothing here")

    async with client(app) as c:
        assert (await c.get("/")).status_code == 500
    [record] = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "nothing here"


# --- Cookies.


def cookie_app() -> App:
    app = App()

    @app.get("/")
    async def show(request: Request) -> dict[str, str]:
        return dict(request.cookies)

    @app.get("/set")
    async def set_one(name: str, value: str) -> Response:
        response = JSONResponse({})
        response.set_cookie(name, value, max_age=60, path="/elsewhere")
        response.set_cookie("other", "1")
        return response

    @app.get("/raw")
    async def raw(cookie: str) -> Response:
        return JSONResponse({}, headers={"set-cookie": cookie})

    @app.get("/delete")
    async def delete() -> Response:
        response = JSONResponse({})
        response.delete_cookie("a")
        return response

    return app


async def test_cookies_are_kept_and_sent() -> None:
    async with client(cookie_app()) as c:
        response = await c.get("/set", params={"name": "a", "value": 'x; "ü"'})
        assert response.cookies == {"a": 'x; "ü"', "other": "1"}
        assert c.cookies == response.cookies
        assert (await c.get("/")).json() == c.cookies
        assert (await c.get("/", cookies={"a": "2"})).json() == {"a": "2", "other": "1"}
        assert (await c.get("/", headers={"Cookie": "b=3"})).json() == {"b": "3"}
        response = await c.get("/delete")
        assert response.cookies == {}
        assert c.cookies == {"other": "1"}
        c.cookies.clear()
        assert (await c.get("/")).json() == {}


@pytest.mark.parametrize(
    ("attributes", "kept"),
    [
        ("", True),
        ("; Max-Age=1", True),
        ("; max-age=0", False),
        ("; Max-Age=-1; Expires=Fri, 01 Jan 2100 00:00:00 GMT", False),
        ("; Max-Age=soon", True),
        ("; Expires=Thu, 01 Jan 1970 00:00:00 GMT", False),
        ("; Expires=Fri, 01 Jan 2100 00:00:00 GMT", True),
        ("; Expires=soon", True),
    ],
)
async def test_cookies_that_have_expired_are_deleted(attributes: str, kept: bool) -> None:
    async with client(cookie_app()) as c:
        c.cookies["a"] = "0"
        await c.get("/raw", params={"cookie": f"a=1{attributes}"})
        assert c.cookies == ({"a": "1"} if kept else {})
        await c.get("/raw", params={"cookie": "b=1; Max-Age=0"})
        assert "b" not in c.cookies


# --- The lifespan.


async def test_the_lifespan_is_around_it_all() -> None:
    events = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, str]]:
        events.append("open")
        yield {"db": "open"}
        events.append("close")

    app = App(lifespan=lifespan)

    @app.get("/")
    async def show(request: Request) -> str:
        return str(request.state.db)

    async with client(app) as c:
        assert events == ["open"]
        assert (await c.get("/")).json() == "open"
    assert events == ["open", "close"]
    async with client(app) as c:  # and once more
        assert (await c.get("/")).json() == "open"


def failing_lifespan(phase: str) -> App:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        if phase == "startup":
            raise LookupError("no database")
        yield
        raise LookupError("no database")

    return App(lifespan=lifespan)


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_a_failing_lifespan_raises_in_the_test(phase: str) -> None:
    reached = False
    with pytest.raises(LookupError, match="no database"):
        async with client(failing_lifespan(phase)):
            reached = True
    assert reached == (phase == "shutdown")


async def test_a_lifespan_that_fails_in_shutdown_fails_once() -> None:
    async with client(failing_lifespan("shutdown")) as c:
        with pytest.raises(LookupError, match="no database"):
            await c.shutdown()


async def test_the_tests_own_failure_comes_first() -> None:
    with pytest.raises(ZeroDivisionError):
        async with client(failing_lifespan("shutdown")):
            raise ZeroDivisionError


async def test_one_app_has_one_client() -> None:
    app = echo()
    async with client(app) as c:
        with pytest.raises(RuntimeError, match="served already"):
            async with client(app):
                raise AssertionError("not reached")  # pragma: no cover
        assert (await c.get("/")).status_code == 200


@pytest.mark.parametrize("name", ["client", "connect"])
def test_a_client_is_there_within_async_with_only(name: str) -> None:
    given: Any = getattr(testing, name)(App())
    right = f"    right:  async with {name}(app) as c: ..."
    with pytest.raises(TypeError) as raised:
        ExitStack().enter_context(given)
    assert str(raised.value).splitlines()[1:] == [
        f"    wrong:  with {name}(app) as c: ...",
        right,
    ]
    with pytest.raises(AttributeError) as missing:
        given.get("/")
    assert str(missing.value).splitlines()[1:] == [
        f"    wrong:  c = {name}(app), then c.get",
        right,
    ]


async def test_two_apps_at_once() -> None:
    def named(name: str) -> App:
        app = App()

        @app.get("/")
        async def show() -> str:
            return name

        return app

    async with client(named("one")) as one, client(named("two")) as two:
        assert (await one.get("/")).json() == "one"
        assert (await two.get("/")).json() == "two"


async def test_middleware_is_around_the_app() -> None:
    app = echo()

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        async def send_more(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-more", b"1"))
            await send(message)

        await app(scope, receive, send_more)

    async with client(app, asgi=middleware) as c:
        assert (await c.get("/")).headers["x-more"] == "1"


async def test_middleware_that_fails_and_has_no_lifespan() -> None:
    fail_late = trio.Event()

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if scope["path"] == "/late":
                await fail_late.wait()
            raise LookupError("middleware")

    async with client(App(), asgi=middleware) as c:
        with pytest.raises(LookupError, match="middleware"):
            await c.get("/")
    with pytest.RaisesGroup(LookupError):
        async with client(App(), asgi=middleware) as c:
            with trio.move_on_after(0):
                await c.get("/late")
            fail_late.set()


async def test_a_call_that_sends_nothing_is_an_incomplete_response() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    async with client(App(), asgi=silent) as c:
        with pytest.raises(IncompleteResponse):
            await c.get("/")


# --- Tasks.


async def test_a_response_comes_while_its_tasks_go_on() -> None:
    app = App()
    release, done = trio.Event(), trio.Event()

    async def work() -> None:
        await release.wait()
        done.set()

    @app.post("/")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(work)

    async with client(app) as c:
        await c.post("/")
        assert not done.is_set()
        release.set()
        await c.wait_tasks()
        assert done.is_set()
        await c.wait_tasks()
        await c.post("/")
        await c.wait_tasks()
        assert app.statistics().done == 2


async def test_waiting_for_tasks_can_be_cancelled(autojump_clock: MockClock) -> None:
    app = App()
    ran = trio.Event()

    @app.get("/")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(trio.sleep, 10)
        tasks.add_task(ran.set)

    async with client(app) as c:
        await c.get("/")
        with trio.move_on_after(1) as scope:
            await c.wait_tasks()
        assert scope.cancelled_caught
        await c.wait_tasks()
        assert ran.is_set()


async def test_task_errors(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    heard: list[str] = []

    @task(timeout=600, retry=Retry(attempts=3))
    async def slow() -> None:
        await trio.sleep_forever()

    def fail() -> None:
        raise LookupError("task")

    @app.get("/")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(slow)
        tasks.add_task(fail)

    async with client(app) as c:
        await c.get("/")
        await c.wait_tasks()
        (first, timed_out), (second, failed) = c.task_errors
        assert (first.name.rpartition(".")[2], first.state) == ("slow", "timed_out")
        assert isinstance(timed_out, trio.TooSlowError)
        assert (second.state, repr(failed)) == ("failed", "LookupError('task')")
        assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 2

        @app.on_task_error
        def hear(task: BackgroundTask, exc: BaseException) -> None:
            heard.append(task.name)

        await c.get("/")
        await c.wait_tasks()
        assert len(c.task_errors) == 4
    assert len(heard) == 2
    async with client(app) as again:
        assert again.task_errors == []
    assert len(c.task_errors) == 4


# --- Threads.

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


def thread_app() -> tuple[App, list[threading.Thread]]:
    app = App()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())

    @app.get("/")
    def handler(tasks: BackgroundTasks) -> str:
        threads.append(threading.current_thread())
        variable.set("inside")
        tasks.add_task(work)
        return "done"

    @app.get("/error")
    def fail() -> str:
        raise HTTPException(418)

    return app, threads


async def test_plain_functions_run_in_place() -> None:
    app, threads = thread_app()
    run_sync = app._run_sync
    async with client(app) as c:
        assert (await c.get("/")).json() == "done"
        assert (await c.get("/error")).status_code == 418
        await c.wait_tasks()
        assert variable.get() == "outside"
    assert threads == [threading.current_thread()] * 2
    assert app._run_sync is run_sync


async def test_plain_functions_run_in_threads_where_they_are_to() -> None:
    app, threads = thread_app()
    async with client(app, threads=True) as c:
        assert (await c.get("/")).json() == "done"
        await c.wait_tasks()
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_plain_functions_keep_virtual_time(autojump_clock: MockClock) -> None:
    app, _ = thread_app()
    begin = trio.current_time()
    async with client(app) as c:
        await c.get("/")
        await c.wait_tasks()
    assert trio.current_time() == begin


# --- Streams.


def stream_app(events: list[str]) -> App:
    app = App()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for piece in (b"one", b"", b"two", b"three"):
                events.append(piece.decode())
                yield piece
            events.append("end")
        finally:
            events.append("closed")

    @app.get("/")
    async def stream(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(events.append, "task")
        return StreamingResponse(pieces(), 202, {"x-more": "1", "set-cookie": "a=1"})

    @app.get("/endless")
    async def endless(tasks: BackgroundTasks) -> StreamingResponse:
        async def more() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"more"
            finally:
                events.append("closed")

        tasks.add_task(events.append, "task")
        return StreamingResponse(more())

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise LookupError("broken")

        return StreamingResponse(pieces())

    return app


async def test_a_stream_is_read_piece_by_piece(autojump_clock: MockClock) -> None:
    events: list[str] = []
    async with client(stream_app(events)) as c:
        async with c.stream("GET", "/") as response:
            assert response.status_code == 202
            assert response.headers["x-more"] == "1"
            assert response.cookies == c.cookies == {"a": "1"}
            assert not response.is_complete
            await trio.sleep(10)
            assert events == ["one"]  # the app waits until it is taken
            assert await anext(response) == b"one"
            assert response.content == b"one"
            await trio.sleep(10)
            assert events == ["one", ""]
            assert [piece async for piece in response] == [b"two", b"three"]
            assert response.is_complete
            assert response.content == b"onetwothree"
            assert await response.read() == b"onetwothree"
        await c.wait_tasks()
    assert events == ["one", "", "two", "three", "end", "closed", "task"]


async def test_a_stream_that_is_left_is_left_by_the_client(autojump_clock: MockClock) -> None:
    events: list[str] = []
    async with client(stream_app(events)) as c:
        async with c.stream("GET", "/endless") as response:
            assert await anext(response) == b"more"
        with pytest.raises(trio.ClosedResourceError):
            await anext(response)
        await c.wait_tasks()
    assert not response.is_complete
    assert events == ["closed", "task"]


async def test_reading_can_be_cancelled_and_taken_up_again(autojump_clock: MockClock) -> None:
    app = App()

    @app.get("/")
    async def slow() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(3):
                await trio.sleep(10)
                yield b"%d" % number

        return StreamingResponse(pieces())

    async with client(app) as c, c.stream("GET", "/") as response:
        while not response.is_complete:
            with trio.move_on_after(3):
                await response.read()
        assert response.content == b"012"


async def test_a_broken_stream_is_an_incomplete_response() -> None:
    async with client(stream_app([])) as c:
        with pytest.raises(IncompleteResponse, match="ended within its response"):
            await c.get("/broken")
        async with c.stream("GET", "/broken") as response:
            with pytest.raises(IncompleteResponse):
                await response.read()
            assert response.content == b"one"
            assert not response.is_complete


async def test_what_is_raised_in_a_stream_comes_out_as_it_is() -> None:
    async with client(stream_app([])) as c:
        with pytest.raises(ZeroDivisionError):
            async with c.stream("GET", "/"):
                raise ZeroDivisionError


# --- The client leaves.


@pytest.mark.parametrize(
    ("after", "content"), [(0, b""), (2, b"mo"), (4, b"more"), (5, b"morem"), (8, b"moremore")]
)
async def test_a_client_leaves_at_a_chosen_byte(
    after: int, content: bytes, autojump_clock: MockClock
) -> None:
    events: list[str] = []
    async with client(stream_app(events)) as c:
        response = await c.get("/endless", disconnect_after=after)
        assert response.content == content
        assert not response.is_complete
        await c.wait_tasks()
    assert events == ["closed", "task"]


async def test_the_app_hears_of_it_before_it_can_go_on(autojump_clock: MockClock) -> None:
    """Every time, though this stream has but two pieces to go, and never waits."""
    for _ in range(20):
        events: list[str] = []
        async with client(stream_app(events)) as c:
            await c.get("/", disconnect_after=1)
        assert "end" not in events
        assert "closed" in events


@pytest.mark.parametrize("after", [11, 100])
async def test_a_client_that_would_leave_later_has_it_all(after: int) -> None:
    events: list[str] = []
    async with client(stream_app(events)) as c:
        response = await c.get("/", disconnect_after=after)
        assert response.content == b"onetwothree"
        assert response.is_complete == (after > 11)


@pytest.mark.parametrize(("after", "is_complete"), [(9, False), (10, True), (11, True)])
async def test_leaving_within_a_body_in_one_piece(after: int, is_complete: bool) -> None:
    app = App()

    @app.get("/")
    async def whole() -> PlainTextResponse:
        return PlainTextResponse("0123456789")

    async with client(app) as c:
        response = await c.get("/", disconnect_after=after)
    assert response.content == b"0123456789"[:after]
    assert response.is_complete == is_complete


async def test_a_cancelled_request_is_a_client_that_leaves(autojump_clock: MockClock) -> None:
    app = App()
    events: list[str] = []

    @app.post("/")
    async def slow() -> str:
        events.append("begin")
        await trio.sleep(10)
        events.append("end")
        return "nobody reads this"

    async with client(app) as c:
        with trio.move_on_after(5) as scope:
            await c.post("/")
        assert scope.cancelled_caught
        assert events == ["begin"]
    assert events == ["begin", "end"]  # a POST runs to its end, and is waited for


# --- Uploads.


def upload_app(events: list[object]) -> App:
    app = App()

    @app.post("/")
    async def take(request: Request) -> int:
        size = 0
        try:
            async for piece in request.stream():
                events.append(piece)
                size += len(piece)
                await trio.sleep(1)
        except ClientDisconnect:
            events.append("left")
            raise
        return size

    @app.post("/early")
    async def early() -> str:
        return "early"

    @app.post("/json")
    async def read(body: dict[str, int]) -> dict[str, int]:
        return body

    return app


async def test_pieces_are_asked_for_as_they_are_taken(autojump_clock: MockClock) -> None:
    events: list[object] = []
    begin = trio.current_time()
    asked: list[float] = []

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two", b"three"):
            asked.append(trio.current_time() - begin)
            yield piece

    async with client(upload_app(events)) as c:  # which takes one each second
        response = await c.post("/", content=pieces())
        assert response.json() == 11
    assert events == [b"one", b"two", b"three"]
    assert asked == [0, 0, 1]


class Pieces:
    """No generator, and nothing to close."""

    def __init__(self) -> None:
        self._left = [b"b", b"a"]

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def test_any_iterable_and_the_fields_for_it() -> None:
    async with client(echo()) as c:
        seen = (await c.post("/", content=Pieces())).json()
        assert (seen["body"], seen["headers"][1:]) == ("ab", [["transfer-encoding", "chunked"]])
        headers = {"content-length": "2"}
        seen = (await c.post("/", content=Pieces(), headers=headers)).json()
        assert (seen["body"], seen["headers"][1:]) == ("ab", [["content-length", "2"]])


async def test_an_upload_that_fails_is_a_client_that_leaves(autojump_clock: MockClock) -> None:
    events: list[object] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise ConnectionResetError("the client's")

    async with client(upload_app(events)) as c:
        with pytest.raises(ConnectionResetError, match="the client's"):
            await c.post("/", content=pieces())
    assert events == [b"one", "left"]


async def test_an_upload_that_is_cancelled_is_a_client_that_leaves(
    autojump_clock: MockClock,
) -> None:
    events: list[object] = []
    closed = False

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            yield b"one"
            await trio.sleep_forever()
        finally:
            closed = True

    async with client(upload_app(events)) as c:
        with trio.move_on_after(5):
            await c.post("/", content=pieces())
        assert closed
    assert events == [b"one", "left"]


async def test_an_upload_that_nobody_reads_is_closed(autojump_clock: MockClock) -> None:
    closed = False

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            while True:
                await trio.sleep(0.1)
                yield b"more"
        finally:
            closed = True

    async with client(upload_app([])) as c:
        response = await c.post("/early", content=pieces())
        assert response.json() == "early"
        assert closed


async def test_an_upload_within_a_stream() -> None:
    """A conversation: the response begins before the request has ended."""
    app = App()

    @app.post("/")
    async def shout(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in request.stream():
                yield piece.upper()

        return StreamingResponse(pieces())

    say, said = trio.open_memory_channel[bytes](0)
    async with client(app) as c, c.stream("POST", "/", content=said) as response:
        await say.send(b"one")
        assert await anext(response) == b"ONE"
        await say.send(b"two")
        assert await anext(response) == b"TWO"
        await say.aclose()
        assert await response.read() == b"ONETWO"


async def test_a_client_that_is_done_uploads_no_more() -> None:
    """The app's last message is taken while a piece of the request waits."""

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

    waiting = trio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        waiting.set()  # pragma: no cover  nobody takes the first one

    async with client(App(), asgi=deaf) as c:
        async with c.stream("POST", "/", content=pieces()) as response:
            await response.read()
            await trio.testing.wait_all_tasks_blocked()
        async with c.stream("POST", "/", content=pieces(), disconnect_after=1) as response:
            await response.read()
            await trio.testing.wait_all_tasks_blocked()
    assert not waiting.is_set()


# --- The shutdown.


async def test_leaving_drains(autojump_clock: MockClock) -> None:
    app = App(drain_timeout=20)
    begin = trio.current_time()

    @app.get("/")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(trio.sleep, 10)

    async with client(app) as c:
        await c.get("/")
    assert trio.current_time() == begin + 10
    assert app.statistics().done == 1


async def test_leaving_cancels_what_takes_longer(autojump_clock: MockClock) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        events.append("lifespan closed")

    app = App(lifespan=lifespan, drain_timeout=20)
    begin = trio.current_time()

    async def endless() -> None:
        try:
            await trio.sleep_forever()
        finally:
            events.append("cleaned up")

    @app.get("/")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(endless)

    async with client(app) as c:
        await c.get("/")
    assert trio.current_time() == begin + 20
    assert events == ["cleaned up", "lifespan closed"]
    assert app.statistics().cancelled == 1


async def test_requests_in_flight_are_cancelled_with_the_drain(autojump_clock: MockClock) -> None:
    app = App(drain_timeout=20)
    begin = trio.current_time()
    ended: list[float] = []

    @app.post("/")
    async def endless() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time() - begin)

    @app.post("/nursery")
    async def endless_in_the_apps(nursery: trio.Nursery) -> None:
        await endless()

    async def leave(c: Client, url: str) -> None:
        with trio.move_on_after(1):
            await c.post(url)

    async with client(app) as c, trio.open_nursery() as nursery:
        nursery.start_soon(leave, c, "/")
        nursery.start_soon(leave, c, "/nursery")
    assert ended == [21, 21]


async def test_a_shutdown_within_the_block(autojump_clock: MockClock) -> None:
    app = App(drain_timeout=20)
    begin = trio.current_time()
    outcome: list[str] = []

    @app.get("/")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(trio.sleep, 10)

    @app.post("/")
    async def endless() -> None:
        await trio.sleep_forever()

    async def post(c: Client) -> None:
        with pytest.raises(IncompleteResponse):
            await c.post("/")
        outcome.append(f"after {trio.current_time() - begin:g} s")

    async with client(app) as c, trio.open_nursery() as nursery:
        nursery.start_soon(post, c)
        await c.get("/")
        nursery.start_soon(c.shutdown)
        await app.draining.wait()
        assert (await c.get("/")).status_code == 503
        await trio.sleep(1)
        await c.shutdown()
        assert (await c.get("/")).status_code == 503
        await c.wait_tasks()
        assert app.statistics().done == 1
    assert outcome == ["after 20 s"]


async def test_a_test_that_failed_drains_nothing(autojump_clock: MockClock) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await trio.sleep(1)
            events.append("lifespan closed")

    app = App(lifespan=lifespan)
    begin = trio.current_time()

    @app.get("/")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(trio.sleep_forever)

    async def failing() -> None:
        async with client(app) as c:
            await c.get("/")
            raise LookupError

    with pytest.raises(LookupError):
        await failing()
    assert trio.current_time() == begin + 1
    assert app.statistics().cancelled == 1
    assert events == ["lifespan closed"]


class Outcome(BaseException):
    """As pytest's own are: what `pytest.fail` raises is no Exception."""


async def test_what_a_test_raises_is_in_no_group() -> None:
    for exception in (Outcome(), ExceptionGroup("", [LookupError()]), trio.TooSlowError()):
        with pytest.raises(type(exception)) as caught:
            async with client(echo()):
                raise exception
        assert caught.value is exception


# --- Cancellation, at every step.


async def everything(steps: list[str]) -> None:
    """Uses all of it; `steps` says how far it came."""
    events: list[object] = []
    app = upload_app(events)

    @app.get("/tasks")
    async def start(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(trio.sleep, 1)
        tasks.start_soon(trio.sleep, 1)
        return StreamingResponse(Pieces())

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            await trio.sleep(1)
            yield b"piece"

    async with client(app) as c:
        await c.post("/json", json={"a": 1})
        async with c.stream("GET", "/tasks") as response:
            await anext(response)
        async with c.stream("POST", "/", content=pieces()) as response:
            await response.read()
        await c.get("/tasks")
        await c.wait_tasks()
        await c.get("/tasks")
        await c.shutdown()
        steps.append("end")


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at the k-th step of one task."""

    def __init__(self, of: trio.lowlevel.Task, scope: trio.CancelScope, step: int) -> None:
        self._task = of
        self._scope = scope
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def test_cancelled_at_each_await_it_leaves_nothing(autojump_clock: MockClock) -> None:
    own = trio.lowlevel.current_task()
    step, was_cancelled = 0, True
    while was_cancelled:
        step += 1
        steps: list[str] = []
        with trio.CancelScope() as scope:
            instrument = CancelAt(own, scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                await everything(steps)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        was_cancelled = scope.cancel_called
        # Nothing is swallowed: it gives in, or was at its end already.
        assert scope.cancelled_caught or steps == ["end"]
    assert step > 20


# --- Elsewhere than under pytest-trio.


@pytest.mark.parametrize("clock", [None, MockClock(autojump_threshold=0)])
async def test_in_plain_trio(clock: MockClock | None) -> None:
    async def main() -> None:
        async with client(echo()) as c:
            assert (await c.get("/")).status_code == 200

    await trio.to_thread.run_sync(partial(trio.run, main, clock=clock))


async def test_a_request_has_its_tests_context() -> None:
    app = App()

    @app.get("/")
    async def show() -> str:
        return variable.get()

    async with client(app) as c:
        variable.set("the test's")
        assert (await c.get("/")).json() == "the test's"


async def test_what_fails_beside_a_test_that_fails_is_its_cause() -> None:
    class Broken(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await super().__call__(scope, receive, send)
            finally:
                raise ValueError("as it was cancelled")

    with pytest.raises(LookupError, match="the test's own") as raised:
        async with testing.client(Broken()):
            raise LookupError("the test's own")
    cause = raised.value.__cause__
    assert isinstance(cause, BaseExceptionGroup)
    assert cause.subgroup(ValueError)
