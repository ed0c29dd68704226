"""The request's life, in memory: what comes before what, and what ends when."""

import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import pytest
import trio
from trio.testing import MockClock, Sequencer, wait_all_tasks_blocked

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    Depends,
    HTTPException,
    JSONResponse,
    Request,
    StreamingResponse,
    task,
    testing,
)
from trioweb._app.app import inner_of
from trioweb._http.exchange import Exchange as AppExchange
from trioweb._tasks.list import TaskQueue
from trioweb._tasks.options import WHENS
from trioweb._tasks.run import TaskRun

from ..support.asgi import Client, Exchange, Message, http_scope, running
from ..support.log_records import before_the_report, messages


async def test_the_call_returns_before_the_task_runs() -> None:
    app = App()
    ran, release = trio.Event(), trio.Event()

    async def task() -> None:
        await release.wait()
        ran.set()

    @app.post("/send/{email}")
    async def send(email: str, background_tasks: BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task)
        return {"to": email}

    async with running(app) as client:
        first = await client("POST", "/send/ann")
        assert first.json() == {"to": "ann"}
        assert not ran.is_set()
        assert (await client("POST", "/send/bob")).status == 200
        release.set()
    assert ran.is_set()


async def test_no_task_starts_before_the_server_took_the_last_byte(
    autojump_clock: MockClock,
) -> None:
    """Even when the server is slow to take it."""
    app = App()
    events: list[str] = []

    async def task() -> None:
        events.append("task")

    @app.get("/")
    async def root(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(task)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        async def slow_send(message: Any) -> None:
            await trio.sleep(10)
            await send(message)
            events.append(message["type"])

        await app(scope, receive, slow_send)

    async with running(app):
        await Client(slow)("GET", "/")
    assert events == ["http.response.start", "http.response.body", "task"]


Endpoint = Callable[..., Any]


async def test_everything_in_its_order() -> None:
    """Section by section: handler, function, response, response exit, call, tasks, request."""
    app = App()
    events: list[str] = []

    def dependency(scope: str) -> Endpoint:
        async def depend() -> AsyncIterator[str]:
            events.append(f"{scope} entered")
            yield scope
            events.append(f"{scope} left")

        return depend

    @app.get("/")
    async def root(
        background_tasks: BackgroundTasks,
        request_scope: Annotated[str, Depends(dependency("request"))],
        response_scope: Annotated[str, Depends(dependency("response"), scope="response")],
        function_scope: Annotated[str, Depends(dependency("function"), scope="function")],
    ) -> str:
        background_tasks.add_task(events.append, "task")
        events.append("handler")
        return "ok"

    async def recording(scope: Any, receive: Any, send: Any) -> None:
        async def record(message: Any) -> None:
            events.append(message["type"])
            await send(message)

        await app(scope, receive, record)
        events.append("call returned")

    async with running(app):
        await Client(recording)("GET", "/")
    assert events[:4] == ["request entered", "response entered", "function entered", "handler"]
    assert events[4:8] == [
        "function left",
        "http.response.start",
        "http.response.body",
        "response left",
    ]
    # The call and the tasks are two Trio tasks from here on.
    assert sorted(events[8:]) == ["call returned", "request left", "task"]
    assert events.index("task") < events.index("request left")


async def test_five_sources_of_tasks_one_list_none_dropped() -> None:
    app = App()
    done: list[str] = []

    async def deeper(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(done.append, "sub-dependency")

    async def deep(background_tasks: BackgroundTasks, _: Annotated[None, Depends(deeper)]) -> None:
        background_tasks.add_task(done.append, "dependency")

    @app.get("/")
    async def root(request: Request, _: Annotated[None, Depends(deep)]) -> JSONResponse:
        request.tasks.add_task(done.append, "handler")
        brought = BackgroundTasks()
        brought.add_task(done.append, "response")
        return JSONResponse({}, background=brought)

    @app.get("/missing")
    async def missing() -> None:
        raise LookupError

    @app.exception_handler(LookupError)
    async def handle(request: Request, exc: LookupError) -> JSONResponse:
        request.tasks.add_task(done.append, "exception handler")
        return JSONResponse({}, 404, background=BackgroundTask(done.append, "its response"))

    for path in ("/", "/missing"):
        async with running(app) as client:
            await client("GET", path)
    assert done == [
        "sub-dependency",
        "dependency",
        "handler",
        "response",
        "exception handler",
        "its response",
    ]


async def test_tasks_of_an_exception_handler_run_where_no_route_matches() -> None:
    app = App()
    done: list[str] = []

    @app.exception_handler(HTTPException)
    async def handle(request: Request, exc: HTTPException) -> JSONResponse:
        request.tasks.add_task(done.append, "told")
        return JSONResponse({}, exc.status_code)

    async with running(app) as client:
        assert (await client("GET", "/nowhere")).status == 404
    assert done == ["told"]


@pytest.mark.parametrize("beside", [False, True])
async def test_tasks_of_a_failed_handler_are_skipped(beside: bool) -> None:
    app = App()
    handles: list[BackgroundTask] = []

    async def fail(background_tasks: BackgroundTasks) -> None:
        handles.append(background_tasks.add_task(trio.lowlevel.checkpoint))
        raise HTTPException(409)

    async def fail_beside(background_tasks: BackgroundTasks, nursery: trio.Nursery) -> None:
        await fail(background_tasks)

    app.get("/")(fail_beside if beside else fail)
    async with running(app) as client:
        assert (await client("GET", "/")).status == 409
    assert [handle.state for handle in handles] == ["skipped"]


async def test_a_task_that_fails_never_reaches_an_exception_handler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()
    handled: list[BaseException] = []

    async def task() -> None:
        raise LookupError

    @app.get("/items/{name}")
    async def root(name: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(task)

    @app.exception_handler(LookupError)
    async def handle(request: Request, exc: LookupError) -> None:
        handled.append(exc)  # pragma: no cover - the promise

    async with running(app) as client:
        assert (await client("GET", "/items/%0Ax")).status == 200
    assert handled == []
    [message] = before_the_report(caplog, "trioweb.tasks")
    assert message.endswith("task of GET /items/%0Ax failed")


@pytest.mark.parametrize("had_tasks", [False, True])
async def test_a_task_added_when_the_request_is_over_is_refused_aloud(had_tasks: bool) -> None:
    app = App()
    kept: list[Request] = []

    @app.get("/")
    async def root(request: Request) -> None:
        kept.append(request)
        if had_tasks:
            request.tasks.add_task(trio.lowlevel.checkpoint)

    async with running(app) as client:
        await client("GET", "/")
    with pytest.raises(RuntimeError, match="is over"):
        kept[0].tasks.add_task(print)


async def test_a_started_child_begins_at_once_and_its_failure_cancels_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()
    states: list[str] = []

    async def child() -> None:
        raise OSError("child")

    @app.get("/")
    async def root(nursery: trio.Nursery) -> None:
        nursery.start_soon(child)
        try:
            await trio.sleep_forever()
        finally:
            states.append("handler cancelled")

    async with running(app) as client:
        assert (await client("GET", "/")).status == 500
    assert states == ["handler cancelled"]
    assert before_the_report(caplog) == ["GET / failed"]


async def test_a_child_that_fails_during_the_list_cancels_the_rest_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()
    handles: list[BackgroundTask] = []

    step = Sequencer()

    async def child() -> None:
        async with step(1):
            raise OSError("child")

    async def task() -> None:
        async with step(0):
            pass
        await trio.sleep_forever()

    @app.get("/")
    async def root(nursery: trio.Nursery, background_tasks: BackgroundTasks) -> None:
        nursery.start_soon(child)
        handles.append(background_tasks.add_task(task))
        handles.append(background_tasks.add_task(task))

    async with running(app) as client:
        assert (await client("GET", "/")).status == 200
    assert [handle.state for handle in handles] == ["cancelled", "cancelled"]
    assert before_the_report(caplog) == ["GET / failed too late to be answered"]


async def test_a_child_may_outlive_the_tasks_and_the_request_waits_for_it(
    autojump_clock: MockClock,
) -> None:
    app = App()
    events: list[str] = []

    async def note(event: str, *, after: float) -> None:
        await trio.sleep(after)
        events.append(event)

    @app.get("/")
    async def root(nursery: trio.Nursery, background_tasks: BackgroundTasks) -> None:
        nursery.start_soon(partial(note, "child", after=5))
        background_tasks.add_task(note, "task", after=1)

    async with running(app) as client:
        await client("GET", "/")
    assert events == ["task", "child"]


async def test_the_drain_waits_for_tasks_and_closes_the_lifespan_last(
    autojump_clock: MockClock,
) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        events.append("lifespan closed")

    app = App(lifespan=lifespan)

    async def task() -> None:
        await trio.sleep(19)
        events.append("task done")

    @app.get("/")
    async def root(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(task)

    async with running(app) as client:
        await client("GET", "/")
        assert not app.draining.is_set()
    assert events == ["task done", "lifespan closed"]
    assert app.draining.is_set()


async def test_past_the_drain_timeout_tasks_are_cancelled_with_time_to_clean_up(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        events.append("lifespan closed")

    app = App(lifespan=lifespan, drain_timeout=2, cleanup_timeout=1)

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            events.append("task cleaned up")

    @app.get("/")
    async def root(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(task)
        background_tasks.add_task(task)

    async with running(app) as client:
        await client("GET", "/")
        begin = trio.current_time()
    assert trio.current_time() - begin == pytest.approx(2.5)
    assert events == ["task cleaned up", "lifespan closed"]
    # The report names them both; a record for each would be one too many.
    assert before_the_report(caplog, "trioweb.tasks") == []
    [report] = caplog.records
    assert "2 cancelled" in report.getMessage()
    assert report.levelname == "WARNING"


async def test_a_request_in_flight_is_waited_for_and_new_ones_get_503(
    autojump_clock: MockClock,
) -> None:
    app = App()
    entered = trio.Event()

    @app.get("/slow")
    async def slow() -> str:
        entered.set()
        await trio.sleep(5)
        return "done"

    async with trio.open_nursery() as nursery, running(app) as client:
        results: list[Any] = []

        async def ask() -> None:
            results.append(await client("GET", "/slow"))

        nursery.start_soon(ask)
        await entered.wait()

        async def ask_late() -> None:
            await app.draining.wait()
            results.append(await client("GET", "/slow"))

        nursery.start_soon(ask_late)
    late, early = results
    assert early.json() == "done"
    assert late.status == 503
    assert late.headers["retry-after"] == "1"
    assert (await client("GET", "/slow")).status == 503


@pytest.mark.parametrize("when", ["in the handler", "in the response", "after"])
@pytest.mark.parametrize("beside", [False, True])
async def test_cancelling_the_servers_call(when: str, beside: bool) -> None:
    """A handler that hasn't returned is cancelled, its tasks skipped; else they run."""
    app = App()
    handles: list[BackgroundTask] = []
    events: list[str] = []
    reached = trio.Event()

    async def handler(background_tasks: BackgroundTasks) -> StreamingResponse:
        handles.append(background_tasks.add_task(events.append, "task"))
        try:
            if when == "in the handler":
                reached.set()
                await trio.sleep_forever()
        finally:
            events.append("handler left")
        return StreamingResponse(chunks())

    async def chunks() -> AsyncIterator[str]:
        try:
            yield "a"
            if when == "in the response":
                reached.set()
                await trio.sleep_forever()
        finally:
            events.append("stream closed")

    async def handler_beside(
        background_tasks: BackgroundTasks, nursery: trio.Nursery
    ) -> StreamingResponse:
        return await handler(background_tasks)

    app.get("/")(handler_beside if beside else handler)
    async with running(app) as client, trio.open_nursery() as nursery:

        async def call() -> None:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel, scope)
                await client("GET", "/")
            events.append(f"cancelled: {scope.cancelled_caught}")
            reached.set()

        async def cancel(scope: trio.CancelScope) -> None:
            await reached.wait()
            scope.cancel()

        nursery.start_soon(call)
    expected = {
        "in the handler": ("skipped", ["cancelled: True", "handler left"]),
        "in the response": (
            "done",
            ["cancelled: True", "handler left", "stream closed", "task"],
        ),
        "after": ("done", ["cancelled: False", "handler left", "stream closed", "task"]),
    }
    state, seen = expected[when]
    assert [handle.state for handle in handles] == [state]
    assert sorted(events) == seen


async def test_a_cancelled_call_waits_no_longer_than_the_cleanup_timeout(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(cleanup_timeout=3)
    left: list[float] = []

    async def hanging() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await trio.sleep_forever()

    @app.get("/")
    async def root(_: Annotated[None, Depends(hanging)]) -> None:
        await trio.sleep_forever()

    async with running(app) as client:
        begin = trio.current_time()
        with trio.move_on_after(1):
            await client("GET", "/")
        left.append(trio.current_time() - begin)
    assert left == [pytest.approx(4)]
    assert before_the_report(caplog) == [
        "dependency hanging didn't close within the cleanup timeout"
    ]


async def test_a_dependency_closes_in_peace_though_its_request_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    app = App()
    events: list[str] = []

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except trio.Cancelled:
            events.append("rolled back")
            raise
        finally:
            await trio.sleep(1)  # not cancelled again
            events.append("closed")

    @app.get("/")
    async def root(_: Annotated[None, Depends(session)]) -> None:
        await trio.sleep_forever()

    async with running(app) as client:
        with trio.move_on_after(1):
            await client("GET", "/")
    assert events == ["rolled back", "closed"]


async def test_a_handler_in_a_thread_is_abandoned_past_the_cleanup_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App(cleanup_timeout=0.01)
    release, entered = threading.Event(), trio.Event()

    @app.get("/")
    def root() -> None:
        trio.from_thread.run_sync(entered.set)
        release.wait()

    async with running(app) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client, "GET", "/")
        await entered.wait()
        nursery.cancel_scope.cancel()
    release.set()
    assert before_the_report(caplog) == ["GET / failed too late to be answered"]


async def test_without_a_lifespan_the_call_returns_when_the_tasks_are_done(
    autojump_clock: MockClock,
) -> None:
    app = App(drain_timeout=1)
    done: list[str] = []

    async def task() -> None:
        await trio.sleep(60)
        done.append("task")

    @app.get("/")
    async def root(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(task)
        return "ok"

    exchange = await Client(app)("GET", "/")
    assert exchange.json() == "ok"
    assert done == ["task"]
    # And again: nothing was used up.
    assert (await Client(app)("GET", "/")).status == 200


async def test_a_stream_that_is_never_sent_is_closed() -> None:
    app = App()
    sender, receiver = trio.open_memory_channel[str](0)

    async def commit() -> AsyncIterator[None]:
        yield
        raise OSError("commit failed")

    @app.get("/")
    async def root(_: Annotated[None, Depends(commit, scope="function")]) -> StreamingResponse:
        return StreamingResponse(receiver)

    async with running(app) as client:
        assert (await client("GET", "/")).status == 500
        with pytest.raises(trio.BrokenResourceError):
            await sender.send("anybody?")


@pytest.mark.parametrize("beside", [False, True])
async def test_a_failing_stream_is_logged_once_and_its_tasks_run(
    beside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    done: list[str] = []

    async def broken() -> AsyncIterator[str]:
        yield "a"
        raise OSError("disk")

    async def root(background_tasks: BackgroundTasks) -> StreamingResponse:
        background_tasks.add_task(done.append, "task")
        return StreamingResponse(broken())

    async def root_beside(
        background_tasks: BackgroundTasks, nursery: trio.Nursery
    ) -> StreamingResponse:
        return await root(background_tasks)

    app.get("/")(root_beside if beside else root)
    async with running(app) as client:
        exchange = await client("GET", "/")
    assert not exchange.complete.is_set()
    assert done == ["task"]
    assert before_the_report(caplog) == ["GET / failed too late to be answered"]


async def test_ctrl_c_in_a_handler_goes_through() -> None:
    app = App()

    @app.get("/")
    async def root() -> None:
        raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as raised:
        await Client(app)("GET", "/")
    assert raised.group_contains(KeyboardInterrupt)


@pytest.mark.parametrize("beside", [False, True])
async def test_ctrl_c_in_a_task_goes_through(
    beside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    async def interrupt() -> None:
        raise KeyboardInterrupt

    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(interrupt)

    async def root_beside(tasks: BackgroundTasks, nursery: trio.Nursery) -> None:
        await root(tasks)

    app.get("/")(root_beside if beside else root)
    with pytest.raises(BaseExceptionGroup) as raised:
        await Client(app)("GET", "/")
    assert raised.group_contains(KeyboardInterrupt)


async def test_a_bug_of_ours_takes_no_other_request_with_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.CRITICAL)
    app = App()
    done: list[str] = []

    def broken(*args: object) -> None:
        raise ZeroDivisionError

    @app.get("/")
    async def root(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(done.append, "task")

    async with running(app) as client:
        with monkeypatch.context() as patch:
            patch.setattr(TaskRun, "begin", broken)
            await client("GET", "/")
            await trio.testing.wait_all_tasks_blocked()
        assert (await client("GET", "/")).status == 200
    assert done == ["task"]
    assert before_the_report(caplog) == ["a bug in trioweb, please report it"]
    assert caplog.records[0].exc_info
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("scope", ["function", "response", "request"])
@pytest.mark.parametrize("outcome", ["returns", "fails", "is too slow", "is cancelled"])
async def test_a_dependency_may_hold_a_nursery_open(
    scope: Any, outcome: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its scopes nest with ours, whatever happens between."""
    app = App()
    events: list[str] = []

    async def workers() -> AsyncIterator[trio.Nursery]:
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                yield nursery
                events.append("left")

    @app.get("/", timeout=5)
    async def root(nursery: Annotated[trio.Nursery, Depends(workers, scope=scope)]) -> str:
        nursery.start_soon(trio.sleep, 1)
        if outcome == "fails":
            raise HTTPException(409)
        if outcome != "returns":
            await trio.sleep_forever()
        return "ok"

    statuses: list[int] = []
    async with running(app) as client:
        with trio.move_on_after(2 if outcome == "is cancelled" else 60):
            statuses.append((await client("GET", "/")).status)
    expected = {"returns": [200], "fails": [409], "is too slow": [503], "is cancelled": []}
    assert statuses == expected[outcome]
    assert events == (["left"] if outcome == "returns" else [])
    assert before_the_report(caplog) == []


async def test_a_handler_that_outlasts_its_timeout_is_too_slow_all_the_same(
    autojump_clock: MockClock,
) -> None:
    app = App()
    seen: list[type[BaseException]] = []

    async def commit() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as exc:
            seen.append(type(exc))
            raise

    @app.get("/", timeout=1)
    async def root(_: Annotated[None, Depends(commit, scope="function")]) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return "late"

    async with running(app) as client:
        assert (await client("GET", "/")).status == 503
    assert seen == [trio.Cancelled]  # nothing is committed


async def test_tasks_after_a_timeout_have_all_their_time(mock_clock: MockClock) -> None:
    """The cleanup time of the handler is not that of what its exception handler added."""
    app = App(cleanup_timeout=5)
    release, started = threading.Event(), trio.Event()
    handles: list[BackgroundTask] = []

    async def session() -> AsyncIterator[None]:
        yield

    @app.get("/", timeout=1)
    async def root(_: Annotated[None, Depends(session)]) -> None:
        await trio.sleep_forever()

    def task() -> None:
        trio.from_thread.run_sync(started.set)
        release.wait()

    @app.exception_handler(HTTPException)
    async def handle(request: Request, exc: HTTPException) -> JSONResponse:
        handles.append(request.tasks.add_task(task))
        return JSONResponse({}, exc.status_code)

    async with running(app) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client, "GET", "/")
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(1)
        await started.wait()
        mock_clock.jump(6)
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert [handle.state for handle in handles] == ["done"]


async def test_an_exception_handler_after_a_timeout_has_all_its_time(
    mock_clock: MockClock,
) -> None:
    app = App(cleanup_timeout=5)
    release, started = threading.Event(), trio.Event()
    statuses: list[int] = []

    async def session() -> AsyncIterator[None]:
        yield

    @app.get("/", timeout=1)
    async def root(_: Annotated[None, Depends(session)]) -> None:
        await trio.sleep_forever()

    @app.exception_handler(HTTPException)
    def handle(request: Request, exc: HTTPException) -> JSONResponse:
        trio.from_thread.run_sync(started.set)
        release.wait()
        return JSONResponse({}, exc.status_code)

    async with running(app) as client, trio.open_nursery() as nursery:

        async def ask() -> None:
            statuses.append((await client("GET", "/")).status)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        await started.wait()
        mock_clock.jump(6)
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert statuses == [503]


async def test_tasks_after_a_cancelled_call_have_all_their_time(mock_clock: MockClock) -> None:
    """The cleanup time of what the call cut short is not that of the tasks."""
    app = App(cleanup_timeout=5)
    release, started = threading.Event(), trio.Event()
    committing, committed = trio.Event(), trio.Event()
    handles: list[BackgroundTask] = []

    async def commit() -> AsyncIterator[None]:
        yield
        committing.set()
        await committed.wait()

    def task() -> None:
        trio.from_thread.run_sync(started.set)
        release.wait()

    @app.get("/")
    async def root(
        tasks: BackgroundTasks, _: Annotated[None, Depends(commit, scope="function")]
    ) -> None:
        handles.append(tasks.add_task(task))

    async with running(app) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client, "GET", "/")
            await committing.wait()
            nursery.cancel_scope.cancel()
            committed.set()
        await started.wait()
        mock_clock.jump(6)
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert [handle.state for handle in handles] == ["done"]


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("exits_fail", [False, True])
async def test_tasks_for_failures_run_after_a_cancelled_call(
    beside: bool, exits_fail: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler failed, though there is nobody to answer."""
    app = App()
    handles: list[BackgroundTask] = []

    def fail() -> None:
        raise OSError("disk full")

    leave: Callable[[], object] = fail if exits_fail else bool

    async def failing() -> AsyncIterator[None]:
        try:
            yield
        finally:
            leave()

    @task(when="always")
    async def always() -> None:
        await trio.sleep(1)

    @task(when="error")
    async def error() -> None:
        await trio.sleep(1)

    async def success() -> None: ...

    async def root(tasks: BackgroundTasks) -> None:
        handles.extend(tasks.add_task(function) for function in (always, error, success))
        await trio.sleep_forever()

    async def root_beside(tasks: BackgroundTasks, _: Annotated[None, Depends(failing)]) -> None:
        await root(tasks)

    app.get("/")(root_beside if beside else root)
    async with running(app) as client:
        with trio.move_on_after(1):
            await client("GET", "/")
    assert [handle.state for handle in handles] == ["done", "done", "skipped"]
    late = messages(caplog)
    assert late == (["GET / failed too late to be answered"] if beside and exits_fail else [])


@pytest.mark.parametrize("beside", [False, True])
async def test_a_call_that_is_cancelled_while_it_sends_has_neither_failed_nor_sent(
    beside: bool, autojump_clock: MockClock
) -> None:
    app = App()
    handles: dict[str, BackgroundTask] = {}
    functions: dict[str, Any] = {}
    for when in WHENS:

        @task(when=when)
        async def note() -> None: ...

        functions[when] = note

    async def root(tasks: BackgroundTasks) -> str:
        handles.update({when: tasks.add_task(note) for when, note in functions.items()})
        return "ok"

    async def root_beside(tasks: BackgroundTasks, nursery: trio.Nursery) -> str:
        return await root(tasks)

    async def send(message: Message) -> None:
        await trio.sleep_forever()

    app.get("/")(root_beside if beside else root)
    exchange = Exchange([b""])
    async with running(app):
        with trio.move_on_after(1):
            await app(http_scope("GET", "/", []), exchange.receive, send)
    states = {when: handle.state for when, handle in handles.items()}
    assert states == {"success": "done", "sent": "skipped", "error": "skipped", "always": "done"}


@pytest.mark.parametrize("uses_it_up", ["in cleanup", "behind a shield"])
async def test_each_dependency_closes_though_the_tasks_used_up_the_cleanup_time(
    uses_it_up: str, autojump_clock: MockClock
) -> None:
    app = App(drain_timeout=1, cleanup_timeout=2)
    closed: list[str] = []

    def session() -> Iterator[None]:
        try:
            yield
        finally:
            closed.append("def")

    async def async_session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            closed.append("async def")

    async def long() -> None:
        try:
            if uses_it_up == "in cleanup":
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(4)

    @app.post("/")
    async def root(
        tasks: BackgroundTasks,
        a: Annotated[None, Depends(session)],
        b: Annotated[None, Depends(async_session)],
    ) -> None:
        tasks.add_task(long)

    async with testing.client(app) as c:
        await c.post("/")
        await wait_all_tasks_blocked()
    assert closed == ["async def", "def"]


async def test_a_def_dependency_closes_after_tasks_that_took_longer_than_a_cancelled_call_had(
    autojump_clock: MockClock,
) -> None:
    """The time to clean up that a cancelled call had isn't that of what follows it."""
    app = App(cleanup_timeout=1)
    inner_of(app).run_sync = in_place
    closed: list[str] = []

    def session() -> Iterator[None]:
        yield
        closed.append("session")

    async def commit() -> AsyncIterator[None]:
        yield
        await trio.sleep(0.5)

    @app.post("/")
    async def root(
        tasks: BackgroundTasks,
        a: Annotated[None, Depends(session)],
        b: Annotated[None, Depends(commit, scope="function")],
    ) -> None:
        tasks.add_task(trio.sleep, 10)

    async with running(app) as client:
        with trio.move_on_after(0.1):
            await client("POST", "/")
    assert closed == ["session"]


async def in_place(call: Callable[[], Any], **options: Any) -> Any:
    """For `trio.to_thread.run_sync`, as virtual time waits for no thread."""
    await trio.lowlevel.checkpoint()
    return call()


async def test_one_lifespan_is_one_from_the_begin_of_its_startup(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        events.append("opens")
        await trio.sleep(1)
        yield
        await trio.sleep(1)
        events.append("closes")

    app = App(lifespan=lifespan)
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan"}

    async def send(message: Message) -> None:
        answers.append(message)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(app, {"type": "lifespan"}, receive, send)
            await trio.sleep(0.6)
    refused = "lifespan.startup.failed"
    completed = ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    types = [message["type"] for message in answers]
    assert types == [refused, completed[0], refused, refused, completed[1]]
    assert events == ["opens", "closes"]


async def test_a_def_dependency_begins_to_close_though_others_left_no_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=1, cleanup_timeout=1)
    closed: list[str] = []
    both_closed = threading.Event()

    def session(name: str) -> Iterator[None]:
        try:
            yield
        finally:
            closed.append(name)
            if len(closed) == 2:
                both_closed.set()

    async def hanging() -> AsyncIterator[None]:
        yield
        await trio.sleep_forever()

    @app.post("/{name}")
    async def root(
        name: str,
        a: Annotated[None, Depends(session)],
        b: Annotated[None, Depends(session, use_cache=False)],
        c: Annotated[None, Depends(hanging)],
    ) -> None: ...

    async with running(app) as client:
        assert (await client("POST", "/x")).status == 200
    # Virtual time may be over before the threads are.
    assert both_closed.wait(30)
    assert "dependency hanging didn't close within the cleanup timeout" in caplog.text


async def test_a_lifespan_that_is_cancelled_while_it_closes_has_the_cleanup_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        await trio.sleep(20)  # may take as long as it likes, unless it is cancelled
        events.append("half closed")
        await trio.sleep_forever()

    events: list[str] = []
    app = App(lifespan=lifespan, cleanup_timeout=3)
    begin = trio.current_time()
    with trio.move_on_after(30) as scope:
        async with running(app):
            pass
    assert scope.cancelled_caught
    assert trio.current_time() - begin == pytest.approx(33)
    assert events == ["half closed"]
    assert "the lifespan didn't close within the cleanup timeout" in caplog.text


async def nothing() -> None:
    pass


async def checkpoint() -> None:
    await trio.lowlevel.checkpoint()


class Kept:
    """Tells when it is let go of, as a temporary file is deleted then."""


@pytest.mark.slow
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("by_dependency", [False, True])
async def test_what_a_request_s_state_holds_lives_as_long_as_its_tasks(
    waits: bool, by_dependency: bool, autojump_clock: MockClock
) -> None:
    app, seen = App(), list[bool]()

    async def look(kept: weakref.ref[Kept]) -> None:
        if waits:
            await trio.sleep(1)
        gc.collect()
        seen.append(kept() is not None)

    async def keep(request: Request) -> weakref.ref[Kept]:
        request.state.kept = Kept()
        return weakref.ref(request.state.kept)

    @app.get("/")
    async def root(request: Request, tasks: BackgroundTasks) -> None:
        tasks.add_task(look, await keep(request))
        tasks.add_task(look, weakref.ref(request.state.kept))

    @app.get("/dependency")
    async def depending(tasks: BackgroundTasks, kept: Annotated[Any, Depends(keep)]) -> None:
        tasks.add_task(look, kept)
        tasks.add_task(look, kept)

    async with running(app) as client:
        await client("GET", "/dependency" if by_dependency else "/")
    assert seen == [True, True]


async def test_a_list_that_is_first_asked_for_after_the_response_knows_that_it_was_sent(
    autojump_clock: MockClock,
) -> None:
    app, added = App(), list[BackgroundTask]()

    @task(when="sent")
    async def sent() -> None:
        pass

    async def late(request: Request) -> AsyncIterator[None]:
        yield
        added.append(request.tasks.add_task(sent))

    @app.get("/")
    async def root(_: Annotated[None, Depends(late, scope="response")]) -> None:
        pass

    async with running(app) as client:
        await client("GET", "/")
    assert [task.state for task in added] == ["done"]


@pytest.mark.parametrize("beside", [False, True])
async def test_a_thread_that_asks_for_the_list_right_before_the_first_look_is_heard(
    beside: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, added, requests = App(), list[BackgroundTask](), list[Request]()
    look = AppExchange.end_if_idle

    def look_after_the_thread(exchange: AppExchange) -> bool:
        thread = threading.Thread(target=add)
        thread.start()
        thread.join()
        return look(exchange)

    def add() -> None:
        added.append(requests[0].tasks.add_task(trio.sleep, 1))

    async def root(request: Request) -> None:
        requests.append(request)

    async def root_beside(request: Request, nursery: trio.Nursery) -> None:
        await root(request)

    app.get("/")(root_beside if beside else root)
    async with running(app) as client:
        monkeypatch.setattr(AppExchange, "end_if_idle", look_after_the_thread)
        await client("GET", "/")
    assert [task.state for task in added] == ["done"]


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("before", [None, nothing, checkpoint], ids=["none", "quick", "waits"])
@pytest.mark.parametrize("how", ["add_task", "start_soon"])
async def test_a_thread_that_adds_right_behind_the_last_look_is_heard(
    how: str,
    before: Callable[[], Awaitable[None]] | None,
    beside: bool,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Accepted, it runs: only what ends the app cancels it.  Else it is refused aloud."""
    app, added, lists = App(), list[BackgroundTask](), list[BackgroundTasks]()
    close, looks = TaskQueue.close_if_empty, 0
    last = 1 if before is None else 2  # the first look is whether there are any

    def close_after_the_thread(queue: TaskQueue) -> bool:
        nonlocal looks
        looks += 1
        if looks == last:
            thread = threading.Thread(target=add)
            thread.start()
            thread.join()
        return close(queue)

    def add() -> None:
        added.append(getattr(lists[0], how)(trio.sleep, 1))

    async def root(tasks: BackgroundTasks) -> None:
        lists.append(tasks)
        if before is not None:
            tasks.add_task(before)

    async def root_beside(tasks: BackgroundTasks, nursery: trio.Nursery) -> None:
        await root(tasks)

    app.get("/")(root_beside if beside else root)
    async with running(app) as client:
        monkeypatch.setattr(TaskQueue, "close_if_empty", close_after_the_thread)
        await client("GET", "/")
    assert [task.state for task in added] == ["done"]
    with pytest.raises(RuntimeError, match="the request it is for is over"):
        add()
