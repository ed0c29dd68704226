"""Shutdown for real: a Hypercorn process, SIGTERM, and whoever could hold it up.

What a run is and what it checks by itself stands in `shutdown_proof.py`.  More and larger ones:
`python -m benchmarks shutdown --help`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.shutdown_proof import (
    CLEANUP_TIMEOUT,
    DRAIN_TIMEOUT,
    AddedBy,
    Moment,
    named,
    run_hostile,
    run_load,
    run_shielded,
)

pytestmark = [pytest.mark.slow, pytest.mark.processes]

TASKS = 5_000


@pytest.mark.parametrize(("seed", "moment"), [(1, "added"), (4, "added"), (2, "adding")])
def test_no_task_is_lost_or_run_twice_and_each_cleans_up(seed: int, moment: Moment) -> None:
    figures = run_load(TASKS, seed, moment)
    # Else the signal came too early or too late to show anything.
    assert figures.unfinished
    assert figures.cancelled
    assert figures.begun


@pytest.mark.parametrize("request_in_flight", [False, True])
def test_whatever_hangs_the_shutdown_is_over_in_time_and_the_log_says_who(
    request_in_flight: bool,
) -> None:
    stop = run_hostile(request_in_flight=request_in_flight)
    # Threads that never end take it all, the requests that are left wait for nothing else.
    assert stop.seconds >= DRAIN_TIMEOUT + CLEANUP_TIMEOUT


@pytest.mark.parametrize("added_by", ["add_task", "start_soon"])
def test_nobody_waits_behind_a_shield_but_the_lifespan(tmp_path: Path, added_by: AddedBy) -> None:
    held_up = run_shielded(tmp_path, added_by, interval="0.2")
    # The other one had the database to clean up with, and its request is over.
    first = held_up.before.partition(named(added_by))[0]
    assert "event polite cleaned up " in first
    assert "event session closed " in first
    assert "event lifespan closed " not in held_up.before
    # So had the one behind the shield, though it was late.
    after = held_up.stop.log.removeprefix(held_up.before)
    assert "event shielded ended " in after.partition("event lifespan closed ")[0]
    assert held_up.stop.summary.startswith("stopped after ")
