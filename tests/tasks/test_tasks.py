"""What `@task`, `start_soon`, handles, limits and statistics promise, in virtual time."""

import contextvars
import itertools
import logging
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Annotated, Any
from unittest.mock import AsyncMock

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    Depends,
    HTTPException,
    JSONResponse,
    Limits,
    RegistrationError,
    Request,
    Response,
    Retry,
    StreamingResponse,
    TaskTimeout,
    task,
)
from trioweb._app.app import inner_of, lifetime_of
from trioweb.testing import client

from ..support.asgi import http_scope, running
from ..support.log_records import messages

user = contextvars.ContextVar("user", default="nobody")


async def ran(*functions: Callable[..., Any], app: App | None = None) -> list[BackgroundTask]:
    """The handles of tasks that one request added, when all have ended."""
    app = app or App()
    handles: list[BackgroundTask] = []

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        handles.extend(tasks.add_task(function) for function in functions)

    async with running(app) as client:
        await client("GET", "/")
        for handle in handles:
            await handle.wait()
    return handles


# @task: timeout, retry, name


async def test_a_task_past_its_timeout_is_cancelled_and_reported(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[float] = []

    @task(timeout=600)
    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            left.append(trio.current_time())

    begin = trio.current_time()
    late, last = await ran(slow, trio.lowlevel.checkpoint)
    assert left == [pytest.approx(begin + 600)]
    assert (late.state, last.state) == ("timed_out", "done")
    assert isinstance(late.exception, TaskTimeout)
    assert str(late.exception) == f"task {late.name} took longer than 600 s"
    assert messages(caplog, "trioweb.tasks") == [f"task {late.name} of GET / timed out"]


async def test_a_task_within_its_timeout_is_left_alone(autojump_clock: MockClock) -> None:
    @task(timeout=2)
    async def quick() -> None:
        await trio.sleep(1)

    [handle] = await ran(quick)
    assert handle.state == "done"


async def test_retries_are_counted_and_wait_longer_each_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tries: list[float] = []
    numbers = iter([0.0, 0.5, 1.0])

    @task(retry=Retry(attempts=4, backoff=10, jitter=0.2, random=lambda: next(numbers)))
    async def flaky() -> None:
        tries.append(trio.current_time())
        if len(tries) < 4:
            raise OSError("not yet")

    [handle] = await ran(flaky)
    assert handle.state == "done"
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert waits == pytest.approx([10 * 1.0, 20 * 1.1, 40 * 1.2])
    assert messages(caplog, "trioweb.tasks")[0] == (
        f"task {handle.name} of GET /: attempt 1 of 4 failed (OSError('not yet')), the next in 10 s"
    )
    assert len(messages(caplog, "trioweb.tasks")) == 3


async def test_the_last_failure_is_the_tasks(autojump_clock: MockClock) -> None:
    tries: list[int] = []

    @task(retry=Retry(attempts=3))
    async def broken() -> None:
        tries.append(len(tries))
        raise OSError(f"number {len(tries)}")

    [handle] = await ran(broken)
    assert tries == [0, 1, 2]
    assert (handle.state, str(handle.exception)) == ("failed", "number 3")


@pytest.mark.parametrize(
    ("exc", "tries"),
    [
        (OSError(), 2),
        (ExceptionGroup("", [OSError(), ConnectionError()]), 2),
        (ValueError(), 1),
        (ExceptionGroup("", [OSError(), ValueError()]), 1),
        (SystemExit(), 1),
    ],
)
async def test_only_named_exceptions_are_tried_again(
    exc: BaseException, tries: int, autojump_clock: MockClock
) -> None:
    count = 0

    @task(retry=Retry(attempts=2, on=(OSError,)))
    async def broken() -> None:
        nonlocal count
        count += 1
        raise exc

    [handle] = await ran(broken)
    assert (handle.state, count) == ("failed", tries)


async def test_a_timeout_is_for_each_attempt_and_is_tried_again(autojump_clock: MockClock) -> None:
    tries: list[float] = []

    @task(timeout=600, retry=Retry(attempts=3, backoff=1, jitter=0))
    async def slow() -> None:
        tries.append(trio.current_time())
        await trio.sleep_forever()

    [handle] = await ran(slow)
    assert [t - tries[0] for t in tries] == pytest.approx([0, 601, 1203])
    assert handle.state == "timed_out"


async def test_each_attempt_sees_contextvars_as_they_were_when_it_was_added(
    autojump_clock: MockClock,
) -> None:
    seen: list[str] = []

    @task(retry=Retry(attempts=3))
    async def writes() -> None:
        seen.append(user.get())
        user.set("somebody else")
        raise OSError

    user.set("ann")
    await ran(writes)
    assert seen == ["ann", "ann", "ann"]
    assert user.get() == "ann"


async def test_a_task_is_cancelled_while_it_waits_for_its_next_attempt(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=5)
    handles: list[BackgroundTask] = []

    attempts: list[float] = []

    @task(retry=Retry(attempts=2, backoff=3600))
    async def broken() -> None:
        attempts.append(trio.current_time())
        raise OSError

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        handles.append(tasks.add_task(broken))

    async with running(app) as client:
        await client("GET", "/")
        await wait_all_tasks_blocked()
        assert len(attempts) == 1
    assert [handle.state for handle in handles] == ["cancelled"]
    assert [handle.started_at for handle in handles] == attempts
    assert trio.current_time() - attempts[0] == pytest.approx(5)


async def test_a_decorated_function_is_callable_as_before() -> None:
    @task
    def plain(x: int) -> int:
        return x + 1

    @task(name="in the log")
    def named(x: int) -> int:
        return x + 2

    assert (plain(1), named(1)) == (2, 3)
    assert BackgroundTask(plain, 1).name.endswith("plain")
    assert BackgroundTask(named, 1).name == "in the log"


class Mailer:
    @task(name="mail")
    async def send(self) -> None: ...


def test_options_of_a_method_hold_for_each_object() -> None:
    assert BackgroundTask(Mailer().send).name == "mail"


@pytest.mark.parametrize(
    ("options", "problem", "wrong", "right"),
    [
        (
            {"when": "never"},
            "func: 'never' isn't an outcome",
            "@task(when='never')",
            "@task(when=...) with one of 'success', 'sent', 'error', 'always'",
        ),
        (
            {"timeout": 0},
            "func: a timeout is a number of seconds",
            "@task(timeout=0)",
            "@task(timeout=30.0)",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], problem: str, wrong: str, right: str
) -> None:
    async def func() -> None: ...

    with pytest.raises(RegistrationError) as raised:
        task(**options)(func)
    assert str(raised.value) == f"{problem}\n    wrong:  {wrong}\n    right:  {right}"


def test_a_thread_can_have_no_timeout() -> None:
    def func() -> None: ...

    with pytest.raises(RegistrationError) as raised:
        task(timeout=5)(func)
    assert str(raised.value) == (
        "func runs in a thread, which no timeout can end\n"
        "    wrong:  @task(timeout=5) on def func\n"
        "    right:  @task(timeout=5) on async def func"
    )


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"attempts": 2, "backoff": -1},
        {"attempts": 2, "jitter": -0.1},
    ],
)
def test_retries_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Retry"):
        Retry(**options)


