"""Background tasks: one task, the list they wait in, and who runs them.

Rules of this module:

* A task is in exactly one state, and each state but `pending` and `running` is final.
* A list runs one task after another, in the order added, and beside them those
  that were given to `start_soon`.  One that fails is reported, once, and the
  others go on; cancellation ends the list and goes on outwards, after the tasks
  that never ran were counted as cancelled.
* Whatever was added to a list runs or is counted: a list whose request is over
  refuses new tasks aloud.  Threads add too: adding is one step, and so is closing.
* What tells of a failure is told whatever becomes of the list: it is sheltered as
  cleanup is.
* A task sees contextvars as they were when it was added, without a Trio task of its
  own: its list steps through it in its context.
* Tasks that never wait let others run all the same: when they have had their turn, the
  list makes a checkpoint.  One for each would cost as much as a small task does.
* A `def` runs in a thread under a limiter that only tasks use.  It can't be
  cancelled, so on cancellation it gets the time for cleanup and is then abandoned.
* Ctrl-C, which Python raises between any two instructions, waits while a task is put into a list
  or taken out of it; it comes in the task's own code, or at a checkpoint.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence, Set as AbstractSet
from types import FunctionType, MappingProxyType, MethodType
from typing import Any, ParamSpec, TypeVarTuple

import trio
from trio.lowlevel import enable_ki_protection

from .. import _callables, _errors, _limits
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
from .ledger import Ledger, TaskState
from .options import Retry, TaskTimeout, When, options_of

logger = logging.getLogger("trioweb.tasks")

# Of all lists, as two may become one: what is done under it takes a microsecond.
_adding = threading.RLock()

P = ParamSpec("P")
PosArgs = TypeVarTuple("PosArgs")

# What `@app.on_task_error` registers: it is given the task and its exception.
TaskErrorHandler = Callable[["BackgroundTask", BaseException], object]


class BackgroundTask:
    """One call that is to run after the response.

    `name` is the function's, or what `@task(name=…)` says; `request` is the
    request's method and path; `state` is one of `pending`, `running`, `done`,
    `failed`, `timed_out`, `cancelled`, `abandoned` (a thread that didn't end in
    time) and `skipped` (not for this outcome of the request); `started_at` and
    `ended_at` are on Trio's clock, in seconds; `exception` is what ended a task
    that failed or timed out; `func`, `args` and `kwargs` are the call.
    """

    __slots__ = (
        "_args",
        "_beside",
        "_context",
        "_ended",
        "_func",
        "_is_plain",
        "_kwargs",
        "_ledger",
        "_options",
        "_queued",
        "_where",
        "ended_at",
        "exception",
        "started_at",
        "state",
    )

    def __init__(self, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        if not callable(func):
            raise TypeError(_not_callable(func))
        own = _callables.target(func)
        flags = _callables.flags_of(own)
        if flags & _callables.GENERATORS:
            raise TypeError(f"{_callables.name(func)} yields: as a task its body would never run")
        self._func: Callable[..., Any] = func
        self._args = args
        self._kwargs = kwargs
        self._context = contextvars.copy_context()
        self._options = options = options_of(own)
        # Calling it gives a coroutine and does nothing else, and no option has to be seen to.
        function = func.__func__ if type(func) is MethodType else func
        self._is_plain = (
            type(function) is FunctionType
            and flags & inspect.CO_COROUTINE != 0
            and options.retry is None
            and options.timeout is None
        )
        self._ledger: Ledger[BackgroundTask] | None = None
        self._ended: trio.Event | None = None  # made when somebody waits
        self._beside = False
        self._queued = False
        self._where: object = None
        self.state: TaskState = "pending"
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.exception: BaseException | None = None

    @property
    def name(self) -> str:
        return self._options.name or _callables.name(self._func)

    @property
    def request(self) -> str | None:
        return None if self._where is None else str(self._where)

    @property
    def func(self) -> Callable[..., Any]:
        return self._func

    @property
    def args(self) -> tuple[Any, ...]:
        return self._args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return MappingProxyType(self._kwargs)

    async def wait(self) -> None:
        """Returns when the task has ended, in whichever state.

        Cancellation cancels the waiting, not the task.
        """
        if self.state in ("pending", "running"):
            if self._ended is None:
                self._ended = trio.Event()
            await self._ended.wait()
        else:
            await trio.lowlevel.checkpoint()

    def _begin(self, now: float) -> None:
        self.started_at = now
        self.state = "running"
        if self._ledger is not None:
            self._ledger.begin(self)

    def _end(self, state: TaskState, now: float | None = None) -> None:
        self.ended_at = trio.current_time() if now is None else now
        self.state = state
        if self._ledger is not None:
            self._ledger.end(self, state)
        if self._ended is not None:
            self._ended.set()

    def _cancel(self, where: object) -> None:
        """It was cancelled, running or pending; `where`, as a `str`, names the request."""
        self._where = where
        self._end("cancelled")
        if self._ledger is None or not self._ledger.is_closing:
            # A shutdown may cancel very many, and says so in its report.
            logger.warning("task %s of %s was cancelled", self.name, where)

    def __repr__(self) -> str:
        return f"<BackgroundTask {self.name!r} {self.state}>"


class BackgroundTasks:
    """The list of what runs after the response.

    A handler or dependency takes it as a parameter, whoever has the request finds
    it there, as `request.tasks`, and a response can bring one along:
    `JSONResponse(…, background=tasks)`.
    """

    __slots__ = ("_queue",)

    def __init__(self, tasks: Sequence[BackgroundTask] = ()) -> None:
        self._queue = _Queue()
        for task in tasks:
            self._queue.add(task)

    @enable_ki_protection
    def add_task(
        self, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> BackgroundTask:
        """Run `func(*args, **kwargs)` after the response, when those added before have ended.

        A `def` runs in a worker thread.  Raises RuntimeError when the request this
        list belonged to is over.
        """
        task = BackgroundTask(func, *args, **kwargs)
        self._queue.add(task)
        return task

    @enable_ki_protection
    def start_soon(self, func: Callable[[*PosArgs], object], *args: *PosArgs) -> BackgroundTask:
        """Run `func(*args)` after the response, beside the others.  Else as `add_task`."""
        task = BackgroundTask(func, *args)
        task._beside = True
        self._queue.add(task)
        return task

    @enable_ki_protection
    def _adopt(self, other: BackgroundTasks | BackgroundTask) -> None:
        """Take over what a response brought along; what is added to `other` later joins too."""
        if isinstance(other, BackgroundTask):
            self._queue.add(other)
        elif other._queue is not self._queue:
            self._queue.join(other._queue)
            other._queue = self._queue  # or its length would be nought

    def _end(self, where: object) -> None:
        """What still waits is cancelled; what is added later is refused."""
        for task in self._queue.close():
            task._cancel(where)

    def __len__(self) -> int:
        """How many tasks wait for their turn."""
        return len(self._queue.waiting) + len(self._queue.beside or ())


class _Queue:
    """What lists that became one share."""

    ledger: Ledger[BackgroundTask] | None = None
    closed = False
    # Closed, because this list became a part of that one.
    joined: _Queue | None = None
    # Set while the list runs: told of a task that joined.
    notice: Callable[[BackgroundTask], None] | None = None
    # Whether there was a task that asks if the client got the response.
    asks_for_delivery = False
    # Those that start as soon as the list runs; few lists have any.
    beside: deque[BackgroundTask] | None = None

    def __init__(self) -> None:
        self.waiting: deque[BackgroundTask] = deque()

    def add(self, task: BackgroundTask) -> None:
        with _adding:
            queue = self
            while queue.joined is not None:
                queue = queue.joined
            if queue.closed:
                raise RuntimeError(f"can't add task {task.name!r}: the request it is for is over")
            if task._queued:
                raise RuntimeError(f"{task!r} is in a list already: a task runs once")
            task._queued = True
            queue._enter(task)

    def join(self, other: _Queue) -> None:
        """Take over what waits in `other`, and what is added to it later."""
        with _adding:
            if other.ledger is not None:
                raise RuntimeError("this BackgroundTasks belongs to another request")
            if self.closed and (other.waiting or other.beside):
                raise RuntimeError("can't add these BackgroundTasks: the request is over")
            other.joined = self
            for task in other._taken():
                self._enter(task)

    def _enter(self, task: BackgroundTask) -> None:
        if self.ledger is not None:
            task._ledger = self.ledger
            self.ledger.enter()
        if task._options.when == "sent":
            self.asks_for_delivery = True
        self._append(task)
        if self.notice is not None:
            self.notice(task)

    def _append(self, task: BackgroundTask) -> None:
        if not task._beside:
            self.waiting.append(task)
        elif self.beside is None:
            self.beside = deque((task,))
        else:
            self.beside.append(task)

    @property
    def is_waiting(self) -> bool:
        """Whether tasks wait for their turn."""
        return bool(self.waiting or self.beside)

    def _taken(self) -> list[BackgroundTask]:
        if not self.is_waiting:
            return []
        tasks = [*(self.beside or ()), *self.waiting]
        self.beside = None
        self.waiting.clear()
        return tasks

    def keep(self, outcomes: AbstractSet[When]) -> None:
        """Skip those that aren't for these outcomes."""
        with _adding:
            tasks = self._taken()
            self.asks_for_delivery = self.asks_for_delivery and "sent" in outcomes
            for task in tasks:
                if task._options.when in outcomes:
                    self._append(task)
        for task in tasks:
            if task._options.when not in outcomes:
                task._end("skipped")

    def close_if_empty(self) -> bool:
        """Refuse what is added from now on, if nothing waits; whether it does so."""
        if self.is_waiting:  # only Trio's thread takes them out: no lock is needed to see that
            return False
        with _adding:
            self.closed = self.closed or not self.is_waiting
            return self.closed

    def close(self) -> list[BackgroundTask]:
        """Refuse what is added from now on; those that still wait are the caller's to cancel."""
        with _adding:
            self.closed = True
            return self._taken()

    def cancel(self, where: object) -> None:
        """The request was cancelled before these could run."""
        with _adding:
            tasks = self._taken()
        for task in tasks:
            task._cancel(where)


