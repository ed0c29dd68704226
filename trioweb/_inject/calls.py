"""Calls: how a handler or dependency is run, whatever kind of function it is.

Rules of this module:

* `def` runs in a worker thread, `async def` in place.
* A dependency's thread may wait for what another request holds, and a request that depends on
  something may hold it: such functions wait for nobody's places but their own.
* A generator is entered and left as a context manager, on the request's own task;
  it has to yield exactly once.  A `def` one is left by a thread, whatever the time, also when its
  entry took longer than anybody waited.
* What can't be run so is refused at registration.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from types import TracebackType
from typing import Any

import trio

from .. import _callables
from .._concurrency.exits import DependencyScope, RequestExits
from .._concurrency.grace import Grace, ThreadAbandoned
from .._concurrency.threads import places_of
from .._errors import Invalid, RegistrationError
from .._shapes.models import checks_itself, model_problems

Run = Callable[[dict[str, Any], RequestExits], Awaitable[Any]]


def run_handler(func: Callable[..., Any], *, is_alone: bool) -> Run:
    """`is_alone`: it depends on nothing."""
    if _callables.is_async(func) or not is_alone:
        return _run_plain(func)
    return lambda arguments, exits: in_thread(functools.partial(func, **arguments), exits.grace)


def _run_plain(func: Callable[..., Any]) -> Run:
    if _callables.is_async(func):
        return lambda arguments, exits: func(**arguments)
    places = _callables.identity(func)
    return lambda arguments, exits: exits.grace.run_in_thread(
        functools.partial(func, **arguments), places_of(places)
    )


def run_dependency(func: Callable[..., Any], scope: DependencyScope) -> Run:
    if checks_itself(_callables.behind_partials(func)):
        return _run_checking(_run_plain(func))
    if not gives_generator(func):
        return _run_plain(func)
    name = _callables.name(func)
    if _callables.is_async_generator(func):
        manage = asynccontextmanager(func)
        return lambda arguments, exits: exits.enter(
            scope, _YieldsOnce(manage(**arguments), name), name
        )
    manage_sync = contextmanager(func)
    places = _callables.identity(func)
    return lambda arguments, exits: exits.enter(
        scope, _YieldsOnce(_Threaded(manage_sync(**arguments), exits, places), name), name
    )


def _run_checking(
    run: Run,
) -> Run:
    """For a pydantic class: what it finds wrong with its arguments is the client's mistake."""

    async def run_checking(arguments: dict[str, Any], exits: RequestExits) -> Any:
        try:
            return await run(arguments, exits)
        except ValueError as exc:
            if not hasattr(exc, "errors"):
                raise
            raise Invalid(model_problems(exc)) from None

    return run_checking


async def in_thread(call: Callable[[], Any], grace: Grace) -> Any:
    """`call()` in a worker thread, under Trio's own limiter."""
    return await grace.run_in_thread(call, trio.to_thread.current_default_thread_limiter())


def gives_generator(func: Callable[..., Any]) -> bool:
    return _callables.is_async_generator(func) or _callables.is_sync_generator(func)


class _YieldsOnce(AbstractAsyncContextManager[Any]):
    """A generator's context manager, which says whose generator yields never or twice."""

    def __init__(self, manager: AbstractAsyncContextManager[Any], name: str) -> None:
        self._manager = manager
        self._name = name

    async def __aenter__(self) -> Any:
        try:
            return await self._manager.__aenter__()
        except RuntimeError as exc:
            self._explain(exc)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._manager.__aexit__(kind, exc, traceback)
        except RuntimeError as miscounted:
            self._explain(miscounted)
            raise

    def _explain(self, exc: RuntimeError) -> None:
        if str(exc).startswith(("generator didn't yield", "generator didn't stop")):
            exc.add_note(f"dependency {self._name} has to yield exactly once")


class _Threaded(AbstractAsyncContextManager[Any]):
    """A synchronous context manager, entered and left in worker threads.

    Both sides see the same contextvars, so that a token can be given back.
    """

    def __init__(
        self, manager: AbstractContextManager[Any], exits: RequestExits, places: object
    ) -> None:
        self._manager = manager
        self._exits = exits
        self._places = places
        self._entering = threading.Lock()
        self._is_entered = False
        self._given_up: ThreadAbandoned | None = None

    async def __aenter__(self) -> Any:
        grace = self._exits.grace
        try:
            return await grace.run_in_thread(self._enter, places_of(self._places))
        except ThreadAbandoned as exc:
            with self._entering:
                self._given_up = exc
                is_entered = self._is_entered
            if is_entered:  # at the same moment
                await grace.close_in_thread(functools.partial(self._leave_for_nobody, exc))
            raise

    def _enter(self) -> Any:
        self._context = contextvars.copy_context()
        value = self._context.run(self._manager.__enter__)
        with self._entering:
            self._is_entered = True
            given_up = self._given_up
        if given_up is not None:
            self._leave_for_nobody(given_up)
        return value

    def _leave_for_nobody(self, exc: ThreadAbandoned) -> None:
        """Its request is gone: what it has taken meanwhile would be taken for ever."""
        self._context.run(self._manager.__exit__, type(exc), exc, None)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave = functools.partial(self._context.run, self._manager.__exit__, kind, exc, traceback)
        await self._exits.grace.close_in_thread(leave)


# What can't be run


def refuse_generator(handler: Callable[..., Any]) -> None:
    # Of its own: one that wraps a generator may be what makes a response of it.
    if _callables.is_generator(handler):
        name = _callables.name(handler)
        raise RegistrationError(
            f"{name} yields, but a handler returns its response",
            wrong=f"yield ... in {name}",
            right=f"return StreamingResponse(...) with a generator inside {name}",
        )


def refuse_context_manager(func: Callable[..., Any]) -> None:
    """Refuse what `@asynccontextmanager` made: it would give the manager, not what is yielded."""
    target = _callables.target(func)
    made = getattr(target, "__globals__", None) is vars(contextlib)
    if made and gives_generator(inspect.unwrap(target)):
        name = _callables.name(func)
        is_async = _callables.is_async_generator(inspect.unwrap(target))
        decorator, keyword = (
            ("asynccontextmanager", "async def") if is_async else ("contextmanager", "def")
        )
        raise RegistrationError(
            f"{name} would give its context manager, not what it yields",
            wrong=f"@{decorator} above {keyword} {name}",
            right=f"{keyword} {name} without the decorator, in Depends({name})",
        )


def refuse_timeout_of_thread(handler: Callable[..., Any]) -> None:
    if not _callables.is_async(handler):
        name = _callables.name(handler)
        raise RegistrationError(
            f"{name} runs in a thread, which no timeout can end",
            wrong=f"timeout=… on def {name}",
            right=f"timeout=… on async def {name}",
        )
