"""How the cost of a request grows with what else an app holds, and with its own size.

Rules of this module:

* Sizes of one question take turns, in short rounds within one run: they drift together.  Pending
  tasks are too many for that: there, one size is measured after another.
* What is asked is the same at each size.  Ten routes of 10,000 are asked as ten of ten are, so that
  their router is compared and not the processor's cache; all in turn are shown beside them.
* Every answer is checked.
* In this process nothing waits, so time is the processor's.  Over a socket it is the wall clock's.
* Memory is what Python was asked for (tracemalloc); what it keeps in reserve is not counted.
* Where connections and bodies are the point, the server is a process of its own, as its users
  start it, on the loopback interface.
"""

from __future__ import annotations

import gc
import itertools
import random
import resource
import socket
import statistics
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import trio
import trio.testing

import trioweb
from tests.support.asgi import running
from tests.support.processes import HOST, STOP_TIMEOUT, serving_process
from trioweb._app.app import lifetime_of

from ._plots import lines
from ._results import HOW_KEPT, Found, keep, setting, table
from .internals import Bar, Turn, call, judged, take_turns, trioweb_app_with_tasks

DESCRIPTION = """\
Measures how cost grows:

  routes       10 to 10,000 of them: time for one request
  pending      0 to 100,000 pending tasks: time for other requests meanwhile, memory for each
  tasks        1 to 10,000 tasks added by one request: time for all, and for each
  connections  10 to 5,000 open ones on trioweb's server: time for a request
  body         1 KiB to 16 MiB: time for a request

Takes two minutes.
"""
EPILOG = HOW_KEPT

ROOT = Path(__file__).parent.parent

ROUTES = (10, 100, 1_000, 10_000)
PENDING = (0, 100, 1_000, 10_000, 100_000)
TASKS = (1, 10, 100, 1_000, 10_000)
CONNECTIONS = (10, 100, 1_000, 5_000)
BODIES = tuple(1024 * 4**power for power in range(8))  # bytes

CALLS = 1_000  # of a round
REQUESTS = 5_000  # of a round over connections: the most of them ask once
TASKS_IN_A_ROUND = 10_000
BYTES_IN_A_ROUND = 16 * 2**20
ASKED_ROUTES = 10
SPARE_FILES = 200  # beside those of connections
SEED = 1

SAME_ROUTES = "ten of them"
ALL_ROUTES = "all in turn"
ONE_LIST = "all of one request"
OWN_REQUEST = "each of a request of its own"

# Of each line and each size: one figure for each round.
Costs = dict[tuple[str, int], list[float]]
Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Figure:
    """What one plot and one table show: for each line, its points."""

    name: str
    title: str
    x: str
    y: str
    series: dict[str, Points]


def medians(costs: Costs) -> dict[str, Points]:
    series: dict[str, Points] = {}
    for (line, size), values in costs.items():
        series.setdefault(line, []).append((size, statistics.median(values)))
    return series


def rows(figure: Figure) -> Iterator[tuple[str, ...]]:
    """Of its table: a size, and the figure of each line at that size."""
    for points in zip(*figure.series.values(), strict=True):
        yield f"{points[0][0]:,}", *(f"{y:,.1f}" for _, y in points)


def app_with_routes(count: int) -> trioweb.App:
    app = trioweb.App()
    for number in range(count):
        app.get(f"/part{number}/items/{{item}}")(_handler(number))
    return app


def _handler(number: int) -> Callable[[int], Awaitable[list[int]]]:
    async def get(item: int) -> list[int]:
        return [number, item]

    return get