@pytest.mark.parametrize("random", [5, None, lambda low, high: 0.5])
def test_the_random_numbers_of_a_retry_come_from_a_function(random: Any) -> None:
    with pytest.raises(RegistrationError, match=r"right:  Retry\(attempts=3, random="):
        Retry(attempts=2, random=random)


@pytest.mark.parametrize("attempts", [1, 3])
async def test_attempts_may_be_one_or_follow_at_once(
    attempts: int, autojump_clock: MockClock
) -> None:
    tries: list[float] = []

    @task(retry=Retry(attempts=attempts, backoff=0, jitter=0))
    async def broken() -> None:
        tries.append(trio.current_time())
        raise OSError

    await ran(broken)
    assert [t - tries[0] for t in tries] == [0] * attempts


def test_very_many_attempts_have_a_delay() -> None:
    """The ten-thousandth doubling is no number that a float could hold."""
    retry = Retry(attempts=20_000, backoff=0.5, random=lambda: 0.0)
    delays = [retry.delay(failures) for failures in (1, 2, 50, 60, 61, 62, 10_000)]
    assert delays == [0.5, 1, 0.5 * 2**49, 0.5 * 2**59, *[0.5 * 2**60] * 3]


async def test_a_task_that_returns_past_its_timeout_is_done(autojump_clock: MockClock) -> None:
    """It took too long, but a retry would do twice what it has done."""
    attempts: list[int] = []

    @task(timeout=1, retry=Retry(attempts=3))
    async def stubborn() -> None:
        attempts.append(1)
        with trio.CancelScope(shield=True):
            await trio.sleep(5)

    [handle] = await ran(stubborn)
    assert (handle.state, len(attempts)) == ("done", 1)


