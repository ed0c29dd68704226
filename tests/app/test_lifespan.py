"""The app's lifespan: what may be one, and that it closes in order, whoever ends the serving."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any

import hypercorn
import hypercorn.trio
import pytest
import trio
from starlette.applications import Starlette
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import App, BackgroundTasks, RegistrationError, Request, serve
from trioweb._asgi import ASGIApp
from trioweb.server import StartupFailed
from trioweb.testing import client

from ..support.asgi import running
from ..support.log_records import messages
from ..support.server_driver import GET, Running, serving

Events = list[tuple[str, float]]


class Story:
    """What happened, each with the time that has passed since the end began."""

    def __init__(self) -> None:
        self.events: Events = []
        self.began = 0.0

    def begin(self) -> None:
        self.began = trio.current_time()

    def __call__(self, what: str) -> None:
        self.events.append((what, trio.current_time() - self.began))

    @asynccontextmanager
    async def resource(self, name: str, seconds: float = 1.0) -> AsyncIterator[None]:
        """Closed as most people close: by plain code after the `yield`."""
        yield
        await trio.sleep(seconds)
        self(f"{name} closed")


def app_with_task(lifespan: Any, task: Callable[[], Awaitable[None]], **options: Any) -> App:
    app = App(lifespan=lifespan, **options)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(task)

    return app


def wrapped(app: ASGIApp, story: Story) -> ASGIApp:
    """In a function that has something of its own open around the app's lifespan."""

    async def around(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        if scope["type"] == "lifespan":
            await trio.lowlevel.checkpoint()
            story("wrapper closed")

    return around


Cancel = Callable[[Running, trio.CancelScope], object]


def by_server(running: Running, outside: trio.CancelScope) -> None:
    running.server.cancel()


def from_outside(running: Running, outside: trio.CancelScope) -> None:
    outside.cancel()


EachCancel = pytest.mark.parametrize("cancel", [by_server, from_outside])
EachMoment = pytest.mark.parametrize("is_draining", [False, True])


async def cancelled(app: ASGIApp, story: Story, cancel: Cancel, *, is_draining: bool) -> None:
    """Serve one request, and cancel the serving: at once, or while it drains."""
    with trio.CancelScope() as outside:
        async with serving(app) as running, trio.open_nursery() as ours:
            ours.cancel_scope.shield = True
            await running.connect().ask(GET)
            if is_draining:
                ours.start_soon(running.server.shutdown)
                await wait_all_tasks_blocked()
            story.begin()
            cancel(running, outside)
            await running.server.wait_closed()
            ours.cancel_scope.cancel()


@EachCancel
@EachMoment
async def test_a_cancelled_server_closes_the_lifespan_in_order(
    cancel: Cancel, is_draining: bool, autojump_clock: MockClock
) -> None:
    story = Story()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, int]]:
        async with story.resource("pool"), story.resource("cache"):
            yield {"n": 1}
            await trio.sleep(1)
            story("plain code ran")

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            story("task cleaned up")

    app = app_with_task(lifespan, task, cleanup_timeout=10)
    await cancelled(wrapped(app, story), story, cancel, is_draining=is_draining)
    assert story.events == [
        ("task cleaned up", 1),
        ("plain code ran", 2),
        ("cache closed", 3),
        ("pool closed", 4),
        ("wrapper closed", 4),
    ]


