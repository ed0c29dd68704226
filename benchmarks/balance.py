"""How evenly the workers of `trioweb run` share what comes.

Rules of this module:

* A handler blocks its loop for so long that the processor hardly counts: a worker that is idle is a
  rate that is missing.
* The ideal is what one worker does alone, in the same run, times how many there are.
* Every answer is checked; behind nginx its configuration is the one of the deployment page.
"""

from __future__ import annotations

import itertools
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio

from tests.support import nginx
from tests.support.closed_loop import ClosedLoop, to_file, to_port
from tests.support.trioweb_process import TriowebProcess, trioweb_process

from ._results import setting, table
from .apps.endpoints import WrongAnswer

DESCRIPTION = """\
Starts `trioweb run --workers N` with a handler that blocks for 20 ms, asks it over so many
connections that each ask again as soon as they are answered, and compares the rate with the best
that there can be, where no worker is ever idle.  The bar is 0.95.

Then replaces all workers four times under load, behind nginx, and counts what isn't a 200.

Takes three minutes.
"""
EPILOG = "nginx is left out where it isn't installed:  apt install nginx-light"

HANDLER = 0.02  # seconds
WARM_UP = 2.0  # seconds
BAR = 0.95
REPLACEMENTS = 4
LOAD = 24  # connections

APP = f"""
import time
import trio
from trioweb import App

app = App()

@app.get("/blocking")
async def blocking() -> None:
    time.sleep({HANDLER})

@app.get("/")
@app.post("/")
async def index() -> None:
    await trio.sleep(0.001)
"""


@contextmanager
def server(folder: Path, over: str, workers: int) -> Iterator[TriowebProcess]:
    (folder / "main.py").write_text(APP)
    listen = ["--port", "0"] if over == "tcp" else ["--uds", str(folder / "web.sock")]
    listen += ["--workers", str(workers), "--no-access-log", "--limit-idle-timeout", "75"]
    with trioweb_process("run", *listen, cwd=folder, wait=over == "tcp") as process:
        process.wait_for_workers(workers)
        yield process
        process.stop()


def loop(
    stack: ExitStack, process: TriowebProcess, over: str, folder: Path, **how: object
) -> ClosedLoop:
    if over == "tcp":
        return ClosedLoop(to_port(process.port), **how)  # type: ignore[arg-type]
    path = folder / "web.sock"
    if over == "nginx":
        path = stack.enter_context(nginx.nginx(folder, path))
    return ClosedLoop(to_file(path), **how)  # type: ignore[arg-type]


def rate(over: str, workers: int, connections: int, seconds: float) -> float:
    """Answers a second.  Raises WrongAnswer."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        process = stack.enter_context(server(folder, over, workers))
        load = loop(stack, process, over, folder, target="/blocking")
        found = trio.run(lambda: load.measure(connections, warm_up=WARM_UP, seconds=seconds))
        check(load)
    return found


def check(load: ClosedLoop) -> None:
    if set(load.answers) != {200}:
        raise WrongAnswer(f"under load: {dict(load.answers)}")


def ways() -> list[str]:
    return ["tcp", "unix", *(["nginx"] if nginx.is_installed() else [])]


def run(workers: int, rounds: int, seconds: int, connections: Sequence[int]) -> None:
    print(f"{setting()}\n", flush=True)
    alone = rate("tcp", 1, connections[0], seconds)
    ideal = alone * workers
    print(f"One worker alone: {alone:.1f}/s; the ideal of {workers}: {ideal:.1f}/s\n", flush=True)
    rows = []
    for over, count in itertools.product(ways(), connections):
        ratios = [rate(over, workers, count, seconds) / ideal for _ in range(rounds)]
        verdict = "reached" if min(ratios) >= BAR else "not reached"
        rows.append((f"{over}, {count} connections", *(f"{r:.3f}" for r in ratios), verdict))
    headings = ("of the ideal", *(f"round {n}" for n in range(1, rounds + 1)), f"at least {BAR}")
    print(table(headings, rows), flush=True)
    if nginx.is_installed():
        print(f"\n{replace(workers)}", flush=True)


def replace(workers: int) -> str:
    """What became of requests while all workers were replaced, again and again."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        process = stack.enter_context(server(folder, "nginx", workers))
        load = loop(stack, process, "nginx", folder, methods=("POST", "GET"))
        begin = time.monotonic()
        trio.run(_replace, load, process, workers)
        seconds = time.monotonic() - begin
    counts = ", ".join(f"{count:,} of {status}" for status, count in load.answers.items())
    return f"{REPLACEMENTS} times all workers replaced in {seconds:.0f} s, behind nginx: {counts}"


async def _replace(load: ClosedLoop, process: TriowebProcess, workers: int) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run, LOAD)
        for times in range(REPLACEMENTS):
            process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(process.wait_for_workers, workers * (times + 2))
        load.wanted = max(0, 20_000 - load.answers.total())
