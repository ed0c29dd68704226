"""Cancels something at a step that Trio's tasks take."""

from __future__ import annotations

from typing import Protocol

import trio


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class CancelAtStep(trio.abc.Instrument):
    """Counts the steps that Trio's tasks take, or one task alone, and cancels before one of them.

    The task that takes this step goes on as it would have: what waits next is cancelled.
    """

    def __init__(self, at: int | None = None, *, of: trio.lowlevel.Task | None = None) -> None:
        self.steps = 0
        self._at = at
        self._of = of
        self._target: Cancellable | None = None

    def watch(self, target: Cancellable) -> None:
        """Cancel this one; steps are counted from here."""
        self._target = target

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._target is not None and self._of in (None, task):
            self.steps += 1
            if self.steps == self._at:
                self._target.cancel()