def test_unless_told_otherwise_a_retry_waits_a_second_and_up_to_a_tenth_of_it() -> None:
    assert Retry(attempts=2, random=lambda: 0.0).delay(1) == pytest.approx(1.0)
    assert Retry(attempts=2, random=lambda: 1.0).delay(1) == pytest.approx(1.1)


# when


async def outcome(handler: Callable[..., Any], **call: Any) -> dict[str, str]:
    """The end state of a task for each `when` that `handler` was given to add."""
    app = App()
    handles: dict[str, BackgroundTask] = {}

    @app.exception_handler(LookupError)
    async def handle(request: Request, exc: LookupError) -> Response:
        return JSONResponse({}, 404)

    async def root(tasks: BackgroundTasks) -> Any:
        for when in ("success", "sent", "error", "always"):

            @task(when=when)
            async def func() -> None: ...

            handles[when] = tasks.add_task(func)
        return await handler()

    async def root_beside(tasks: BackgroundTasks, nursery: trio.Nursery) -> Any:
        return await root(tasks)

    app.get("/")(root)
    app.get("/beside")(root_beside)
    found: list[dict[str, str]] = []
    for path in ("/", "/beside"):
        handles.clear()
        async with running(app) as client:
            await client("GET", path, **call)
        found.append({when: str(handle.state) for when, handle in handles.items()})
    assert found[0] == found[1]
    return found[0]


def states(*done: str) -> dict[str, str]:
    return {
        when: "done" if when in done else "skipped"
        for when in ("success", "sent", "error", "always")
    }


async def test_when_the_handler_returned(autojump_clock: MockClock) -> None:
    async def handler() -> str:
        return "ok"

    assert await outcome(handler) == states("success", "sent", "always")


def no_chunks() -> AsyncIterable[str]:
    source, chunks = trio.open_memory_channel[str](0)
    source.close()
    return chunks


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_when_the_client_left_before_a_stream_without_a_body(
    method: str, stays: bool, autojump_clock: MockClock
) -> None:
    app = App()
    handles: list[BackgroundTask] = []

    @task(when="sent")
    async def sent() -> None: ...

    @app.route("/", methods=["GET", "HEAD"])
    async def root(tasks: BackgroundTasks) -> Response:
        handles.append(tasks.add_task(sent))
        return StreamingResponse(no_chunks())

    async with running(app) as client:
        await client(method, "/", leaves_after=9 if stays else 0)
    assert [handle.state for handle in handles] == ["done" if stays else "skipped"]


@pytest.mark.parametrize("exc", [HTTPException(409), LookupError(), ValueError()])
async def test_when_the_handler_failed(exc: Exception, autojump_clock: MockClock) -> None:
    async def handler() -> None:
        raise exc

    assert await outcome(handler) == states("error", "always")


async def test_when_the_client_left_before_the_end(autojump_clock: MockClock) -> None:
    async def chunks() -> AsyncIterator[str]:
        yield "a"
        await trio.sleep(1)
        yield "b"

    async def handler() -> Response:
        return StreamingResponse(chunks())

    assert await outcome(handler, leaves_after=1) == states("success", "always")
    assert await outcome(handler) == states("success", "sent", "always")


async def test_when_the_client_left_before_a_response_in_one_piece(
    autojump_clock: MockClock,
) -> None:
    async def handler() -> str:
        return "ok"

    # It leaves as soon as it has the head.
    assert await outcome(handler, leaves_after=0) == states("success", "always")


async def test_when_the_response_failed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def chunks() -> AsyncIterator[str]:
        yield "a"
        raise OSError

    async def handler() -> Response:
        return StreamingResponse(chunks())

    assert await outcome(handler) == states("success", "error", "always")


