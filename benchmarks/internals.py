"""What the parts of a request cost, without a server, in pairs.

Rules of this module:

* Every app answers the same request with the same bytes, and every task that was added has run:
  each turn checks that.
* The subjects take turns, in short rounds within one process, and what is compared
  is the ratio or the difference inside a round: machines drift, rounds drift together.
* All run on Trio.  Starlette and FastAPI do so too: their calls never reach
  asyncio for these handlers.
* Nothing here waits, so time is the processor's: what others use of it doesn't count.
* So many requests are answered before their tasks get their turn as a busy server has
  connections: what a pass of Trio's scheduler costs is shared by them, as it is there.
* Instructions are counted of the same turns, each subject in processes of its own.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
import trio

import trioweb
from tests.support.asgi import running
from trioweb._app.app import lifetime_of

from ._counters import Counter, count_all, find_counter
from ._plots import figure
from ._results import HOW_KEPT, Found, keep, setting, table

K = TypeVar("K")

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
# Does what it measures so many times.
Turn = Callable[[int], Awaitable[None]]
Subject = Callable[[], AbstractAsyncContextManager[Turn]]
# Of each subject, one figure for each round.
Costs = dict[str, list[float]]

DESCRIPTION = """\
Calls apps in this process, without a server, in turns of a thousand, and prints what each part of
a request costs:

  call        one ASGI call, against Starlette, FastAPI and a bare app
  tasks       what a request with one no-op task costs over one without, and each further task,
              against Starlette's, and against nursery.start_soon in plain Trio
  body        validating JSON, against msgspec alone
  nursery     opening and closing one
  import      `import trioweb`, when trio and msgspec are imported

Frameworks that aren't installed are left out: pip install starlette fastapi
"""
EPILOG = HOW_KEPT

CALLS_IN_A_ROUND = 1000
CALLS_COUNTED = 640  # of which the instructions are counted
AT_ONCE = 32  # requests, before their tasks get a turn
MANY = 11  # tasks: the first one and ten more
IMPORTS = 10

PATH = "/send/a@example.com"
EXPECTED = b'{"message":"sent to a@example.com"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(EXPECTED))]
ORDER = (
    b'{"number":17,"customer":"a@example.com","express":true,"items":['
    + b",".join(b'{"name":"thing %d","price":%d.5,"tags":["a","b"]}' % (n, n) for n in range(10))
    + b"]}"
)

# Of the tasks that were added, how many have run.
ran = 0


async def no_op() -> None:
    global ran
    ran += 1


class Item(msgspec.Struct):
    name: str
    price: float
    tags: list[str]


class Order(msgspec.Struct):
    number: int
    customer: str
    express: bool
    items: list[Item]


def trioweb_app() -> trioweb.App:
    app = trioweb.App()

    @app.get("/send/{email}")
    async def send(email: str) -> dict[str, str]:
        return {"message": f"sent to {email}"}

    return app


def trioweb_app_with_tasks(count: int) -> trioweb.App:
    app = trioweb.App()

    @app.get("/send/{email}")
    async def send(email: str, background_tasks: trioweb.BackgroundTasks) -> dict[str, str]:
        for _ in range(count):
            background_tasks.add_task(no_op)
        return {"message": f"sent to {email}"}

    return app


def trioweb_app_with_body() -> trioweb.App:
    app = trioweb.App()

    @app.get("/send/{email}")
    async def send(email: str, order: Order) -> dict[str, str]:
        return {"message": f"sent to {order.customer}"}

    return app


def starlette_app(tasks: int = 0) -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTasks
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def send(request: Request) -> JSONResponse:
        return JSONResponse({"message": f"sent to {request.path_params['email']}"})

    async def send_and_add(request: Request) -> JSONResponse:
        background = BackgroundTasks()
        for _ in range(tasks):
            background.add_task(no_op)
        message = {"message": f"sent to {request.path_params['email']}"}
        return JSONResponse(message, background=background)

    return Starlette(routes=[Route("/send/{email}", send_and_add if tasks else send)])


def fastapi_app() -> ASGIApp:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/send/{email}")
    async def send(email: str) -> dict[str, str]:
        return {"message": f"sent to {email}"}

    return app


async def bare_app(scope: Any, receive: Any, send: Any) -> None:
    """The least that any app does: no routing, no framework."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": EXPECTED})


