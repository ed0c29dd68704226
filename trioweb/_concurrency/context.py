"""A coroutine in contextvars of its own, without a task of its own.

Rules of this module:

* What it writes nobody else sees, as if it ran in a task of its own.
* One that never waits pays for a copy of the context, some 0.1 µs, and nothing else.
* Nobody is dropped on the way: what is raised between two steps, as Ctrl-C may be, goes to the
  coroutine that waits.
"""

from __future__ import annotations

import contextvars
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, TypeVar, cast

import trio
from trio.lowlevel import disable_ki_protection

T = TypeVar("T")


@disable_ki_protection
def interruptible(step: Callable[[Any], T], value: Any) -> T:
    """A step into code that isn't ours, which Ctrl-C may end where it is, as Trio has it."""
    return step(value)


@disable_ki_protection
async def interruptibly(call: Awaitable[T]) -> T:
    """`call`, whose every step is one."""
    return await call


def begin_in(
    context: contextvars.Context, call: Coroutine[Any, Any, None]
) -> Awaitable[None] | None:
    """Run `call` in this context up to where it waits; what is left, None if it is over."""
    try:
        trap = context.run(call.send, None)
    except StopIteration:
        return None
    return _driven(context.run, call, trap)


async def in_context(
    context: contextvars.Context,
    call: Coroutine[Any, Any, T],
    on_wait: Callable[[], None] | None = None,
) -> T:
    """`call` in this context, which nothing else may run in meanwhile.

    `on_wait` is called when it waits for the first time, if it does.
    """
    run = context.run
    try:
        trap = run(call.send, None)
    except StopIteration as done:
        value: T = done.value
        return value
    if on_wait is not None:
        on_wait()
    return await _driven(run, call, trap)


def resumed(call: Coroutine[Any, Any, T], trap: Any) -> Awaitable[T]:
    """What is left of `call`, which waits by this `trap`, in the context of whoever awaits it.

    `call` is not ours: it is interruptible.
    """
    return _driven(interruptible, call, trap)


async def interrupted(call: Coroutine[Any, Any, T], exc: BaseException) -> T:
    """What is left of `call`, which waits, where `exc` came right behind its step."""
    try:
        trap = call.throw(exc)
    except StopIteration as done:
        value: T = done.value
        return value
    return await resumed(call, trap)


def is_waiting(call: Coroutine[Any, Any, object]) -> bool:
    return inspect.getcoroutinestate(call) == inspect.CORO_SUSPENDED


@types.coroutine
def _driven(
    run: Callable[..., Any], call: Coroutine[Any, Any, T], trap: Any
) -> Generator[Any, Any, T]:
    """Pass on what `call` waits for, and give it what it waited for, by way of `run`."""
    while True:
        step: Callable[[Any], Any] = call.send
        try:
            value = yield trap
        except BaseException as exc:
            step, value = call.throw, exc
        try:
            try:
                trap = run(step, value)
            except KeyboardInterrupt as exc:
                if not is_waiting(call):
                    raise
                trap = run(call.throw, exc)  # it came right behind the step
        except StopIteration as done:
            return cast(T, done.value)


def frames_of(task: trio.lowlevel.Task) -> Iterator[types.FrameType]:
    """Where a task waits, outermost first: through what is stepped by hand, where Trio's end."""
    waiting: Any = task
    # What has ended has no frame, which Trio's method didn't expect in earlier versions.
    while waiting is not None and getattr(waiting.coro, "cr_frame", waiting) is not None:
        frame: types.FrameType | None = None
        # Trio's method looks at nothing but the coroutine.
        for frame, _ in trio.lowlevel.Task.iter_await_frames(waiting):
            yield frame
        waiting = None
        if frame is not None and frame.f_code is _driven.__code__:
            waiting = types.SimpleNamespace(coro=frame.f_locals["call"])
