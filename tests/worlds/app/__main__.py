"""The command: `python -m tests.worlds.app --worlds 100000 --start 1`."""

from __future__ import annotations

import sys

from ..common.simulation import Simulation
from .plans import world_of
from .runner import run_world

SIMULATION = Simulation(
    package="tests.worlds.app", counted="tasks", world_of=world_of, run_world=run_world
)

if __name__ == "__main__":  # pragma: no cover - tests call main
    sys.exit(SIMULATION.main())
