"""What any simulation promises of itself: seeds decide, plans can be read, failures replayed."""

from __future__ import annotations

from types import ModuleType

import pytest

from . import app as simulation, server as server_simulation
from .app.__main__ import SIMULATION as OF_TASKS
from .app.plants import Plant, run_twice
from .common.simulation import Simulation
from .server.__main__ import SIMULATION as OF_THE_SERVER
from .server.plants import send_twice

EachSimulation = pytest.mark.parametrize(
    "each", [OF_TASKS, OF_THE_SERVER], ids=lambda each: each.package
)


@pytest.mark.slow
@EachSimulation
def test_the_same_seed_gives_the_same_trace(each: Simulation) -> None:
    for seed in range(20):
        first = each.run_world(seed)
        assert first.trace
        for _ in range(2):
            assert each.run_world(seed).trace == first.trace


@pytest.mark.slow
@EachSimulation
def test_seeds_differ_and_say_something(each: Simulation) -> None:
    """Plans always do; what happens does but where the end comes at once."""
    reports = [each.run_world(seed) for seed in range(30)]
    assert len({repr(each.world_of(seed)) for seed in range(30)}) == 30
    assert len({"\n".join(report.trace) for report in reports}) > 25
    assert sum(report.count for report in reports[:12]) > 20


@pytest.mark.parametrize(
    ("each", "plans"),
    [(OF_TASKS, simulation.plans), (OF_THE_SERVER, server_simulation.plans)],
    ids=lambda value: getattr(value, "package", None),
)
def test_a_plan_prints_as_it_would_be_written(each: Simulation, plans: ModuleType) -> None:
    plan = each.world_of(3)
    assert eval(repr(plan), vars(plans)) == plan


@EachSimulation
def test_the_command_says_how_many_and_how_fast(
    each: Simulation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert each.main(["--worlds", "3", "--start", "5"]) == 0
    assert capsys.readouterr().out.startswith("3 worlds, ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("each", "plant", "worlds", "command"),
    [
        (OF_TASKS, run_twice, "100", "python -m tests.worlds.app --start "),
        (OF_THE_SERVER, send_twice, "5", "python -m tests.worlds.server --start "),
    ],
    ids=["tests.worlds.app", "tests.worlds.server"],
)
def test_a_seed_that_fails_prints_the_command_that_replays_it(
    each: Simulation,
    plant: Plant,
    worlds: str,
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    assert each.main(["--worlds", worlds, "--trace"]) > 0
    assert f"replay with: {command}" in capsys.readouterr().out
