"""Counts instructions: figures that don't change with what else the machine does.

Rules of this module:

* What is counted is a command that does something n times, and then 3n times: the difference is
  2n times, and has nothing of start, imports and warm-up.  What it imports has to be compiled
  beforehand, or else not be kept: the first run would pay for the second.
* The processor counts, by `perf`, where the machine lets it.  Else a simulated one does, by
  `callgrind`: twenty times as slow.  Where neither can, there are no figures.
* Only what runs in user mode is counted: the kernel's work is not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

# Gives the command that does something so many times.
Command = Callable[[int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Counter:
    """A tool that runs a command and says on standard error how many instructions that took."""

    tool: Sequence[str]
    says: re.Pattern[str]
    # Whether it says so of each fork as that ends; else of all at once.
    tells_forks_apart: bool = False

    @property
    def name(self) -> str:
        return self.tool[0]

    def read(self, said: str) -> int | None:
        """The count; None where the tool can't count on this machine."""
        found = self.says.search(said)
        return int(found[1]) if found else None

    def can_count(self) -> bool:
        if shutil.which(self.name) is None:
            return False
        return self.read(self._run([sys.executable, "-S", "-c", ""])) is not None

    def count(self, command: Sequence[str], *, bare: bool = False) -> int:
        """The instructions of one run; `bare`: with nothing of this process's surroundings."""
        counted = self.read(self._run(command, bare=bare))
        if counted is None:
            raise RuntimeError(f"{self.name} didn't count {' '.join(command)}")
        return counted

    def count_each(self, command: Command, times: int) -> float:
        """The instructions for each time that the command does what it does."""
        return (self.count(command(3 * times)) - self.count(command(times))) / (2 * times)

    def count_forks(self, command: Sequence[str], works: Sequence[str]) -> list[int]:
        """The instructions of each work: those of its fork, and of the start that all share.

        The command takes works as its last arguments, and does each in a fork, in this order.  It
        runs bare: how long a variable or a path is says where objects lie, and that says which of
        them collide in a dict.
        """
        if self.tells_forks_apart:
            found = self.says.findall(self._run([*command, *works], bare=True))
            return [int(counted) for counted in found[: len(works)]]
        return [self.count([*command, work], bare=True) for work in works]

    def _run(self, command: Sequence[str], *, bare: bool = False) -> str:
        # With a seed of its own, each run would have other collisions in its dicts.
        ran = subprocess.run(
            [*self.tool, *command],
            cwd="/" if bare else None,
            env={**(_needed() if bare else os.environ), "PYTHONHASHSEED": "0"},
            capture_output=True,
            check=True,
            text=True,
        )
        return ran.stderr


PERF = Counter(
    ("perf", "stat", "-x", ",", "-e", "instructions:u", "--"),
    re.compile(r"^(\d+),.*instructions:u", re.MULTILINE),
)
CALLGRIND = Counter(
    ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
    re.compile(r"Collected : (\d+)"),
    tells_forks_apart=True,
)


def _needed() -> dict[str, str]:
    """What of the environment a counter can't do without."""
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}


def find_counter() -> Counter | None:
    """The first that can count here."""
    return next((counter for counter in (PERF, CALLGRIND) if counter.can_count()), None)


def count_all(counter: Counter, commands: dict[str, Command], times: int) -> dict[str, float]:
    """The instructions for each time, of each command; as many at once as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = pool.map(lambda command: counter.count_each(command, times), commands.values())
        return dict(zip(commands, counts, strict=True))