async def test_tasks_of_whoever_answers_for_a_failure_run() -> None:
    app = App()
    done: list[str] = []

    async def note(name: str) -> None:
        done.append(name)

    @task(when="error")
    async def note_error(name: str) -> None:
        done.append(name)

    @app.exception_handler(LookupError)
    async def handle(request: Request, exc: LookupError) -> Response:
        request.tasks.add_task(note, "handler's, for success")
        request.tasks.add_task(note_error, "handler's, for error")
        return JSONResponse({}, 404)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "for success")
        tasks.add_task(note_error, "for error")
        raise LookupError

    async with running(app) as client:
        await client("GET", "/")
    assert done == ["for error", "handler's, for success", "handler's, for error"]


# start_soon


async def test_start_soon_runs_beside_the_list(autojump_clock: MockClock) -> None:
    app = App()
    events: list[str] = []

    async def work(name: str, seconds: float) -> None:
        events.append(f"{name} begins")
        await trio.sleep(seconds)
        events.append(f"{name} ends")

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(work, "first", 2)
        tasks.start_soon(work, "beside", 3)
        tasks.add_task(work, "second", 2)

    async with running(app) as client:
        await client("GET", "/")
    assert sorted(events[:2]) == ["beside begins", "first begins"]
    assert events[2:] == ["first ends", "second begins", "beside ends", "second ends"]


async def test_a_task_may_start_others_beside_it_at_once(autojump_clock: MockClock) -> None:
    app = App()
    events: list[str] = []

    async def child(name: str) -> None:
        events.append(name)

    async def parent(tasks: BackgroundTasks) -> None:
        handle = tasks.start_soon(child, "child")
        await handle.wait()
        events.append("parent")

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.start_soon(parent, tasks)
        tasks.add_task(parent, tasks)

    async with running(app) as client:
        await client("GET", "/")
    assert sorted(events) == ["child", "child", "parent", "parent"]


async def test_a_thread_may_start_others_too() -> None:
    app = App()
    events: list[str] = []
    both = threading.Barrier(2, timeout=30)

    async def child() -> None:
        events.append("child")

    def parent(tasks: BackgroundTasks) -> None:
        tasks.start_soon(child)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.start_soon(both.wait)  # both run at once, or this breaks
        tasks.start_soon(both.wait)
        tasks.add_task(parent, tasks)

    async with running(app) as client:
        await client("GET", "/")
    assert events == ["child"]
    assert app.statistics().done == 4


async def test_the_list_goes_on_with_what_those_beside_it_add(autojump_clock: MockClock) -> None:
    app = App()
    events: list[str] = []

    async def note(name: str) -> None:
        events.append(name)

    async def beside(tasks: BackgroundTasks) -> None:
        await trio.sleep(1)  # the list has nothing more by now
        tasks.add_task(note, "added late")

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.start_soon(beside, tasks)

    async with running(app) as client:
        await client("GET", "/")
    assert events == ["added late"]


async def test_the_list_goes_on_at_once_with_what_a_thread_beside_it_adds() -> None:
    app = App()
    ran, seen = threading.Event(), list[bool]()

    def beside(tasks: BackgroundTasks) -> None:
        tasks.add_task(ran.set)
        seen.append(ran.wait(timeout=30))

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.start_soon(beside, tasks)

    async with running(app) as client:
        await client("GET", "/")
    assert seen == [True]


async def test_what_waits_is_cancelled_at_once_while_one_beside_it_cleans_up(
    autojump_clock: MockClock,
) -> None:
    app = App(drain_timeout=1)
    handles: list[BackgroundTask] = []
    states: list[str] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            states.extend(handle.state for handle in handles)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.start_soon(work)
        handles.extend(tasks.add_task(trio.sleep_forever) for _ in range(2))

    async with running(app) as client:
        await client("GET", "/")
    assert states == ["cancelled", "cancelled"]


async def test_what_runs_beside_the_list_finds_its_dependencies_open_even_when_cancelled(
    autojump_clock: MockClock,
) -> None:
    app = App(drain_timeout=1)
    events: list[str] = []

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            events.append("session closed")

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            events.append("cleaned up")

    @app.get("/")
    async def root(tasks: BackgroundTasks, _: Annotated[None, Depends(session)]) -> None:
        tasks.start_soon(work)

    async with running(app) as client:
        await client("GET", "/")
    assert events == ["cleaned up", "session closed"]
    assert app.statistics().cancelled == 1