def evenly(count: int, most: int) -> list[int]:
    """So many at most of `range(count)`, evenly spread."""
    step = max(1, count // most)
    return list(range(0, count, step))[:most]


async def asking_routes(app: trioweb.App, numbers: Iterable[int]) -> Turn:
    """Asks these routes in turn, after a first time in which the answers are checked."""
    paths = [f"/part{number}/items/7" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        if await call(app, path) != b"[%d,7]" % number:
            raise RuntimeError(f"{path} gives another answer: {await call(app, path)!r}")
    in_turn = itertools.cycle(paths)

    async def turn(times: int) -> None:
        for path in itertools.islice(in_turn, times):
            await call(app, path)

    return turn


async def measure_routes(counts: Sequence[int], rounds: int) -> Costs:
    """µs for a request."""
    turns: dict[tuple[str, int], Turn] = {}
    async with AsyncExitStack() as stack:
        for count in counts:
            app = app_with_routes(count)
            await stack.enter_async_context(running(app))
            turns[SAME_ROUTES, count] = await asking_routes(app, evenly(count, ASKED_ROUTES))
            mixed = random.Random(SEED).sample(range(count), count)
            turns[ALL_ROUTES, count] = await asking_routes(app, mixed)
        return await take_turns(turns, rounds, CALLS)


class Parking:
    """An app whose tasks wait: of those added one runs, and the others are pending."""

    def __init__(self, most: int) -> None:
        # The task that runs, and more than any of us asks for.
        limits = trioweb.Limits(max_pending_tasks=most + 2, max_running_tasks=1)
        self.app = trioweb.App(limits=limits)
        self.free = trio.Event()
        self._wait = self.free.wait  # one method for all tasks: it isn't their memory
        self.app.get("/add/{count}")(self.add)
        self.app.get("/other")(self.answer)

    async def add(self, count: int, background_tasks: trioweb.BackgroundTasks) -> int:
        for _ in range(count):
            background_tasks.add_task(self._wait)
        return count

    async def answer(self) -> int:
        return 1

    @asynccontextmanager
    async def parked(self, count: int, line: str) -> AsyncIterator[None]:
        """So many are pending within."""
        calls, of_each = (1, count) if line == ONE_LIST else (count, 1)
        for _ in range(calls):
            await call(self.app, f"/add/{of_each}")
        await trio.testing.wait_all_tasks_blocked()
        found = self.app.statistics().pending
        if found != count:
            raise RuntimeError(f"{found:,} tasks are pending, not {count:,}")
        yield
        self.free.set()
        await lifetime_of(self.app).ledger.wait_idle()

    async def ask(self, times: int) -> None:
        """Other requests, each with a pass of Trio's scheduler."""
        for _ in range(times):
            if await call(self.app, "/other") != b"1":
                raise RuntimeError("another request got another answer")
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def parking(count: int) -> AsyncIterator[Parking]:
    """One task runs already, and keeps the others from running."""
    place = Parking(count)
    async with running(place.app):
        await call(place.app, "/add/1")
        await trio.testing.wait_all_tasks_blocked()
        yield place


async def measure_others(counts: Sequence[int], rounds: int) -> Costs:
    """µs for another request while so many tasks are pending."""
    costs: Costs = {}
    for line, count in itertools.product((ONE_LIST, OWN_REQUEST), counts):
        async with parking(count) as place, place.parked(count, line):
            costs |= await take_turns({(line, count): place.ask}, rounds, CALLS)
    return costs


async def measure_memory(counts: Sequence[int]) -> Costs:
    """Bytes for each pending task."""
    costs: Costs = {}
    for line, count in itertools.product((ONE_LIST, OWN_REQUEST), counts):
        async with parking(count) as place:
            tracemalloc.start()
            before = allocated()
            async with place.parked(count, line):
                costs[line, count] = [(allocated() - before) / count]
                tracemalloc.stop()
    return costs


def allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def measure_tasks(counts: Sequence[int], rounds: int) -> Costs:
    """µs for a request and all its tasks, and that for each task."""
    turns: dict[tuple[str, int], Turn] = {}
    async with AsyncExitStack() as stack:
        for count in counts:
            app = trioweb_app_with_tasks(count)
            await stack.enter_async_context(running(app))
            turns["request and tasks", count] = partial(ask_and_wait, app)
        whole = await take_fit_turns(
            turns, rounds, lambda size: TASKS_IN_A_ROUND // (100 + size), time.process_time
        )
    each = {
        ("for each task", count): [cost / count for cost in costs]
        for (_, count), costs in whole.items()
    }
    return whole | each


async def take_fit_turns(
    turns: dict[tuple[str, int], Turn],
    rounds: int,
    times: Callable[[int], int],
    clock: Callable[[], float],
) -> Costs:
    """As `take_turns`, each so many times as fits its size, and at least once."""
    costs: Costs = {key: [] for key in turns}
    for _, (key, turn) in itertools.product(range(rounds), turns.items()):
        one = await take_turns({key: turn}, 1, max(1, times(key[1])), clock)
        costs[key] += one[key]
    return costs


async def ask_and_wait(app: trioweb.App, times: int) -> None:
    for _ in range(times):
        await call(app)
        await lifetime_of(app).ledger.wait_idle()


def served_app() -> trioweb.App:
    """What the server's process serves.  Nothing that is measured reaches its limits."""
    app = trioweb.App(
        limits=trioweb.Limits(
            head_timeout=600.0,
            idle_timeout=600.0,
            max_connections=2 * max(CONNECTIONS),
            max_requests=2 * max(CONNECTIONS),
            max_connection_requests=10**9,
            max_body_size=2 * max(BODIES),
        )
    )

    @app.post("/length")
    async def length(request: trioweb.Request) -> int:
        return len(await request.body())

    return app


@contextmanager
def serving() -> Iterator[int]:
    """The app, served by a process of its own; gives its port."""
    command = ("-m", "trioweb", "run", "--fd", "{fd}", "benchmarks.scale:served_app()")
    env = {"TRIOWEB_ACCESS_LOG": "false"}
    with serving_process(
        command, cwd=ROOT, env=env, ready="listening on ", stop_timeout=STOP_TIMEOUT
    ) as server:
        yield server.port


def post(size: int) -> bytes:
    head = f"POST /length HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + b"x" * size


def read_answer(connection: socket.socket, expected: bytes) -> None:
    """Returns when the answer is there: it ends with this body."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n" + expected):
        piece = connection.recv(64 * 1024)
        if not piece:
            raise RuntimeError(f"not the right answer: {answer!r}")
        answer += piece


async def ask_one_by_one(connections: Sequence[socket.socket], times: int) -> None:
    request = post(1)
    for connection in itertools.islice(itertools.cycle(connections), times):
        connection.sendall(request)
        read_answer(connection, b"1")


async def ask_all_at_once(connections: Sequence[socket.socket], times: int) -> None:
    request = post(1)
    for _ in range(times // len(connections)):
        for connection in connections:
            connection.sendall(request)
        for connection in connections:
            read_answer(connection, b"1")


async def ask_with_body(connection: socket.socket, size: int, times: int) -> None:
    request, expected = post(size), b"%d" % size
    for _ in range(times):
        connection.sendall(request)
        read_answer(connection, expected)


async def measure_connections(counts: Sequence[int], rounds: int) -> Costs:
    """µs for a request; each server has as many connections as are measured, and no more."""
    turns: dict[tuple[str, int], Turn] = {}
    with ExitStack() as stack:
        for count in counts:
            port = stack.enter_context(serving())
            connections = [
                stack.enter_context(socket.create_connection((HOST, port))) for _ in range(count)
            ]
            turns["one asks after another", count] = partial(ask_one_by_one, connections)
            turns["all ask at once", count] = partial(ask_all_at_once, connections)
        return await take_turns(turns, rounds, REQUESTS, time.perf_counter)


async def measure_bodies(sizes: Sequence[int], rounds: int) -> Costs:
    """µs for a request with a body of that size."""
    with serving() as port, socket.create_connection((HOST, port)) as connection:
        turns: dict[tuple[str, int], Turn] = {
            ("request", size): partial(ask_with_body, connection, size) for size in sizes
        }
        return await take_fit_turns(
            turns, rounds, lambda size: min(CALLS, BYTES_IN_A_ROUND // size), time.perf_counter
        )


def allow_files(counts: Sequence[int]) -> list[int]:
    """Let this process and those that it starts open as many files as the system permits.

    Returns the counts of connections that can be had then, all at the same time.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return within(counts, most - SPARE_FILES)


def within(counts: Sequence[int], most: int) -> list[int]:
    """The first of these counts, as many as are together no more than so many."""
    totals = itertools.accumulate(counts)
    return [count for count, total in zip(counts, totals, strict=True) if total <= most]


def ratio(costs: Costs, line: str, size: int, base: int) -> float:
    """How much one size costs of another, in the median of pairs."""
    pairs = zip(costs[line, size], costs[line, base], strict=True)
    return statistics.median(its / other for its, other in pairs)


def bars(routes: Costs, memory: Costs) -> list[Bar]:
    few, many = min(ROUTES), max(ROUTES)
    pending = max(PENDING)
    return [
        Bar(
            f"time for a request, {many:,} routes / {few} ({SAME_ROUTES})",
            1.2,
            ratio(routes, SAME_ROUTES, many, few),
        ),
        *(
            Bar(f"bytes for a pending task, {line}", 1024, memory[line, pending][0])
            for line in (ONE_LIST, OWN_REQUEST)
        ),
    ]


def written(figure: Figure) -> str:
    """Its table, under its title."""
    found = table((figure.x, *figure.series), rows(figure))
    return f"### {figure.title}: {figure.y}\n\n{found}"


def as_found(figures: Sequence[Figure], judgement: Sequence[Bar], how: str) -> Found:
    """The run, to be written down."""
    results = {
        "figures": [asdict(figure) for figure in figures],
        "bars": [bar._asdict() for bar in judgement],
    }
    parts = [how, setting(), *map(written, figures), "### The bars of these", judged(judgement)]
    plots = {
        f"scale-{figure.name}": lines(figure.title, figure.x, figure.y, figure.series)
        for figure in figures
    }
    return Found("scale", results, "\n\n".join(parts) + "\n", plots)


def run(rounds: int) -> None:
    print(f"{setting()}\n", flush=True)
    figures = []

    def found(name: str, title: str, x: str, y: str, costs: Costs) -> None:
        figure = Figure(name, title, x, y, medians(costs))
        print(f"{written(figure)}\n", flush=True)
        figures.append(figure)

    routes = trio.run(measure_routes, ROUTES, rounds)
    found("routes", "One request", "routes", "µs", routes)
    others = trio.run(measure_others, PENDING, rounds)
    found("pending", "Another request while tasks are pending", "pending tasks", "µs", others)
    memory = trio.run(measure_memory, PENDING[1:])
    found("memory", "Memory for each pending task", "pending tasks", "bytes", memory)
    tasks = trio.run(measure_tasks, TASKS, rounds)
    found("tasks", "A request and its tasks", "tasks", "µs", tasks)
    counts = allow_files(CONNECTIONS)
    connections = trio.run(measure_connections, counts, rounds)
    found("connections", "One request among open connections", "connections", "µs", connections)
    bodies = trio.run(measure_bodies, BODIES, rounds)
    found("bodies", "A request with a body", "bytes", "µs", bodies)
    judgement = bars(routes, memory)
    print(judged(judgement))
    lacks = ["fewer connections than there may be files"] if len(counts) < len(CONNECTIONS) else []
    keep(as_found(figures, judgement, f"{rounds} rounds of each size."), rounds, lacks)