def bare_app_that_starts(nursery: trio.Nursery, count: int) -> ASGIApp:
    """As the bare app, and it starts tasks as Trio's own users would."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(count):
            nursery.start_soon(no_op)
        await bare_app(scope, receive, send)

    return app


@asynccontextmanager
async def calling_trioweb(app: trioweb.App, tasks: int = 0) -> AsyncIterator[Turn]:
    async with running(app):
        yield partial(take_turn, app, tasks, lifetime_of(app).ledger.wait_idle)


@asynccontextmanager
async def calling(make: Callable[[], ASGIApp], tasks: int = 0) -> AsyncIterator[Turn]:
    yield partial(take_turn, make(), tasks, wait_for_started)


@asynccontextmanager
async def calling_plain_trio(tasks: int) -> AsyncIterator[Turn]:
    async with trio.open_nursery() as nursery:
        app = bare_app_that_starts(nursery, tasks)
        yield partial(take_turn, app, tasks, wait_for_started)


async def wait_for_started() -> None:
    """Returns when what was started has run, where none of it waits.

    In the pass of Trio's scheduler in which it runs, it may be behind us; in the next it isn't.
    """
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def opening_nurseries() -> AsyncIterator[Turn]:
    async def turn(times: int) -> None:
        for _ in range(times):
            async with trio.open_nursery():
                pass

    yield turn


@asynccontextmanager
async def decoding() -> AsyncIterator[Turn]:
    decode = msgspec.json.Decoder(Order).decode

    async def turn(times: int) -> None:
        for _ in range(times):
            decode(ORDER)

    yield turn


SUBJECTS: dict[str, Subject] = {
    "trioweb": lambda: calling_trioweb(trioweb_app()),
    "starlette": lambda: calling(starlette_app),
    "fastapi": lambda: calling(fastapi_app),
    "bare ASGI": lambda: calling(lambda: bare_app),
    "trioweb, 1 task": lambda: calling_trioweb(trioweb_app_with_tasks(1), 1),
    "trioweb, many": lambda: calling_trioweb(trioweb_app_with_tasks(MANY), MANY),
    "starlette, 1 task": lambda: calling(lambda: starlette_app(1), 1),
    "starlette, many": lambda: calling(lambda: starlette_app(MANY), MANY),
    "bare ASGI, 1 task": lambda: calling_plain_trio(1),
    "bare ASGI, many": lambda: calling_plain_trio(MANY),
    "trioweb, body": lambda: calling_trioweb(trioweb_app_with_body()),
    "msgspec": decoding,
    "nursery": opening_nurseries,
}
CALLED = ("trioweb", "starlette", "fastapi", "bare ASGI")
ADDED_TO = {
    "trioweb": "trioweb, add_task",
    "starlette": "starlette, add_task",
    "bare ASGI": "plain Trio, nursery.start_soon",
}


async def take_turn(
    app: ASGIApp, tasks: int, wait_for_tasks: Callable[[], Awaitable[None]], calls: int
) -> None:
    before = ran
    for first in range(0, calls, AT_ONCE):
        for _ in range(min(AT_ONCE, calls - first)):
            body = await call(app)
            if body != EXPECTED:
                raise RuntimeError(f"{app!r} gives another answer: {body!r}")
        await wait_for_tasks()
    if ran - before != calls * tasks:
        raise RuntimeError(f"{app!r}: {ran - before:,} of {calls * tasks:,} tasks have run")


async def call(app: ASGIApp, path: str = PATH) -> bytes:
    """One GET; the body of its response."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": ORDER, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope(path), receive, send)
    return bytes(sent[-1]["body"])


