"""The block of the client: what leaves it, whoever cancels it, wherever it runs."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, BackgroundTasks, StreamingResponse, testing

from ..support.client_apps import Pieces, client, echo, upload_app
from ..support.steps import CancelAtStep


@pytest.mark.parametrize("name", ["client", "connect"])
def test_a_client_is_there_within_async_with_only(name: str) -> None:
    given: Any = getattr(testing, name)(App())
    right = f"    right:  async with {name}(app) as c: ..."
    with pytest.raises(TypeError) as raised:
        ExitStack().enter_context(given)
    assert str(raised.value).splitlines()[1:] == [
        f"    wrong:  with {name}(app) as c: ...",
        right,
    ]
    with pytest.raises(AttributeError) as missing:
        given.get("/")
    assert str(missing.value).splitlines()[1:] == [
        f"    wrong:  c = {name}(app), then c.get",
        right,
    ]


class Outcome(BaseException):
    """As pytest's own are: what `pytest.fail` raises is no Exception."""


async def test_what_a_test_raises_is_in_no_group() -> None:
    for exception in (Outcome(), ExceptionGroup("", [LookupError()]), trio.TooSlowError()):
        with pytest.raises(type(exception)) as caught:
            async with client(echo()):
                raise exception
        assert caught.value is exception


# --- Cancellation, at every step.


async def everything(steps: list[str]) -> None:
    """Uses all of it; `steps` says how far it came."""
    events: list[object] = []
    app = upload_app(events)

    @app.get("/tasks")
    async def start(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(trio.sleep, 1)
        tasks.start_soon(trio.sleep, 1)
        return StreamingResponse(Pieces())

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            await trio.sleep(1)
            yield b"piece"

    async with client(app) as c:
        await c.post("/json", json={"a": 1})
        async with c.stream("GET", "/tasks") as response:
            await anext(response)
        async with c.stream("POST", "/", content=pieces()) as response:
            await response.read()
        await c.get("/tasks")
        await c.wait_tasks()
        await c.get("/tasks")
        await c.shutdown()
        steps.append("end")


@pytest.mark.slow
async def test_cancelled_at_each_await_it_leaves_nothing(autojump_clock: MockClock) -> None:
    own = trio.lowlevel.current_task()
    step, was_cancelled = 0, True
    while was_cancelled:
        step += 1
        steps: list[str] = []
        with trio.CancelScope() as scope:
            instrument = CancelAtStep(step, of=own)
            instrument.watch(scope)
            trio.lowlevel.add_instrument(instrument)
            try:
                await everything(steps)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        was_cancelled = scope.cancel_called
        # Nothing is swallowed: it gives in, or was at its end already.
        assert scope.cancelled_caught or steps == ["end"]
    assert step > 20


# --- Elsewhere than under pytest-trio.


@pytest.mark.parametrize("clock", [None, MockClock(autojump_threshold=0)])
async def test_in_plain_trio(clock: MockClock | None) -> None:
    async def main() -> None:
        async with client(echo()) as c:
            assert (await c.get("/")).status_code == 200

    await trio.to_thread.run_sync(partial(trio.run, main, clock=clock))


variable: ContextVar[str] = ContextVar("variable", default="outside")


async def test_a_request_has_its_tests_context() -> None:
    app = App()

    @app.get("/")
    async def show() -> str:
        return variable.get()

    async with client(app) as c:
        variable.set("the test's")
        assert (await c.get("/")).json() == "the test's"


async def test_what_fails_beside_a_test_that_fails_is_its_cause() -> None:
    class Broken(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await super().__call__(scope, receive, send)
            finally:
                raise ValueError("as it was cancelled")

    with pytest.raises(LookupError, match="the test's own") as raised:
        async with testing.client(Broken()):
            raise LookupError("the test's own")
    cause = raised.value.__cause__
    assert isinstance(cause, BaseExceptionGroup)
    assert cause.subgroup(ValueError)


@pytest.mark.parametrize("threads", [True, False])
async def test_a_plain_iterator_has_threads_in_either_case(
    threads: bool, autojump_clock: MockClock
) -> None:
    """It may wait for what the test itself does next."""
    app = App()
    ran_in: list[bool] = []
    is_open = threading.Event()

    def pieces() -> Iterator[str]:
        try:
            ran_in.append(threading.current_thread() is threading.main_thread())
            yield "a"
            is_open.wait()
            yield "b"
        finally:
            ran_in.append(threading.current_thread() is threading.main_thread())

    @app.get("/")
    async def root() -> StreamingResponse:
        return StreamingResponse(pieces())

    async with testing.client(app, threads=threads) as c, c.stream("GET", "/") as response:
        received = []
        async for piece in response:
            received.append(piece)
            is_open.set()
    assert received == [b"a", b"b"]
    assert ran_in == [False, False]
