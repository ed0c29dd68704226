"""The app's lifespan: what may be one, and that it closes in order, whoever ends the serving."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import hypercorn
import hypercorn.trio
import pytest
import trio
from starlette.applications import Starlette
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import App, BackgroundTasks
from trioweb._asgi import ASGIApp
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
