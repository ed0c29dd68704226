"""A simulation as its command and its tests run it: many worlds, and a report of each.

Rules of this module:

* Whatever says that a seed failed says by which command it is replayed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .runner import Report


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Worlds by their seeds: what is to happen in each, and what did."""

    package: str
    counted: str  # what the reports count
    world_of: Callable[[int], object]
    run_world: Callable[[int], Report]

    def problems(self, seeds: Iterable[int]) -> list[str]:
        """Each promise that was broken, and how to see it again."""
        return [
            f"{problem}; replay: {self._replay_command(seed)}"
            for seed in seeds
            for problem in self.run_world(seed).violations
        ]

    def main(self, arguments: list[str] | None = None) -> int:
        """Run as many worlds as asked; the number of those that broke a promise is the status."""
        options = self._parser().parse_args(arguments)
        failed = count = 0
        began = time.perf_counter()
        for seed in range(options.start, options.start + options.worlds):
            report = self.run_world(seed)
            count += report.count
            if options.trace:
                print(self.world_of(seed), *report.trace, sep="\n")
            if report.violations:
                failed += 1
                print(f"seed {seed}: replay with: {self._replay_command(seed)}")
                print(*(f"    {violation}" for violation in report.violations), sep="\n")
        seconds = time.perf_counter() - began
        print(
            f"{options.worlds} worlds, {count} {self.counted}, {failed} failed,"
            f" {options.worlds / seconds:.0f} worlds/s"
        )
        return min(failed, 100)

    def _parser(self) -> argparse.ArgumentParser:
        command = f"python -m {self.package}"
        parser = argparse.ArgumentParser(
            prog=command, description=f"For many: `{command} --worlds 100000 --start 1`."
        )
        parser.add_argument("--worlds", type=int, default=1, help="how many, default 1")
        parser.add_argument("--start", type=int, default=0, help="the first seed, default 0")
        parser.add_argument("--trace", action="store_true", help="print each plan and its trace")
        return parser

    def _replay_command(self, seed: int) -> str:
        return f"python -m {self.package} --start {seed} --trace"
