"""Context managers that a request or an app has entered, and how each is left.

Rules of this module:

* They are left in reverse, on the task that entered them.
* Leaving is sheltered from cancellation, up to the end of the cleanup time.
* What an app has entered hears of no cancellation at all: only what runs within it does.
* Each sees the exception that passes and may raise another one instead, but
  can't swallow it.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Literal, TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from .. import _errors, _limits
from .context import interruptibly
from .grace import Grace

logger = logging.getLogger("trioweb")

T = TypeVar("T")

# The step of a request's life at which what was entered for it is left.
DependencyScope = Literal["function", "response", "request"]

# How long each scope lasts, beside the others.
LASTS: dict[DependencyScope, int] = {"function": 0, "response": 1, "request": 2}


class RequestExits:
    """What a request has entered, to be left at one of three steps of its life."""

    def __init__(self, grace: Grace) -> None:
        self.grace = grace
        self.overtime = -math.inf
        self.exits: dict[DependencyScope, Exits] = {}

    def overtime_now(self) -> float:
        """Until when exits may take, though the cleanup time is over: the same for them all."""
        now = trio.current_time()
        if self.grace.end < now + _limits.EXIT_TIME and self.overtime == -math.inf:
            self.overtime = now + _limits.EXIT_TIME
        return self.overtime

    async def enter(
        self, scope: DependencyScope, manager: AbstractAsyncContextManager[T], name: str
    ) -> T:
        """Enter a generator dependency; it is left at the step that `scope` names."""
        return await self.exits[scope].enter(manager, f"dependency {name}")


class Exits(AsyncExitStack):
    """Context managers of one scope, left in reverse on the task that entered them.

    Each sees the exception that leaves the handler and may raise another one
    instead, but can't swallow it: there would be no response.  Leaving is
    sheltered from cancellation, up to the end of the cleanup time.
    """

    def __init__(self, request: RequestExits, scope: DependencyScope) -> None:
        super().__init__()
        self._request = request
        request.exits[scope] = self

    @enable_ki_protection
    async def enter(
        self, manager: AbstractAsyncContextManager[T], name: str, *, is_shielded: bool = False
    ) -> T:
        """`is_shielded`: no cancellation reaches into it from here on, until it has been left."""
        # What shelters the exit is open from before the entry: scopes nest, and the
        # manager may hold some of its own, or a nursery, open in between.
        shelter = self.enter_context(trio.CancelScope())
        value = await interruptibly(manager.__aenter__())
        shelter.shield = is_shielded
        self.push_async_exit(functools.partial(self._leave, shelter, manager, name))
        return value

    async def _leave(
        self,
        shelter: trio.CancelScope,
        manager: AbstractAsyncContextManager[object],
        name: str,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        swallowed: bool | None = False

        async def close() -> None:
            nonlocal swallowed
            swallowed = await interruptibly(manager.__aexit__(kind, exc, traceback))

        was_cancelled = exc is not None and not _errors.is_failure(exc)
        if was_cancelled:
            self._request.grace.begin()
        if not await self._request.grace.clean_up(
            shelter, close, at_least=self._request.overtime_now()
        ):
            logger.error("%s didn't close within the cleanup timeout", name)
        elif was_cancelled and swallowed:
            # The cancellation was of a scope within the manager, which is closed
            # by now: going on with it would cancel whatever is outside.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise RuntimeError(f"{name} cancelled what runs within it")
        return False


@asynccontextmanager
async def sheltered(
    manager: AbstractAsyncContextManager[T], name: str, seconds: float, outside: trio.CancelScope
) -> AsyncIterator[T]:
    """`async with manager`, whose block is cancelled in its place; it is left in order.

    A cancellation from outside, or one of `outside`, ends the block, and what the manager does
    after that has so many `seconds` from then on, and some in any case.  Then it goes on outwards.
    """
    grace, block = Grace(seconds), trio.CancelScope()
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            # From before the entry: once there is a shield, nobody would hear of an earlier one.
            await nursery.start(_pass_on_cancellation, outside, grace, block)
            try:
                async with Exits(RequestExits(grace), "request") as exits:
                    value = await exits.enter(manager, name, is_shielded=True)
                    with block:
                        yield value
            except BaseException as exc:
                failure = exc
            nursery.cancel_scope.cancel()
    finally:
        # Out of the nursery, where it would come in a group, and in front of a cancellation,
        # which the next checkpoint brings again.
        if failure is not None:
            raise failure


async def _pass_on_cancellation(
    outside: trio.CancelScope,
    grace: Grace,
    block: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    with outside:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            grace.begin()
            block.cancel()
