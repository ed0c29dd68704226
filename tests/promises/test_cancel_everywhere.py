"""Scenarios cancelled at every step that any of their Trio tasks takes.

Rules of this module:

* A scenario is a world of the simulation with one request in it, so that all of
  the simulation's invariants are checked each time.
* A run that cancels nothing counts the steps; then there is one run for each,
  which cancels the server's call, or everything, just before that step.
* Bugs that are planted in the core must be found in some run: there is no proof
  without that.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.steps import CancelAtStep
from ..worlds.app import plants
from ..worlds.app.plans import (
    SCOPES,
    ChildPlan,
    ClientPlan,
    ConnectionPlan,
    DependencyPlan,
    RequestPlan,
    StreamPlan,
    TaskPlan,
    WorldPlan,
)
from ..worlds.app.runner import run_world
from ..worlds.common.runner import Report
from ..worlds.common.steps import problems_at_every_step

pytestmark = pytest.mark.slow

SEED = 1

TASKS = (TaskPlan(), TaskPlan(seconds=1.0, cleanup=0.5), TaskPlan(when="always"))
BESIDE = (
    TaskPlan(beside=True, seconds=1.0, cleanup=0.5),
    TaskPlan(seconds=0.7, cleanup=0.1, swallow="and break"),
)

DEPENDENCIES = tuple(
    DependencyPlan(scope=scope, enter_seconds=0.1, exit_seconds=0.1) for scope in SCOPES
)

SCENARIOS = {
    "inline": RequestPlan(seconds=0.5, cleanup=0.5, tasks=TASKS),
    "body": RequestPlan(reads_body=True, client=ClientPlan(chunks=3, send_seconds=0.1)),
    "unread body": RequestPlan(tasks=TASKS[:1], client=ClientPlan(chunks=11)),
    "failing handler": RequestPlan(
        failure="handled", tasks=TASKS, handler_tasks=(TaskPlan(when="error"),)
    ),
    "timeout": RequestPlan(route="timeout", seconds=3.0, tasks=TASKS),
    "failing child": RequestPlan(
        route="nursery", tasks=TASKS, seconds=1.0, children=(ChildPlan(seconds=0.5, fails=True),)
    ),
    "dependencies": RequestPlan(
        route="scoped", seconds=0.1, tasks=BESIDE, dependencies=DEPENDENCIES
    ),
    "dependencies in threads": RequestPlan(
        route="blocking", seconds=0.1, tasks=BESIDE, dependencies=DEPENDENCIES
    ),
    "stream": RequestPlan(
        response="stream", stream=StreamPlan(seconds=0.1, close_seconds=0.1), tasks=TASKS[:1]
    ),
    "channel": RequestPlan(
        route="nursery",
        response="channel",
        tasks=TASKS,
        children=(ChildPlan(), ChildPlan(seconds=1.0)),
    ),
    "thread": RequestPlan(
        route="threaded", seconds=0.5, response="iterator", tasks=(TaskPlan(in_thread=True),)
    ),
    "beside": RequestPlan(
        tasks=(
            TaskPlan(beside=True, seconds=1.0, cleanup=0.5),
            TaskPlan(beside=True, adds=(TaskPlan(), TaskPlan(beside=True))),
            TaskPlan(seconds=0.5),
        )
    ),
    "retries": RequestPlan(tasks=(TaskPlan(attempts=3, failures=2, timeout=1.0), TaskPlan())),
    "swallowing": RequestPlan(
        tasks=(TaskPlan(seconds=1.0, swallow="once"), TaskPlan(failures=1, failure="exit")),
        brought=TASKS[1:],
    ),
}


def world(request: RequestPlan) -> WorldPlan:
    return WorldPlan(
        connections=(ConnectionPlan(requests=(request,)),),
        ends_at=1.2,  # while tasks run
        cleanup_timeout=1.0,
        max_running_tasks=1 if not any(task.beside for task in request.tasks) else None,
    )


def problems(name: str, target: str) -> Iterator[str]:
    """What is wrong in this scenario, whatever step is cancelled."""
    plan = world(SCENARIOS[name])

    def run(instrument: CancelAtStep) -> Report:
        watch = {f"on_{target}": instrument.watch}
        return run_world(SEED, plan, instruments=[instrument], **watch)

    return problems_at_every_step(run)


@pytest.mark.parametrize("target", ["call", "run"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_cancelling_at_any_step_leaves_nothing_and_swallows_nothing(name: str, target: str) -> None:
    assert list(problems(name, target)) == []


@pytest.mark.parametrize(
    ("plant", "name", "target"),
    [
        (plants.run_no_task, "inline", "call"),
        (plants.skip_all_tasks, "inline", "call"),
        (plants.drop_a_task, "inline", "call"),
        (plants.cancel_tasks_with_their_call, "dependencies", "call"),
        (plants.swallow_cancellation, "inline", "call"),
        (plants.swallow_cancellation, "channel", "run"),
        (plants.close_before_the_tasks, "dependencies", "call"),
        (plants.close_before_the_cleanup, "dependencies", "run"),
        (plants.forget_to_leave, "dependencies", "call"),
        (plants.leave_no_thread, "dependencies in threads", "call"),
        (plants.leave_streams_open, "channel", "call"),
        (plants.drain_nothing, "inline", "call"),
        (plants.keep_a_place, "thread", "run"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_cancelling_at_any_step_finds_a_planted_bug(
    plant: plants.Plant, name: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert plants.is_seen(plant, problems(name, target))