async def test_a_failing_child_cancels_what_runs_beside_the_list(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    handles: list[BackgroundTask] = []

    async def child() -> None:
        await trio.sleep(1)
        raise OSError

    @app.get("/")
    async def root(tasks: BackgroundTasks, nursery: trio.Nursery) -> None:
        nursery.start_soon(child)
        handles.append(tasks.start_soon(trio.sleep_forever))
        handles.append(tasks.add_task(trio.sleep_forever))
        handles.append(tasks.add_task(trio.sleep_forever))

    async with running(app) as client:
        begin = trio.current_time()
        await client("GET", "/")
        await trio.sleep(0.5)
        assert [handle.state for handle in handles] == ["running", "running", "pending"]
        await trio.sleep(1)
        assert app.tasks() == []
    assert [handle.state for handle in handles] == ["cancelled"] * 3
    assert [handle.started_at for handle in handles] == [begin, begin, None]
    assert [handle.ended_at for handle in handles] == [pytest.approx(begin + 1)] * 3


@pytest.mark.parametrize("add", [BackgroundTasks.add_task, BackgroundTasks.start_soon])
async def test_a_thread_has_the_cleanup_time_when_a_child_fails(
    add: Callable[[BackgroundTasks, Callable[[], None]], BackgroundTask],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App(cleanup_timeout=0.01)
    release, entered = threading.Event(), trio.Event()
    handles: list[BackgroundTask] = []

    def hold() -> None:
        trio.from_thread.run_sync(entered.set)
        release.wait(timeout=30)

    async def child() -> None:
        await entered.wait()
        raise OSError

    @app.get("/")
    async def root(tasks: BackgroundTasks, nursery: trio.Nursery) -> None:
        nursery.start_soon(child)
        handles.append(add(tasks, hold))

    async with running(app) as client:
        await client("GET", "/")
        await handles[0].wait()
    release.set()
    assert handles[0].state == "abandoned"


# Handles


async def test_wait_returns_in_whatever_state(autojump_clock: MockClock) -> None:
    async def broken() -> None:
        raise OSError

    @task(when="error")
    async def skipped() -> None: ...

    handles = await ran(broken, skipped, trio.lowlevel.checkpoint)
    assert [handle.state for handle in handles] == ["failed", "skipped", "done"]
    for handle in handles:
        with assert_checkpoints():
            await handle.wait()  # again


async def test_a_handle_names_its_request() -> None:
    [handle] = await ran(trio.lowlevel.checkpoint)
    assert handle.request == "GET /"


async def test_a_task_runs_once_however_often_it_is_handed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()
    done: list[str] = []

    async def note() -> None:
        done.append("x")

    kept, kept_list = BackgroundTask(note), BackgroundTasks([BackgroundTask(note)])

    @app.get("/task")
    async def with_task() -> Response:
        return JSONResponse({}, background=kept)

    @app.get("/list")
    async def with_list() -> Response:
        return JSONResponse({}, background=kept_list)

    async with running(app) as client:
        for path in ("/task", "/list"):
            assert (await client("GET", path)).status == 200
            await trio.testing.wait_all_tasks_blocked()
            assert (await client("GET", path)).status == 500
    assert done == ["x", "x"]
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == [
        "<BackgroundTask 'note' done> is in a list already: a task runs once",
        "this BackgroundTasks belongs to another request",
    ]


# on_task_error


async def test_error_handlers_hear_of_failures_in_place_of_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    heard: list[tuple[str, str | None, BaseException]] = []

    @app.on_task_error
    async def report(task: BackgroundTask, exc: BaseException) -> None:
        heard.append((task.state, task.request, exc))

    async def broken() -> None:
        raise LookupError

    @task(timeout=1)
    async def slow() -> None:
        await trio.sleep_forever()

    first, second = await ran(broken, slow, app=app)
    assert heard == [
        ("failed", "GET /", first.exception),
        ("timed_out", "GET /", second.exception),
    ]
    assert messages(caplog, "trioweb.tasks") == []


async def test_an_error_handler_may_be_a_plain_function_and_may_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()
    threads: list[int] = []

    @app.on_task_error
    def report(task: BackgroundTask, exc: BaseException) -> None:
        threads.append(threading.get_ident())
        raise OSError("no network")

    async def broken() -> None:
        raise LookupError

    handles = await ran(broken, trio.lowlevel.checkpoint, app=app)
    assert [handle.state for handle in handles] == ["failed", "done"]
    assert threads
    assert threads != [threading.get_ident()]
    assert messages(caplog, "trioweb.tasks") == [
        f"task {handles[0].name} of GET / failed",
        f"on_task_error handler {report.__qualname__.rpartition('<locals>.')[2]} failed",
    ]


async def test_a_failure_is_heard_of_even_when_its_handler_is_cancelled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=1)

    @app.on_task_error
    async def report(task: BackgroundTask, exc: BaseException) -> None:
        await trio.sleep_forever()

    async def broken() -> None:
        raise LookupError

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(broken)

    async with running(app) as client:
        await client("GET", "/")
        await wait_all_tasks_blocked()
        begin = trio.current_time()
    assert trio.current_time() - begin == pytest.approx(1 + 5)
    told = ["task broken of GET / failed", "on_task_error handler report failed"]
    assert messages(caplog, "trioweb.tasks") == told
    assert app.statistics().failed == 1


async def test_who_fails_while_it_is_cancelled_is_told_of_within_the_cleanup_time(
    autojump_clock: MockClock,
) -> None:
    app = App(drain_timeout=1, cleanup_timeout=3)
    heard: list[tuple[str, str, float]] = []

    @app.on_task_error
    async def report(task: BackgroundTask, exc: BaseException) -> None:
        await trio.sleep(1)  # as long as a message takes
        heard.append(("async", task.name, trio.current_time() - begin))

    @app.on_task_error
    def report_in_thread(task: BackgroundTask, exc: BaseException) -> None:
        heard.append(("thread", task.name, 0))

    async def broken() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("disk full")

    async def group() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broken)
            await trio.sleep_forever()

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(broken)
        tasks.start_soon(group)

    async with client(app) as c:
        await c.get("/")
        await wait_all_tasks_blocked()
        begin = trio.current_time()
    assert trio.current_time() - begin == pytest.approx(2)
    assert sorted(heard) == [
        ("async", "broken", pytest.approx(2)),
        ("async", "group", pytest.approx(2)),
        ("thread", "broken", 0),
        ("thread", "group", 0),
    ]
    assert app.statistics().failed == 2


