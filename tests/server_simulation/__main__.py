"""The command: `python -m tests.server_simulation --worlds 100000 --start 1`."""

from __future__ import annotations

import argparse
import sys
import time

from .plans import world_of
from .runner import run_world


def main(arguments: list[str] | None = None) -> int:
    """Run as many worlds as asked; the number of those that broke a promise is the status."""
    options = _parser().parse_args(arguments)
    failed = requests = 0
    began = time.perf_counter()
    for seed in range(options.start, options.start + options.worlds):
        report = run_world(seed)
        requests += report.requests
        if options.trace:
            print(world_of(seed), *report.trace, sep="\n")
        if report.violations:
            failed += 1
            print(f"seed {seed}: replay with: {report.command}")
            print(*(f"    {violation}" for violation in report.violations), sep="\n")
    seconds = time.perf_counter() - began
    print(
        f"{options.worlds} worlds, {requests} answers, {failed} failed,"
        f" {options.worlds / seconds:.0f} worlds/s"
    )
    return min(failed, 100)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.server_simulation", description=__doc__)
    parser.add_argument("--worlds", type=int, default=1, help="how many, default 1")
    parser.add_argument("--start", type=int, default=0, help="the first seed, default 0")
    parser.add_argument("--trace", action="store_true", help="print each plan and its trace")
    return parser


if __name__ == "__main__":  # pragma: no cover - tests call main
    sys.exit(main())
