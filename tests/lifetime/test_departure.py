"""Clients that leave while a handler runs: whose handler is cancelled, and what it costs."""

import functools
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Annotated, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    ClientDisconnect,
    Depends,
    JSONResponse,
    Request,
    task,
)
from trioweb._limits import DEPARTURE_GRACE

from ..support.asgi import Exchange, Message, http_scope, running
from ..support.inline import Beside, nothing
from ..support.log_records import messages


async def visit(app: App, method: str, *, leaves_after: float = float("inf")) -> Exchange:
    """A request whose client leaves after so many seconds."""
    exchange = Exchange([b""])
    async with running(app), trio.open_nursery() as nursery:

        async def leave() -> None:
            await trio.sleep(leaves_after)
            exchange.left.set()

        nursery.start_soon(leave)
        await app(http_scope(method, "/", []), exchange.receive, exchange.send)
        nursery.cancel_scope.cancel()
    return exchange


def waiting_app(events: list[str], beside: bool, **options: Any) -> App:
    """An app whose handler takes 10 s, and adds a task for each outcome."""
    app = App()

    @task(when="error")
    async def note(event: str) -> None:
        events.append(event)

    async def root(tasks: BackgroundTasks) -> str:
        tasks.add_task(note, "task for error")
        begin = trio.current_time()
        try:
            await trio.sleep(10)
        finally:
            events.append(f"left after {trio.current_time() - begin:g} s")
        return "ok"

    async def root_beside(tasks: BackgroundTasks, _: Annotated[None, Depends(nothing)]) -> str:
        return await root(tasks)

    handler = root_beside if beside else root
    app.route("/", methods=["GET", "HEAD", "POST"][slice(*options.pop("only", (0, 1)))], **options)(
        handler
    )
    return app


