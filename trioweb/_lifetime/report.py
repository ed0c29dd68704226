"""The report of a shutdown: what became of the tasks, in one line.

Rules of this module:

* It counts from the begin of the shutdown; what ended before is not its matter.
* One report for one shutdown: where an app has no lifespan, there is nothing to report.
* Whoever ended otherwise than done is named, with how long it ran; of very many
  the first.  There is no other record of a task that a shutdown cancelled.
"""

from __future__ import annotations

import logging

import trio

from .. import _limits
from .._tasks.ledger import Ledger, TaskState
from .._tasks.runner import BackgroundTask

logger = logging.getLogger("trioweb")


class Closing:
    """What became of the tasks between the begin of a shutdown and its end."""

    def __init__(self, ledger: Ledger[BackgroundTask]) -> None:
        self._ledger = ledger
        self._begin = trio.current_time()
        self._before = ledger.statistics()
        self._casualties: list[tuple[BackgroundTask, TaskState]] = []
        ledger.keep_casualties(self._casualties)

    def report(self) -> None:
        self._ledger.keep_casualties(None)
        level = logging.WARNING if self._casualties else logging.INFO
        logger.log(level, "stopped after %s", self._summary())

    def _summary(self) -> str:
        """`3.2 s: 5 tasks finished, 1 failed, …, 1 cancelled (send_mail of POST /, 12.3 s)`."""
        now = self._ledger.statistics()
        counts = {
            "finished": now.done - self._before.done,
            "failed": now.failed - self._before.failed,
            "timed out": now.timed_out - self._before.timed_out,
            "cancelled": now.cancelled - self._before.cancelled,
            "abandoned": now.abandoned - self._before.abandoned,
        }
        seconds = trio.current_time() - self._begin
        text = ", ".join(f"{count} {how}" for how, count in counts.items())
        return f"{seconds:.1f} s; tasks: {text}{self._names()}"

    def _names(self) -> str:
        if not self._casualties:
            return ""
        named = "; ".join(map(self._describe, self._casualties[: _limits.MAX_NAMED_TASKS]))
        more = len(self._casualties) - _limits.MAX_NAMED_TASKS
        return f" ({named}; and {more} more)" if more > 0 else f" ({named})"

    def _describe(self, casualty: tuple[BackgroundTask, TaskState]) -> str:
        task, state = casualty
        age = "never began"
        if task.started_at is not None and task.ended_at is not None:
            age = f"ran {task.ended_at - task.started_at:.1f} s"
        return f"{task.name} of {task.request}: {state}, {age}"