async def test_telling_is_bounded_when_only_the_request_is_cancelled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(cleanup_timeout=3, drain_timeout=100)

    @app.on_task_error
    async def report(task: BackgroundTask, exc: BaseException) -> None:
        await trio.sleep_forever()

    async def broken() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("disk full")

    async def child() -> None:
        await trio.sleep(1)
        raise LookupError

    @app.get("/")
    async def root(tasks: BackgroundTasks, nursery: trio.Nursery) -> None:
        tasks.add_task(broken)
        nursery.start_soon(child)

    async with running(app) as c:
        begin = trio.current_time()
        await c("GET", "/")
    assert trio.current_time() - begin == pytest.approx(4)
    assert messages(caplog, "trioweb.tasks") == [
        "task broken of GET / failed",
        "on_task_error handler report failed",
    ]


def test_a_task_says_what_it_calls() -> None:
    task = BackgroundTasks().add_task(print, "a", end="")
    assert (task.func, task.args, dict(task.kwargs)) == (print, ("a",), {"end": ""})
    writable: Any = task
    with pytest.raises(AttributeError):
        writable.args = ()
    with pytest.raises(TypeError):
        writable.kwargs["end"] = "b"


def test_an_error_handler_is_a_function() -> None:
    wrong: Any = None
    with pytest.raises(RegistrationError, match=r"right:  @app\.on_task_error above"):
        App().on_task_error(wrong)


# Limits and statistics


async def test_too_many_pending_tasks_refuse_requests_before_their_handler(
    autojump_clock: MockClock,
) -> None:
    app = App(limits=Limits(max_pending_tasks=2))
    calls: list[str] = []

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        calls.append("handler")
        for _ in range(3):
            tasks.add_task(trio.sleep, 10)

    async with running(app) as client:
        first, second = [await client("GET", "/") for _ in range(2)]
        await trio.sleep(15)
        third = await client("GET", "/")
    assert (first.status, second.status, third.status) == (200, 503, 200)
    assert second.headers["retry-after"] == "1"
    assert calls == ["handler", "handler"]


