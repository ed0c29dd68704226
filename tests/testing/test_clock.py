"""Virtual time, and threads, which take real time."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

import trioweb.testing
from trioweb import App, BackgroundTasks, Depends, StreamingResponse
from trioweb.testing import _clock


class _Idle(trio.abc.Instrument):
    """Calls back as soon as the run has nothing to do, and its clock doesn't jump at once."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def before_io_wait(self, timeout: float) -> None:
        if timeout > 0:
            self._call()


@pytest.fixture
async def query() -> AsyncIterator[Callable[[], str]]:
    """What takes as long in its thread as it takes the program to have nothing else to do."""
    is_idle = threading.Event()
    instrument = _Idle(is_idle.set)
    trio.lowlevel.add_instrument(instrument)

    def wait_for_idle() -> str:
        is_idle.wait()
        is_idle.clear()
        return "row"

    yield wait_for_idle
    is_idle.set()  # if it never was, the thread ends all the same
    trio.lowlevel.remove_instrument(instrument)


Query = Callable[[], str]


@pytest.mark.parametrize("connects", [False, True])
async def test_time_stands_still_while_a_handler_waits_for_a_thread(
    autojump_clock: MockClock, query: Query, connects: bool
) -> None:
    app = App()

    @app.get("/", timeout=1)
    async def read() -> str:
        return await trio.to_thread.run_sync(query, abandon_on_cancel=True)

    make = trioweb.testing.connect if connects else trioweb.testing.client
    async with make(app) as c:
        begin = trio.current_time()
        response = await c.get("/")
        assert (response.status_code, response.json()) == (200, "row")
        assert trio.current_time() == begin


async def test_time_stands_still_for_a_task_a_dependency_and_a_stream(
    autojump_clock: MockClock, query: Query
) -> None:
    app = App()

    async def in_thread() -> str:
        return await trio.to_thread.run_sync(query, abandon_on_cancel=True)

    async def rows() -> AsyncIterator[str]:
        yield await in_thread()

    @app.post("/", timeout=1)
    async def read(tasks: BackgroundTasks, row: str = Depends(in_thread)) -> StreamingResponse:
        tasks.add_task(in_thread)
        return StreamingResponse(rows())

    async with trioweb.testing.client(app) as c:
        begin = trio.current_time()
        assert (await c.post("/")).text == "row"
        with trio.fail_after(1):
            await c.wait_tasks()
        assert trio.current_time() == begin
    assert app.statistics().done == 1


async def test_threads_of_handlers_hold_time_too(autojump_clock: MockClock, query: Query) -> None:
    app = App(lifespan=None)
    app.get("/")(query)
    async with trioweb.testing.client(app, threads=True) as c:
        with trio.fail_after(1):
            assert (await c.get("/")).json() == "row"


async def test_time_goes_on_when_the_last_of_several_threads_is_done(
    autojump_clock: MockClock,
) -> None:
    app = App()
    gates = [threading.Event(), threading.Event()]
    waits: list[float] = []
    instrument = _Idle(lambda: waits.append(autojump_clock.autojump_threshold))

    @app.get("/{number:int}")
    async def read(number: int) -> None:
        await trio.to_thread.run_sync(gates[number].wait)

    async with trioweb.testing.client(app) as c, trio.open_nursery() as nursery:
        nursery.start_soon(c.get, "/0")
        nursery.start_soon(c.get, "/1")
        trio.lowlevel.add_instrument(instrument)
        for gate in gates:
            await trio.testing.wait_all_tasks_blocked()
            assert autojump_clock.autojump_threshold == _clock.THREAD_TIME
            gate.set()
        await trio.sleep(1000)
        trio.lowlevel.remove_instrument(instrument)
        assert autojump_clock.autojump_threshold == 0


async def test_a_thread_that_waits_for_time_gets_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the two would wait for each other."""
    monkeypatch.setattr(_clock, "THREAD_TIME", 0.01)
    app = App()
    passed = threading.Event()

    async def pass_time() -> None:
        await trio.sleep(1000)
        passed.set()

    @app.get("/")
    async def read(nursery: trio.Nursery) -> bool:
        nursery.start_soon(pass_time)
        return await trio.to_thread.run_sync(passed.wait, abandon_on_cancel=True)

    async with trioweb.testing.client(app) as c:
        assert (await c.get("/")).json() is True


async def test_a_thread_that_asks_for_time_gets_it_at_once(autojump_clock: MockClock) -> None:
    app = App()

    @app.get("/")
    async def read() -> None:
        await trio.to_thread.run_sync(trio.from_thread.run, trio.sleep, 1000)

    async with trioweb.testing.client(app) as c:
        begin = trio.current_time()
        assert (await c.get("/")).status_code == 200
        assert trio.current_time() == begin + 1000


async def test_the_clock_is_as_before_when_all_clients_have_gone(
    autojump_clock: MockClock, query: Query
) -> None:
    """A thread that a test started itself may go on; two clients share the clock."""
    first, second = App(), App()
    gate = threading.Event()

    async def wait_in_thread() -> None:
        await trio.to_thread.run_sync(gate.wait)

    async with trio.open_nursery() as nursery:
        async with trioweb.testing.client(first):
            async with trioweb.testing.client(second):
                nursery.start_soon(wait_in_thread)
                await trio.testing.wait_all_tasks_blocked()
            assert autojump_clock.autojump_threshold == _clock.THREAD_TIME
        assert autojump_clock.autojump_threshold == 0
        gate.set()


async def test_a_clock_that_never_jumps_goes_on_so(mock_clock: MockClock) -> None:
    app = App()

    @app.get("/")
    async def read() -> float:
        return await trio.to_thread.run_sync(lambda: mock_clock.autojump_threshold)

    async with trioweb.testing.client(app) as c:
        assert (await c.get("/")).text == "null"  # JSON has no infinity
    assert mock_clock.autojump_threshold == float("inf")


@asynccontextmanager
async def _lifespan(app: App) -> AsyncIterator[None]:
    await trio.to_thread.run_sync(lambda: None)
    yield


async def test_a_real_clock_is_left_alone() -> None:
    async with trioweb.testing.client(App(lifespan=_lifespan)) as c:
        assert (await c.get("/")).status_code == 404
