"""What a callable is: async or not, a generator or not, its name for people.

Rules of this module:

* `functools.partial` and objects with `__call__` count as what they call.
* Asked at registration or once for a task, never for each request.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, cast, get_args, get_origin

# What `await`, `async with` and `async for` compile to.
_WAITS = ("GET_AWAITABLE", "GET_ANEXT")
_KINDS = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def target(func: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind partials and behind an object's `__call__`."""
    if type(func) is FunctionType:  # at a glance: this is asked for each task
        return func
    func = behind_partials(func)
    origin = get_origin(func)  # of `Repo[User]`
    if origin is not None:
        return cast(Callable[..., Any], origin)
    if inspect.isroutine(func) or inspect.isclass(func):
        return func
    return type(func).__call__


def behind_partials(func: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(func, functools.partial):
        func = func.func
    return func


def layers(func: Callable[..., Any]) -> Iterator[Any]:
    """`func`, and what is called behind it, one partial or wrapper after the other.

    It ends with the one that has the parameters: that says itself what they are
    (`__signature__`), or has nothing behind it.
    """
    seen: set[int] = set()
    while id(func) not in seen:  # a wrapper that wraps itself
        seen.add(id(func))
        yield func
        if isinstance(func, functools.partial):
            func = func.func
        elif not inspect.isclass(func) and hasattr(func, "__signature__"):
            return
        elif not inspect.isclass(func) and hasattr(func, "__wrapped__"):
            func = func.__wrapped__
        else:
            func = target(func)


def bound_names(func: Callable[..., Any]) -> set[str]:
    """The parameters that a partial, also one within a wrapper, has given a value by name."""
    partials = [each for each in layers(func) if isinstance(each, functools.partial)]
    return {name for each in partials for name in each.keywords}


def is_async(func: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine; `functools.wraps` around an `async def` does."""
    if type(func) is FunctionType and func.__code__.co_flags & inspect.CO_COROUTINE:
        return True  # at a glance
    return inspect.iscoroutinefunction(_telling(func))


def is_async_generator(func: Callable[..., Any]) -> bool:
    return inspect.isasyncgenfunction(_telling(func))


def is_sync_generator(func: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(_telling(func))


def _telling(func: Callable[..., Any]) -> Callable[..., Any]:
    """The function that tells the kind: a plain `def` that wraps another gives what that gives."""
    own = target(func)
    return own if any(is_kind(own) for is_kind in _KINDS) else inspect.unwrap(own)


def flags_of(own: Callable[..., Any]) -> int:
    """Those of the code of a `target`, `inspect.CO_…`, if it has any."""
    code = getattr(own, "__code__", None)
    return 0 if code is None else int(code.co_flags)


def identity(func: Callable[..., Any]) -> object:
    """What makes two mentions of a function the same one."""
    try:
        hash(func)
    except TypeError:
        return id(func)
    return func


def is_generator(func: Callable[..., Any]) -> bool:
    """Of either kind."""
    return bool(flags_of(target(func)) & GENERATORS)


def may_wait(func: Callable[..., Any]) -> bool:
    """Whether calling and awaiting it can take time: an `async def` without `await` can't."""
    own = target(func)
    code = getattr(own, "__code__", None)
    if code is None or not inspect.iscoroutinefunction(own):
        return True
    return any(step.opname in _WAITS for step in dis.get_instructions(code))


def takes(func: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with so many arguments; yes where that can't be known."""
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):
        return callable(func)
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def name(func: Callable[..., Any]) -> str:
    """`send_mail` or `Mailer.send`: as the author would say it."""
    if type(func) is FunctionType and not hasattr(func, "__wrapped__"):  # at a glance
        return func.__qualname__.rpartition("<locals>.")[2]
    try:
        partials = [each for each in layers(func) if isinstance(each, functools.partial)]
        if partials:
            func = partials[-1].func
        if (origin := get_origin(func)) and (arguments := get_args(func)):
            names = ", ".join(getattr(each, "__name__", str(each)) for each in arguments)
            return f"{name(origin)}[{names}]"
        qualified = getattr(func, "__qualname__", None) or type(func).__qualname__
    except Exception:  # of an object with a `__getattr__` of its own
        qualified = type(func).__qualname__
    return str(qualified).rpartition("<locals>.")[2]
