"""Background tasks: one task, the list they wait in, and who runs them.

Rules of this module:

* A task is in exactly one state, and each state but `pending` and `running` is final.
* A list runs one task after another, in the order added.  One that fails is
  reported, once, and the others go on; cancellation ends the list and goes on
  outwards, after the tasks that never ran were counted as cancelled.
* Whatever was added to a list runs or is counted: a list whose request is over
  refuses new tasks aloud.
* A task sees contextvars as they were at `add_task`.  Its list gives the Trio
  task that runs it that context before a checkpoint: Trio resumes a task in
  whatever context it holds then, and this spares a task spawned for each.
* A `def` runs in a thread under a limiter that only tasks use.  It can't be
  cancelled, so on cancellation it gets the time for cleanup and is then abandoned.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec

import trio

from . import _callables, _errors
from ._grace import Grace, ThreadAbandoned

logger = logging.getLogger("trioweb.tasks")

P = ParamSpec("P")

TaskState = Literal["pending", "running", "done", "failed", "cancelled", "abandoned", "skipped"]


class BackgroundTask:
    """One call that is to run after the response.

    `name` is the function's; `state` is one of `pending`, `running`, `done`,
    `failed`, `cancelled`, `abandoned` (a thread that didn't end in time) and
    `skipped` (its handler failed); `started_at` and `ended_at` are on Trio's
    clock, in seconds; `exception` is what a failed task raised.
    """

    __slots__ = (
        "_args",
        "_context",
        "_func",
        "_kwargs",
        "ended_at",
        "exception",
        "name",
        "started_at",
        "state",
    )

    def __init__(self, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        if not callable(func):
            raise TypeError(_not_callable(func))
        self._func: Callable[..., Any] = func
        self._args = args
        self._kwargs = kwargs
        self._context = contextvars.copy_context()
        self.name: str = _callables.name(func)
        self.state: TaskState = "pending"
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.exception: BaseException | None = None

    def __repr__(self) -> str:
        return f"<BackgroundTask {self.name!r} {self.state}>"


class BackgroundTasks:
    """The list of what runs after the response, one after another, in the order added.

    A handler or dependency takes it as a parameter, whoever has the request finds
    it there, as `request.tasks`, and a response can bring one along:
    `JSONResponse(…, background=tasks)`.
    """

    __slots__ = ("_queue",)

    def __init__(self, tasks: Sequence[BackgroundTask] = ()) -> None:
        self._queue = _Queue(tasks)

    def add_task(
        self, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> BackgroundTask:
        """Run `func(*args, **kwargs)` after the response; a `def` runs in a worker thread.

        Raises RuntimeError when the request this list belonged to is over.
        """
        return self._add(BackgroundTask(func, *args, **kwargs))

    def _add(self, task: BackgroundTask) -> BackgroundTask:
        if self._queue.closed:
            raise RuntimeError(
                f"can't add task {task.name!r}: "
                "the request that this BackgroundTasks belonged to is over"
            )
        self._queue.append(task)
        return task

    def _adopt(self, other: BackgroundTasks | BackgroundTask) -> None:
        """Take over what a response brought along; what is added to `other` later joins too."""
        if isinstance(other, BackgroundTask):
            self._add(other)
        elif other._queue is not self._queue:
            for task in other._queue:
                self._add(task)
            other._queue = self._queue

    def _skip(self) -> None:
        """The handler failed: its tasks, which were for success, won't run."""
        while self._queue:
            self._queue.popleft().state = "skipped"

    def _cancel(self, where: str) -> None:
        """The request was cancelled before its tasks could run."""
        while self._queue:
            _cancelled(self._queue.popleft(), where)

    def _close(self) -> None:
        self._queue.closed = True

    def __len__(self) -> int:
        """How many tasks wait for their turn."""
        return len(self._queue)


class _Queue(deque[BackgroundTask]):
    """What lists that became one share."""

    closed = False


class TaskRunner:
    """Runs the task lists of one app."""

    def __init__(self, *, max_threads: int) -> None:
        self._limiter = trio.CapacityLimiter(max_threads)

    async def run(self, tasks: BackgroundTasks, where: str, grace: Grace) -> None:
        """Run all of `tasks`, those that are added meanwhile included.

        `where` names the request in the log.  On cancellation the running task
        is cancelled, the rest is counted as cancelled, and `trio.Cancelled` goes on.
        """
        queue = tasks._queue
        trio_task = trio.lowlevel.current_task()
        own_context = trio_task.context
        try:
            while queue:
                task = queue.popleft()
                trio_task.context = task._context
                await self._run_one(task, where, grace)
        finally:
            # Takes effect at the next checkpoint, as above.
            trio_task.context = own_context
            tasks._cancel(where)

    async def _run_one(self, task: BackgroundTask, where: str, grace: Grace) -> None:
        try:
            await trio.lowlevel.checkpoint()
            task.state = "running"
            task.started_at = trio.current_time()
            await self._call(task, grace)
        except ThreadAbandoned:
            _abandoned(task, where)
        except BaseException as exc:
            failure, rest = _errors.split_failures(exc)
            if failure is not None:
                _failed(task, where, failure)
            else:
                _cancelled(task, where)
            if rest is not None:
                raise rest from None
        else:
            task.state = "done"
        finally:
            task.ended_at = trio.current_time()

    async def _call(self, task: BackgroundTask, grace: Grace) -> None:
        if _callables.is_async(task._func):
            await task._func(*task._args, **task._kwargs)
        else:
            call = functools.partial(task._func, *task._args, **task._kwargs)
            await grace.run_in_thread(call, self._limiter)


def _failed(task: BackgroundTask, where: str, failure: BaseException) -> None:
    task.state = "failed"
    task.exception = failure
    logger.error("task %s of %s failed", task.name, where, exc_info=failure)


def _cancelled(task: BackgroundTask, where: str) -> None:
    task.state = "cancelled"
    logger.warning("task %s of %s was cancelled", task.name, where)


def _abandoned(task: BackgroundTask, where: str) -> None:
    task.state = "abandoned"
    logger.error("task %s of %s: its thread didn't end in time, abandoned", task.name, where)


def _not_callable(func: object) -> str:
    if inspect.iscoroutine(func):
        func.close()  # or Python warns that it was never awaited
        name = func.__qualname__
    else:
        name = "f"
    return (
        f"add_task takes a function and its arguments, not {func!r}\n"
        f"    wrong:  add_task({name}(…))\n    right:  add_task({name}, …)"
    )