async def test_the_log_says_when_too_many_tasks_wait_and_when_they_no_longer_do(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(limits=Limits(max_pending_tasks=2))

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        for _ in range(4):
            tasks.add_task(trio.sleep, 10)

    async with running(app) as client:
        for times in (1, 2):
            assert (await client("GET", "/")).status == 200
            for _ in range(3):
                assert (await client("GET", "/")).status == 503
            begins = "max_pending_tasks: 2 wait, requests are answered with 503"
            assert messages(caplog, level=logging.WARNING)[2 * times - 2 :] == [begins]
            await trio.sleep(15)  # two wait
            assert (await client("GET", "/")).status == 503
            await trio.sleep(30)
            ends = "max_pending_tasks: no longer reached after 20.0 s; 4 were answered with 503"
            assert messages(caplog, level=logging.WARNING)[2 * times - 1 :] == [ends]


async def test_no_more_tasks_run_at_once_than_allowed(autojump_clock: MockClock) -> None:
    app = App(limits=Limits(max_running_tasks=2))
    running_now: list[int] = []

    async def work() -> None:
        running_now.append(app.statistics().running)
        await trio.sleep(1)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        for _ in range(5):
            tasks.start_soon(work)

    async with running(app) as client:
        begin = trio.current_time()
        await client("GET", "/")
    assert trio.current_time() - begin == pytest.approx(3)
    assert max(running_now) == 2


@pytest.mark.parametrize("waits", [False, True])
async def test_tasks_begin_with_the_requests_that_added_them(
    waits: bool, autojump_clock: MockClock
) -> None:
    """Those of all requests that were answered together have begun three passes of Trio later."""
    app, at_once = App(), 100

    async def quick() -> None:
        if waits:
            await trio.sleep(1)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(quick)

    async with running(app) as client:
        for round_ in range(1, 10):
            async with trio.open_nursery() as nursery:
                for _ in range(at_once):
                    nursery.start_soon(client, "GET", "/")
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            now = app.statistics()
            assert (now.pending, now.added) == (0, round_ * at_once)


async def test_nobody_looks_for_a_client_whose_answer_failed(autojump_clock: MockClock) -> None:
    """A task that would have asked is skipped; looking would say 100 Continue, and take time."""
    app, receive = App(), AsyncMock()

    @task(when="sent")
    async def note() -> None: ...

    @app.post("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(note)
        raise HTTPException(401)

    async with running(app):
        await app(http_scope("POST", "/", []), receive, AsyncMock())
    receive.assert_not_called()


async def test_the_counts_add_up_at_every_step(autojump_clock: MockClock) -> None:
    app = App(drain_timeout=3)

    @task(when="error")
    async def skipped() -> None: ...

    @task(timeout=1)
    async def slow() -> None:
        await trio.sleep_forever()

    async def broken() -> None:
        raise OSError

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        for function in (skipped, slow, broken, trio.lowlevel.checkpoint):
            tasks.add_task(function)
        tasks.add_task(trio.sleep_forever)
        tasks.add_task(trio.sleep_forever)

    async with running(app) as client:
        await client("GET", "/")
        await trio.testing.wait_all_tasks_blocked()
        now = app.statistics()
        assert (now.added, now.skipped, now.running, now.pending) == (6, 1, 1, 4)
        [slow_handle] = app.tasks()
        assert (slow_handle.state, slow_handle.request) == ("running", "GET /")
        await trio.sleep(2)
        now = app.statistics()
        assert (now.timed_out, now.failed, now.done) == (1, 1, 1)
        assert (now.running, now.pending) == (1, 1)
    end = app.statistics()
    assert (end.cancelled, end.running, end.pending) == (2, 0, 0)
    assert (
        end.added
        == 6
        == sum((end.done, end.failed, end.timed_out, end.cancelled, end.abandoned, end.skipped))
    )
    assert app.tasks() == []


async def test_tasks_added_from_threads_are_counted_too() -> None:
    app = App()

    @app.get("/")
    def root(tasks: BackgroundTasks) -> None:
        for _ in range(10):
            tasks.add_task(trio.lowlevel.checkpoint)

    async with running(app) as client, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client, "GET", "/")
    assert app.statistics().added == app.statistics().done == 200


async def test_failing_tasks_are_idle_only_when_each_failure_was_told(
    autojump_clock: MockClock,
) -> None:
    app = App()
    heard: list[str] = []
    seconds = iter([1, 2])

    @app.on_task_error
    async def report(task: BackgroundTask, exc: BaseException) -> None:
        await trio.sleep(next(seconds))
        heard.append(task.name)

    async def broken() -> None:
        raise LookupError

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.start_soon(broken)
        tasks.start_soon(broken)

    async with running(app) as client:
        await client("GET", "/")
        await lifetime_of(app).ledger.wait_idle()
        assert len(heard) == 2
        await lifetime_of(app).ledger.wait_idle()  # returns at once now


async def test_plain_functions_all_run_where_the_app_is_told_to() -> None:
    """Those of exception handlers too: a test can run them in place.  Iterators may wait for
    what the test itself does: they have threads."""
    app = App()
    ran: list[str] = []

    async def in_place(call: Any, *args: Any, **options: Any) -> Any:
        ran.append("in place")
        return call(*args)

    inner_of(app).run_sync = in_place

    @app.exception_handler(LookupError)
    def handle(request: Request, exc: LookupError) -> dict[str, str]:
        return {}

    @app.get("/fail")
    async def fail() -> None:
        raise LookupError

    @app.get("/stream")
    async def stream() -> Response:
        return StreamingResponse(iter(["a"]))

    async with running(app) as client:
        await client("GET", "/fail")
        assert (await client("GET", "/stream")).text == "a"
    assert ran == ["in place"]


async def test_several_may_wait_for_one_task(autojump_clock: MockClock) -> None:
    app = App()
    waited: list[float] = []

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        handle = tasks.add_task(trio.sleep, 3)
        for _ in range(2):
            tasks.start_soon(wait_for, handle)

    async def wait_for(handle: BackgroundTask) -> None:
        await handle.wait()
        waited.append(trio.current_time() - begin)

    async with running(app) as client:
        begin = trio.current_time()
        await client("GET", "/")
    assert waited == [pytest.approx(3)] * 2


@pytest.mark.parametrize("options", [{}, {"retry": Retry(attempts=2)}, {"timeout": 5}])
@pytest.mark.parametrize("is_async", [False, True])
async def test_any_keyword_is_the_functions_own(
    options: dict[str, Any], is_async: bool, autojump_clock: MockClock
) -> None:
    """However our own parameters are called, nobody who forwards a call takes one for itself."""
    given = {
        name: name
        for name in [
            "self",
            "cls",
            "func",
            "function",
            "call",
            "args",
            "kwargs",
            "options",
            "task",
            "retry",
            "name",
            "scope",
            "grace",
            "limiter",
            "context",
            "value",
            "step",
            "begin",
            "nursery",
            "app",
            "request",
        ]
    }
    heard: list[dict[str, str]] = []

    def note(**kwargs: str) -> None:
        heard.append(kwargs)

    async def note_async(**kwargs: str) -> None:
        note(**kwargs)

    if "timeout" in options:
        is_async = True
    function = task(**options)(note_async if is_async else note)
    app = App()

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> Response:
        tasks.add_task(function, **given)
        return Response(background=BackgroundTask(function, **given))

    async with client(app) as c:
        await c.get("/")
        await c.wait_tasks()
    assert heard == [given, given]


@pytest.mark.parametrize("is_async", [False, True])
async def test_any_parameter_is_the_handlers_own(is_async: bool) -> None:
    app = App()

    def provide(func: str, grace: str) -> str:
        return func + grace

    async def provide_async(exits: str, exchange: str, arguments: str) -> AsyncIterator[str]:
        yield exits + exchange + arguments

    def handle(
        func: Annotated[str, Depends(provide)],
        call: Annotated[str, Depends(provide_async)],
        limiter: int,
        context: int,
    ) -> list[Any]:
        return [func, call, limiter, context]

    async def handle_async(
        func: Annotated[str, Depends(provide)],
        call: Annotated[str, Depends(provide_async)],
        limiter: int,
        context: int,
    ) -> list[Any]:
        return [func, call, limiter, context]

    app.get("/")(handle_async if is_async else handle)
    async with client(app) as c:
        query = "func=a&grace=b&exits=c&exchange=d&arguments=e&limiter=1&context=2"
        assert (await c.get(f"/?{query}")).json() == ["ab", "cde", 1, 2]


def test_a_path_parameter_may_have_any_name() -> None:
    app = App()

    @app.get("/{name}/{values}/{template}")
    async def show(name: str, values: str, template: str) -> None: ...

    assert app.url_for("show", name="a", values="b", template="c") == "/a/b/c"
