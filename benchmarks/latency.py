"""How long a simple request takes while tasks run, at half the rate that the server can do.

Rules of this module:

* The load is open: requests come when they are due, not when the last one was answered.
* One rate for all, found at the beginning, without tasks.
* Rounds, as in `compare`: every number of tasks has its turn, each in a server of its own.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median

from . import _open_loop, _plots, _results, _wrk
from .apps.endpoints import ENDPOINTS, Asker, Endpoint, WrongAnswer
from .apps.servers import CORES, EMBEDDED, Server, conditions, move, started

DESCRIPTION = """\
Starts trioweb's own server (with httptools where it is installed), finds how many requests a second
it answers, and then sends half as many, at a constant rate, while in the server there are:

  no tasks
  1,000 and 10,000 tasks that sleep, each added by a request of its own
  20 tasks in threads, as many as run at once, that each wait for 10 ms again and again

A request's latency counts from when it was due, not from when it could be sent: a server that
stalls is charged for everyone who came meanwhile.  The client is a process of its own on a core
of its own, and spins there.
"""
EPILOG = (
    """\
How to read it: percentiles in milliseconds, medians of the rounds; 99.9 % means that one request
in a thousand took longer.  The client's own few dozen microseconds are in it.  The last column
compares the 99th percentile with that without tasks, pair by pair within a round.  The bar for
10,000 sleeping tasks, 1.5 times that, is judged by the ratio of medians.

  python -m benchmarks latency                           three minutes
  python -m benchmarks latency --rounds 1 --seconds 2    a look
"""
    + _results.HOW_KEPT
)

ENDPOINT = ENDPOINTS["path"]
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
SECONDS = 5  # for each measurement, unless told otherwise
WARM_UP = 1000  # requests
START_TIME = 10.0  # seconds, for the tasks
POLL = 0.02  # seconds
SERVER = Server("latency_app", (*EMBEDDED, "auto"), ("path",), ())
RUNNING = Endpoint("how many tasks run", "GET", "/running", None)


@dataclass(frozen=True)
class Tasks:
    """What runs in the server meanwhile: `count` tasks, each added by a request."""

    count: int = 0
    target: str = "/sleep"


NO_TASKS = "no tasks"
MANY_TASKS = "10,000 sleep"
MEANWHILE = {
    NO_TASKS: Tasks(),
    "1,000 sleep": Tasks(1_000),
    MANY_TASKS: Tasks(10_000),
    "20 in threads": Tasks(20, "/thread"),
}
BAR = 1.5  # times the 99th percentile without tasks

# For each of MEANWHILE, percentile by percentile, milliseconds in each round.
Latencies = Mapping[str, Mapping[float, Sequence[float]]]


def run(rounds: int, seconds: int, connections: int) -> None:
    _wrk.require_wrk()
    move(0, CORES[-1:])
    how = f"for {seconds} s in each of {rounds} rounds, {connections} connections. {conditions()}"
    try:
        rate = find_rate(seconds, connections) / 2
        latencies = measure(rate, rounds, seconds, connections)
    except WrongAnswer as exc:
        raise SystemExit(str(exc)) from None
    setting = f"{rate:,.0f} requests a second, half the maximum, {how}"
    found = as_found(latencies, rate, setting)
    print(found.text)
    lacks = _wrk.is_less(seconds, SECONDS, connections)
    if find_spec("httptools") is None:
        lacks.append("no httptools")
    _results.keep(found, rounds, lacks)


def find_rate(seconds: int, connections: int) -> float:
    """Requests a second, at most."""
    with started(SERVER) as running, running.at_work():
        _warm_up(running.port)
        return _wrk.offer(running.port, ENDPOINT, seconds, connections).rate


def measure(rate: float, rounds: int, seconds: int, connections: int) -> Latencies:
    found: dict[str, dict[float, list[float]]] = {
        name: {percentile: [] for percentile in PERCENTILES} for name in MEANWHILE
    }
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        for name, tasks in MEANWHILE.items():
            with started(SERVER) as running, running.at_work():
                _warm_up(running.port)
                _start_tasks(running.port, tasks)
                latencies = _open_loop.offer(running.port, ENDPOINT, rate, seconds, connections)
            for percentile in PERCENTILES:
                found[name][percentile].append(at(percentile, latencies) * 1000)
    return found


def _warm_up(port: int) -> None:
    with Asker(port) as asker:
        asker.check(ENDPOINT)
        for _ in range(WARM_UP):
            asker.ask(ENDPOINT)


def _start_tasks(port: int, tasks: Tasks) -> None:
    """Until all of them run."""
    adding = Endpoint("a task that doesn't end", "POST", tasks.target, {"added": 1})
    with Asker(port) as asker:
        for _ in range(tasks.count):
            asker.check(adding)
        deadline = time.monotonic() + START_TIME
        while (count := json.loads(asker.ask(RUNNING)[2])["running"]) < tasks.count:
            if time.monotonic() > deadline:
                raise WrongAnswer(f"of {tasks.count} tasks {count} run")
            time.sleep(POLL)


def at(percentile: float, values: Sequence[float]) -> float:
    """The least of the sorted values that so many percent don't exceed."""
    return values[max(math.ceil(percentile * len(values) / 100), 1) - 1]


def slowdowns(latencies: Latencies, name: str) -> list[float]:
    """The 99th percentile against that without tasks, pair by pair."""
    pairs = zip(latencies[name][99.0], latencies[NO_TASKS][99.0], strict=True)
    return [its / calm for its, calm in pairs]


def report(latencies: Latencies, setting: str) -> str:
    """All of it as Markdown."""
    headings = ["meanwhile", *(f"{percentile:g} %, ms" for percentile in PERCENTILES)]
    rows = [
        [
            name,
            *(_cell(latencies[name][percentile]) for percentile in PERCENTILES),
            _cell(slowdowns(latencies, name)),
        ]
        for name in latencies
    ]
    many = median(latencies[MANY_TASKS][99.0]) / median(latencies[NO_TASKS][99.0])
    verdict = "reached" if many <= BAR else "not reached"
    parts = [
        f"{setting}\n\n{_results.setting()}",
        _results.table([*headings, "99 %, against no tasks"], rows),
        f"99th percentile with 10,000 sleeping tasks against none, ratio of medians: {many:.3f}"
        f" (pairs: {_cell(slowdowns(latencies, MANY_TASKS))}), bar: at most {BAR:g}, {verdict}.",
    ]
    return "\n\n".join(parts) + "\n"


def _cell(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def plot(latencies: Latencies) -> str:
    """Percentiles as one request in so many: 2 for the median, 1,000 for 99.9 %."""
    series = {
        name: [
            (1 / (1 - percentile / 100), median(values))
            for percentile, values in by_percentile.items()
        ]
        for name, by_percentile in latencies.items()
    }
    return _plots.lines(
        "Latency at half the maximum rate", "one request in so many takes longer", "ms", series
    )


def as_found(latencies: Latencies, rate: float, setting: str) -> _results.Found:
    """The run, to be written down."""
    results = {"setting": setting, "rate": rate, "milliseconds": latencies}
    plots = {"latency": plot(latencies)}
    return _results.Found("latency", results, report(latencies, setting), plots)
