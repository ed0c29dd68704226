"""One request never takes the others with it, and nothing waits without a bound."""

import contextvars
import gc
import threading
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    Depends,
    JSONResponse,
    Limits,
    Request,
    Response,
    StreamingResponse,
)
from trioweb._errors import is_failure
from trioweb._tasks import runner

from ..support.asgi import Client, Exchange, Message, http_scope, running
from ..support.inline import Beside, nothing
from ..support.log_records import before_the_report

user = contextvars.ContextVar("user", default="nobody")

Scopes = pytest.mark.parametrize("scope", ["function", "response", "request"])


@Scopes
async def test_a_dependency_that_cancels_its_handler_ends_only_that(
    scope: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    stranger: list[BackgroundTask] = []

    async def limit() -> AsyncIterator[None]:
        with trio.move_on_after(1):
            yield

    @app.get("/limited")
    async def limited(_: Annotated[None, Depends(limit, scope=scope)]) -> None:
        await trio.sleep(5)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        stranger.append(tasks.add_task(trio.sleep, 3))

    async with running(app) as client:
        await client("GET", "/")
        assert (await client("GET", "/limited")).status == 500
        assert (await client("GET", "/")).status == 200
    assert [task.state for task in stranger] == ["done", "done"]
    [record] = caplog.records
    assert record.exc_info
    assert str(record.exc_info[1]).endswith("limit cancelled what runs within it")


async def test_a_dependency_that_cancels_the_tasks_is_reported(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    async def limit() -> AsyncIterator[None]:
        with trio.move_on_after(1):
            yield

    @app.get("/")
    async def root(tasks: BackgroundTasks, _: Annotated[None, Depends(limit)]) -> None:
        tasks.add_task(trio.sleep, 5)

    async with running(app) as client:
        assert (await client("GET", "/")).status == 200
        await trio.sleep(2)
        assert (await client("GET", "/")).status == 200
    assert app.statistics().cancelled == 2
    assert before_the_report(caplog) == ["GET / failed too late to be answered"] * 2


class Panic(BaseException):
    """What an extension module may raise past all `except Exception`."""


@Beside
async def test_a_base_exception_is_a_failure_like_any_other(
    beside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    async def panic() -> None:
        raise Panic

    async def root(tasks: BackgroundTasks, fail: bool) -> None:
        tasks.add_task(panic)
        if fail:
            raise Panic

    async def root_beside(tasks: BackgroundTasks, fail: bool, nursery: trio.Nursery) -> None:
        await root(tasks, fail)

    app.get("/")(root_beside if beside else root)
    async with running(app) as client:
        assert (await client("GET", "/?fail=true")).status == 500
        assert (await client("GET", "/?fail=false")).status == 200
    assert app.statistics().failed == 1


async def test_a_base_exception_after_the_response_takes_no_tasks_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    async def session() -> AsyncIterator[None]:
        yield
        raise Panic

    @app.get("/")
    async def root(
        tasks: BackgroundTasks, _: Annotated[None, Depends(session, scope="response")]
    ) -> None:
        tasks.add_task(trio.lowlevel.checkpoint)

    async with running(app) as client:
        assert (await client("GET", "/")).status == 200
    assert app.statistics().done == 1
    assert before_the_report(caplog) == ["GET / failed too late to be answered"]


async def test_the_log_shows_where_a_handler_failed_past_its_dependencies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    def look_up() -> None:
        raise LookupError

    @app.get("/")
    async def root(_: Annotated[None, Depends(nothing)]) -> None:
        look_up()

    async with running(app) as client:
        assert (await client("GET", "/")).status == 500
    [record] = caplog.records
    assert record.exc_info
    frames = traceback.extract_tb(record.exc_info[2])
    assert [frame.name for frame in frames][-2:] == ["root", "look_up"]


async def raise_kept() -> None:
    """What a cache of outcomes does: somebody else's cancellation is raised once more."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep(1)
        except trio.Cancelled as exc:
            kept = exc
            raise
    raise kept


async def raise_generator_exit() -> None:
    raise GeneratorExit


async def raise_kept_in_a_group() -> None:
    try:
        await raise_kept()
    except trio.Cancelled as exc:
        raise BaseExceptionGroup("both", [exc, OSError()]) from None


Strays = pytest.mark.parametrize("stray", [raise_kept, raise_generator_exit, raise_kept_in_a_group])


@Strays
@pytest.mark.parametrize("how", ["add_task", "start_soon"])
async def test_a_task_that_raises_what_ends_others_has_failed(
    stray: Any, how: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    handles: list[BackgroundTask] = []

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        handles.append(getattr(tasks, how)(stray))
        handles.append(tasks.add_task(trio.sleep, 1))

    @app.get("/other")
    async def other(tasks: BackgroundTasks) -> None:
        tasks.add_task(trio.sleep, 3)

    async with running(app) as client:
        await client("GET", "/other")
        await client("GET", "/")
        await trio.sleep(2)
        assert app.statistics().running == 1
    assert [handle.state for handle in handles] == ["failed", "done"]
    assert app.statistics().done == 2
    assert isinstance(handles[0].exception, RuntimeError)
    assert str(handles[0].exception).endswith("raised where nothing is cancelled or closed")
    assert before_the_report(caplog, "trioweb.tasks") == [f"task {stray.__name__} of GET / failed"]


@Strays
async def test_a_handler_that_raises_what_ends_others_has_failed(
    stray: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.get("/")
    async def root(_: Annotated[None, Depends(nothing)]) -> None:
        await stray()

    async with running(app) as client:
        assert (await client("GET", "/")).status == 500
    assert before_the_report(caplog) == ["GET / failed"]


@Beside
async def test_an_exception_handler_that_raises_a_kept_cancelled_has_failed(
    beside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.exception_handler(LookupError)
    async def handle(request: Request, exc: LookupError) -> None:
        await raise_kept()

    async def root() -> None:
        raise LookupError

    async def root_beside(_: Annotated[None, Depends(nothing)]) -> None:
        raise LookupError

    app.get("/")(root_beside if beside else root)
    async with running(app) as client:
        assert (await client("GET", "/")).status == 500
    assert before_the_report(caplog) == ["GET / failed"]


async def test_an_error_handler_that_raises_what_ends_others_has_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.on_task_error
    async def report(task: BackgroundTask, exc: BaseException) -> None:
        raise GeneratorExit

    async def broken() -> None:
        raise OSError

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.start_soon(broken)
        tasks.add_task(broken)
        tasks.add_task(trio.lowlevel.checkpoint)

    async with running(app) as client:
        await client("GET", "/")
    assert (app.statistics().failed, app.statistics().done) == (2, 1)
    told = ["task broken of GET / failed", "on_task_error handler report failed"]
    assert sorted(before_the_report(caplog, "trioweb.tasks")) == sorted(told * 2)


async def test_a_bug_of_ours_in_a_task_beside_the_list_is_contained(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    def buggy(task: BackgroundTask, failure: BaseException) -> None:
        raise AssertionError

    monkeypatch.setattr(runner, "_log_failure", buggy)

    async def broken() -> None:
        raise OSError

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.start_soon(broken)
        tasks.add_task(trio.lowlevel.checkpoint)

    async with running(app) as client:
        await client("GET", "/")
    assert app.statistics().done == 1
    assert "a bug in trioweb, please report it" in before_the_report(caplog)


@pytest.mark.parametrize("ending", ["child fails", "server is cancelled", "scope fires"])
async def test_a_lifespan_may_hold_a_nursery_open(
    ending: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bool] = []

    async def child() -> None:
        await trio.sleep(1)
        raise OSError("worker")

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        with trio.move_on_after(1 if ending == "scope fires" else 60):
            async with trio.open_nursery() as nursery:
                if ending == "child fails":
                    nursery.start_soon(child)
                try:
                    yield
                except BaseException as exc:
                    seen.append(is_failure(exc))
                    raise

    answers: list[Message] = []
    asked = iter([{"type": "lifespan.startup"}])

    async def receive() -> Message:
        message = next(asked, None)
        while message is None:
            await trio.sleep_forever()
        return message

    async def send(message: Message) -> None:
        answers.append(message)

    with trio.move_on_after(1.5 if ending == "server is cancelled" else 60) as scope:
        await App(lifespan=lifespan)({"type": "lifespan"}, receive, send)
    # It sees what ends it, and nothing of a cancellation from outside: it is left in order.
    assert seen == ([] if ending == "server is cancelled" else [False])
    expected = {
        "child fails": "ExceptionGroup: Exceptions from Trio nursery (1 sub-exception)",
        "scope fires": "RuntimeError: the lifespan cancelled what runs within it",
    }
    assert scope.cancelled_caught == (ending == "server is cancelled")
    if ending in expected:
        assert answers[-1] == {"type": "lifespan.shutdown.failed", "message": expected[ending]}


async def test_a_lifespan_error_without_a_text_is_told_to_the_server_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        raise Mute
        yield

    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        answers.append(message)

    await App(lifespan=lifespan)({"type": "lifespan"}, receive, send)
    assert answers[0]["type"] == "lifespan.startup.failed"
    assert "Mute" in answers[0]["message"]


# Contextvars


async def test_a_dependency_can_take_back_what_it_set_after_the_tasks() -> None:
    app = App()
    left: list[str] = []

    async def set_user() -> AsyncIterator[None]:
        token = user.set("ann")
        yield
        user.reset(token)
        left.append(user.get())

    @app.get("/")
    async def root(tasks: BackgroundTasks, _: Annotated[None, Depends(set_user)]) -> None:
        tasks.add_task(trio.lowlevel.checkpoint)

    async with running(app) as client:
        await client("GET", "/")
    assert left == ["nobody"]


@Beside
async def test_what_a_handler_sets_the_next_on_its_connection_does_not_see(beside: bool) -> None:
    app = App()

    async def root(name: str) -> str:
        before = user.get()
        user.set(name)
        await trio.lowlevel.checkpoint()
        return f"{before}, then {user.get()}"

    async def root_beside(name: str, nursery: trio.Nursery) -> str:
        return await root(name)

    app.get("/")(root_beside if beside else root)
    async with running(app) as client:
        token = user.set("server")
        for name in ("ann", "bob"):
            exchange = await client("GET", f"/?name={name}")
            assert exchange.json() == f"server, then {name}"
        user.reset(token)  # whoever calls the app keeps its own context


async def test_exceptions_and_cancellation_reach_a_handler_in_its_context(
    autojump_clock: MockClock,
) -> None:
    app = App()
    seen: list[str] = []

    @app.get("/")
    async def root() -> str:
        user.set("ann")
        try:
            with trio.fail_after(1):
                await trio.sleep_forever()
        except trio.TooSlowError:
            seen.append(user.get())
        return "ok"

    async with running(app) as client:
        assert (await client("GET", "/")).json() == "ok"
    assert seen == ["ann"]


# Bounds


async def test_inline_handlers_are_cancelled_at_the_end_of_the_drain(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One that shields itself is waited for, then named; nothing waits for it for ever."""
    events: list[str] = []
    answers: list[tuple[int, Any]] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        events.append("lifespan closed")

    app = App(lifespan=lifespan, drain_timeout=1, cleanup_timeout=2)

    @app.get("/{seconds}")
    async def root(seconds: float, tasks: BackgroundTasks) -> None:
        tasks.add_task(trio.lowlevel.checkpoint)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)
            events.append(f"handler with {seconds:g} s of cleanup")

    async with trio.open_nursery() as nursery:
        async with running(app) as client:
            begin = trio.current_time()

            async def ask(path: str) -> None:
                exchange = await client("GET", path)
                answers.append((exchange.status, exchange.json()))

            for path in ("/0", "/1", "/100"):
                nursery.start_soon(ask, path)
            await wait_all_tasks_blocked()
        assert trio.current_time() - begin == pytest.approx(3.5)
    assert events == [
        "handler with 0 s of cleanup",
        "handler with 1 s of cleanup",
        "lifespan closed",
        "handler with 100 s of cleanup",
    ]
    assert answers == [(503, {"detail": "The server is shutting down"})] * 3
    assert before_the_report(caplog) == ["the server still runs GET /100, past the end of the app"]
    assert (app.statistics().skipped, app.statistics().cancelled) == (2, 1)


@Beside
async def test_a_cancelled_call_doesnt_wait_for_an_exception_handler(
    beside: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(cleanup_timeout=3)
    events: list[str] = []

    @app.exception_handler(LookupError)
    async def handle(request: Request, exc: LookupError) -> None:
        request.tasks.add_task(trio.lowlevel.checkpoint)
        try:
            await trio.sleep_forever()
        finally:
            events.append(f"handler left at {trio.current_time() - begin:g}")

    async def root() -> None:
        raise LookupError

    async def root_beside(nursery: trio.Nursery) -> None:
        raise LookupError

    app.get("/")(root_beside if beside else root)
    async with running(app) as client:
        begin = trio.current_time()
        with trio.move_on_after(1):
            await client("GET", "/")
        events.append(f"call returned at {trio.current_time() - begin:g}")
    assert events == ["handler left at 1", "call returned at 1"]
    # Its handler didn't come to answer: the task it added is counted either way.
    assert app.statistics().added == 1
    assert app.statistics().pending == 0


@Beside
async def test_a_plain_exception_handler_is_abandoned_when_the_call_is_cancelled(
    beside: bool,
) -> None:
    app = App(cleanup_timeout=0.01)
    release, entered = threading.Event(), trio.Event()

    @app.exception_handler(LookupError)
    def handle(request: Request, exc: LookupError) -> None:
        trio.from_thread.run_sync(entered.set)
        release.wait()

    async def root() -> None:
        raise LookupError

    async def root_beside(nursery: trio.Nursery) -> None:
        raise LookupError

    app.get("/")(root_beside if beside else root)
    async with running(app) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client, "GET", "/")
        await entered.wait()
        nursery.cancel_scope.cancel()
    release.set()


async def test_a_plain_exception_handler_has_the_cleanup_time_when_the_call_is_cancelled() -> None:
    app = App()
    release, entered = threading.Event(), trio.Event()
    done: list[str] = []

    @app.exception_handler(LookupError)
    def handle(request: Request, exc: LookupError) -> JSONResponse:
        trio.from_thread.run_sync(entered.set)
        release.wait()
        request.tasks.add_task(done.append, "told")
        return JSONResponse({})

    @app.get("/")
    async def root(nursery: trio.Nursery) -> None:
        raise LookupError

    async with running(app) as client, trio.open_nursery() as nursery:
        with trio.CancelScope() as call:

            async def cancel() -> None:
                await entered.wait()
                call.cancel()
                await wait_all_tasks_blocked()
                release.set()

            nursery.start_soon(cancel)
            await client("GET", "/")
    assert call.cancelled_caught
    assert done == ["told"]


async def test_no_answer_is_made_for_a_call_that_is_gone(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    handled: list[BaseException] = []

    @app.exception_handler(LookupError)
    async def handle(request: Request, exc: LookupError) -> None:
        handled.append(exc)  # pragma: no cover - the promise

    async def replace() -> AsyncIterator[None]:
        try:
            yield
        except trio.Cancelled:
            raise LookupError from None

    @app.get("/")
    async def root(_: Annotated[None, Depends(replace)]) -> None:
        await trio.sleep_forever()

    async with running(app) as client:
        with trio.move_on_after(1):
            await client("GET", "/")
    assert handled == []
    assert before_the_report(caplog) == ["GET / failed too late to be answered"]


async def test_a_handler_that_has_returned_keeps_its_tasks_though_its_call_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    """Even while its dependencies commit: they do, and the tasks have all their time."""
    app = App(cleanup_timeout=5)
    events: list[str] = []

    async def commit() -> AsyncIterator[None]:
        yield
        await trio.sleep(2)
        events.append("committed")

    async def task() -> None:
        await trio.sleep(10)
        events.append("task")

    @app.get("/")
    async def root(
        tasks: BackgroundTasks, _: Annotated[None, Depends(commit, scope="function")]
    ) -> str:
        tasks.add_task(task)
        return "ok"

    exchange = Exchange([b""])
    async with running(app):
        with trio.move_on_after(1) as scope:
            await app(http_scope("GET", "/", []), exchange.receive, exchange.send)
        assert scope.cancelled_caught
    assert events == ["committed", "task"]
    assert exchange.sent == []  # there is nobody to answer


async def test_a_dependency_that_hangs_though_its_call_is_cancelled_has_the_cleanup_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(cleanup_timeout=3)
    ended: list[float] = []

    async def hanging() -> AsyncIterator[None]:
        yield
        await trio.sleep_forever()

    async def task() -> None:
        ended.append(trio.current_time() - begin)

    @app.get("/")
    async def root(
        tasks: BackgroundTasks, _: Annotated[None, Depends(hanging, scope="function")]
    ) -> None:
        tasks.add_task(task)

    async with running(app) as client:
        begin = trio.current_time()
        with trio.move_on_after(1):
            await client("GET", "/")
        await trio.sleep(60)
    assert ended == [pytest.approx(4)]
    assert len(before_the_report(caplog)) == 1


async def test_a_commit_that_fails_skips_the_tasks_though_its_call_is_cancelled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    handles: list[BackgroundTask] = []

    async def commit() -> AsyncIterator[None]:
        yield
        await trio.sleep(2)
        raise OSError("disk full")

    @app.get("/")
    async def root(
        tasks: BackgroundTasks, _: Annotated[None, Depends(commit, scope="function")]
    ) -> None:
        handles.append(tasks.add_task(trio.lowlevel.checkpoint))

    async with running(app) as client:
        with trio.move_on_after(1):
            await client("GET", "/")
    assert [handle.state for handle in handles] == ["skipped"]
    assert before_the_report(caplog) == ["GET / failed too late to be answered"]


async def test_past_the_cleanup_time_only_the_cancellation_is_swallowed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(cleanup_timeout=1)

    async def breaks_late() -> AsyncIterator[None]:
        try:
            yield
        finally:
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("disk full")

    @app.get("/")
    async def root(_: Annotated[None, Depends(breaks_late)]) -> None:
        await trio.sleep_forever()

    async with running(app) as client:
        with trio.move_on_after(1):
            await client("GET", "/")
    [record] = caplog.records
    assert record.exc_info
    assert str(record.exc_info[1]) == "disk full"


@Beside
async def test_a_handler_that_outlasts_its_timeout_gives_no_response(
    beside: bool, autojump_clock: MockClock
) -> None:
    app = App()
    sender, receiver = trio.open_memory_channel[str](0)

    async def root() -> Response:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return StreamingResponse(receiver)

    async def root_beside(nursery: trio.Nursery) -> Response:
        return await root()

    app.get("/", timeout=1)(root_beside if beside else root)
    async with running(app) as client:
        assert (await client("GET", "/")).status == 503
        with pytest.raises(trio.BrokenResourceError):
            await sender.send("anybody?")


async def test_a_timeout_is_for_the_handler_not_for_what_follows(
    autojump_clock: MockClock,
) -> None:
    app = App()

    async def chunks() -> AsyncIterator[str]:
        yield "a"
        await trio.sleep(5)
        yield "b"

    @app.get("/", timeout=1)
    async def root(tasks: BackgroundTasks, _: Annotated[None, Depends(nothing)]) -> Response:
        tasks.add_task(trio.sleep, 5)
        return StreamingResponse(chunks())

    async with running(app) as client:
        assert (await client("GET", "/")).text == "ab"
    assert app.statistics().done == 1


async def test_a_shielded_handler_holds_a_cancelled_call_no_longer_than_the_cleanup_timeout(
    autojump_clock: MockClock,
) -> None:
    app = App(cleanup_timeout=3, drain_timeout=60)

    @app.get("/")
    async def root(nursery: trio.Nursery) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)

    async with running(app) as client:
        begin = trio.current_time()
        with trio.move_on_after(1):
            await client("GET", "/")
        assert trio.current_time() - begin == pytest.approx(4)


async def test_when_the_server_is_cancelled_everything_has_the_cleanup_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(cleanup_timeout=3)

    async def hanging() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await trio.sleep_forever()

    @app.get("/")
    async def root(tasks: BackgroundTasks, _: Annotated[None, Depends(hanging)]) -> None:
        tasks.add_task(trio.sleep_forever)

    begin = trio.current_time()
    with trio.move_on_after(1) as scope:
        async with running(app) as client:
            await client("GET", "/")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() - begin == pytest.approx(4)
    assert app.draining.is_set()
    assert (await client("GET", "/")).status == 503


async def test_the_drains_end_bounds_a_dependency_that_hangs(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=2, cleanup_timeout=3)

    async def hanging() -> AsyncIterator[None]:
        yield
        await trio.sleep_forever()

    @app.get("/")
    async def root(_: Annotated[None, Depends(hanging)]) -> None: ...

    async with running(app) as client:
        await client("GET", "/")
        begin = trio.current_time()
    assert trio.current_time() - begin == pytest.approx(5)


async def test_a_call_returns_when_the_app_is_cancelled(autojump_clock: MockClock) -> None:
    app = App(drain_timeout=1)
    entered = trio.Event()

    @app.get("/")
    async def root(nursery: trio.Nursery) -> None:
        entered.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery, running(app) as client:
        begin = trio.current_time()
        nursery.start_soon(client, "GET", "/")
        await entered.wait()
    assert trio.current_time() - begin == pytest.approx(1)


# What else was lost or kept


async def test_a_nursery_that_its_handler_cancels_gives_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.get("/")
    async def root(nursery: trio.Nursery) -> str:
        nursery.cancel_scope.cancel()
        return "ok"

    async with running(app) as client:
        assert (await client("GET", "/")).status == 500
    [record] = caplog.records
    assert record.getMessage() == "GET / failed"
    assert record.exc_info
    assert str(record.exc_info[1]).startswith("the request's nursery was cancelled before")


async def test_without_a_lifespan_the_limits_and_counts_are_the_apps() -> None:
    app = App(limits=Limits(max_task_threads=2))
    now, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=30)

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait()
        with lock:
            now -= 1

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(work)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(Client(app), "GET", "/")
    assert most == 2
    assert app.statistics().done == 6


def test_a_generator_is_no_task() -> None:
    def gen() -> Any:
        yield  # pragma: no cover - never entered

    async def agen() -> Any:
        yield  # pragma: no cover - never entered

    for func in (gen, agen):
        says = f"^{func.__name__} yields: as a task its body would never run"
        with pytest.raises(TypeError, match=says):
            BackgroundTasks().add_task(func)


async def test_a_list_of_one_request_cant_be_handed_to_another(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    app = App()
    kept = BackgroundTasks()

    @app.get("/")
    async def root() -> Response:
        kept.add_task(trio.sleep, 5)
        return JSONResponse({}, background=kept)

    async with running(app) as client:
        assert (await client("GET", "/")).status == 200
        assert (await client("GET", "/")).status == 500
    assert app.statistics().done == 2  # both added to the first one's list, none run twice


async def test_ctrl_c_in_an_exception_handler_goes_through() -> None:
    app = App()

    @app.exception_handler(LookupError)
    async def handle(request: Request, exc: LookupError) -> None:
        raise KeyboardInterrupt

    @app.get("/")
    async def root() -> None:
        raise LookupError

    with pytest.raises(BaseExceptionGroup) as raised:
        await Client(app)("GET", "/")
    assert raised.group_contains(KeyboardInterrupt)


async def test_what_the_lifespan_yields_is_in_the_servers_state_and_copied_for_each_request() -> (
    None
):
    state: dict[str, Any] = {}
    started, stop = trio.Event(), trio.Event()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, Any]]:
        yield {"db": "open"}

    app = App(lifespan=lifespan)

    @app.get("/")
    async def root(request: Request) -> dict[str, Any]:
        seen = dict(request.scope["state"])
        request.scope["state"]["db"] = "mine"
        return seen

    async def receive() -> Message:
        if started.is_set():
            await stop.wait()
        return {"type": "lifespan"}

    async def send(message: Message) -> None:
        started.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, {"type": "lifespan", "state": state}, receive, send)
        await started.wait()
        assert state == {"db": "open"}
        for _ in range(2):
            assert (await Client(app)("GET", "/")).json() == {"db": "open"}
        stop.set()


