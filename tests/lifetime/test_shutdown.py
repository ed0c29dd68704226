"""Shutdown, in virtual time: what the log says of it, and who holds it up."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    Depends,
    HTTPException,
    Request,
    StreamingResponse,
    task,
)
from trioweb._app.app import lifetime_of
from trioweb._lifetime.events import Events
from trioweb._lifetime.report import ShutdownReport
from trioweb._tasks.ledger import Ledger, TaskState

from ..support.asgi import Client, Exchange, Message, http_scope, running
from ..support.log_records import messages


async def quick() -> None:
    await trio.sleep(1)


async def broken() -> None:
    await trio.sleep(1)
    raise OSError


@task(timeout=1)
async def slow() -> None:
    await trio.sleep_forever()


async def endless() -> None:
    await trio.sleep_forever()


async def test_one_record_says_what_became_of_the_tasks(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trioweb")
    app = App(drain_timeout=10)

    @app.get("/before")
    async def before(tasks: BackgroundTasks) -> None:
        tasks.add_task(broken)  # counts as it ended before

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        for function in (quick, broken, slow, endless, endless):
            tasks.add_task(function)

    async with running(app) as client:
        await client("GET", "/before")
        await trio.sleep(2)
        await client("GET", "/")
    assert messages(caplog, "trioweb") == [
        "stopped after 10.0 s; 1 task had ended before, of the other tasks:"
        " 1 finished, 1 failed, 1 timed out, 2 cancelled, 0 abandoned"
        " (broken of GET /: failed, ran 1.0 s; slow of GET /: timed_out, ran 1.0 s;"
        " endless of GET /: cancelled, ran 7.0 s; endless of GET /: cancelled, never began)"
    ]


async def test_an_idle_app_stops_at_once_and_says_so(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trioweb")
    async with running(App()):
        pass
    assert messages(caplog, "trioweb") == [
        "stopped after 0.0 s; 0 tasks had ended before, of the other tasks:"
        " 0 finished, 0 failed, 0 timed out, 0 cancelled, 0 abandoned"
    ]


async def test_tasks_that_ended_before_are_counted_apart(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who stops an app that has run thousands isn't told that none finished."""
    caplog.set_level(logging.INFO, "trioweb")
    app = App()

    @task(when="error")
    async def note() -> None: ...

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        for _ in range(100):
            tasks.add_task(trio.lowlevel.checkpoint)
        tasks.add_task(note)

    async with running(app) as client:
        for _ in range(50):
            await client("GET", "/")
        await trio.sleep(1)
    assert messages(caplog, "trioweb") == [
        "stopped after 0.0 s; 5000 tasks had ended before, of the other tasks:"
        " 0 finished, 0 failed, 0 timed out, 0 cancelled, 0 abandoned"
    ]


async def test_a_skipped_task_is_nobody_to_name(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trioweb")
    app = App()

    @task(when="error")
    async def note() -> None: ...

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(quick)
        tasks.add_task(note)

    async with running(app) as client:
        await client("GET", "/")
    assert app.statistics().skipped == 1
    [record] = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage() == (
        "stopped after 1.0 s; 0 tasks had ended before, of the other tasks:"
        " 1 finished, 0 failed, 0 timed out, 0 cancelled, 0 abandoned"
    )


async def test_who_is_behind_a_shield_is_named_again_and_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=2, cleanup_timeout=3)

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(17)

    @app.get("/task")
    async def with_task(tasks: BackgroundTasks) -> None:
        tasks.add_task(shielded)

    @app.get("/handler")
    async def with_handler(nursery: trio.Nursery) -> None:
        await shielded()

    async with trio.open_nursery() as nursery:
        async with running(app) as client:
            begin = trio.current_time()
            await client("GET", "/task")
            nursery.start_soon(client, "GET", "/handler")
            await wait_all_tasks_blocked()
        assert trio.current_time() - begin == pytest.approx(17)
    names = ["task shielded of GET /task", "GET /handler"]
    assert (
        messages(caplog, "trioweb")
        == [f"{name} is past the cleanup timeout: still waiting for it" for name in names] * 3
    )


