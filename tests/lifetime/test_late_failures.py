"""A response that fails when it is too late to answer: dependencies see it, and roll back.

Rules of this module:

* What a dependency sees at its `yield` is written down, `None` for a success.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock

from trioweb import (
    App,
    ClientDisconnect,
    Depends,
    JSONResponse,
    Request,
    StreamingResponse,
    task,
)
from trioweb.testing._clock import time_for_threads

from ..support.asgi import Client, Exchange, Message, http_scope, running
from ..support.log_records import before_the_report

Scope = Literal["request", "response", "function"]
LATE = "GET / failed too late to be answered"


class Sessions:
    """Dependencies that know how their request ended."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def note(self, name: str, exc: BaseException | None) -> None:
        self.seen.append(f"{name}: {exc!r}")

    async def asynchronous(self) -> AsyncIterator[str]:
        try:
            yield "session"
        except BaseException as exc:
            self.note("async", exc)
            raise
        else:
            self.note("async", None)

    def synchronous(self) -> Iterator[str]:
        try:
            yield "session"
        except BaseException as exc:
            self.note("sync", exc)
            raise
        else:
            self.note("sync", None)

    async def swallowing(self) -> AsyncIterator[str]:
        try:
            yield "session"
        except BaseException as exc:
            self.note("swallowing", exc)

    async def replacing(self) -> AsyncIterator[str]:
        try:
            yield "session"
        except ValueError as exc:
            self.note("replacing", exc)
            raise LookupError("rolled back") from exc


def app_with(
    *dependencies: Callable[..., Any],
    make: Callable[[], Any],
    scope: Scope = "request",
    needs_nursery: bool = False,
) -> App:
    app = App()
    takes = [Depends(dependency, scope=scope) for dependency in dependencies]

    if needs_nursery:

        @app.get("/", dependencies=takes)
        async def with_nursery(nursery: trio.Nursery) -> StreamingResponse:
            return StreamingResponse(make())
    else:

        @app.get("/", dependencies=takes)
        async def without() -> StreamingResponse:
            return StreamingResponse(make())

    return app


async def failing() -> AsyncIterator[str]:
    yield "a"
    raise ValueError("went wrong")


def failing_in_thread() -> Iterator[str]:
    yield "a"
    raise ValueError("went wrong")


async def failing_in_group() -> AsyncIterator[str]:
    yield "a"
    raise ExceptionGroup("both", [ValueError("one"), ValueError("two")])


async def exiting() -> AsyncIterator[str]:
    yield "a"
    raise SystemExit(3)


async def ending() -> AsyncIterator[str]:
    yield "a"


