"""Ctrl-C in a program that embeds an app: Trio raises it between any two instructions that aren't
protected, and still every task ends in one known state, and the program ends.

Rules of this module:

* The signal is real, and so is Trio's handler for it; the clock isn't, but in the last test.
* Where it comes is chosen by what is called: before and after each step of the bookkeeping.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

import pytest
import trio
from trio.lowlevel import disable_ki_protection
from trio.testing import MockClock

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    Depends,
    JSONResponse,
    Request,
    StreamingResponse,
    task,
)
from trioweb._concurrency.context import interrupted, interruptible, is_waiting
from trioweb._concurrency.exits import Exits
from trioweb._concurrency.scopes import Scopes
from trioweb._concurrency.starter import Starter
from trioweb._errors import leaves
from trioweb._http.exchange import Exchange
from trioweb._lifetime.app import AppLifetime
from trioweb._lifetime.landing import InFlight
from trioweb._lifetime.report import ShutdownReport
from trioweb._lifetime.tasks import RequestTasks
from trioweb._tasks.ledger import END_STATES, Ledger
from trioweb._tasks.list import TaskQueue
from trioweb._tasks.run import TaskRun
from trioweb.testing import client

STEPS = [
    (Ledger, "enter"),
    (Ledger, "begin"),
    (Ledger, "end"),
    (TaskQueue, "_append_concurrent"),
    (TaskQueue, "_enter"),
    (TaskQueue, "close_if_empty"),
    (TaskQueue, "end"),
    (TaskRun, "begin"),
    (TaskRun, "_advance"),
    (TaskRun, "_count"),
    (TaskRun, "_start_concurrent"),
    (Starter, "start_soon"),
    (RequestTasks, "start"),
    (RequestTasks, "_begin"),
    (InFlight, "land"),
    (Scopes, "keep_to"),
    (Exchange, "end_if_idle"),
]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """As a program has it; one that hangs is ended."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    alarm = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 30)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGINT, before)


def app_with_tasks(added: list[BackgroundTask]) -> App:
    app = App(drain_timeout=1, cleanup_timeout=1)

    async def quick() -> None:
        pass

    async def slow() -> None:
        try:
            await trio.sleep(0.1)
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()

    @task(timeout=5)
    async def limited() -> None:
        await trio.sleep(0.1)

    async def dependency(tasks: BackgroundTasks) -> AsyncIterator[None]:
        added.append(tasks.add_task(quick))
        yield

    @app.get("/")
    async def inline(tasks: BackgroundTasks) -> None:
        added.append(tasks.start_soon(quick))
        added.extend(tasks.add_task(func) for func in (quick, slow, quick, limited))

    @app.get("/beside")
    async def beside(tasks: BackgroundTasks, _: None = Depends(dependency)) -> None:
        await inline(tasks)

    @app.get("/brings")
    async def brings() -> JSONResponse:
        bring = [BackgroundTask(quick), BackgroundTask(slow)]
        response = JSONResponse(1, background=BackgroundTasks(bring))
        added.extend(bring)
        return response

    return app


def interrupting(step: Callable[..., object], call: int, *, after: bool) -> Callable[..., object]:
    """`step`, and the signal before or after this one of its calls."""
    left = call

    def interrupted(*args: object, **options: object) -> object:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            signal.raise_signal(signal.SIGINT)
        found = step(*args, **options)
        if left == 0 and after:
            signal.raise_signal(signal.SIGINT)
        return found

    return interrupted


def run_until_ctrl_c(main: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(BaseException) as raised:  # noqa: PT011
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(raised.value))