async def test_nothing_else_waits_behind_who_is_shielded(autojump_clock: MockClock) -> None:
    app = App(drain_timeout=2, cleanup_timeout=3)
    ended: dict[str, float] = {}

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async def polite(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended[name] = trio.current_time() - begin

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            ended["session"] = trio.current_time() - begin

    @app.get("/shielded")
    async def with_shield(tasks: BackgroundTasks) -> None:
        tasks.add_task(shielded)

    @app.get("/")
    async def root(tasks: BackgroundTasks, _: Annotated[None, Depends(session)]) -> None:
        tasks.add_task(polite, "polite")

    async with running(app) as client:
        begin = trio.current_time()
        await client("GET", "/shielded")
        await client("GET", "/")
    assert ended == {"polite": pytest.approx(2), "session": pytest.approx(2)}


async def test_a_task_that_swallows_its_cancellation_once_is_in_time(
    autojump_clock: MockClock,
) -> None:
    app = App(drain_timeout=2, cleanup_timeout=3)

    async def stubborn() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            await trio.sleep_forever()

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(stubborn)

    async with running(app) as client:
        begin = trio.current_time()
        await client("GET", "/")
    assert trio.current_time() - begin == pytest.approx(2)
    assert app.statistics().cancelled == 1


async def test_a_cancelled_server_skips_to_cancelling(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What a second signal does, where the server is embedded: see the docs' recipe."""
    caplog.set_level(logging.INFO, "trioweb")
    app = App(drain_timeout=60, cleanup_timeout=3)

    handles: list[BackgroundTask] = []

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        handles.append(tasks.add_task(endless))

    begin = trio.current_time()
    with trio.CancelScope() as scope:
        async with running(app) as client:
            await client("GET", "/")
            async with trio.open_nursery() as nursery:

                async def second_signal() -> None:
                    await trio.sleep(5)
                    scope.cancel()

                nursery.start_soon(second_signal)
                await trio.sleep_forever()
    assert trio.current_time() - begin == pytest.approx(5)
    assert [(handle.state, handle.started_at) for handle in handles] == [("cancelled", begin)]
    assert [handle.ended_at for handle in handles] == [pytest.approx(begin + 5)]
    # How many it counts depends on who hears of the cancellation first.
    [message] = messages(caplog, "trioweb")
    assert message.startswith("stopped after 0.0 s; ")
    assert " had ended before, of the other tasks: 0 finished, " in message


@pytest.mark.parametrize(
    ("count", "ending"),
    [
        (20, "endless of GET /: cancelled, ran 1.0 s)"),
        (21, "; and 1 more)"),
        (1000, "; and 980 more)"),
    ],
)
async def test_of_very_many_only_the_first_are_named(
    count: int, ending: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=1)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        for _ in range(count):
            tasks.start_soon(endless)

    async with running(app) as client:
        await client("GET", "/")
        await wait_all_tasks_blocked()
        assert app.statistics().running == count
    assert app.statistics().cancelled == count
    [record] = [r for r in caplog.records if r.name == "trioweb"]
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith(ending)
    assert len(record.getMessage()) < 2000
    assert len(caplog.records) == 1


@pytest.mark.parametrize("state", ["done", "failed", "timed_out", "cancelled", "abandoned"])
async def test_the_report_leaves_out_what_ended_before(
    state: TaskState, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trioweb")
    ledger: Ledger[BackgroundTask] = Ledger()
    events = Events()
    events.follow(ledger)
    before, since, after = (BackgroundTask(quick) for _ in range(3))
    for handle in (before, since, after):
        ledger.enter(handle)
    ledger.end(before, state)
    ShutdownReport(ledger, events).report()
    report = ShutdownReport(ledger, events)
    ledger.end(since, state)
    report.report()
    ledger.end(after, state)
    assert not ledger.is_closing
    none, one = messages(caplog, "trioweb")
    assert none.endswith("tasks: 0 finished, 0 failed, 0 timed out, 0 cancelled, 0 abandoned")
    how = {"done": "finished", "timed_out": "timed out"}.get(state, state)
    assert f" 1 {how}" in one
    assert one.count("quick") == (state != "done")


@pytest.mark.parametrize("how", ["add_task", "start_soon"])
async def test_a_shielded_task_holds_its_request_open_and_is_named_until_it_ends(
    how: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=1, cleanup_timeout=1)
    events: list[str] = []

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(17)
        events.append("task")

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await trio.sleep(0.2)  # there is time left for this, late as it is
            events.append("session closed")

    @app.get("/")
    async def root(tasks: BackgroundTasks, _: Annotated[None, Depends(session)]) -> None:
        getattr(tasks, how)(shielded)

    async with running(app) as client:
        await client("GET", "/")
    assert events == ["task", "session closed"]
    named = [
        m for m in messages(caplog, "trioweb") if m.startswith("task shielded of GET / is past")
    ]
    assert len(named) == 3


async def test_dependencies_that_hang_past_the_cleanup_time_share_one_overtime(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=1, cleanup_timeout=1)

    async def hanging() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await trio.sleep_forever()

    handles: list[BackgroundTask] = []

    async def late() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)

    @app.get("/")
    async def root(
        tasks: BackgroundTasks,
        a: Annotated[None, Depends(hanging)],
        b: Annotated[None, Depends(hanging, use_cache=False)],
    ) -> None:
        handles.append(tasks.add_task(late))

    async with running(app) as client:
        await client("GET", "/")
        await wait_all_tasks_blocked()
        begin = trio.current_time()
    assert [handle.state for handle in handles] == ["done"]
    assert [handle.ended_at for handle in handles] == [pytest.approx(begin + 2)]
    late_ones = [m for m in messages(caplog, "trioweb") if "didn't close within" in m]
    assert late_ones == ["dependency hanging didn't close within the cleanup timeout"] * 2
    # Cancelled at 1, shielded to 2, which is the end of the cleanup time; then both have to 2.5.
    assert trio.current_time() - begin == pytest.approx(2.5)


@pytest.mark.parametrize("how", ["quick", "waiting", "stream", "failure", "beside"])
async def test_a_client_that_has_stopped_reading_doesnt_hold_the_shutdown_up(
    how: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """On a server that cancels nothing itself."""
    app = App(drain_timeout=2, cleanup_timeout=3)
    handles: list[BackgroundTask] = []

    @app.post("/quick")
    async def quick_handler(tasks: BackgroundTasks) -> str:
        handles.append(tasks.add_task(endless))
        return "ok"

    @app.post("/waiting")
    async def waiting_handler(tasks: BackgroundTasks) -> str:
        await trio.lowlevel.checkpoint()
        return await quick_handler(tasks)

    @app.post("/stream")
    async def stream(tasks: BackgroundTasks) -> StreamingResponse:
        handles.append(tasks.add_task(endless))
        return StreamingResponse(trio.open_memory_channel[str](0)[1])

    @app.post("/failure")
    async def failure(tasks: BackgroundTasks) -> None:
        handles.append(tasks.add_task(task(when="always")(endless_too)))
        raise HTTPException(409)

    @app.post("/beside")
    async def beside(tasks: BackgroundTasks, nursery: trio.Nursery) -> str:
        return await quick_handler(tasks)

    async def send(message: Message) -> None:
        await trio.sleep_forever()

    exchange = Exchange([b""])
    async with trio.open_nursery() as nursery:
        async with running(app):
            nursery.start_soon(app, http_scope("POST", f"/{how}", []), exchange.receive, send)
            await trio.sleep(1)
            begin = trio.current_time()
        took = trio.current_time() - begin
        nursery.cancel_scope.cancel()
    assert [handle.state for handle in handles] == ["cancelled"]
    assert app.statistics().pending == 0
    # Only what has no scope, as it would cost half a request, takes longer than the drain.
    assert took == pytest.approx(5.5 if how == "quick" else 2)
    named = ["the server still runs POST /quick, past the end of the app"]
    assert messages(caplog, "trioweb")[:-1] == (named if how == "quick" else [])


async def endless_too() -> None: ...


async def test_what_a_handler_adds_past_the_end_of_the_app_is_refused(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=1, cleanup_timeout=1)

    @app.post("/")
    async def root(tasks: BackgroundTasks) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)
        tasks.add_task(endless)

    async with trio.open_nursery() as nursery, running(app) as client:
        nursery.start_soon(client, "POST", "/")
        await wait_all_tasks_blocked()
    assert app.statistics().added == 0
    assert messages(caplog, "trioweb") == [
        "the server still runs POST /, past the end of the app",
        "POST / failed",
    ]


async def test_a_task_that_begins_within_the_drain_is_named_too(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """When the shutdown began, only a handler ran, in the server's call."""
    app = App(drain_timeout=2, cleanup_timeout=1)

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    @app.post("/")
    async def root(tasks: BackgroundTasks) -> None:
        await trio.sleep(1)
        tasks.add_task(shielded)

    async with trio.open_nursery() as nursery, running(app) as client:
        nursery.start_soon(client, "POST", "/")
        await wait_all_tasks_blocked()
    named = "task shielded of POST / is past the cleanup timeout: still waiting for it"
    assert messages(caplog, "trioweb") == [named] * 2


async def test_who_is_told_of_a_failure_is_named_too(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=2, cleanup_timeout=1)

    @app.on_task_error
    async def report(task: BackgroundTask, exc: BaseException) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(7)

    @app.post("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(broken)

    async with running(app) as client:
        await client("POST", "/")
        await trio.sleep(2)
    named = "on_task_error for task broken of POST / is past the cleanup timeout"
    assert messages(caplog, "trioweb") == [f"{named}: still waiting for it"]


@pytest.mark.parametrize("seconds", [0, 3, 30])
async def test_an_inline_handler_is_cancelled_with_the_others_and_finds_the_database_open(
    seconds: float, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever else holds the app up behind a shield."""
    events: list[tuple[str, float]] = []

    def note(event: str) -> None:
        events.append((event, trio.current_time() - begin))

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        note("database closed")

    app = App(lifespan=lifespan, drain_timeout=1, cleanup_timeout=4)

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)

    @app.post("/task")
    async def with_task(tasks: BackgroundTasks) -> None:
        tasks.add_task(shielded)

    @app.post("/")
    async def root() -> None:
        try:
            await trio.sleep_forever()
        finally:
            note("cancelled")
            with trio.move_on_after(2, shield=True):
                await trio.sleep(1)
            note("cleaned up")

    exchange = Exchange([b""])
    async with trio.open_nursery() as nursery, running(app) as client:
        nursery.start_soon(app, http_scope("POST", "/", []), exchange.receive, exchange.send)
        await client("POST", "/task")
        await wait_all_tasks_blocked()
        begin = trio.current_time()
    ends = pytest.approx(max(2, seconds))
    assert events == [("cancelled", 1), ("cleaned up", 2), ("database closed", ends)]
    assert exchange.status == 503


async def test_the_answer_to_a_cancelled_handler_has_the_cleanup_time_only(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=1, cleanup_timeout=2)
    events: list[float] = []

    @app.exception_handler(HTTPException)
    async def hang(request: Request, exc: HTTPException) -> None:
        try:
            await trio.sleep_forever()
        finally:
            events.append(trio.current_time() - begin)

    @app.post("/")
    async def root() -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with running(app) as client:
            nursery.start_soon(client, "POST", "/")
            await wait_all_tasks_blocked()
            begin = trio.current_time()
        events.append(trio.current_time() - begin)
    assert events == [pytest.approx(3)] * 2


async def test_without_a_lifespan_there_is_no_shutdown_to_report(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = App()

    @app.post("/{function}")
    async def root(function: str, tasks: BackgroundTasks) -> None:
        tasks.add_task({"broken": broken, "quick": quick}[function])

    client = Client(app)
    for path in ("/broken", "/quick"):
        await client("POST", path)
    with trio.move_on_after(0.5):
        await client("POST", "/quick")
    assert [(r.name, r.getMessage()) for r in caplog.records] == [
        ("trioweb.tasks", "task broken of POST /broken failed"),
        ("trioweb.tasks", "task quick of POST /quick was cancelled"),
    ]
    assert not lifetime_of(app).ledger.is_closing
