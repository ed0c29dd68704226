"""Bugs to plant in the core, each with what the invariants say of it.

Rules of this module:

* Each breaks one promise, as a plausible mistake would, and leaves the rest alone.
* A plant that isn't seen is a hole in the proof: the tests that plant them ask for
  the invariant by name, in a bounded number of worlds.
* They reach for private names, and fail aloud when those are gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import pytest
import trio

from trioweb import _errors
from trioweb._app import failures
from trioweb._app.app import lifetime_of
from trioweb._concurrency import exits, grace
from trioweb._http import exchange, streaming
from trioweb._lifetime import app as lifetime, departure, inline, life, report, tasks
from trioweb._tasks import list as task_list, run as task_run, runner, task

from .runner import run_world
from .world import UNPLANNED

Plant = Callable[[pytest.MonkeyPatch], None]

# By what is said of them.
PLANTS: dict[Plant, str] = {}


def _said(text: str) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        PLANTS[plant] = text
        return plant

    return add


def first_world_that_sees(plant: Plant, worlds: int) -> int | None:
    """How many worlds it takes, with the plant in place; None where none of them sees it."""
    seen = (is_seen(plant, run_world(seed).violations) for seed in range(worlds))
    return next((i + 1 for i, it_is in enumerate(seen) if it_is), None)


def is_seen(plant: Plant, problems: Iterable[str]) -> bool:
    """Whether what is said of it is said; a plant that breaks by itself proves nothing."""
    for problem in problems:
        assert UNPLANNED not in problem, problem
        if PLANTS[plant] in problem:
            return True
    return False


# Which tasks run, how often, and in which order.


@_said("was cancelled at")
def run_no_task(patch: pytest.MonkeyPatch) -> None:
    """All are counted as cancelled, which adds up."""

    async def cancel_all(self: Any, *args: Any) -> None:
        self._queue.cancel()

    def cancel_at_once(self: Any) -> bool:
        self._queue.cancel()
        return False

    patch.setattr(task_run.TaskRun, "finish", cancel_all)
    patch.setattr(task_run.TaskRun, "begin", cancel_at_once)


@_said("was skipped after a success")
def skip_all_tasks(patch: pytest.MonkeyPatch) -> None:
    async def skip(self: Any, *args: Any) -> None:
        self._queue.keep(set())

    def skip_at_once(self: Any) -> bool:
        self._queue.keep(set())
        return False

    patch.setattr(task_run.TaskRun, "finish", skip)
    patch.setattr(task_run.TaskRun, "begin", skip_at_once)


@_said("ended as pending")
def drop_a_task(patch: pytest.MonkeyPatch) -> None:
    """The second task of a list is never added."""
    enter = task_list.TaskQueue._enter

    def forgetful(self: Any, task: Any) -> None:
        if len(self.waiting) != 1:
            enter(self, task)

    patch.setattr(task_list.TaskQueue, "_enter", forgetful)


@_said("attempts")
def run_twice(patch: pytest.MonkeyPatch) -> None:
    attempt = runner.TaskRunner._attempt

    async def twice(self: Any, task: Any, grace: Any) -> None:
        await attempt(self, task, grace)
        await attempt(self, task, grace)

    patch.setattr(runner.TaskRunner, "_attempt", twice)
    make = task.BackgroundTask.__init__

    def not_plain(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        self.is_plain = False

    patch.setattr(task.BackgroundTask, "__init__", not_plain)


@_said("began before the last byte")
def start_early(patch: pytest.MonkeyPatch) -> None:
    """Tasks start beside the response's last byte."""
    send_last = exchange.Exchange.send_last

    async def early(self: Any, body: bytes) -> None:
        if not self.end_if_idle():
            lifetime_of(self.app)._tasks.start(self)
        await send_last(self, body)

    patch.setattr(exchange.Exchange, "send_last", early)


@_said("began while")
def last_in_first_out(patch: pytest.MonkeyPatch) -> None:
    enter = task_list.TaskQueue._enter

    def add(self: Any, task: Any) -> None:
        enter(self, task)
        self.waiting.rotate(0 if task.is_concurrent else 1)

    patch.setattr(task_list.TaskQueue, "_enter", add)


@_said("s after it could")
def start_in_order_what_is_beside(patch: pytest.MonkeyPatch) -> None:
    """`start_soon` is `add_task`."""
    patch.setattr(task_list.BackgroundTasks, "start_soon", task_list.BackgroundTasks.add_task)


