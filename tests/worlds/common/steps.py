"""A world cancelled at every step that any of its Trio tasks takes.

Rules of this module:

* A run that cancels nothing counts the steps; then there is one run for each, which cancels just
  before that step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...support.steps import CancelAtStep, Cancellable
from .runner import Report

# Is given what cancels a world's server, or a call.
CancelTarget = Callable[[Cancellable], None]


def problems_at_every_step(run: Callable[[CancelAtStep], Report]) -> Iterator[str]:
    """What is wrong when nothing is cancelled; then, for each step, when that is."""
    counting = CancelAtStep()
    yield from run(counting).violations
    assert counting.steps > 20
    for step in range(1, counting.steps + 1):
        report = run(CancelAtStep(step))
        yield from (f"step {step}: {problem}" for problem in report.violations)
