"""The server in thousands of worlds, each from one seed; cancelled at every step; and with bugs.

More of them: `python -m tests.worlds.server --worlds 100000`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ..support.steps import CancelAtStep
from .common.runner import Report
from .common.steps import problems_at_every_step
from .server.__main__ import SIMULATION
from .server.plans import ConnectionPlan, Ending, RequestPlan, TaskPlan, WorldPlan
from .server.plants import PLANTS, Plant
from .server.runner import run_world

WORLDS = 60
BATCHES = 3


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_promise_is_broken_in_any_world(batch: int) -> None:
    broken = SIMULATION.problems(range(batch, WORLDS, BATCHES))
    assert not broken, "\n".join(broken)


# What seeds have found once, in worlds with nothing else in them.


def world(*requests: RequestPlan, body_timeout: float = 4.0, **options: Any) -> WorldPlan:
    connection = ConnectionPlan(requests=requests, **options)
    return WorldPlan(connections=(connection,), body_timeout=body_timeout, max_requests=1)


UPLOAD = RequestPlan(method="POST", body=100_000, chunk=1_000, reads_body=False)
EXPECTS = replace(UPLOAD, expects_continue=True)
# The head comes in one piece, the body after it.
SLOWLY: dict[str, Any] = {"send_sizes": (150, 400), "send_seconds": 0.05}

FOUND = {
    "100 Continue, and a response at once": world(replace(EXPECTS, pieces=5), **SLOWLY),
    "100 Continue within a response": world(
        replace(EXPECTS, seconds=0.5, size=3_000, pieces=1), RequestPlan()
    ),
    "100 Continue, and a large response": world(
        replace(EXPECTS, size=3_000, pieces=1), capacity=500, **SLOWLY
    ),
    "100 Continue for a client that has reset": world(
        RequestPlan(size=3_000),
        replace(EXPECTS, reads_body=True, cleanup=0.5),
        ahead=1,
        fault="resets while reading",
        at_byte=150,
        read_size=500,
    ),
    "an early answer, and a body that stalls": world(
        replace(UPLOAD, tasks=(TaskPlan(),)),
        body_timeout=0.2,
        fault="stalls while sending",
        at_byte=150,
        leaves=False,
    ),
    "a large response, and a body that stalls": world(
        replace(UPLOAD, size=100_000, pieces=1),
        body_timeout=0.2,
        fault="stalls while sending",
        at_byte=150,
        capacity=500,
        read_seconds=0.05,
    ),
    "an early answer, and a client that resets": world(
        replace(UPLOAD, seconds=0.5, pieces=1, piece_seconds=0.3),
        fault="resets while reading",
        at_byte=1,
        **SLOWLY,
    ),
    "a stream that fails": world(RequestPlan(size=30, pieces=3, fails="within"), RequestPlan()),
    "a large response, and the next request": world(
        RequestPlan(size=60_000), RequestPlan(), ahead=1, capacity=5_000, read_seconds=0.1
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_seeds_have_found(name: str) -> None:
    for seed in range(12):
        assert run_world(seed, FOUND[name]).violations == []


# Teeth: each plants one bug in the server.


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS)
def test_the_simulation_sees_a_planted_bug(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    said, plan = PLANTS[plant]
    assert any(
        said in problem for seed in range(100) for problem in run_world(seed, plan).violations
    ), f"nobody said: {said}"


# Cancelled at every step.

SLOW = TaskPlan(seconds=0.2, cleanup=0.1)

SCENARIOS = {
    "two requests": (RequestPlan(seconds=0.1), RequestPlan(seconds=0.1)),
    "body": (RequestPlan(method="POST", body=2_000, chunk=700, expects_continue=True),),
    "unread body": (RequestPlan(method="POST", body=2_000, reads_body=False), RequestPlan()),
    "stream": (RequestPlan(size=30, pieces=3, piece_seconds=0.1),),
    "tasks": (RequestPlan(tasks=(SLOW, TaskPlan(fails=True))), RequestPlan(cleanup=0.1)),
    "nursery": (RequestPlan(route="nursery", seconds=0.1, tasks=(SLOW,)),),
    "large response": (RequestPlan(size=5_000), RequestPlan(says_close=True)),
}

ENDINGS: tuple[Ending, ...] = ("shutdown", "cancel", "cancelled from outside")
# A shutdown has more to lose; the ways to cancel differ where tasks are about, if at all.
CASES = [
    (name, ending)
    for ending in ENDINGS
    for name in SCENARIOS
    if ending == "shutdown" or name == "nursery"
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ending"), CASES)
def test_ending_at_any_step_leaves_nothing_and_loses_nothing(name: str, ending: Ending) -> None:
    connection = ConnectionPlan(
        requests=SCENARIOS[name], ahead=1, send_sizes=(400,), capacity=2_000, read_size=1_000
    )
    plan = WorldPlan(
        connections=(connection,),
        ending=ending,
        ends_at=0.4,
        drain_timeout=0.5,
        cleanup_timeout=0.5,
    )

    def run(instrument: CancelAtStep) -> Report:
        return run_world(1, plan, instruments=[instrument], watch=instrument.watch)

    broken = list(problems_at_every_step(run))
    assert not broken, "\n".join(broken)