@_said("ran after a failure")
def ignore_outcomes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(task_list.TaskQueue, "keep", lambda self, outcomes: None)


@_said("nothing was sent")
def see_no_departure_when_sending(patch: pytest.MonkeyPatch) -> None:
    """What is for delivered responses runs though the client had left."""

    async def no(self: Any) -> bool:
        return False

    patch.setattr(exchange.Exchange, "_has_left", no)


@_said("failed after")
def never_try_again(patch: pytest.MonkeyPatch) -> None:
    async def once(self: Any, task: Any, retry: Any, grace: Any) -> None:
        await self._attempt(task, grace)

    patch.setattr(runner.TaskRunner, "_try", once)


@_said("tried again after")
def try_again_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("trioweb._tasks.options.Retry.delay", lambda self, failures: 0.0)


@_said("of at most")
def ignore_timeouts(patch: pytest.MonkeyPatch) -> None:
    async def for_ever(self: Any, task: Any, grace: Any) -> None:
        await self._call(task.function, task.positional, task.keywords, grace)

    patch.setattr(runner.TaskRunner, "_attempt", for_ever)


@_said("tasks run, with a limit of")
def ignore_max_running_tasks(patch: pytest.MonkeyPatch) -> None:
    init = runner.TaskRunner.__init__

    def unlimited(self: Any, *, max_running: int | None = None, **options: Any) -> None:
        init(self, **options)

    patch.setattr(runner.TaskRunner, "__init__", unlimited)


# Who cancels whom.


@_said("was cancelled at")
def cancel_tasks_after_a_while(patch: pytest.MonkeyPatch) -> None:
    run = tasks.RequestTasks.run

    async def shortly(self: Any, *args: Any) -> None:
        with trio.move_on_after(0.4):
            await run(self, *args)

    patch.setattr(tasks.RequestTasks, "run", shortly)


@_said("was cancelled at")
def cancel_tasks_of_who_leaves(patch: pytest.MonkeyPatch) -> None:
    """The watch for departures goes on when the handler has ended."""
    patch.setattr(departure._Watched, "__exit__", lambda self, *exc_info: None)


@_said("was cancelled at")
def cancel_tasks_with_their_call(patch: pytest.MonkeyPatch) -> None:
    def cancel(self: Any) -> None:
        self._call_is_cancelled = True
        self._answering.cancel()
        self.exits.grace.begin()

    patch.setattr(life.Life, "_cancel", cancel)


@_said("was cancelled at")
def drain_nothing(patch: pytest.MonkeyPatch) -> None:
    drain = lifetime.AppLifetime._drain

    async def at_once(self: Any) -> None:
        self.drain_timeout = 0.0
        await drain(self)

    patch.setattr(lifetime.AppLifetime, "_drain", at_once)


@_said("s late")
def ignore_departures(patch: pytest.MonkeyPatch) -> None:
    """`cancel_on_disconnect` does nothing."""
    patch.setattr(departure.DepartureWatch, "watch", lambda self, *args: nullcontext())


@_said("s late")
def cancel_no_inline_handler(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inline.InlineCall, "cancel", lambda self, reason: None)


@_said("swallowed its cancellation")
def swallow_cancellation(patch: pytest.MonkeyPatch) -> None:
    for answers in (inline.InlineAnswers, life.Lives):
        patch.setattr(answers, "serve", _swallowing(answers.serve))


@_said("the world ended with")
def take_strays_for_real(patch: pytest.MonkeyPatch) -> None:
    """A Cancelled that belongs to no scope, or a GeneratorExit, goes on outwards."""
    patch.setattr(_errors, "strays_as_failure", lambda exc, *_: exc)


# What is open, until when, and for whom.


@_said("uses a dependency that is closed")
def close_before_the_tasks(patch: pytest.MonkeyPatch) -> None:
    async def early(self: Any) -> None:
        async with exits.Exits(self._exits, "request"):
            await self._respond()
        await self._run_tasks()

    patch.setattr(life.Life, "_within_dependencies", early)


@_said("uses a dependency that is closed")
def close_before_the_cleanup(patch: pytest.MonkeyPatch) -> None:
    """A cancelled list doesn't wait for those beside it."""
    patch.setattr(task_run.TaskRun, "_wait_for_cleanup", _checkpoint)