class TaskRunner:
    """Runs the task lists of one app, and keeps the ledger of their tasks."""

    def __init__(
        self,
        *,
        max_threads: int,
        max_running: int | None = None,
        error_handlers: Sequence[TaskErrorHandler] = (),
        error_listeners: Sequence[Callable[[BackgroundTask, BaseException], None]] = (),
    ) -> None:
        self.ledger: Ledger[BackgroundTask] = Ledger()
        self._threads = trio.CapacityLimiter(max_threads)
        self._places = None if max_running is None else trio.CapacityLimiter(max_running)
        self._error_handlers = error_handlers
        self._error_listeners = error_listeners

    def run(
        self,
        tasks: BackgroundTasks,
        where: object,
        grace: Grace,
        nursery: trio.Nursery,
        outcomes: AbstractSet[When] = frozenset(("success", "sent", "always")),
    ) -> Coroutine[Any, Any, None]:
        """Run all of `tasks` that are for these `outcomes`, and those that join meanwhile.

        `where`, as a `str`, names the request in the log.  Tasks that run beside the others do
        so in `nursery`.  On cancellation the running tasks are cancelled, the rest
        is counted as cancelled, and `trio.Cancelled` goes on.
        """
        return TaskRun(self, tasks._queue, where, outcomes).finish(grace, nursery)

    def begin(
        self, tasks: BackgroundTasks, where: object, outcomes: AbstractSet[When]
    ) -> TaskRun | None:
        """Run `tasks` up to one that waits; what is to be finished, None if they have all ended.

        Else as `run`.
        """
        run = TaskRun(self, tasks._queue, where, outcomes)
        # A thread may have added one after the last look.
        return run if run.begin() or not tasks._queue.close_if_empty() else None

    def begins_at_once(self, task: BackgroundTask) -> bool:
        """Whether nothing has to be seen to on its way: then `begin_one` may begin it."""
        return task._is_plain and self._places is None

    def begin_one(
        self, task: BackgroundTask, where: object, now: Callable[[], float]
    ) -> Awaitable[object] | None:
        """Run a task up to where it waits; what is left, for `run_one`, None if it has ended.

        Most of what a small task costs is coroutines around it; one that never waits needs none
        (68 thousand instructions for adding and running it, 104 with them).
        """
        task._where = where
        try:
            task._begin(now())
            call = task._func(*task._args, **task._kwargs)
            trap = task._context.run(interruptible, call.send, None)
        except StopIteration:
            task._end("done", now())
            return None
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt) and is_waiting(call):
                return interrupted(call, exc)
            # Without this frame, by which it would keep the request alive.
            trace = exc.__traceback__
            return _raising(exc.with_traceback(trace and trace.tb_next))
        return resumed(call, trap)

    async def run_one(
        self,
        task: BackgroundTask,
        where: object,
        grace: Grace,
        scopes: Scopes,
        begun: Awaitable[object] | None = None,
    ) -> None:
        """One task to its end state; raises nothing but cancellation and Ctrl-C.

        `begun` is what is left of it, if it has begun, and `scopes` are those that it began in.
        """
        task._where = where
        try:
            if begun is not None:
                await begun
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
                if self._places is None:
                    await self._begin(task, grace)
                else:
                    async with self._places:
                        await self._begin(task, grace)
        except ThreadAbandoned:
            task._end("abandoned")
            logger.error(
                "task %s of %s: its thread didn't end in time, abandoned", task.name, where
            )
        except BaseException as exc:
            exc = _errors.strays_as_failure(exc, scopes.task, scopes.are_cancelled)
            failure, rest = _errors.split_failures(exc)
            if rest is not None or scopes.keep_to():
                grace.begin()
            if failure is None:
                task._cancel(where)
            else:
                with self.ledger.reporting(task):
                    await self._fail(task, failure, grace)
            if rest is not None:
                raise rest from None
        else:
            task._end("done")

    # What follows up to the task's own function are no coroutines where they needn't be: each
    # one costs as much as all that a small task does.

    def _begin(self, task: BackgroundTask, grace: Grace) -> Awaitable[object]:
        task._begin(trio.current_time())
        retry = task._options.retry
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
                    task.request,
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

        await in_context(task._context.copy(), attempt())

    def _attempt(self, task: BackgroundTask, grace: Grace) -> Awaitable[object]:
        timeout = task._options.timeout
        if timeout is not None:
            return self._attempt_within(timeout, task, grace)
        return self._call(task._func, task._args, task._kwargs, grace)

    async def _attempt_within(self, seconds: float, task: BackgroundTask, grace: Grace) -> None:
        with trio.move_on_after(seconds):
            await self._call(task._func, task._args, task._kwargs, grace)
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
        return grace.run_in_thread(functools.partial(func, *args, **kwargs), self._threads)

    async def _fail(self, task: BackgroundTask, failure: BaseException, grace: Grace) -> None:
        task.exception = failure
        task._end("timed_out" if isinstance(failure, TaskTimeout) else "failed")
        for listener in self._error_listeners:
            listener(task, failure)
        if not self._error_handlers:
            _log_failure(task)
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
            _log_failure(task)
            report = functools.partial(_log_handler_failure, handler)
            _errors.raise_rest(_errors.strays_as_failure(exc, trio_task), report)


