"""The runner: one task to its end state, whatever becomes of it on the way.

Rules of this module:

* A task that fails is reported, once, and nothing but cancellation and Ctrl-C comes out of it.
* What tells of a failure is told whatever becomes of the task's list: it is sheltered as
  cleanup is.
* A `def` runs in a thread under a limiter that only tasks use.  It can't be
  cancelled, so on cancellation it gets the time for cleanup and is then abandoned.
* Up to the task's own function there are no coroutines where there needn't be: each one costs as
  much as all that a small task does.
* Ctrl-C comes in the task's own code, or at a checkpoint.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from .. import _callables, _errors
from .._concurrency.context import (
    in_context,
    interrupted,
    interruptible,
    interruptibly,
    is_waiting,
    resumed,
)
from .._concurrency.grace import Grace, ThreadAbandoned
from .._concurrency.scopes import Scopes
from .._hints import add_hints
from .ledger import Ledger
from .options import Retry, TaskTimeout
from .task import BackgroundTask, TaskErrorHandler, cancel_task

logger = logging.getLogger("trioweb.tasks")


class TaskRunner:
    """Runs the tasks of one app, and keeps the ledger of them.

    `threads` and `places` limit how many `def` tasks, and how many tasks at all, run at once.
    """

    def __init__(
        self,
        *,
        max_threads: int,
        max_running: int | None = None,
        error_handlers: Sequence[TaskErrorHandler] = (),
    ) -> None:
        self.ledger: Ledger[BackgroundTask] = Ledger()
        self.threads = trio.CapacityLimiter(max_threads)
        self.places = None if max_running is None else trio.CapacityLimiter(max_running)
        self._error_handlers = error_handlers

    def begin_plain(
        self, task: BackgroundTask, now: Callable[[], float]
    ) -> Awaitable[object] | None:
        """Run a plain task up to where it waits; what is left, for `run`, None if it has ended.

        For a task that nothing has to be seen to for: it `is_plain`, and there are no `places` to
        wait for.  Most of what a small task costs is coroutines around it; one that never waits
        needs none (68 thousand instructions for adding and running it, 104 with them).
        """
        ledger = self.ledger
        try:
            ledger.begin(task, now())
            call = task.function(*task.positional, **task.keywords)
            trap = task.context.run(interruptible, call.send, None)
        except StopIteration:
            ledger.end(task, "done", now())
            return None
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt) and is_waiting(call):
                return interrupted(call, exc)
            # Without this frame, by which it would keep the request alive.
            trace = exc.__traceback__
            return _raising(exc.with_traceback(trace and trace.tb_next))
        return resumed(call, trap)

    async def run(
        self,
        task: BackgroundTask,
        grace: Grace,
        scopes: Scopes,
        begun: Awaitable[object] | None = None,
    ) -> None:
        """One task to its end state; raises nothing but cancellation and Ctrl-C.

        `begun` is what is left of it, if it has begun, and `scopes` are those that it began in.
        """
        try:
            await self._perform(task, grace, begun)
        except ThreadAbandoned:
            self.ledger.end(task, "abandoned")
            logger.error(
                "task %s of %s: its thread didn't end in time, abandoned", task.name, task.label
            )
        except BaseException as exc:
            exc = _errors.strays_as_failure(exc, scopes.task, scopes.are_cancelled)
            failure, rest = _errors.split_failures(exc)
            if rest is not None or scopes.keep_to():
                grace.begin()
            if failure is None:
                cancel_task(task, self.ledger)
            else:
                with self.ledger.reporting(task):
                    await self._fail(task, failure, grace)
            if rest is not None:
                raise rest from None
        else:
            self.ledger.end(task, "done")

    async def _perform(
        self, task: BackgroundTask, grace: Grace, begun: Awaitable[object] | None
    ) -> None:
        if begun is not None:
            await begun
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.places is None:
            await self._begin(task, grace)
        else:
            async with self.places:
                await self._begin(task, grace)

    def _begin(self, task: BackgroundTask, grace: Grace) -> Awaitable[object]:
        self.ledger.begin(task, trio.current_time())
        retry = task.options.retry
        return self._attempt(task, grace) if retry is None else self._try(task, retry, grace)

    async def _try(self, task: BackgroundTask, retry: Retry, grace: Grace) -> None:
        for failures in range(1, retry.attempts):
            try:
                await self._attempt_afresh(task, grace)
                return
            except Exception as exc:
                # A thread that was abandoned still runs.
                if isinstance(exc, ThreadAbandoned) or not _errors.is_only(exc, retry.on):
                    raise
                delay = retry.delay(failures)
                logger.info(
                    "task %s of %s: attempt %d of %d failed (%r), the next in %.3g s",
                    task.name,
                    task.label,
                    failures,
                    retry.attempts,
                    exc,
                    delay,
                )
            await trio.sleep(delay)
        await self._attempt_afresh(task, grace)

    async def _attempt_afresh(self, task: BackgroundTask, grace: Grace) -> None:
        """An attempt that sees nothing of what an earlier one wrote to contextvars."""

        async def attempt() -> None:
            await self._attempt(task, grace)

        await in_context(task.context.copy(), attempt())

    def _attempt(self, task: BackgroundTask, grace: Grace) -> Awaitable[object]:
        timeout = task.options.timeout
        if timeout is not None:
            return self._attempt_within(timeout, task, grace)
        return self._call(task.function, task.positional, task.keywords, grace)

    async def _attempt_within(self, seconds: float, task: BackgroundTask, grace: Grace) -> None:
        with trio.move_on_after(seconds):
            await self._call(task.function, task.positional, task.keywords, grace)
            # In time or not, what it does is done: a retry would do it twice.
            return
        raise TaskTimeout(f"task {task.name} took longer than {seconds:g} s")

    def _call(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        grace: Grace,
    ) -> Awaitable[object]:
        if _callables.is_async(func):
            return interruptibly(func(*args, **kwargs))
        return grace.run_in_thread(functools.partial(func, *args, **kwargs), self.threads)

    async def _fail(self, task: BackgroundTask, failure: BaseException, grace: Grace) -> None:
        task.exception = failure
        self.ledger.end(task, "timed_out" if isinstance(failure, TaskTimeout) else "failed")
        if not self._error_handlers:
            _log_failure(task, failure)
        for handler in self._error_handlers:
            await self._tell(handler, task, failure, grace)

    async def _tell(
        self,
        handler: TaskErrorHandler,
        task: BackgroundTask,
        failure: BaseException,
        grace: Grace,
    ) -> None:
        trio_task = trio.lowlevel.current_task()
        call = functools.partial(self._call, handler, (task, failure), {}, grace)
        try:
            with trio.CancelScope() as scope:
                is_told = await grace.clean_up(scope, call)
            if not is_told:
                raise trio.TooSlowError(f"{_callables.name(handler)} took the whole cleanup time")
        except BaseException as exc:
            # Whatever became of the handler, the failure is heard of.
            _log_failure(task, failure)
            report = functools.partial(_log_handler_failure, handler)
            _errors.raise_rest(_errors.strays_as_failure(exc, trio_task), report)


async def _raising(exc: BaseException) -> None:
    raise exc


def _log_failure(task: BackgroundTask, failure: BaseException) -> None:
    add_hints(failure)
    how = "timed out" if task.state == "timed_out" else "failed"
    logger.error("task %s of %s %s", task.name, task.label, how, exc_info=failure)


def _log_handler_failure(handler: TaskErrorHandler, failure: BaseException) -> None:
    logger.error("on_task_error handler %s failed", _callables.name(handler), exc_info=failure)