@_said("was left 0 times")
def forget_to_leave(patch: pytest.MonkeyPatch) -> None:
    """Dependencies are never closed."""

    async def forget(self: Any, *args: Any) -> bool:
        return False

    patch.setattr(exits.Exits, "_leave", forget)


@_said("was left 0 times")
def leave_no_thread(patch: pytest.MonkeyPatch) -> None:
    """Those of `def` functions aren't closed where time is short."""
    leave = grace.Grace.close_in_thread

    async def if_there_is_time(self: Any, call: Any) -> None:
        await (leave if self.end == math.inf else _checkpoint)(self, call)

    patch.setattr(grace.Grace, "close_in_thread", if_there_is_time)


@_said("wasn't closed")
def leave_streams_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(streaming._Chunks, "_close", _checkpoint)


@_said("a place of max_running_tasks is left")
def keep_a_running_place(patch: pytest.MonkeyPatch) -> None:
    release = trio.CapacityLimiter.release

    def keep(self: trio.CapacityLimiter) -> None:
        if self.total_tokens > 1 or self.statistics().tasks_waiting:
            release(self)

    patch.setattr(trio.CapacityLimiter, "release", keep)


@_said("places of threads are left")
def keep_a_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(grace._Place, "release_on_behalf_of", lambda self, borrower: None)


@_said("sees the contextvars of request")
def share_contextvars(patch: pytest.MonkeyPatch) -> None:
    """Requests of one connection see what the one before them wrote."""

    patch.setattr(inline, "begin_in", lambda context, call: call)


@_said("sees the contextvars of task")
def share_contextvars_of_attempts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runner.TaskRunner, "_attempt_afresh", runner.TaskRunner._attempt)


# How long the end may take.


@_said("s of")
def clean_up_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Nobody says when the time for cleanup ends."""
    patch.setattr(grace.Grace, "end_at", lambda self, end: None)


@_said("wasn't closed")
def clean_up_in_no_time(patch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def unsheltered(self: Any, scope: Any, deadline: float) -> Iterator[None]:
        yield

    patch.setattr(grace.Grace, "shelter", unsheltered)


@_said("was abandoned at")
def abandon_at_once(patch: pytest.MonkeyPatch) -> None:
    """Threads have no time to end in."""
    begin = grace.Grace.begin

    def at_once(self: Any) -> None:
        self.end_at(trio.current_time())
        begin(self)

    patch.setattr(grace.Grace, "begin", at_once)


# What is said of it.


@_said("was heard of 0 times")
def swallow_failures(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runner, "_log_failure", lambda *args: None)


@_said("was heard of 2 times")
def report_twice(patch: pytest.MonkeyPatch) -> None:
    log = runner._log_failure

    def twice(*args: Any) -> None:
        log(*args)
        log(*args)

    patch.setattr(runner, "_log_failure", twice)


@_said("was heard of 0 times")
def log_no_failure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(failures, "_log_failure", lambda *args: None)


@_said("0 reports of the shutdown")
def report_no_shutdown(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(report.ShutdownReport, "report", lambda self: None)


@_said("isn't in the report")
def report_no_names(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(report.ShutdownReport, "_names", lambda self: "")


@_said("reported of")
def report_too_much(patch: pytest.MonkeyPatch) -> None:
    """It counts what was cancelled before, too."""
    init = report.ShutdownReport.__init__

    def from_the_beginning(self: Any, ledger: Any, events: Any) -> None:
        init(self, ledger, events)
        self._before = type(ledger)().statistics()

    patch.setattr(report.ShutdownReport, "__init__", from_the_beginning)


@_said("isn't named")
def name_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lifetime.AppLifetime, "_offenders", lambda self: [])


@_said("waits for ever")
def let_waiters_wait(patch: pytest.MonkeyPatch) -> None:
    async def wait(self: Any) -> None:
        await trio.sleep_forever()

    patch.setattr(task.BackgroundTask, "wait", wait)


def _swallowing(serve: Any) -> Any:
    async def swallowing(self: Any, *args: Any) -> None:
        with suppress(trio.Cancelled):
            await serve(self, *args)

    return swallowing


async def _checkpoint(self: Any, *args: Any) -> None:
    await trio.lowlevel.checkpoint()
