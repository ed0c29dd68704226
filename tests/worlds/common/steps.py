"""A world cancelled at every step that any of its Trio tasks takes.

Rules of this module:

* A run that cancels nothing counts the steps; then there is one run for each, which cancels just
  before that step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import trio

from .runner import Report


class Cancellable(Protocol):
    def cancel(self) -> None: ...


# Is given what cancels a world's server, or a call.
CancelTarget = Callable[[Cancellable], None]


class CancelAtStep(trio.abc.Instrument):
    """Counts the steps that Trio's tasks take, and cancels a scope before one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.steps = 0
        self._at = at
        self._target: Cancellable | None = None

    def watch(self, target: Cancellable) -> None:
        """Cancel this one; steps are counted from here."""
        self._target = target

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._target is not None:
            self.steps += 1
            if self.steps == self._at:
                self._target.cancel()


def problems_at_every_step(run: Callable[[CancelAtStep], Report]) -> Iterator[str]:
    """What is wrong when nothing is cancelled; then, for each step, when that is."""
    counting = CancelAtStep()
    yield from run(counting).violations
    assert counting.steps > 20
    for step in range(1, counting.steps + 1):
        report = run(CancelAtStep(step))
        yield from (f"step {step}: {problem}" for problem in report.violations)