@Beside
async def test_the_handler_of_a_safe_method_is_cancelled_when_its_client_leaves(
    beside: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []
    await visit(waiting_app(events, beside), "GET", leaves_after=3)
    assert events == ["left after 3 s", "task for error"]
    assert caplog.records == []  # nobody's fault


@Beside
@pytest.mark.parametrize(
    ("only", "options", "method", "seconds"),
    [
        ((2, 3), {}, "POST", 10),
        ((0, 3), {}, "GET", 10),  # shares a handler with an unsafe method
        ((2, 3), {"cancel_on_disconnect": True}, "POST", 3),
        ((0, 2), {"cancel_on_disconnect": False}, "GET", 10),
    ],
)
async def test_others_run_to_their_end_unless_the_route_says_so(
    beside: bool,
    only: tuple[int, int],
    options: dict[str, Any],
    method: str,
    seconds: int,
    autojump_clock: MockClock,
) -> None:
    events: list[str] = []
    app = waiting_app(events, beside, only=only, **options)
    await visit(app, method, leaves_after=3)
    assert events[0] == f"left after {seconds} s"


@Beside
async def test_a_client_that_stays_gets_its_answer(beside: bool, autojump_clock: MockClock) -> None:
    events: list[str] = []
    exchange = await visit(waiting_app(events, beside), "GET")
    assert exchange.json() == "ok"
    assert events == ["left after 10 s"]


async def test_nobody_listens_for_the_client_of_a_quick_handler(autojump_clock: MockClock) -> None:
    app = App()

    @app.get("/")
    async def root() -> str:
        await trio.sleep(0.1)
        return "ok"

    exchange = await visit(app, "GET")
    assert exchange.json() == "ok"
    assert exchange.received == 0


async def test_the_departure_has_an_exception_that_can_be_handled(
    autojump_clock: MockClock,
) -> None:
    app = App()
    seen: list[str] = []

    @app.exception_handler(ClientDisconnect)
    async def handle(request: Request, exc: ClientDisconnect) -> JSONResponse:
        seen.append(request.url.path)
        return JSONResponse({})

    @app.get("/")
    async def root() -> None:
        await trio.sleep_forever()

    await visit(app, "GET", leaves_after=1)
    assert seen == ["/"]


async def test_a_handler_may_wait_for_the_departure_itself(autojump_clock: MockClock) -> None:
    app = App()
    left: list[float] = []

    @app.post("/")
    async def root(request: Request) -> None:
        begin = trio.current_time()
        await request.wait_disconnected()
        left.append(trio.current_time() - begin)

    await visit(app, "POST", leaves_after=5)
    assert left == [pytest.approx(5)]


async def test_a_dependencys_thread_has_the_cleanup_time_when_the_client_leaves(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(cleanup_timeout=5)
    release = threading.Event()

    def hold() -> None:
        release.wait(timeout=30)

    @app.get("/")
    async def root(_: Annotated[None, Depends(hold)]) -> None: ...

    begin = trio.current_time()
    await visit(app, "GET", leaves_after=1)
    release.set()
    assert trio.current_time() - begin == pytest.approx(6)


async def test_many_at_once_each_by_its_own_client(autojump_clock: MockClock) -> None:
    app = App()
    cancelled: list[int] = []

    @app.get("/{number}")
    async def root(number: int) -> str:
        try:
            await trio.sleep(10)
        except trio.Cancelled:
            cancelled.append(number)
            raise
        return "ok"

    async with running(app):
        async with trio.open_nursery() as nursery:
            exchanges = [Exchange([b""]) for _ in range(20)]
            for number, exchange in enumerate(exchanges):
                scope = http_scope("GET", f"/{number}", [])
                nursery.start_soon(app, scope, exchange.receive, exchange.send)
                await trio.sleep(0.05)
            for exchange in exchanges[::2]:
                exchange.left.set()
        # Long after, the watch looks at the next one as at the first.
        late = Exchange([b""])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app, http_scope("GET", "/99", []), late.receive, late.send)
            await trio.sleep(1)
            late.left.set()
        await wait_all_tasks_blocked()
    assert sorted(cancelled) == [*range(0, 20, 2), 99]
    assert [exchange.status for exchange in exchanges[1::2]] == [200] * 10


async def test_a_plain_wrapper_of_a_handler_that_waits_waits_too(
    autojump_clock: MockClock,
) -> None:
    app = App()
    left: list[str] = []

    async def inner() -> None:
        try:
            await trio.sleep_forever()
        finally:
            left.append("left")

    @app.get("/")
    @functools.wraps(inner)
    def wrapper() -> Any:
        return inner()

    await visit(app, "GET", leaves_after=1)
    assert left == ["left"]


async def test_a_def_handler_runs_to_its_end_though_its_client_leaves(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancelling frees no thread: it would go on with what is closed by then."""
    app = App()
    exchange = Exchange([b""])
    release, events = threading.Event(), list[str]()

    async def session() -> AsyncIterator[None]:
        yield
        events.append("session closed")

    async def task() -> None:
        events.append("task")

    @app.get("/")
    def root(tasks: BackgroundTasks, _: Annotated[None, Depends(session)]) -> str:
        tasks.add_task(task)
        release.wait(timeout=30)
        events.append("handler")
        return "ok"

    async with running(app), trio.open_nursery() as nursery:
        nursery.start_soon(app, http_scope("GET", "/", []), exchange.receive, exchange.send)
        await trio.sleep(1)
        exchange.left.set()
        await trio.sleep(10)
        assert events == []
        release.set()
    assert events == ["handler", "task", "session closed"]
    assert exchange.json() == "ok"
    assert exchange.received == 0  # nobody listened
    assert caplog.records == []


@Beside
async def test_a_client_that_leaves_as_its_handler_returns_takes_no_task_with_it(
    beside: bool, autojump_clock: MockClock
) -> None:
    """Trio runs what is ready at once in any order: either came first, and nothing in between."""
    app = App()
    handles: dict[str, BackgroundTask] = {}
    returns = trio.Event()

    async def root(name: str, tasks: BackgroundTasks) -> str:
        handles[name] = tasks.add_task(trio.sleep, 1)
        await returns.wait()
        return "ok"

    async def root_beside(
        name: str, tasks: BackgroundTasks, _: Annotated[None, Depends(nothing)]
    ) -> str:
        return await root(name, tasks)

    app.get("/{name}")(root_beside if beside else root)
    exchanges = {str(number): Exchange([b""]) for number in range(40)}
    async with running(app), trio.open_nursery() as nursery:
        for name, exchange in exchanges.items():
            scope = http_scope("GET", f"/{name}", [])
            nursery.start_soon(app, scope, exchange.receive, exchange.send)
        await trio.sleep(1)
        returns.set()
        for exchange in exchanges.values():
            exchange.left.set()
    ends = {(exchange.status, handles[name].state) for name, exchange in exchanges.items()}
    assert ends == {(200, "done"), (400, "skipped")}


async def test_a_receive_that_fails_while_a_client_is_watched_ends_nothing_else(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    exchange = Exchange([b""])

    @app.get("/")
    async def root() -> str:
        await trio.sleep(1)
        return "ok"

    @app.get("/other")
    async def other(tasks: BackgroundTasks) -> None:
        tasks.add_task(trio.sleep, 5)

    async def receive() -> Message:
        raise OSError("the upload is too large")

    async with running(app) as client:
        await client("GET", "/other")
        await app(http_scope("GET", "/", []), receive, exchange.send)
        await wait_all_tasks_blocked()
        assert app.statistics().running == 1
    assert exchange.json() == "ok"
    assert app.statistics().done == 1
    said = messages(caplog)
    assert said == ["the server's receive failed: its client isn't watched"]


async def test_whoever_reads_the_body_has_the_failure_too(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    exchange = Exchange([b""])

    @app.get("/")
    async def root(request: Request) -> str:
        await trio.sleep(1)
        with pytest.raises(OSError, match="too large"):
            await request.body()
        return "ok"

    async def receive() -> Message:
        raise OSError("the upload is too large")

    async with running(app):
        await app(http_scope("GET", "/", []), receive, exchange.send)
    assert exchange.json() == "ok"


async def test_who_has_left_the_queue_of_the_young_in_time_is_not_listened_for(
    autojump_clock: MockClock,
) -> None:
    """The handler ends in the moment in which somebody would begin to listen."""
    app = App()

    @app.get("/")
    async def root() -> str:
        await trio.sleep(DEPARTURE_GRACE)
        return "ok"

    exchanges = [Exchange([b""]) for _ in range(20)]
    async with running(app), trio.open_nursery() as nursery:
        for exchange in exchanges:
            nursery.start_soon(app, http_scope("GET", "/", []), exchange.receive, exchange.send)
    assert [exchange.json() for exchange in exchanges] == ["ok"] * 20


@Beside
async def test_a_task_that_joins_late_knows_of_a_departure_too(
    beside: bool, autojump_clock: MockClock
) -> None:
    """Nobody asked whether the client was there when the response was sent."""
    app = App()
    handles: list[BackgroundTask] = []

    @task(when="sent")
    async def sent() -> None: ...

    @task(when="always")
    async def add(tasks: BackgroundTasks) -> None:
        handles.append(tasks.add_task(sent))

    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(add, tasks)
        await trio.sleep_forever()

    async def root_beside(tasks: BackgroundTasks, _: Annotated[None, Depends(nothing)]) -> None:
        await root(tasks)

    app.get("/")(root_beside if beside else root)
    await visit(app, "GET", leaves_after=1)
    assert [handle.state for handle in handles] == ["skipped"]


@Beside
async def test_each_request_is_listened_to_in_its_own_context(
    beside: bool, autojump_clock: MockClock
) -> None:
    """Middleware that wraps `receive` may look for its contextvars in there."""

    class Value:
        pass

    current: ContextVar[Value | None] = ContextVar("current", default=None)
    app = waiting_app([], beside)
    values: list[weakref.ref[Value]] = []
    received_in: list[bool] = []

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        mine = Value()
        values.append(weakref.ref(mine))
        current.set(mine)
        is_mine = weakref.ref(mine)
        del mine

        async def receive_here() -> Message:
            received_in.append(current.get() is is_mine())
            return dict(await receive())

        await app(scope, receive_here, send)

    async with running(app):
        for _ in range(3):
            exchange = Exchange([b""])
            async with trio.open_nursery() as nursery:
                scope = http_scope("GET", "/", [])
                nursery.start_soon(middleware, scope, exchange.receive, exchange.send)
            assert exchange.status == 200
            del exchange, nursery, scope
        # The app still runs, and so does its watch.
        await trio.sleep(60)
        gc.collect()
        assert [value() for value in values] == [None] * 3
    assert received_in == [True] * 6  # the body, and the client's departure
