"""The instructions of a request on trioweb's server, over sockets; beside another checkout's.

Rules of this module:

* What is counted is a process that has the clients and the server, and in which nothing depends on
  time or on chance (`_counted`): the same code gives the same figure, to a thousandth.
* Both checkouts do what this one's `_counted` does, and what they import was compiled before.
* Names, paths and variables that the process sees are the same for all, or as long.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ._counters import Counter, find_counter
from ._results import setting, table

ROOT = Path(__file__).parent.parent
COUNTED = Path(__file__).with_name("_counted.py")

TIMES = 320  # of a shorter run
CONNECTIONS = 32
PARSERS = ("httptools", "h11")

# By the names that `_counted` has for them.
REQUESTS = {
    "get": "GET with a path parameter",
    "body": "POST with a small JSON body",
    "one-task": "POST that adds one task",
    "ten-tasks": "POST that adds ten tasks",
}

# For one of each request, by its name.
Counts = Mapping[str, float]

DESCRIPTION = f"""\
Counts the processor's instructions for a request on trioweb's own server, over {CONNECTIONS}
keep-alive connections on the loopback interface: those of the server and the app, and of a client
that does as little as it can.  Two runs of the same code differ by less than a thousandth, whatever
else the machine does.  So may code that does the same, for its objects lie elsewhere.

  python -m benchmarks instructions                     seconds with perf, a minute with valgrind
  python -m benchmarks instructions --against ../main   beside the trioweb of another checkout
"""


def run(http: str, against: Path | None) -> None:
    counter = find_counter()
    if counter is None:
        raise SystemExit("instructions are counted by perf or by valgrind, and neither can here")
    folders = [ROOT] if against is None else [ROOT, against]
    print(f"{setting()}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copy(COUNTED, place)
        commands = [process(place, folder, http) for folder in folders]
        for folder, command in zip(folders, commands, strict=True):
            try_out(folder, command)
        with ThreadPoolExecutor(len(folders)) as pool:
            counts = [*pool.map(partial(count, counter), commands)]
    print(f"Counted by {counter.name}; {http} parses; {CONNECTIONS} connections.\n")
    print(report(counts, against))


def process(place: Path, folder: Path, http: str) -> list[str]:
    """The process whose instructions are counted; what it is to do is to be added.

    All that it sees is in this place, under names that are as long for each checkout.
    """
    checkout = Path(tempfile.mkdtemp(dir=place)) / "checkout"
    checkout.symlink_to(folder.resolve())
    options = ["-P", "-X", f"pycache_prefix={place / 'compiled'}"]
    return [sys.executable, *options, str(place / COUNTED.name), str(checkout), http]


def try_out(folder: Path, command: Sequence[str]) -> None:
    """Answer each request by the trioweb in this folder, which is compiled then.

    Raises SystemExit if it can't.
    """
    # What is compiled is kept, whatever the environment says.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    works = [f"{name}:{CONNECTIONS}" for name in REQUESTS]
    tried = subprocess.run([*command, *works], env=env, capture_output=True, text=True)
    if tried.returncode:
        raise SystemExit(f"the trioweb in {folder} doesn't answer:\n{tried.stderr}")
    package = Path(tried.stdout.strip()).parent.resolve()
    if package != (folder / "trioweb").resolve():
        raise SystemExit(f"there is no trioweb in {folder}: found that in {package.parent}")


def count(counter: Counter, command: Sequence[str]) -> Counts:
    works = [f"{name}:{times}" for name in REQUESTS for times in (TIMES, 3 * TIMES)]
    found = counter.count_forks(command, works)
    pairs = zip(REQUESTS, found[::2], found[1::2], strict=True)
    return {name: (more - less) / (2 * TIMES) for name, less, more in pairs}


def report(counts: Sequence[Counts], against: Path | None) -> str:
    """A Markdown table of one checkout, or of two, the second beside the first."""
    headings = ["request", "instructions"]
    if against is not None:
        headings += [f"in {against}", "ratio"]
    return table(headings, _rows(counts))


def _rows(counts: Sequence[Counts]) -> Iterator[list[str]]:
    for name, words in REQUESTS.items():
        found = [each[name] for each in counts]
        ratio = [f"{found[0] / found[1]:.3f}"] if len(found) > 1 else []
        yield [words, *(f"{figure:,.0f}" for figure in found), *ratio]
