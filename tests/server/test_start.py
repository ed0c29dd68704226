"""A start that is cancelled ends, though it waited where nothing reaches it: so does the server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config
from trio.testing import MockClock

from trioweb import App
from trioweb.server import StartupFailed, serve

from ..support.server_driver import serving

Start = Callable[[], Awaitable[object]]
MakeApp = Callable[[Start, list[str]], Any]

# Seconds of a mock clock: when the start is cancelled, and when it can be.
CANCELLED, REACHABLE = 1, 3


async def wait_behind_a_shield() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(REACHABLE)


async def swallow_the_cancellation() -> None:
    with contextlib.suppress(BaseException):  # as careless code does
        await trio.sleep_forever()


def ours(start: Start, seen: list[str]) -> Any:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        try:
            await start()
            yield
        finally:
            seen.append("closed")

    return App(lifespan=lifespan)


def bare(start: Start, seen: list[str]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await start()
            await send({"type": "lifespan.startup.complete"})
        finally:
            seen.append("closed")

    return app


def without_a_word(start: Start, seen: list[str]) -> Any:
    """It starts something, and returns: so say apps that know no lifespans."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await start()
        seen.append("closed")

    return app


EachApp = pytest.mark.parametrize("make", [ours, bare, without_a_word])


@EachApp
@pytest.mark.parametrize("start", [wait_behind_a_shield, swallow_the_cancellation])
async def test_a_start_that_is_cancelled_ends_when_it_can(
    make: MakeApp, start: Start, autojump_clock: MockClock
) -> None:
    seen: list[str] = []
    with trio.move_on_after(CANCELLED) as scope:
        await serve(make(start, seen), port=0)
    assert scope.cancelled_caught
    assert seen == ["closed"]
    assert trio.current_time() == (REACHABLE if start is wait_behind_a_shield else CANCELLED)


@EachApp
async def test_a_start_that_is_cancelled_in_a_thread_ends_after_it(make: MakeApp) -> None:
    seen: list[str] = []
    may_end, in_thread = threading.Event(), trio.Event()

    def work() -> None:
        trio.from_thread.run_sync(in_thread.set)
        may_end.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve, make(partial(trio.to_thread.run_sync, work), seen), port=0)
        )
        await in_thread.wait()
        nursery.cancel_scope.cancel()
        may_end.set()
    assert seen == ["closed"]


@pytest.mark.parametrize("make", [ours, bare])
async def test_a_start_that_fails_when_it_is_cancelled_says_why(
    make: MakeApp, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def start() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise RuntimeError("no database") from None

    with pytest.raises(StartupFailed, match="no database"), trio.move_on_after(CANCELLED):
        await serve(make(start, []), port=0)
    assert not any("served without" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("make", [ours, bare])
async def test_the_same_under_hypercorn(make: MakeApp, autojump_clock: MockClock) -> None:
    seen: list[str] = []
    config = Config()
    config.bind = ["127.0.0.1:0"]
    with trio.move_on_after(CANCELLED) as scope:
        await hypercorn.trio.serve(make(wait_behind_a_shield, seen), config)
    assert scope.cancelled_caught
    assert seen == ["closed"]


async def test_a_start_that_isnt_cancelled_is_left_alone(autojump_clock: MockClock) -> None:
    seen: list[str] = []
    async with serving(ours(wait_behind_a_shield, seen)):
        assert seen == []
    assert seen == ["closed"]