@pytest.mark.parametrize("path", ["/", "/beside", "/brings"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name", "call"), [(*step, call) for step in STEPS for call in (1, 2, 3)]
)
@pytest.mark.usefixtures("ctrl_c")
def test_no_step_of_the_bookkeeping_is_left_half_done(
    owner: type,
    name: str,
    call: int,
    *,
    after: bool,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added: list[BackgroundTask] = []
    app = app_with_tasks(added)

    async def main() -> None:
        async with client(app) as calling:
            monkeypatch.setattr(owner, name, interrupting(getattr(owner, name), call, after=after))
            async with trio.open_nursery() as nursery:
                for asked in (path, "/", "/", "/", "/beside"):
                    nursery.start_soon(calling.get, asked)
            await trio.sleep(1)

    run_until_ctrl_c(main)
    assert {task.state for task in added} <= {*END_STATES}
    counts = app.statistics()
    assert (counts.pending, counts.running) == (0, 0)
    assert counts.added == len(added)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(AppLifetime, "_begin_shutdown"), (InFlight, "wait_until_landed"), (ShutdownReport, "report")],
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.usefixtures("ctrl_c")
def test_nor_is_a_shutdown(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    added: list[BackgroundTask] = []
    app = app_with_tasks(added)

    async def main() -> None:
        async with client(app) as calling:
            await calling.get("/")
            monkeypatch.setattr(owner, name, interrupting(getattr(owner, name), 1, after=after))
            raise LookupError

    run_until_ctrl_c(main)
    assert {task.state for task in added} <= {*END_STATES}


@pytest.mark.usefixtures("ctrl_c")
def test_a_dependency_that_was_entered_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    app, seen = App(), list[str]()

    async def dependency() -> AsyncIterator[None]:
        seen.append("entered")
        try:
            yield
        finally:
            seen.append("left")

    @app.get("/")
    async def root(_: None = Depends(dependency)) -> None:
        seen.append("handled")

    async def main() -> None:
        async with client(app) as calling:
            await calling.get("/")
            enter = interrupting(Exits.push_async_exit, 1, after=False)
            monkeypatch.setattr(Exits, "push_async_exit", enter)
            await calling.get("/")

    run_until_ctrl_c(main)
    assert [what for what in seen if what != "handled"] == ["entered", "left"] * 2


def interrupting_line(function: object, count: int) -> Callable[..., Any]:
    """For `sys.settrace`: the signal before this one of the lines that `function` goes through.

    A line counts once: no signal comes between a block and its `__exit__`, as this one would.
    """
    code, seen = getattr(function, "__code__", None), set[int]()

    def trace_line(  # pragma: no cover - Python calls it with tracing switched off
        frame: FrameType, event: str, arg: object
    ) -> Callable[..., Any]:
        if event == "line" and frame.f_lineno not in seen:
            seen.add(frame.f_lineno)
            if len(seen) == count:
                signal.raise_signal(signal.SIGINT)
        return trace_line

    return lambda frame, event, arg: trace_line if frame.f_code is code else None


@pytest.mark.parametrize("path", ["/", "/beside"])
@pytest.mark.parametrize("line", range(1, 10))
@pytest.mark.usefixtures("ctrl_c")
def test_a_list_in_whose_making_it_comes_is_made_when_it_is_asked_for_again(
    line: int, path: str
) -> None:
    app, added = App(), list[BackgroundTask]()
    making = vars(Exchange)["tasks"].fget

    @app.get("/")
    async def inline(request: Request) -> None:
        before = sys.gettrace()
        sys.settrace(interrupting_line(making, line))
        try:
            with suppress(KeyboardInterrupt):
                _ = request.tasks
        finally:
            sys.settrace(before)
        added.append(request.tasks.add_task(trio.sleep, 1))

    @app.get("/beside")
    async def beside(request: Request, nursery: trio.Nursery) -> None:
        await inline(request)

    async def main() -> None:
        async with client(app) as calling:
            await calling.get(path)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert [task.state for task in added] == ["done"]
    assert app.statistics().added == 1


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.usefixtures("ctrl_c")
def test_what_comes_right_behind_a_step_reaches_the_task(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, seen = App(), list[str]()
    behind = disable_ki_protection(interrupting(interruptible, step, after=True))
    monkeypatch.setattr("trioweb._tasks.runner.interruptible", behind)
    monkeypatch.setattr("trioweb._concurrency.context.interruptible", behind)

    async def wait() -> None:
        try:
            await trio.sleep(1)
            await trio.sleep(1)
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()
            seen.append("cleaned up")

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(wait)

    async def main() -> None:
        async with client(app) as calling:
            await calling.get("/")
            await trio.sleep(5)

    run_until_ctrl_c(main)
    assert seen == ["cleaned up"]


computing: list[str] = []


async def compute() -> None:
    if not computing:
        return
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        computing.append("interrupted")
        raise


async def wait_and_compute() -> None:
    await trio.lowlevel.checkpoint()
    await compute()


@task(timeout=5)
async def compute_within_a_limit() -> None:
    await compute()


Func = Callable[[], Awaitable[None]]


def computing_app(func: Func, where: str) -> App:
    """`func` is called in the lifespan, or by a request to where it says."""

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        if where == "lifespan":
            await func()
        yield

    app = App(lifespan=lifespan)
    add_routes(app, func)

    @app.get("/failure")
    async def fail() -> None:
        raise LookupError

    @app.exception_handler(LookupError)
    async def explain(request: Request, exc: LookupError) -> None:
        await func()

    return app


def add_routes(app: App, func: Func) -> None:
    async def before() -> AsyncIterator[None]:
        await func()
        yield

    async def after() -> AsyncIterator[None]:
        yield
        await func()

    @app.get("/before", dependencies=[Depends(before)])
    @app.get("/after", dependencies=[Depends(after)])
    async def nothing() -> None: ...

    @app.get("/task")
    async def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(func)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces())

    async def pieces() -> AsyncIterator[bytes]:
        await func()
        yield b""

    app.get("/handler")(func)


@pytest.mark.parametrize("func", [compute, wait_and_compute, compute_within_a_limit])
@pytest.mark.parametrize(
    "where", ["/handler", "/task", "/before", "/after", "/stream", "/failure", "lifespan"]
)
@pytest.mark.usefixtures("ctrl_c")
def test_what_computes_is_interrupted_where_it_is(func: Func, where: str) -> None:
    """As Trio has it: protected like ours it might go on for ever."""
    app = computing_app(func, where)

    async def main() -> None:
        computing.clear()
        async with client(app) as calling:
            if where != "lifespan":
                await calling.get(where)
        computing.append("to be interrupted")
        async with client(app) as calling:
            await calling.get(where)
            await trio.sleep(1)

    run_until_ctrl_c(main)
    assert computing == ["to be interrupted", "interrupted"]


# What comes right behind a step of somebody's coroutine finds it waiting.


async def cleans_up(seen: list[str]) -> str:
    try:
        await trio.sleep_forever()
    except KeyboardInterrupt:
        await trio.lowlevel.checkpoint()
        seen.append("cleaned up")
    return "its value"


async def gives_in() -> str:
    with suppress(KeyboardInterrupt):
        await trio.sleep_forever()
    return "at once"


async def test_a_coroutine_that_waits_is_told_of_it() -> None:
    seen: list[str] = []
    call = cleans_up(seen)
    call.send(None)
    assert is_waiting(call)
    assert await interrupted(call, KeyboardInterrupt()) == "its value"
    assert seen == ["cleaned up"]
    call = gives_in()
    call.send(None)
    assert await interrupted(call, KeyboardInterrupt()) == "at once"


SERVED = """\
import functools, json, signal, sys
import trio, trioweb

app = trioweb.App(drain_timeout=0.5, cleanup_timeout=0.5)
added = []

async def quick():
    pass

async def wait():
    await trio.sleep(0)

@app.get("/")
async def root(tasks: trioweb.BackgroundTasks):
    added.extend(tasks.add_task(func) for func in (quick, wait, quick, quick))

async def load(port):
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        for _ in range(100_000):
            await stream.send_all(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" * 8)
            if not await stream.receive_some():
                return

async def main():
    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(trioweb.serve, app, port=0))
        for _ in range(4):
            nursery.start_soon(load, int(server.urls[0].rsplit(":", 1)[1].strip("/")))
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))

def interrupt(number, frame):
    signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGALRM, interrupt)
ended = "by itself"
try:
    trio.run(main)
except* KeyboardInterrupt:
    ended = "by Ctrl-C"
except* (trio.BrokenResourceError, trio.ClosedResourceError):
    pass
print(json.dumps([ended, [task.state for task in added]]))
"""


@pytest.mark.slow
@pytest.mark.processes
def test_a_busy_program_ends_and_has_lost_none() -> None:
    # What measures coverage holds a lock of its own in Python, which Ctrl-C would leave held.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    for seconds in (0.3, 0.41, 0.52, 0.63):
        ran = subprocess.run(
            [sys.executable, "-c", SERVED, str(seconds)],
            capture_output=True,
            check=True,
            env=env,
            text=True,
            timeout=30,
        )
        ended, states = json.loads(ran.stdout)
        assert ended == "by Ctrl-C"
        assert len(states) > 20
        assert Counter(states).keys() <= {*END_STATES}
