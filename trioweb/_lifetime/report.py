"""The report of a shutdown: what became of the tasks, in one line.

Rules of this module:

* It says what became of the tasks from the begin of the shutdown on; of those before, only how
  many they were.
* One report for one shutdown: where an app has no lifespan, there is nothing to report.
* Whoever ended otherwise than done is named, with how long it ran; of very many
  the first.  There is no other record of a task that a shutdown cancelled.
"""

from __future__ import annotations

import logging

import trio

from .. import _limits
from .._tasks.ledger import END_STATES, Ledger
from .._tasks.task import BackgroundTask
from .events import Event, Events, ShutdownReported, TaskEnded

logger = logging.getLogger("trioweb")


class ShutdownReport:
    """What becomes of the tasks between the begin of a shutdown and its end."""

    def __init__(self, ledger: Ledger[BackgroundTask], events: Events) -> None:
        self._ledger = ledger
        self._events = events
        self._begin = trio.current_time()
        self._before = ledger.statistics()
        self._casualties: list[TaskEnded] = []
        ledger.is_closing = True
        events.add(self._note)

    def _note(self, event: Event) -> None:
        if isinstance(event, TaskEnded) and event.state not in ("done", "skipped"):
            self._casualties.append(event)

    def report(self) -> None:
        self._ledger.is_closing = False
        self._events.remove(self._note)
        level = logging.WARNING if self._casualties else logging.INFO
        text = self._summary()
        logger.log(level, "stopped after %s", text)
        if self._events.hear is not None:
            self._events.hear(ShutdownReported(text))

    def _summary(self) -> str:
        """`3.2 s; 70 tasks had ended before, of the other tasks: 5 finished, … (names)`."""
        now, before = self._ledger.statistics(), self._before
        told = {state: how for state, how in END_STATES.items() if state != "skipped"}
        counts = [f"{getattr(now, s) - getattr(before, s)} {how}" for s, how in told.items()]
        earlier = sum(getattr(before, state) for state in told)
        seconds = trio.current_time() - self._begin
        return (
            f"{seconds:.1f} s; {earlier} {'task' if earlier == 1 else 'tasks'} had ended before,"
            f" of the other tasks: {', '.join(counts)}{self._names()}"
        )

    def _names(self) -> str:
        if not self._casualties:
            return ""
        named = "; ".join(map(_described, self._casualties[: _limits.MAX_NAMED_TASKS]))
        more = len(self._casualties) - _limits.MAX_NAMED_TASKS
        return f" ({named}; and {more} more)" if more > 0 else f" ({named})"


def _described(casualty: TaskEnded) -> str:
    task = casualty.task
    age = "never began"
    if task.started_at is not None and task.ended_at is not None:
        age = f"ran {task.ended_at - task.started_at:.1f} s"
    return f"{task.name} of {task.request}: {casualty.state}, {age}"
