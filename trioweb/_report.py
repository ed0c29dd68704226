"""The report of a shutdown: what became of the tasks, in one line.

Rules of this module:

* It counts from the begin of the shutdown; what ended before is not its matter.
* Whoever ended otherwise than done is named, with how long it ran.
"""

from __future__ import annotations

import trio

from ._background import BackgroundTask
from ._ledger import Ledger, TaskState


class Closing:
    """What became of the tasks between the begin of a shutdown and its end."""

    def __init__(self, ledger: Ledger[BackgroundTask]) -> None:
        self._ledger = ledger
        self._begin = trio.current_time()
        self._before = ledger.statistics()
        ledger.casualties()

    def summary(self) -> str:
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
        names = "; ".join(map(self._describe, self._ledger.casualties()))
        return f"{seconds:.1f} s; tasks: {text}" + (f" ({names})" if names else "")

    def _describe(self, casualty: tuple[BackgroundTask, TaskState]) -> str:
        task, state = casualty
        age = "never began"
        if task.started_at is not None and task.ended_at is not None:
            age = f"ran {task.ended_at - task.started_at:.1f} s"
        return f"{task.name} of {task.request}: {state}, {age}"
