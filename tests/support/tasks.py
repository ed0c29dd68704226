"""Task lists without an app: what a request does with its list, by hand."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import trio

from trioweb import BackgroundTask, BackgroundTasks
from trioweb._concurrency.grace import Grace
from trioweb._concurrency.scopes import Scopes
from trioweb._tasks.ledger import Ledger
from trioweb._tasks.list import TaskQueue
from trioweb._tasks.options import When
from trioweb._tasks.run import TaskRun
from trioweb._tasks.runner import TaskRunner

DELIVERED: frozenset[When] = frozenset(("success", "sent", "always"))


def taken_over(
    tasks: BackgroundTasks, ledger: Ledger[BackgroundTask], label: str = "GET /"
) -> TaskQueue:
    """The queue of a request of this name, which the list has become a part of."""
    queue = TaskQueue(ledger, label)
    queue.adopt(tasks)
    return queue


async def run_list(
    runner: TaskRunner,
    tasks: BackgroundTasks,
    label: str,
    grace: Grace,
    nursery: trio.Nursery,
    outcomes: AbstractSet[When] = DELIVERED,
) -> None:
    """Run the tasks of a request whose response was delivered, or that came out so."""
    queue = taken_over(tasks, runner.ledger, label)
    await TaskRun(runner, queue, outcomes, Scopes()).finish(grace, nursery)
