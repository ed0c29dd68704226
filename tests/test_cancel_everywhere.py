"""Scenarios cancelled at every step that any of their Trio tasks takes.

Rules of this module:

* A scenario is a world of the simulation with one request in it, so that all of
  the simulation's invariants are checked each time.
* A run that cancels nothing counts the steps; then there is one run for each,
  which cancels the server's call, or everything, just before that step.
"""

from __future__ import annotations

import pytest
import trio

from .simulation.plans import (
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
from .simulation.runner import Report, run_world

SEED = 1

TASKS = (TaskPlan(), TaskPlan(seconds=1.0, cleanup=0.5), TaskPlan(when="always"))

SCENARIOS = {
    "inline": RequestPlan(seconds=1.0, cleanup=0.5),
    "inline with tasks": RequestPlan(tasks=TASKS),
    "body": RequestPlan(reads_body=True, client=ClientPlan(chunks=3, send_seconds=0.1)),
    "unread body": RequestPlan(tasks=TASKS[:1], client=ClientPlan(chunks=15)),
    "failing handler": RequestPlan(
        failure="handled", tasks=TASKS, handler_tasks=(TaskPlan(when="error"),)
    ),
    "timeout": RequestPlan(route="timeout", seconds=3.0, tasks=TASKS),
    "nursery": RequestPlan(
        route="nursery", tasks=TASKS, children=(ChildPlan(), ChildPlan(seconds=1.0))
    ),
    "failing child": RequestPlan(
        route="nursery", tasks=TASKS, seconds=1.0, children=(ChildPlan(seconds=0.5, fails=True),)
    ),
    "dependencies": RequestPlan(
        route="scoped",
        tasks=TASKS,
        dependencies=tuple(
            DependencyPlan(scope=scope, enter_seconds=0.1, exit_seconds=0.1) for scope in SCOPES
        ),
    ),
    "stream": RequestPlan(
        response="stream", stream=StreamPlan(seconds=0.1, close_seconds=0.1), tasks=TASKS[:1]
    ),
    "channel": RequestPlan(route="nursery", response="channel", tasks=TASKS[:1]),
    "thread": RequestPlan(
        route="threaded", seconds=0.5, response="iterator", tasks=(TaskPlan(in_thread=True),)
    ),
    "brought": RequestPlan(brought=TASKS),
    "beside": RequestPlan(
        tasks=(
            TaskPlan(beside=True, seconds=1.0, cleanup=0.5),
            TaskPlan(beside=True, adds=(TaskPlan(), TaskPlan(beside=True))),
            TaskPlan(seconds=0.5),
        )
    ),
    "retries": RequestPlan(tasks=(TaskPlan(attempts=3, failures=2, timeout=1.0), TaskPlan())),
    "swallowing": RequestPlan(
        tasks=(TaskPlan(seconds=1.0, swallow="once"), TaskPlan(failures=1, failure="exit"))
    ),
}


class CancelAtStep(trio.abc.Instrument):
    """Counts the steps that Trio's tasks take, and cancels a scope before one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.steps = 0
        self._at = at
        self._scope: trio.CancelScope | None = None

    def watch(self, scope: trio.CancelScope) -> None:
        """Cancel this one; steps are counted from here."""
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._scope is not None:
            self.steps += 1
            if self.steps == self._at:
                self._scope.cancel()


def world(request: RequestPlan) -> WorldPlan:
    return WorldPlan(
        connections=(ConnectionPlan(requests=(request,)),),
        cleanup_timeout=1.0,
        max_running_tasks=1 if not any(task.beside for task in request.tasks) else None,
    )


def run(name: str, target: str, instrument: CancelAtStep) -> Report:
    watch = {f"on_{target}": instrument.watch}
    return run_world(SEED, world(SCENARIOS[name]), instruments=[instrument], **watch)


@pytest.mark.parametrize("target", ["call", "run"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_cancelling_at_any_step_leaves_nothing_and_swallows_nothing(name: str, target: str) -> None:
    counting = CancelAtStep()
    assert run(name, target, counting).violations == []
    assert counting.steps > 20
    broken: list[str] = []
    for step in range(1, counting.steps + 1):
        report = run(name, target, CancelAtStep(step))
        broken += [f"step {step}: {problem}" for problem in report.violations]
    assert not broken, "\n".join(broken)
