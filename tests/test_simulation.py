"""Thousands of worlds, each from one seed; and proof that the simulation sees what goes wrong."""

from __future__ import annotations

import pytest

from .simulation import plans
from .simulation.__main__ import main
from .simulation.plans import world_of
from .simulation.plants import PLANTS, Plant, first_world_that_sees, run_twice
from .simulation.runner import run_world

WORLDS = 2_000
BATCHES = 20

# In so many worlds each planted bug must be seen; most are in the first twenty.
ENOUGH = 200


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_promise_is_broken_in_any_world(batch: int) -> None:
    size = WORLDS // BATCHES
    broken: list[str] = []
    for seed in range(batch * size, (batch + 1) * size):
        report = run_world(seed)
        broken += [f"{problem}; replay: {report.command}" for problem in report.violations]
    assert not broken, "\n".join(broken)


def test_the_same_seed_gives_the_same_trace() -> None:
    for seed in range(20):
        first = run_world(seed)
        assert first.trace
        for _ in range(2):
            assert run_world(seed).trace == first.trace


def test_seeds_differ() -> None:
    """Plans always do; what happens does but where the end comes at once."""
    assert len({repr(world_of(seed)) for seed in range(30)}) == 30
    assert len({"\n".join(run_world(seed).trace) for seed in range(30)}) > 25


def test_a_plan_prints_as_it_would_be_written() -> None:
    plan = world_of(3)
    assert eval(repr(plan), vars(plans)) == plan


def test_the_command_says_how_many_and_how_fast(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--worlds", "3", "--start", "5"]) == 0
    assert capsys.readouterr().out.startswith("3 worlds, ")


def test_a_seed_that_fails_prints_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_twice(monkeypatch)
    assert main(["--worlds", "100", "--trace"]) > 0
    assert "replay with: python -m tests.simulation --start " in capsys.readouterr().out


# A generator that nobody closes is complained of by Trio, too.
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_simulation_sees_a_planted_bug(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert first_world_that_sees(plant, ENOUGH) is not None, PLANTS[plant]