def scope(path: str) -> dict[str, Any]:
    """A browser's GET, as Hypercorn would describe it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.1"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"accept", b"*/*"), (b"user-agent", b"bench")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "extensions": {},
    }


async def measure(subjects: dict[str, Subject], rounds: int) -> Costs:
    """Microseconds for each time, of each subject."""
    async with AsyncExitStack() as stack:
        turns = {name: await stack.enter_async_context(make()) for name, make in subjects.items()}
        for turn in turns.values():
            await turn(AT_ONCE)
        # What one framework keeps isn't gone through when another one makes garbage.
        gc.freeze()
        try:
            return await take_turns(turns, rounds, CALLS_IN_A_ROUND)
        finally:
            gc.unfreeze()


async def take_turns(
    turns: dict[K, Turn],
    rounds: int,
    times: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[K, list[float]]:
    """Microseconds for each time, of each turn, one figure for each round."""
    costs: dict[K, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            begin = clock()
            await turn(times)
            costs[name].append((clock() - begin) / times * 1e6)
    return costs


async def take_counted_turn(name: str, times: int) -> None:
    """What the process does whose instructions are counted."""
    async with SUBJECTS[name]() as turn:
        gc.freeze()
        await turn(times)


def count_instructions(counter: Counter, names: list[str]) -> Costs:
    """Instructions for each time, of each subject, as a single round."""
    counts = count_all(counter, {name: partial(_counted, name) for name in names}, CALLS_COUNTED)
    return {name: [count] for name, count in counts.items()}


def _counted(name: str, times: int) -> list[str]:
    """The process whose instructions are counted."""
    return [sys.executable, "-m", "benchmarks.internals", name, str(times)]


def installed() -> dict[str, Subject]:
    """The subjects whose framework is installed; says which are left out."""
    missing = []
    for framework in ("starlette", "fastapi"):
        try:
            __import__(framework)
        except ImportError as exc:
            missing.append(framework)
            print(f"left out: {framework} ({exc})")
    return {
        name: subject for name, subject in SUBJECTS.items() if not name.startswith(tuple(missing))
    }


# Here a package is compiled once, as an installed one is, whatever the environment says.
COMPILED = "import sys; sys.dont_write_bytecode = False; "
IMPORT_BOTH = "import trio, msgspec"
TIME_IMPORTS = f"""{COMPILED}
import time
began = time.process_time()
{IMPORT_BOTH}
between = time.process_time()
import trioweb
print(between - began, time.process_time() - between)
"""


def measure_imports(times: int) -> Costs:
    """Milliseconds to import trio and msgspec, and then trioweb, each time in a new process."""
    costs: Costs = {"trio and msgspec": [], "trioweb": []}
    with tempfile.TemporaryDirectory() as folder:
        command = _python(folder, TIME_IMPORTS)
        for number in range(times + 1):
            printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
            if number:  # the first one had to compile
                for name, seconds in zip(costs, printed.split(), strict=True):
                    costs[name].append(float(seconds) * 1000)
    return costs


def count_imports(counter: Counter) -> Costs:
    """Millions of instructions for the same."""
    sources = (COMPILED, COMPILED + IMPORT_BOTH, f"{COMPILED}{IMPORT_BOTH}, trioweb")
    with tempfile.TemporaryDirectory() as folder:
        commands = [_python(folder, source) for source in sources]
        subprocess.run(commands[-1], check=True)
        nothing, both, all_three = (counter.count(command) / 1e6 for command in commands)
    return {"trio and msgspec": [both - nothing], "trioweb": [all_three - both]}


def _python(folder: str, source: str) -> list[str]:
    """A process that keeps in this folder what it has compiled."""
    return [sys.executable, "-X", f"pycache_prefix={folder}", "-c", source]


def ratios(costs: Costs, one: str, other: str) -> list[float]:
    return [ours / its for ours, its in zip(costs[one], costs[other], strict=True)]


def first_task(costs: Costs, framework: str) -> list[float]:
    """What a request with one task costs over the same without."""
    return _differences(costs, f"{framework}, 1 task", framework)


def further_task(costs: Costs, framework: str) -> list[float]:
    differences = _differences(costs, f"{framework}, many", f"{framework}, 1 task")
    return [difference / (MANY - 1) for difference in differences]


def body(costs: Costs) -> list[float]:
    """What a request with a validated body costs over the same without."""
    return _differences(costs, "trioweb, body", "trioweb")


def _differences(costs: Costs, one: str, other: str) -> list[float]:
    return [its - others for its, others in zip(costs[one], costs[other], strict=True)]


def report(costs: Costs, unit: str) -> str:
    """The Markdown tables for costs in µs or in instructions."""
    spread = _spread(costs)
    calls = [
        (name, *_figures(costs[name]), f"{statistics.median(ratios(costs, 'trioweb', name)):.2f}")
        for name in CALLED
        if name in costs
    ]
    tasks = [
        (label, *_figures(first_task(costs, name)), *_figures(further_task(costs, name)))
        for name, label in ADDED_TO.items()
        if name in costs
    ]
    parts = [
        ("body of 10 items, read and validated by trioweb", *_figures(body(costs))),
        ("the same by msgspec alone", *_figures(costs["msgspec"])),
        ("a nursery, opened and closed", *_figures(costs["nursery"])),
    ]
    return "\n\n".join(
        [
            table(("one call", unit, *spread, "trioweb's, of its"), calls),
            table(("tasks", f"first, {unit}", *spread, f"further, {unit}", *spread), tasks),
            table(("parts", unit, *spread), parts),
        ]
    )


def report_imports(costs: Costs, unit: str) -> str:
    rows = [(f"import {name}", *_figures(values)) for name, values in costs.items()]
    return table(("import", unit, *_spread(costs)), rows)


def _spread(costs: Costs) -> tuple[str, ...]:
    """The heading of what is beside a median: nothing, where there was one round."""
    return ("min–max",) if len(costs["trioweb"]) > 1 else ()


def _figures(values: list[float]) -> tuple[str, ...]:
    """The median, and the spread where there is one."""
    places = 1 if max(values) < 1000 else 0
    low, middle, high = (
        f"{value:,.{places}f}" for value in (min(values), statistics.median(values), max(values))
    )
    return (middle, f"{low}–{high}") if len(values) > 1 else (middle,)


class Bar(NamedTuple):
    """What is promised, how much it may be at most, and how much it is."""

    what: str
    most: float
    found: float


def bars(costs: Costs, imports: Costs) -> list[Bar]:
    found = [
        Bar("one added task, µs", 15, statistics.median(first_task(costs, "trioweb"))),
        Bar("each further task, µs", 5, statistics.median(further_task(costs, "trioweb"))),
        Bar("import over trio and msgspec, ms", 50, statistics.median(imports["trioweb"])),
    ]
    if "starlette" in costs:
        ratio = statistics.median(ratios(costs, "trioweb", "starlette"))
        found.insert(0, Bar("one ASGI call, of Starlette's time", 0.7, ratio))
    return found


def judged(bars: Sequence[Bar]) -> str:
    """A table of bars that are reached, or not."""
    rows = (
        (bar.what, f"{bar.most:,g}", figure(bar.found), _verdict(bar.found <= bar.most))
        for bar in bars
    )
    return table(("bar", "at most", "found", ""), rows)


def _verdict(reached: bool) -> str:
    return "reached" if reached else "not reached"


def run(rounds: int, *, instructions: bool = False) -> None:
    subjects = installed()
    print(f"{setting()}\n", flush=True)
    costs = trio.run(measure, subjects, rounds)
    imports = measure_imports(min(rounds, IMPORTS))
    judgement = bars(costs, imports)
    tables = [report(costs, "µs"), report_imports(imports, "ms"), judged(judgement)]
    print("\n\n".join(tables), flush=True)
    results: dict[str, Any] = {
        "µs": costs,
        "import, ms": imports,
        "bars": [bar._asdict() for bar in judgement],
    }
    if instructions:
        counted, text = count(list(subjects))
        print(f"\n{text}")
        results |= counted
        tables.append(text)
    how = f"{rounds} rounds of {CALLS_IN_A_ROUND:,} calls of each, in one process."
    found = Found("internals", results, "\n\n".join([how, setting(), *tables]) + "\n")
    keep(found, rounds, ["not all frameworks"] if len(subjects) < len(SUBJECTS) else [])


def count(names: list[str]) -> tuple[dict[str, Costs], str]:
    """For JSON, and as Markdown."""
    counter = find_counter()
    if counter is None:
        return {}, "instructions: not available here, neither from perf nor from valgrind"
    counts, imports = count_instructions(counter, names), count_imports(counter)
    tables = [
        f"The same in instructions, counted by {counter.name}:",
        report(counts, "instructions"),
        report_imports(imports, "millions"),
    ]
    counted = {"instructions": counts, "import, millions of instructions": imports}
    return counted, "\n\n".join(tables)


def main() -> None:
    """The process whose instructions are counted: NAME TIMES."""
    name, times = sys.argv[1:]
    trio.run(take_counted_turn, name, int(times))


if __name__ == "__main__":
    main()