@EachCancel
async def test_a_lifespan_that_hangs_is_cancelled_when_the_cleanup_time_is_over(
    cancel: Cancel, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    story = Story()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        try:
            yield
            await trio.sleep_forever()
        finally:
            story("cancelled")

    app = app_with_task(lifespan, trio.sleep_forever, cleanup_timeout=3)
    await cancelled(app, story, cancel, is_draining=False)
    assert story.events == [("cancelled", 3)]
    assert "the lifespan didn't close within the cleanup timeout" in messages(caplog, "trioweb")


async def test_tasks_that_took_the_whole_cleanup_time_leave_the_lifespan_some(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async with story.resource("pool", 0.25):
            yield

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(4)

    app = app_with_task(lifespan, task, cleanup_timeout=3)
    await cancelled(app, story, by_server, is_draining=False)
    assert story.events == [("pool closed", 4.25)]


async def test_what_a_lifespan_runs_beside_its_yield_ends_after_the_tasks(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def pool() -> None:
        try:
            await trio.sleep_forever()
        finally:
            story("pool ended")

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool)
            yield
            nursery.cancel_scope.cancel()

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            story("task cleaned up")

    app = app_with_task(lifespan, task)
    await cancelled(app, story, from_outside, is_draining=False)
    assert story.events == [("task cleaned up", 2), ("pool ended", 2)]


async def test_a_start_that_was_cancelled_behind_a_shield_is_closed_in_order(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async with story.resource("pool"):
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            yield
            await trio.lowlevel.checkpoint()
            story("plain code ran")

    with trio.move_on_after(1) as scope:
        await serve(App(lifespan=lifespan), port=0)
    assert scope.cancelled_caught
    assert story.events == [("plain code ran", 3), ("pool closed", 4)]


async def test_any_servers_cancellation_leaves_the_lifespan_in_order_and_goes_on(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(story.resource("pool"))
            yield

    with trio.CancelScope() as scope:
        async with running(App(lifespan=lifespan)):
            story.begin()
            scope.cancel()
    assert scope.cancelled_caught
    assert story.events == [("pool closed", 1)]


async def test_a_cancelled_hypercorn_leaves_the_lifespan_in_order() -> None:
    story = Story()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async with story.resource("pool", 0.01):
            yield

    config = hypercorn.Config()
    config.bind = ["127.0.0.1:0"]
    async with trio.open_nursery() as nursery:
        serve = partial(hypercorn.trio.serve, App(lifespan=lifespan), config)
        await nursery.start(serve)
        nursery.cancel_scope.cancel()
    assert [what for what, _ in story.events] == ["pool closed"]


async def test_a_failed_test_closes_the_lifespan_in_order(autojump_clock: MockClock) -> None:
    story = Story()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async with story.resource("pool"):
            yield

    async def fail() -> None:
        async with client(App(lifespan=lifespan)):
            story.begin()
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert story.events == [("pool closed", 1)]


@EachCancel
@EachMoment
async def test_the_lifespan_of_another_kind_of_app_closes_in_order_too(
    cancel: Cancel, is_draining: bool, autojump_clock: MockClock
) -> None:
    story = Story()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with story.resource("pool"):
            yield

    app = Starlette(lifespan=lifespan)
    await cancelled(app, story, cancel, is_draining=is_draining)
    assert story.events == [("pool closed", 1)]


@pytest.mark.parametrize(("cleanup_timeout", "seconds"), [(None, 5), (2, 2)])
async def test_another_kind_of_lifespan_that_hangs_is_cancelled(
    cleanup_timeout: float | None, seconds: float, autojump_clock: MockClock
) -> None:
    story = Story()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await trio.sleep_forever()
        finally:
            story("cancelled")

    with trio.CancelScope() as outside:
        async with serving(app, cleanup_timeout=cleanup_timeout) as running:
            with trio.CancelScope(shield=True):
                story.begin()
                outside.cancel()
                await running.server.wait_closed()
    assert story.events == [("cancelled", seconds)]


# What may be one


@asynccontextmanager
async def good(app: App) -> AsyncIterator[None]:
    yield


plain_manager: Any = contextmanager(lambda app: (yield))  # type: ignore[misc]


async def coroutine(app: App) -> None: ...


@asynccontextmanager
async def with_more(app: App, db: str) -> AsyncIterator[None]:
    yield


class Pool:
    """Opened with the app."""

    def __init__(self, app: App) -> None: ...

    async def __aenter__(self) -> dict[str, int]:
        return {"size": 3}

    async def __aexit__(self, *exc: object) -> None: ...


class Unopened:
    def __init__(self, app: App) -> None: ...


RIGHT = "@asynccontextmanager above async def {}(app): ... yield"
NOT_A_FUNCTION = "lifespan is a function: each time the app starts"


@pytest.mark.parametrize(
    ("lifespan", "problem", "wrong", "right"),
    [
        (coroutine, "lifespan needs", "async def coroutine(app): ...", RIGHT),
        (lambda app: (yield), "lifespan needs", "def <lambda>(app): ...", RIGHT),
        (plain_manager, "lifespan needs", "@contextmanager above def <lambda>(", RIGHT),
        (partial(plain_manager), "lifespan needs", "@contextmanager above def <lam", RIGHT),
        (lambda: nullcontext(), "<lambda> is called with the app", "<lambda>()", RIGHT),
        (with_more, "with_more is called with the app", "with_more(app: 'App', db: 's", RIGHT),
        (Unopened, "Unopened has no __aenter__", "App(lifespan=Unopened)", "App(lifespan=life"),
        (good(App()), NOT_A_FUNCTION, "App(lifespan=good(app))", "App(lifespan=good)"),
        (Pool(App()), NOT_A_FUNCTION, "App(lifespan=<tests", "App(lifespan=lifespan)"),
        ("good", NOT_A_FUNCTION, "App(lifespan='good')", "App(lifespan=lifespan)"),
    ],
)
def test_what_is_known_to_be_no_lifespan_is_refused_when_the_app_is_made(
    lifespan: Any, problem: str, wrong: str, right: str
) -> None:
    with pytest.raises(RegistrationError) as refused:
        App(lifespan=lifespan)
    said = str(refused.value).split("\n")
    assert said[0].startswith(problem)
    assert said[1].startswith(f"    wrong:  {wrong}")
    name = getattr(lifespan, "__name__", "<lambda>")
    assert said[2].startswith(f"    right:  {right.format(name)}")


@pytest.mark.parametrize(
    ("lifespan", "state"),
    [
        (good, {}),
        (Pool, {"size": 3}),
        (partial(with_more, db="x"), {}),
        (lambda app: nullcontext({"a": 1}), {"a": 1}),
        (lambda app: nullcontext(MappingProxyType({"a": 1})), {"a": 1}),
    ],
)
async def test_whatever_gives_an_async_context_manager_is_one(
    lifespan: Any, state: dict[str, int]
) -> None:
    app = App(lifespan=lifespan)

    @app.get("/")
    async def root(request: Request) -> dict[str, int]:
        return vars(request.state)

    async with client(app) as c:
        assert (await c.get("/")).json() == state


@pytest.mark.parametrize("given", [None, 5, contextmanager(iter)([])])
async def test_what_a_lifespan_gives_is_looked_at_as_the_app_starts(given: Any) -> None:
    def lifespan(app: App) -> Any:
        return given

    with pytest.raises(RegistrationError, match=r"the lifespan .* gave .*which is no async"):
        await client(App(lifespan=lifespan)).__aenter__()


async def test_a_coroutine_that_a_lifespan_gives_is_closed() -> None:
    app = App(lifespan=lambda app: coroutine(app))  # type: ignore[arg-type, return-value]
    with pytest.raises(RegistrationError, match="gave <coroutine object coroutine"):
        await client(app).__aenter__()


@pytest.mark.parametrize(
    ("yielded", "problem", "wrong"),
    [
        (5, "a lifespan yields a mapping, or nothing", "yield 5"),
        ([("a", 1)], "a lifespan yields a mapping, or nothing", "yield [('a', 1)]"),
        ({1: 2}, "what a lifespan yields are names", "yield {1: ...}"),
        ({"a": 1, b"b": 2}, "what a lifespan yields are names", "yield {b'b': ...}"),
    ],
)
async def test_what_a_lifespan_yields_is_looked_at_as_the_app_starts(
    yielded: Any, problem: str, wrong: str
) -> None:
    closed: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[Any]:
        try:
            yield yielded
        finally:
            closed.append("pool")

    with pytest.raises(StartupFailed) as refused:
        await serve(App(lifespan=lifespan), port=0)
    assert problem in str(refused.value)
    assert f"wrong: {wrong} right: yield {{" in str(refused.value)
    assert closed == ["pool"]
