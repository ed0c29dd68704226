"""Attacks a real server, and looks how honest clients fare meanwhile.

Rules of this module:

* The server, the attackers and the honest clients are three processes, on the loopback interface.
* Limits are small, so that it ends in a minute; what holds at two seconds holds at thirty.
* Times are reported, not judged: they are the machine's too.  That an attacker stays past its
  limit, or that an answer is wrong, ends the command.
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import trio

from tests.support.server_attackers import ATTACKS, attack, honest, pipeline
from tests.support.server_clients import connected, request
from tests.support.server_driver import echo, serving
from trioweb.server import ServerLimits
from trioweb.server._limits import LINGER_TIME

DESCRIPTION = """\
Serves a small app on the loopback interface, with limits of 2 seconds, and attacks it:

  slow clients     heads, bodies and chunks that come a byte at a time, empty lines, silence, and
                   readers who take a byte at a time: all are gone by their limit
  slowhttptest     the same by other people's means (-H, -B, -X), where it is installed
  pipelined        so many requests in one write: one in flight at a time, answered in order
  idle             as many idle connections as asked, and the memory for each
  parsing          time for inputs of 1 to 64 KiB that come in small pieces

Reported are the median latency of honest clients without and with each attack, and memory.
"""

APP = Path(__file__).parent.parent / "tests" / "apps" / "attacked.py"
LIMIT = 2.0  # seconds, each
LIMITS = {
    "head_timeout": LIMIT,
    "body_timeout": LIMIT,
    "write_timeout": LIMIT,
    "idle_timeout": 60.0,
    "max_connections": 5_000,
    # The slow readers' downloads begin all at once, and are in flight until the kernel is full.
    "max_requests": 5_000,
    "max_connection_requests": 10**9,
}
BASELINE = 2.0  # seconds
BETWEEN_BYTES = 0.5  # seconds
POLL = 0.05  # seconds
# Beside a limit: closing well takes a moment, what a kernel has room for is sent at once and buys
# a little time, and the machine has others to serve.
SLACK = LINGER_TIME + 3.0  # seconds
PATIENCE = 60.0  # seconds

SLOWHTTPTEST = {
    "-H": ("slow heads", ("-x", "24")),
    "-B": ("slow bodies", ("-s", "8192", "-x", "10")),
    "-X": ("slow readers", ("-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3")),
}


def run(connections: int, pipelined: int, idle: int) -> None:
    _attack_all(connections)
    _pipeline(pipelined)
    _hold_idle(idle)
    trio.run(_parse)
    print("\nAll attackers were gone in time, and all answers were right.")


@contextmanager
def _server(limits: dict[str, Any]) -> Iterator[str]:
    """The app in a process of its own; gives its URL."""
    command = [sys.executable, str(APP), json.dumps(limits)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
            process.stdin.close()
            process.wait(PATIENCE)
        finally:
            process.kill()


async def _state(url: str) -> dict[str, int]:
    async with connected(url) as client:
        answer = await client.ask(request("/state"))
        state: dict[str, int] = json.loads(answer.body)
        return state


def _attack_all(connections: int) -> None:
    print(f"{connections:,} attackers each, 4 honest clients; every limit is {LIMIT:g} s\n")
    print("| attack | gone after, s | median, ms | under attack | ratio | 99th percentile, ms |")
    print("|---" * 6 + "|")
    with _server(LIMITS) as url:
        for name in ATTACKS:
            own = [sys.executable, "-m", "benchmarks.attack", name, url, str(connections)]
            trio.run(_attack, name, url, own)
        tool = shutil.which("slowhttptest")
        if tool is None:
            print("\nslowhttptest isn't installed: `apt install slowhttptest`, or from GitHub\n")
            return
        for option, (name, more) in SLOWHTTPTEST.items():
            count = str(connections)
            target = f"{url}/large" if option == "-X" else f"{url}/"
            command = [tool, option, "-c", count, "-r", count, "-i", "1", "-l", "20", *more]
            trio.run(_attack, f"slowhttptest {option}, {name}", url, [*command, "-u", target])


async def _attack(name: str, url: str, command: list[str]) -> None:
    async with honest(url) as others:
        await trio.sleep(BASELINE)
        calm = others.seconds[:]
        others.seconds.clear()
        # Beside the honest ones there is the connection that asks.
        ours = 5
        quiet = subprocess.DEVNULL
        attackers = await trio.lowlevel.open_process(command, stdout=quiet, stderr=quiet)
        try:
            most, took = await _until_gone(url, ours)
        finally:
            attackers.kill()
            await attackers.wait()
        under_attack = others.seconds[:]
    calm_ms, attacked_ms = median(calm) * 1000, median(under_attack) * 1000
    late = quantiles(under_attack, n=100)[-1] * 1000
    _row(
        f"{name} ({most:,} at once)",
        f"{took:.1f}",
        f"{calm_ms:.2f}",
        f"{attacked_ms:.2f}",
        f"{attacked_ms / calm_ms:.2f}",
        f"{late:.1f}",
    )
    assert took <= LIMIT + SLACK, f"attackers were still there after {took:.1f} s"


async def _until_gone(url: str, ours: int) -> tuple[int, float]:
    """How many attackers there were at once, and how long after the last came none was left."""
    most, since = 0, trio.current_time()
    with trio.fail_after(PATIENCE):
        while True:
            connections = (await _state(url))["connections"] - ours
            if connections > most:
                most, since = connections, trio.current_time()
            if most and connections <= 0:
                return most, trio.current_time() - since
            await trio.sleep(POLL)


def _pipeline(count: int) -> None:
    with _server(LIMITS) as url:
        trio.run(_check_pipeline, url, count)


async def _check_pipeline(url: str, count: int) -> None:
    before = await _state(url)
    began = time.perf_counter()
    answers = await pipeline(url, count)
    took = time.perf_counter() - began
    after = await _state(url)
    assert [answer.body for answer in answers] == [b"/%d" % number for number in range(count)]
    assert after["most"] == 1, f"{after['most']} were in flight at once"
    grown = (after["memory"] - before["memory"]) / 2**20
    print(
        f"\n{count:,} pipelined requests in one write: {took:.1f} s, answered in order, "
        f"{after['most']} in flight at a time, memory {grown:+.1f} MiB"
    )


def _hold_idle(count: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(count, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limits = {**LIMITS, "head_timeout": 600.0, "idle_timeout": 600.0, "max_connections": count + 9}
    print(f"\n{count:,} idle connections\n\n| | memory for each, KiB | all of them closed, s |")
    print("|---|---|---|")
    for kind in ("silent", "used once"):
        with _server(limits) as url:
            trio.run(_check_idle, url, count, kind)


async def _check_idle(url: str, count: int, kind: str) -> None:
    before = await _state(url)
    async with AsyncExitStack() as stack:
        for _ in range(count):
            client = await stack.enter_async_context(connected(url))
            if kind == "used once":
                assert (await client.ask(request("/"))).status == 200
        after = await _state(url)
        assert after["connections"] == count + 1
        began = time.perf_counter()
    while True:
        if (await _state(url))["connections"] == 1:
            break
        await trio.sleep(POLL)
    took = time.perf_counter() - began
    _row(kind, f"{(after['memory'] - before['memory']) / count / 1024:.1f}", f"{took:.1f}")


SIZES = [size * 1024 for size in (1, 4, 16, 64)]
PIECE = 64  # bytes, in which the server reads it
INPUTS: dict[str, Callable[[int], bytes]] = {
    "target": lambda size: b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * size),
    "one field": lambda size: b"GET / HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"a" * size),
    "many fields": lambda size: (
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * (size // 6) + b"\r\n"
    ),
    "empty lines": lambda size: b"\r\n" * (size // 2) + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "body": lambda size: (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size
    ),
    "small chunks": lambda size: (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * (size // 6)
        + b"0\r\n\r\n"
    ),
    "trailers": lambda size: (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"X: y\r\n" * (size // 6)
        + b"\r\n"
    ),
}


async def _parse() -> None:
    print(f"\nparsing, in pieces of {PIECE} bytes: µs for each KiB; level is linear\n")
    print(f"| input | {' | '.join(f'{size // 1024} KiB' for size in SIZES)} |")
    print("|---" * (len(SIZES) + 1) + "|")
    limits = ServerLimits(max_target_size=2**20, max_head_size=2**20, max_fields=2**20)
    for name, make in INPUTS.items():
        cells = [await _time_for_each_kib(make(size), limits) for size in SIZES]
        _row(name, *(f"{cell:.0f}" for cell in cells))


async def _time_for_each_kib(data: bytes, limits: ServerLimits) -> float:
    pieces = [PIECE] * (len(data) // PIECE + 1)
    best = float("inf")
    async with serving(echo, limits=limits) as running:
        for _ in range(5):
            client = running.connect(sizes=pieces)
            began = time.perf_counter()
            await client.send(data)
            assert (await client.response()).status == 200
            best = min(best, time.perf_counter() - began)
            await client.leave()
    return best * 1e6 / (len(data) / 1024)


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """The attackers' process: NAME URL COUNT."""
    name, url, count = sys.argv[1:]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), "loopback only"
    trio.run(attack, url, name, int(count), BETWEEN_BYTES)


if __name__ == "__main__":
    main()