@pytest.mark.parametrize("scope", ["request", "response"])
@pytest.mark.parametrize("needs_nursery", [True, False])
@pytest.mark.parametrize(
    ("make", "failure"),
    [
        (failing, "ValueError('went wrong')"),
        (failing_in_thread, "ValueError('went wrong')"),
        (failing_in_group, "ExceptionGroup('both', [ValueError('one'), ValueError('two')])"),
        (exiting, "SystemExit(3)"),
        (ending, "None"),
    ],
)
async def test_dependencies_see_what_a_stream_failed_with(
    scope: Scope,
    needs_nursery: bool,
    make: Callable[[], Any],
    failure: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sessions = Sessions()
    app = app_with(
        sessions.asynchronous,
        sessions.synchronous,
        make=make,
        scope=scope,
        needs_nursery=needs_nursery,
    )
    async with running(app) as client:
        assert (await client("GET", "/")).body == b"a"
    assert sessions.seen == [f"sync: {failure}", f"async: {failure}"]
    assert before_the_report(caplog) == [LATE] * (failure != "None")


async def test_those_of_the_function_were_left_before(caplog: pytest.LogCaptureFixture) -> None:
    sessions = Sessions()
    async with running(app_with(sessions.asynchronous, make=failing, scope="function")) as client:
        await client("GET", "/")
    assert sessions.seen == ["async: None"]


async def test_whoever_swallows_it_swallows_it_for_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sessions = Sessions()
    app = app_with(sessions.asynchronous, sessions.swallowing, make=failing)
    async with running(app) as client:
        await client("GET", "/")
    failure = "ValueError('went wrong')"
    assert sessions.seen == [f"swallowing: {failure}", f"async: {failure}"]
    assert before_the_report(caplog) == [LATE]


async def test_what_is_raised_in_its_place_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    sessions = Sessions()
    app = app_with(sessions.asynchronous, sessions.replacing, make=failing)
    async with running(app) as client:
        await client("GET", "/")
    assert sessions.seen == [
        "replacing: ValueError('went wrong')",
        "async: LookupError('rolled back')",
    ]
    assert before_the_report(caplog) == [LATE] * 2


async def test_tasks_run_before_the_requests_dependencies_see_it() -> None:
    sessions = Sessions()
    app = App()

    async def after(what: str) -> None:
        sessions.seen.append(what)

    @app.get("/", dependencies=[Depends(sessions.asynchronous)])
    async def root(request: Request) -> StreamingResponse:
        request.tasks.add_task(after, "task")
        request.tasks.add_task(task(when="error")(after), "task for errors")
        return StreamingResponse(failing())

    async with running(app) as client:
        await client("GET", "/")
    assert sessions.seen == ["task", "task for errors", "async: ValueError('went wrong')"]


async def test_a_context_variable_can_be_given_back_after_a_failure() -> None:
    user = contextvars.ContextVar("user", default="nobody")
    given_back: list[str] = []

    async def as_user() -> AsyncIterator[None]:
        token = user.set("ann")
        try:
            yield
        finally:
            user.reset(token)
            given_back.append(user.get())

    async with running(app_with(as_user, make=failing)) as client:
        await client("GET", "/")
    assert given_back == ["nobody"]


# Nothing failed, but the stream was cut off


async def endless() -> AsyncIterator[str]:
    while True:
        yield "a"
        await trio.sleep(1)


def endless_in_thread() -> Iterator[str]:
    while True:
        yield "a"


@pytest.mark.parametrize("make", [endless, endless_in_thread])
async def test_where_the_client_leaves_dependencies_see_that_the_stream_is_half_done(
    make: Callable[[], Any], autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions()
    app = app_with(sessions.asynchronous, sessions.synchronous, make=make)
    with time_for_threads():
        async with running(app) as client:
            await client("GET", "/", leaves_after=3)
    assert sessions.seen == ["sync: ClientDisconnect()", "async: ClientDisconnect()"]
    assert before_the_report(caplog) == []


async def test_its_tasks_run_all_the_same(autojump_clock: MockClock) -> None:
    sessions = Sessions()
    app = App()

    async def after(what: str) -> None:
        sessions.seen.append(what)

    @app.get("/", dependencies=[Depends(sessions.asynchronous)])
    async def root(request: Request) -> StreamingResponse:
        request.tasks.add_task(after, "task")
        request.tasks.add_task(task(when="error")(after), "task for errors")
        request.tasks.add_task(task(when="sent")(after), "task for deliveries")
        return StreamingResponse(endless())

    async with running(app) as client:
        await client("GET", "/", leaves_after=3)
    assert sessions.seen == ["task", f"async: {ClientDisconnect()!r}"]


async def test_a_server_that_gives_the_call_up_cuts_it_off_too(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions()

    async def send(message: Message) -> None: ...

    app = app_with(sessions.asynchronous, make=endless)
    async with running(app):
        with trio.move_on_after(5):
            await app(http_scope("GET", "/", []), trio.sleep_forever, send)
    assert sessions.seen == ["async: ClientDisconnect()"]
    assert before_the_report(caplog) == []


@pytest.mark.parametrize("scope", ["request", "response"])
async def test_a_response_in_one_piece_was_made_whoever_gets_it(
    scope: Scope, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions()
    app = App()

    @app.get("/", dependencies=[Depends(sessions.asynchronous, scope=scope)])
    async def root() -> str:
        return "done"

    async def send(message: Message) -> None:
        raise OSError("gone")

    async with running(app):
        await app(http_scope("GET", "/", []), trio.sleep_forever, send)
    assert sessions.seen == ["async: None"]
    assert before_the_report(caplog) == []


async def test_a_head_that_is_all_there_is_was_whole(caplog: pytest.LogCaptureFixture) -> None:
    sessions = Sessions()
    async with running(app_with(sessions.asynchronous, make=failing)) as client:
        assert (await client("HEAD", "/")).status == 200
    assert sessions.seen == ["async: None"]


async def test_a_response_that_middleware_fails_to_send_is_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sessions = Sessions()
    app = App()

    @app.get("/", dependencies=[Depends(sessions.asynchronous)])
    async def root() -> JSONResponse:
        return JSONResponse("done")

    exchange = Exchange([b""])

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        async def send_but_the_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                raise ValueError("middleware")
            await send(message)

        await app(scope, exchange.receive, send_but_the_body)

    async with running(app):
        await Client(broken)("GET", "/")
    assert sessions.seen == ["async: ValueError('middleware')"]
    assert before_the_report(caplog) == [LATE]
