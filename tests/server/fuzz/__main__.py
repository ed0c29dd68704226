"""Fuzz what the server reads, and compare what its two parsers make of it.

    python -m tests.server.fuzz --runs 20000                 a minute or so
    python -m tests.server.fuzz --runs -1 --seconds 3600     an hour, guided by coverage
    python -m tests.server.fuzz --parser h11 --seed 7        one parser, other inputs
    python -m tests.server.fuzz --replay R0VUIC8=            one input, in base64

With atheris installed (`pip install atheris`), inputs are guided by coverage; without it, or with
--plain, they are the cases of tests/http_cases, mutated by chance.  The status is 1 if an input
was found for which a promise doesn't hold; it is printed with the command that replays it.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from . import guided, mutations

if TYPE_CHECKING:
    from .checks import Target

# What is fuzzed is imported late: coverage counts only what is instrumented while it's imported.


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.replay is not None:
        return _report(base64.b64decode(options.replay), options.parser)
    if options.plain or not guided.is_installed():
        return _run_mutations(options)
    guided.fuzz(
        lambda: _checked(options.parser),
        folder=options.folder,
        runs=options.runs,
        seconds=options.seconds,
        seed=options.seed + 1,  # libFuzzer takes 0 for any
    )
    return 0


def _checked(target: Target) -> Callable[[bytes], None]:
    """For coverage guidance: says how to replay what it raises for."""
    from .checks import Difference, check

    def run(data: bytes) -> None:
        try:
            check(data, target)
        except Difference:
            print(f"replay with: {_command(data, target)}")
            raise

    return run


def _run_mutations(options: argparse.Namespace) -> int:
    from .checks import Difference, check

    began = time.monotonic()
    accepted = refused = count = 0
    total = sys.maxsize if options.runs < 0 else options.runs
    for data in mutations.inputs(options.seed, total):
        try:
            reading = check(data, options.parser)
        except Difference:
            return _report(_smallest(data, options.parser), options.parser)
        count += 1
        accepted += bool(reading.requests)
        refused += reading.refused is not None
        if options.seconds and time.monotonic() - began > options.seconds:
            break
    rate = count / (time.monotonic() - began)
    print(f"{count} inputs, {accepted} with requests, {refused} refused, {rate:.0f} inputs/s")
    return 0


def _report(data: bytes, target: Target) -> int:
    from .checks import Difference, check

    try:
        print(check(data, target))
    except Difference as exc:
        print(f"{data!r}\n{exc}\nreplay with: {_command(data, target)}")
        return 1
    return 0


def _smallest(data: bytes, target: Target) -> bytes:
    """What is left of it when nothing more can be taken out without its passing."""
    from .checks import Difference, check

    def fails(shorter: bytes) -> bool:
        try:
            check(shorter, target)
        except Difference:
            return True
        return False

    size = len(data) // 2
    while size:
        shorter = [data[:at] + data[at + size :] for at in range(0, len(data), size)]
        found = next((one for one in shorter if fails(one)), None)
        if found is None:
            size //= 2
        else:
            data = found
    return data


def _command(data: bytes, target: Target) -> str:
    return (
        f"python -m tests.server.fuzz --parser {target} --replay {base64.b64encode(data).decode()}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.server.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=20_000, help="how many inputs; -1: no end")
    parser.add_argument("--seconds", type=int, default=0, help="no longer than that; 0: no limit")
    parser.add_argument(
        "--parser",
        choices=("h11", "httptools", "differential"),
        default="differential",
        help="which is fuzzed; differential, the default: both, and what they make is compared",
    )
    parser.add_argument("--seed", type=int, default=0, help="other inputs, default 0")
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir(), "trioweb-fuzz"),
        help="where atheris keeps its corpus, default %(default)s",
    )
    parser.add_argument("--replay", metavar="BASE64", help="one input, and what it's read as")
    return parser


if __name__ == "__main__":  # pragma: no cover - tests call main
    sys.exit(main())
