"""Thousands of worlds, each from one seed; and proof that the simulation sees what goes wrong."""

from __future__ import annotations

import pytest

from .app.__main__ import SIMULATION
from .app.plants import PLANTS, Plant, first_world_that_sees

WORLDS = 2_000
BATCHES = 20

# In so many worlds each planted bug must be seen; most are in the first twenty.
ENOUGH = 200


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_promise_is_broken_in_any_world(batch: int) -> None:
    broken = SIMULATION.problems(range(batch, WORLDS, BATCHES))
    assert not broken, "\n".join(broken)


# A generator that nobody closes is complained of by Trio, too.
@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_simulation_sees_a_planted_bug(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert first_world_that_sees(plant, ENOUGH) is not None, PLANTS[plant]