@pytest.mark.slow
async def test_a_failure_that_is_kept_keeps_no_request() -> None:
    app, kept = App(), []

    @app.on_task_error
    async def keep(task: BackgroundTask, exc: BaseException) -> None:
        kept.append(exc)

    async def fails() -> None:
        raise ValueError

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(fails)

    async with running(app) as client:
        await client("GET", "/")
        await wait_all_tasks_blocked()
        gc.collect()
        assert len(kept) == 1
        assert living(app) == []


@pytest.mark.slow
async def test_requests_leave_nothing_behind_in_memory() -> None:
    app = App()

    @app.get("/")
    async def root(tasks: BackgroundTasks, _: Annotated[None, Depends(nothing)]) -> None:
        tasks.add_task(trio.lowlevel.checkpoint)

    @app.get("/inline")
    async def inline() -> None: ...

    async with running(app) as client:
        scopes = []
        for _ in range(3):
            for path in ("/", "/inline", "/missing"):
                await client("GET", path)
            await wait_all_tasks_blocked()
            gc.collect()
            assert living(app) == []
            scopes.append(sum(isinstance(o, trio.CancelScope) for o in gc.get_objects()))
        assert scopes[1] == scopes[2]  # the first requests leave what the app keeps
        gc.disable()
        try:
            for path in ("/inline", "/missing"):
                await client("GET", path)
                assert living(app) == [], path  # no request is a part of a cycle
        finally:
            gc.enable()


