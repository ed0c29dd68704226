"""The lifespan, the calls of the app, and the shutdown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, BackgroundTasks, Request
from trioweb.testing import Client, IncompleteResponse

from ..support.client_apps import client, echo

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


async def test_calls_are_cancelled_also_of_an_app_that_says_no_drain_timeout(
    autojump_clock: MockClock,
) -> None:
    begin = trio.current_time()

    async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await trio.sleep_forever()

    async with client(App(), asgi=without_lifespan) as c:
        with trio.move_on_after(1):
            await c.get("/")
    assert trio.current_time() == begin + 21


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
