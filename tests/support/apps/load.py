"""The apps that tests/shutdown_proof.py ends: `load` has many tasks, `hostile` the worst.

Rules of this module:

* They keep books of their own, and ask trioweb only to compare.
* What happens is printed: `event WHAT SECONDS`, on the system's monotonic clock, which the process
  that sent the signal shares.
* When the server says so and when it is answered is seen from outside of trioweb, in ASGI.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import trio

from trioweb import App, BackgroundTask, BackgroundTasks, Depends, Limits, Retry, _limits, task

TASKS = int(os.environ.get("LOAD_TASKS", "1000"))
SEED = os.environ.get("LOAD_SEED", "0")
MAX_RUNNING = int(os.environ.get("LOAD_MAX_RUNNING", "0")) or None
MAX_DURATION = 2.0  # seconds
# Of one task in fifty: however late the signal comes, there is something left to cancel.
TOO_LONG = 3600.0  # seconds
TASKS_AT_A_GATE = 1000
HURRY = 1.0  # seconds, after which one task in fifty is too slow
THREAD_DURATION = 0.002  # seconds
NEVER = threading.Event()

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

# The summary of the shutdown is at INFO, and must be in the log.
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


def record(what: str) -> None:
    os.write(1, f"event {what} {time.monotonic():.6f}\n".encode())


def watched(app: App) -> ASGIApp:
    """`app`, and a record of when the server told it to shut down and when it had."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        async def receive_watched() -> MutableMapping[str, Any]:
            message: MutableMapping[str, Any] = await receive()
            if message["type"] == "lifespan.shutdown":
                record(f"statistics {json.dumps(statistics(app))}")
                record("shutdown received")
            return message

        async def send_watched(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                record("shutdown complete")
            await send(message)

        watches = scope["type"] == "lifespan"
        await app(scope, receive_watched if watches else receive, send_watched if watches else send)

    return asgi


def statistics(app: App) -> dict[str, int]:
    """By name; the properties of a slotted dataclass have no `__dict__`."""
    now = app.statistics()
    return {name: getattr(now, name) for name in now.__slots__}


class Database:
    """What a task may use to its last line: it belongs to the lifespan."""

    def __init__(self) -> None:
        self.is_open = False

    async def query(self) -> None:
        if not self.is_open:
            raise RuntimeError("the database is closed")
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def opened(self, app: App) -> AsyncIterator[None]:
        self.is_open = True
        yield
        await trio.lowlevel.checkpoint()
        self.is_open = False
        record("lifespan closed")


database = Database()


# Load


class Books:
    """What happened to each task, by its number, as the tasks themselves saw it."""

    def __init__(self, size: int) -> None:
        self.handles: dict[int, BackgroundTask] = {}
        self.numbers: dict[BackgroundTask, int] = {}
        self.begun = bytearray(size)
        self.finished = bytearray(size)
        self.cleaned_up = bytearray(size)
        self.raised = bytearray(size)
        self.heard = bytearray(size)

    def close(self, counted: dict[str, int]) -> dict[str, Any]:
        """The sums, and in words what doesn't agree with what trioweb `counted`."""
        states: Counter[str] = Counter(self._state(number) for number in self.handles)
        problems = [line for number in self.handles for line in self._problems(number)]
        for state in ("done", "failed", "timed_out", "cancelled"):
            if states[state] != counted[state]:
                problems.append(f"{states[state]} {state} by the books")
        if sum(states.values()) != len(self.handles) or counted["added"] != len(self.handles):
            problems.append(f"{len(self.handles)} added by the books")
        return {
            "counted": counted,
            "begun": sum(self.begun),
            "cleaned_up": sum(self.cleaned_up),
            "problems": problems[:20],
        }

    def _state(self, number: int) -> str:
        if self.finished[number]:
            return "done"
        if self.raised[number]:
            return "failed"
        return "timed_out" if self.heard[number] else "cancelled"

    def _problems(self, number: int) -> list[str]:
        problems = []
        if self.begun[number] > 1:
            problems.append("was run twice")
        if self.cleaned_up[number] != self.begun[number]:
            problems.append("didn't clean up as often as it began")
        if self.finished[number] + self.raised[number] > 1:
            problems.append("ended twice")
        expected = self._state(number)
        if self.heard[number] != (expected in ("failed", "timed_out")):
            problems.append(f"{expected}, and heard of {self.heard[number]} times")
        if self.handles[number].state != expected:
            problems.append(f"{expected} by the books, {self.handles[number].state} by trioweb")
        return [f"task {number} {problem}" for problem in problems]


class Broken(Exception):
    """What one task in fifty raises."""


books = Books(TASKS)
_random = random.Random(SEED)
durations = [
    TOO_LONG if number % 50 == 3 else _random.uniform(0, MAX_DURATION) for number in range(TASKS)
]
# Opened one by one: all at once, the tasks would keep everybody else waiting for seconds.
gates = [trio.Event() for _ in range(TASKS // TASKS_AT_A_GATE + 1)]


@asynccontextmanager
async def with_books(app: App) -> AsyncIterator[None]:
    async with database.opened(app):
        yield
        record(f"books {json.dumps(books.close(statistics(app)))}")


async def work(number: int) -> None:
    books.begun[number] += 1
    try:
        await gates[number // TASKS_AT_A_GATE].wait()
        await trio.sleep(durations[number])
        if number % 50 == 0:
            books.raised[number] += 1
            raise Broken(number)
        books.finished[number] += 1
    finally:
        with trio.CancelScope(shield=True):
            await database.query()
        books.cleaned_up[number] += 1


@task(timeout=HURRY)
async def hurry(number: int) -> None:
    await work(number)


def work_in_thread(number: int) -> None:
    books.begun[number] += 1
    time.sleep(THREAD_DURATION)
    books.finished[number] += 1
    books.cleaned_up[number] += 1


load = App(
    lifespan=with_books,
    drain_timeout=0.5,
    cleanup_timeout=float(os.environ.get("LOAD_CLEANUP", "60")),  # 100,000 `finally` take some
    limits=Limits(max_pending_tasks=10**6, max_running_tasks=MAX_RUNNING),
)
load_app = watched(load)


@load.on_task_error
async def hear(failed: BackgroundTask, exc: BaseException) -> None:
    books.heard[books.numbers[failed]] += 1


@load.post("/add/{first}/{count}")
async def add(first: int, count: int, tasks: BackgroundTasks) -> None:
    """Four tasks of five run beside each other, the fifth in the list; one of fifty in a thread."""
    for number in range(first, first + count):
        if number % 50 == 1:
            handle = tasks.add_task(work_in_thread, number)
        elif number % 5 == 0:
            handle = tasks.add_task(work, number)
        elif number % 50 == 2:
            handle = tasks.start_soon(hurry, number)
        else:
            handle = tasks.start_soon(work, number)
        books.handles[number] = handle
        books.numbers[handle] = number


@load.post("/open")
async def open_gates() -> None:
    for gate in gates:
        gate.set()
        await trio.lowlevel.checkpoint()


# Hostile: each of these alone would hold a shutdown up


hostile = App(
    lifespan=database.opened,
    drain_timeout=0.5,
    cleanup_timeout=float(os.environ.get("HOSTILE_CLEANUP", "2")),
    limits=Limits(max_running_tasks=7, max_task_threads=2),
)
hostile_app = watched(hostile)

if os.environ.get("OFFENDER_INTERVAL"):
    _limits.OFFENDER_INTERVAL = float(os.environ["OFFENDER_INTERVAL"])


async def endless() -> None:
    record("endless began")
    await trio.sleep_forever()


async def stubborn() -> None:
    record("stubborn began")
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        record("stubborn goes on")
        await trio.sleep_forever()


def endless_thread() -> None:
    record("endless_thread began")
    NEVER.wait()


def without_thread() -> None:
    record("without_thread began")


async def without_place() -> None:
    record("without_place began")


@task(retry=Retry(attempts=3, backoff=3600))
async def retrying() -> None:
    raise OSError("try later")


async def polite() -> None:
    record("polite began")
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.1)
            await database.query()
        record("polite cleaned up")


async def shielded() -> None:
    """Ends when somebody opens the named pipe that HELD_BY names for writing, and closes it."""
    descriptor = os.open(os.environ["HELD_BY"], os.O_RDONLY | os.O_NONBLOCK)
    record("shielded began")
    with trio.CancelScope(shield=True):
        await trio.lowlevel.wait_readable(descriptor)
        await database.query()
    os.close(descriptor)
    record("shielded ended")


async def hanging_exit() -> AsyncIterator[None]:
    yield
    record("hanging_exit began")
    await trio.sleep_forever()


async def session() -> AsyncIterator[None]:
    try:
        yield
    finally:
        await database.query()
        record("session closed")


@hostile.post("/hang")
async def hang(opened: Annotated[None, Depends(hanging_exit)]) -> None:
    """Has answered, and hangs in its dependency."""


@hostile.post("/request")
async def request() -> None:
    record("request began")
    await trio.sleep_forever()


@hostile.post("/{name}")
async def start(
    name: str, tasks: BackgroundTasks, opened: Annotated[None, Depends(session)]
) -> None:
    tasks.start_soon(OFFENDERS[name])


@hostile.post("/listed/{name}")
async def start_listed(
    name: str, tasks: BackgroundTasks, opened: Annotated[None, Depends(session)]
) -> None:
    tasks.add_task(OFFENDERS[name])


OFFENDERS: dict[str, Callable[[], object]] = {
    function.__name__: function
    for function in (
        endless,
        stubborn,
        endless_thread,
        without_thread,
        without_place,
        retrying,
        polite,
        shielded,
    )
}
