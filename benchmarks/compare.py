"""trioweb beside other frameworks and servers, on real sockets, in one run.

Rules of this module:

* Whatever a server is compared with was measured in the same round, a few seconds apart:
  machines drift, rounds drift together.
* Each round starts every server anew, and with another one first: what luck a process has, or a
  place in the order, is part of the spread and not of the result.
* An answer counts when it is right.  What is wrong, or missing under load, ends the command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from . import _plots, _results, _wrk
from .apps.endpoints import ENDPOINTS, Asker, Endpoint, WrongAnswer
from .apps.servers import (
    CORES,
    SERVERS,
    THEIRS,
    Running,
    Server,
    conditions,
    move,
    started,
)

DESCRIPTION = """\
Starts each server as its users would, on the loopback interface, and asks all of them for the same:

  path         GET /items/42: a path parameter, an int, to JSON
  ids          the same, each request with an X-Request-ID of its own
  body         POST /items: a JSON body, validated and echoed
  dependency   GET /hello?name=ada: one dependency that takes a query parameter
  one-task     POST /one-task: adds one background task that counts itself
  ten-tasks    POST /ten-tasks: adds ten of them
  stream       GET /stream: 1 MiB in 16 chunks

trioweb runs on its own server, with each of its parsers, and on Hypercorn; a bare ASGI app shows
what a server costs without a framework.  The other frameworks have the endpoints that they have:
see benchmarks/apps, one module each.

Before it counts, each answer is checked: status, content type, body, and that the tasks ran.  wrk
makes the load.  Server and load have one core each.
"""
EPILOG = (
    """\
How to read it: requests a second are this machine's.  `trioweb / it` isn't: so many times the
requests that `trioweb, httptools` answers of those that it answers, pair by pair within a round;
the median, and the least and the most of all rounds.  Above 1, trioweb answers more.  Where the
least and the most lie on both sides of 1, there is no winner.  The bars at the end are judged by
ratios of medians.

  python -m benchmarks compare                                       twenty minutes
  python -m benchmarks compare --rounds 2 --seconds 1                a look, four minutes
  python -m benchmarks compare --endpoint path --server Sanic --server 'trioweb, httptools'

