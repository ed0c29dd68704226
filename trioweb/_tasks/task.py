"""One task: a call that is to run after the response, and what became of it.

Rules of this module:

* A task is in exactly one state, and each state but `pending` and `running` is final.  It never
  changes its state by itself: the ledger does, which counts each move.
* What the list and the runner need of it is worked out once, when it is made.
* It sees contextvars as they were when it was made.
"""

from __future__ import annotations

import contextvars
import inspect
import logging
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType, MethodType
from typing import Any, ParamSpec

import trio

from .. import _callables
from .ledger import Ledger, TaskState
from .options import TaskOptions, options_of

logger = logging.getLogger("trioweb.tasks")

P = ParamSpec("P")

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
        "context",
        "ended_at",
        "exception",
        "function",
        "is_concurrent",
        "is_plain",
        "is_queued",
        "keywords",
        "label",
        "options",
        "positional",
        "started_at",
        "state",
        "waiter",
    )

    def __init__(self, func: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        if type(func) is FunctionType:  # at a glance, as nearly all are
            own: Callable[..., Any] = func
            flags = func.__code__.co_flags
        elif callable(func):
            own = _callables.target(func)
            flags = _callables.flags_of(own)
        else:
            raise TypeError(_not_callable(func))
        if flags & _callables.GENERATORS:
            raise TypeError(f"{_callables.name(func)} yields: as a task its body would never run")
        self.function: Callable[..., Any] = func
        self.positional: tuple[Any, ...] = args
        self.keywords: dict[str, Any] = kwargs
        self.context: contextvars.Context = contextvars.copy_context()
        options = options_of(own)
        self.options: TaskOptions = options
        plain = func.__func__ if type(func) is MethodType else func
        # Calling it gives a coroutine and does nothing else, and no option has to be seen to.
        self.is_plain: bool = (
            type(plain) is FunctionType
            and flags & inspect.CO_COROUTINE != 0
            and options.retry is None
            and options.timeout is None
        )
        self.waiter: trio.Event | None = None  # made when somebody waits for its end
        self.is_concurrent: bool = False
        self.is_queued: bool = False
        self.label: object = None
        self.state: TaskState = "pending"
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.exception: BaseException | None = None

    @property
    def name(self) -> str:
        return self.options.name or _callables.name(self.function)

    @property
    def request(self) -> str | None:
        return None if self.label is None else str(self.label)

    @property
    def func(self) -> Callable[..., Any]:
        return self.function

    @property
    def args(self) -> tuple[Any, ...]:
        return self.positional

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return MappingProxyType(self.keywords)

    async def wait(self) -> None:
        """Returns when the task has ended, in whichever state.

        Cancellation cancels the waiting, not the task.
        """
        if self.state in ("pending", "running"):
            if self.waiter is None:
                self.waiter = trio.Event()
            await self.waiter.wait()
        else:
            await trio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        return f"<BackgroundTask {self.name!r} {self.state}>"


def cancel_task(task: BackgroundTask, ledger: Ledger[BackgroundTask]) -> None:
    """The task was cancelled, running or pending.  Of very many, a shutdown's report tells."""
    ledger.end(task, "cancelled")
    if not ledger.is_closing:
        logger.warning("task %s of %s was cancelled", task.name, task.label)


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