class TaskRun:
    """One list on its way: its own tasks in order, and how many run beside them."""

    _beside = 0
    _ended = False
    _changed: trio.Event | None = None  # made while the list waits for those beside it
    # The task that waits for something, and what is left of it.
    _begun: tuple[BackgroundTask, Awaitable[object]] | None = None
    # The turn, after which others have theirs: how many ran, and when it began and ended so far.
    _ran = 0
    _since = _until = 0.0

    def __init__(
        self, runner: TaskRunner, queue: _Queue, where: object, outcomes: AbstractSet[When]
    ) -> None:
        self._runner = runner
        self._queue = queue
        self._where = where
        self._outcomes = outcomes
        self.scopes = Scopes()

    def begin(self) -> bool:
        """Run what never waits, as far as its turn allows; whether anything is left."""
        runner, waiting = self._runner, self._queue.waiting
        now = trio.lowlevel.current_clock().current_time
        while self._begun is None:
            is_cancelled = self.scopes.keep_to()
            if not waiting:
                break
            task = waiting[0]
            if task._options.when not in self._outcomes:
                waiting.popleft()._end("skipped")
                continue
            if is_cancelled or not runner.begins_at_once(task) or self._turn_is_over():
                break
            waiting.popleft()
            rest = runner.begin_one(task, self._where, now)
            if rest is not None:
                self._begun = task, rest
            elif waiting:
                self._count(task)
        return self._begun is not None or self._queue.is_waiting

    async def finish(self, grace: Grace, nursery: trio.Nursery) -> None:
        """Run what is left."""
        self._grace = grace
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._queue.notice = self._notice
        try:
            self._start_those_beside()
            await self._run_waiting()
            while self._beside or not self._queue.close_if_empty():
                self.scopes.return_to()
                await self._wait_for_change()
                await self._run_waiting()
        except BaseException as exc:
            self._grace.begin()
            self._end_list()
            if not _errors.is_only(exc, (trio.Cancelled,)):
                # It ends the nursery too, but only once it has come that far.
                self._nursery.cancel_scope.cancel()
            await self._wait_for_cleanup()
            raise
        finally:
            self._end_list()
            self.scopes.return_to()

    async def _run_waiting(self) -> None:
        while self.begin() and (self._begun is not None or self._queue.waiting):
            if self._begun is not None:
                (task, rest), self._begun = self._begun, None
                await self._run_one(task, rest)
            elif self._turn_is_over():
                self._ran = 0
                await trio.lowlevel.checkpoint()
            else:
                await self._run_one(self._queue.waiting.popleft())

    async def _run_one(self, task: BackgroundTask, begun: Awaitable[object] | None = None) -> None:
        run = self._runner.run_one(task, self._where, self._grace, self.scopes, begun)
        await in_context(task._context, run)
        self._count(task)

    def _count(self, task: BackgroundTask) -> None:
        assert task.started_at is not None  # one that never began was cancelled, and the list too
        assert task.ended_at is not None
        if not self._ran:
            self._since = task.started_at
        self._until = task.ended_at
        self._ran += 1

    def _turn_is_over(self) -> bool:
        took_long = self._until - self._since > _limits.TURN_TIME
        return self._ran >= _limits.TASKS_IN_A_TURN or (self._ran > 0 and took_long)

    def _start_those_beside(self) -> None:
        while (beside := self._queue.beside) and not self._ended:
            task = beside.popleft()
            if task._options.when not in self._outcomes:
                task._end("skipped")
                continue
            self._beside += 1
            task._context.run(self._nursery.start_soon, self._run_beside, task)
        self._set_changed()

    @enable_ki_protection
    async def _run_beside(self, task: BackgroundTask) -> None:
        try:
            await self._runner.run_one(task, self._where, self._grace, Scopes())
        except BaseException as exc:
            # The nursery may be the app's, which one task mustn't end.
            _errors.raise_rest(exc, _log_internal_error)
        finally:
            self._beside -= 1
            self._set_changed()

    def _notice(self, task: BackgroundTask) -> None:
        """A task joined: one to start at once, or while the list may only wait for such."""
        react = self._start_those_beside if task._beside else self._set_changed
        in_trio_run, current_token = trio.lowlevel.in_trio_run, trio.lowlevel.current_trio_token
        if in_trio_run() and current_token() is self._token:
            react()
        else:
            self._token.run_sync_soon(react)

    def _set_changed(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _end_list(self) -> None:
        """What still waits is cancelled; what joins now isn't ours to start."""
        self._ended = True
        self._queue.notice = None
        if self._queue.is_waiting:
            self._queue.cancel(self._where)

    async def _wait_for_change(self) -> None:
        self._changed = trio.Event()
        await self._changed.wait()

    async def _wait_for_cleanup(self) -> None:
        """Cancelled: those beside are too, and what they use stays open until they have ended.

        As a nursery does, it waits for one behind a shield however long that takes.
        """
        with trio.CancelScope(shield=True):
            while self._beside:
                await self._wait_for_change()


async def _raising(exc: BaseException) -> None:
    raise exc


def _log_failure(task: BackgroundTask) -> None:
    how = "timed out" if task.state == "timed_out" else "failed"
    logger.error("task %s of %s %s", task.name, task.request, how, exc_info=task.exception)


def _log_internal_error(failure: BaseException) -> None:
    logger.critical("a bug in trioweb, please report it", exc_info=failure)


def _log_handler_failure(handler: TaskErrorHandler, failure: BaseException) -> None:
    logger.error("on_task_error handler %s failed", _callables.name(handler), exc_info=failure)


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