Peers that aren't installed are left out: pip install --group bench.
"""
    + _results.HOW_KEPT
)

REFERENCE = "trioweb, httptools"
SECONDS = 2  # for each measurement, unless told otherwise
WARM_UP = 300  # requests

# By endpoint and server: requests a second, one figure for each round.
Rates = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Bar:
    """What was promised: ours is at least so many times the best of the others."""

    what: str
    ours: str
    others: Sequence[str]
    at_least: float
    endpoint: str = "path"


@dataclass(frozen=True)
class Verdict:
    """What came of a bar: against whom, and the ratio of medians; None if not measured."""

    bar: Bar
    against: str | None = None
    ratio: float | None = None
    pairs: Sequence[float] = ()
    missing: Sequence[str] = ()  # of the others that have the endpoint

    @property
    def words(self) -> str:
        if self.ratio is None:
            return "not measured"
        words = "reached" if self.ratio >= self.bar.at_least else "not reached"
        return f"{words}, without {', '.join(self.missing)}" if self.missing else words


FASTAPI = "FastAPI on Uvicorn"
FRAMEWORKS_ON_HYPERCORN = [name for name in THEIRS if name.endswith("on Hypercorn")]
BARS = (
    Bar("path parameter, best peer of all", REFERENCE, [*THEIRS], 1.0),
    Bar("one background task, best peer that has them", REFERENCE, [*THEIRS], 1.0, "one-task"),
    Bar("path parameter, FastAPI", REFERENCE, [FASTAPI], 3.0),
    Bar("path parameter, h11 only, FastAPI", "trioweb, h11", [FASTAPI], 1.0),
    Bar("path parameter, best framework on Hypercorn", REFERENCE, FRAMEWORKS_ON_HYPERCORN, 10.0),
    Bar(
        "path parameter on Hypercorn, bare ASGI there",
        "trioweb on Hypercorn",
        ["bare ASGI on Hypercorn"],
        0.95,
    ),
)


def run(
    rounds: int, seconds: int, connections: int, endpoints: Sequence[str], servers: Sequence[str]
) -> None:
    _wrk.require_wrk()
    move(0, CORES[-1:])
    chosen = installed(servers or [*SERVERS])
    if not chosen:
        raise SystemExit("None of them is installed.")
    setting = f"{rounds} rounds of {seconds} s, {connections} connections. {conditions()}"
    rates = measure(chosen, endpoints or [*ENDPOINTS], rounds, seconds, connections)
    found = as_found(rates, setting)
    print(found.text)
    lacks = _wrk.is_less(seconds, SECONDS, connections)
    if endpoints or len(chosen) < len(SERVERS):
        lacks.append("not all endpoints or servers")
    _results.keep(found, rounds, lacks)


def installed(names: Sequence[str]) -> dict[str, Server]:
    """Those servers that can be started; says which are left out."""
    for name in names:
        if missing := SERVERS[name].missing:
            print(f"left out: {name} (pip install {' '.join(missing)})")
    return {name: SERVERS[name] for name in names if not SERVERS[name].missing}


def measure(
    servers: Mapping[str, Server],
    endpoints: Sequence[str],
    rounds: int,
    seconds: int,
    connections: int,
) -> Rates:
    if not any(pairs(servers, endpoints, [*servers])):
        asked = f"{', '.join(endpoints)} of {', '.join(servers)}"
        raise SystemExit(f"There is nothing to measure: {asked}. What each has: benchmarks/apps.")
    rates: dict[str, dict[str, list[float]]] = {endpoint: {} for endpoint in endpoints}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        with ExitStack() as stack:
            running = {
                name: stack.enter_context(started(servers[name]))
                for name in rotated([*servers], number)
            }
            for endpoint, name in pairs(servers, endpoints, [*running]):
                try:
                    rate = measure_one(running[name], ENDPOINTS[endpoint], seconds, connections)
                except WrongAnswer as exc:
                    raise SystemExit(f"{name}: {exc}") from None
                rates[endpoint].setdefault(name, []).append(rate)
    return {endpoint: by_server for endpoint, by_server in rates.items() if by_server}


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Another one first in each round."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def pairs(
    servers: Mapping[str, Server], endpoints: Sequence[str], order: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """What one round measures: an endpoint on all servers that have it, then the next."""
    for endpoint in endpoints:
        for name in order:
            if endpoint in servers[name].endpoints:
                yield endpoint, name


def measure_one(running: Running, endpoint: Endpoint, seconds: int, connections: int) -> float:
    """Requests a second.  Raises WrongAnswer."""
    with running.at_work():
        with Asker(running.port) as asker:
            asker.check(endpoint)
            for _ in range(WARM_UP):
                asker.ask(endpoint)
            before = asker.tasks_run() if endpoint.tasks else 0
        load = _wrk.offer(running.port, endpoint, seconds, connections)
        if endpoint.tasks:
            with Asker(running.port) as asker:
                asker.wait_for_tasks(before + load.requests * endpoint.tasks)
    return load.rate


def ratios(ours: Sequence[float], its: Sequence[float]) -> list[float]:
    """Pair by pair, each within its round."""
    return [our_rate / its_rate for our_rate, its_rate in zip(ours, its, strict=True)]


def ranked(by_server: Mapping[str, Sequence[float]]) -> list[str]:
    """The fastest first."""
    return sorted(by_server, key=lambda name: median(by_server[name]), reverse=True)


def judge(bar: Bar, rates: Rates) -> Verdict:
    by_server = rates.get(bar.endpoint, {})
    others = [name for name in ranked(by_server) if name in bar.others]
    if bar.ours not in by_server or not others:
        return Verdict(bar)
    ours, best = by_server[bar.ours], others[0]
    ratio = median(ours) / median(by_server[best])
    missing = [
        name
        for name in bar.others
        if bar.endpoint in SERVERS[name].endpoints and name not in by_server
    ]
    return Verdict(bar, best, ratio, ratios(ours, by_server[best]), missing)


def losses(rates: Rates) -> list[str]:
    """Where a framework answers more than trioweb with httptools, one line each."""
    found = [
        (f"- {ENDPOINTS[endpoint].title}: {name}", ratios(by_server[REFERENCE], by_server[name]))
        for endpoint, by_server in rates.items()
        for name in ranked(by_server)
        if REFERENCE in by_server and name in THEIRS
    ]
    if not found:
        return ["- nothing was measured beside it"]
    lines = [
        f"{pair}, {spread(one)}{': no winner' if max(one) > 1 else ''}"
        for pair, one in found
        if median(one) < 1
    ]
    return lines or ["- behind none of the frameworks in this run"]


def spread(found: Sequence[float]) -> str:
    """The median of ratios, the least and the most."""
    return f"{median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def report(rates: Rates, setting: str) -> str:
    """All of it as Markdown."""
    parts = [f"{setting}\n\n{_results.setting()}"]
    for endpoint, by_server in rates.items():
        asked = ENDPOINTS[endpoint]
        heading = f"### {_title(asked)}: `{asked.method} {asked.target}`"
        parts.append(f"{heading}\n\n{endpoint_table(by_server)}")
    behind = "\n".join(losses(rates))
    parts.append(f"### Behind which frameworks trioweb with httptools is\n\n{behind}")
    parts.append(f"### The bars\n\n{bars_table([judge(bar, rates) for bar in BARS])}")
    return "\n\n".join(parts) + "\n"


def _title(endpoint: Endpoint) -> str:
    return endpoint.title[0].upper() + endpoint.title[1:]


def endpoint_table(by_server: Mapping[str, Sequence[float]]) -> str:
    headings = ["server", "requests a second, median", "min–max", "trioweb / it", "min–max"]
    reference = by_server.get(REFERENCE)
    rows = []
    for name in ranked(by_server):
        rates = by_server[name]
        row = [name, f"{median(rates):,.0f}", f"{min(rates):,.0f}–{max(rates):,.0f}"]
        if reference is not None:
            found = ratios(reference, rates)
            row += [f"{median(found):.2f}", f"{min(found):.2f}–{max(found):.2f}"]
        rows.append(row)
    return _results.table(headings if reference is not None else headings[:3], rows)


def bars_table(verdicts: Sequence[Verdict]) -> str:
    rows = [
        [
            verdict.bar.what,
            verdict.bar.ours,
            verdict.against or "–",
            "–" if verdict.ratio is None else f"{verdict.ratio:.3f}",
            "–" if verdict.ratio is None else spread(verdict.pairs),
            f"at least {verdict.bar.at_least:g}",
            verdict.words,
        ]
        for verdict in verdicts
    ]
    headings = ["what", "ours", "against", "ratio of medians", "of pairs", "bar", "verdict"]
    return _results.table(headings, rows)


def as_found(rates: Rates, setting: str) -> _results.Found:
    """The run, to be written down; its plot is that of the first endpoint."""
    verdicts = [judge(bar, rates) for bar in BARS]
    bars = {verdict.bar.what: {"ratio": verdict.ratio, **vars(verdict.bar)} for verdict in verdicts}
    results = {"setting": setting, "rates": rates, "bars": bars}
    endpoint, by_server = next(iter(rates.items()))
    medians = {name: median(by_server[name]) for name in ranked(by_server)}
    plot = _plots.bars(_title(ENDPOINTS[endpoint]), "requests a second", medians)
    return _results.Found("compare", results, report(rates, setting), {"compare": plot})