def living(app: App) -> list[Request]:
    return [o for o in gc.get_objects() if isinstance(o, Request) and o.app is app]


# Contextvars: one answer, one context


@Beside
@pytest.mark.parametrize("path", ["error", "stream", "json"])
async def test_the_whole_answer_has_one_context_and_leaves_nothing_in_the_servers(
    beside: bool, path: str
) -> None:
    app = App()

    class Oops(Exception): ...

    async def identify() -> None:
        user.set("alice")

    async def identify_beside() -> AsyncIterator[None]:
        user.set("alice")
        yield

    @app.exception_handler(Oops)
    async def handle(request: Request, exc: Oops) -> str:
        await trio.lowlevel.checkpoint()
        seen = user.get()
        user.set("the exception handler's")
        return seen

    async def chunks() -> AsyncIterator[str]:
        yield f'"{user.get()}"'
        user.set("the stream's")

    @app.get("/{path}")
    async def root(
        path: str, _: Annotated[None, Depends(identify_beside if beside else identify)]
    ) -> Any:
        if path == "error":
            raise Oops
        return StreamingResponse(chunks()) if path == "stream" else user.get()

    user.set("the server's")
    async with running(app) as client:
        assert (await client("GET", f"/{path}")).json() == "alice"
        assert user.get() == "the server's"
        await trio.lowlevel.checkpoint()
        assert user.get() == "the server's"
