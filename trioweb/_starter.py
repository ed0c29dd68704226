"""Calls that may be over at once: a Trio task of their own only if they wait.

Rules of this module:

* To a call it is as if `nursery.start_soon` had started it: it has the context of whoever
  started it, and the nursery's cancellation, and nobody waits for it.
* A task costs as much as a small request.  So calls that never wait are made one after the
  other by the same task; as soon as one waits, the rest go on in another.
* Calls that never wait have a turn together, and then others have theirs.
* A call that leaves a cancel scope open is the last one of its task.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import trio

from . import _limits
from ._context import in_context

Call = Callable[[], Coroutine[Any, Any, None]]


class Starter:
    """Starts calls in a nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._calls: deque[tuple[contextvars.Context, Call]] = deque()
        self._has_task = False  # whether there is one that makes these

    def start_soon(self, call: Call) -> None:
        """Await `call()` in the nursery, soon.  What it raises cancels the nursery."""
        self._calls.append((contextvars.copy_context(), call))
        self._see_to_the_rest()

    def _see_to_the_rest(self) -> None:
        if self._calls and not self._has_task:
            self._has_task = True
            self._nursery.start_soon(self._make_calls)

    async def _make_calls(self) -> None:
        """Make calls until one waits, or the turn is over."""
        is_here = True

        def leave() -> None:
            """The rest is for another task."""
            nonlocal is_here
            if is_here:
                is_here = self._has_task = False
                self._see_to_the_rest()

        task = trio.lowlevel.current_task()
        # Nothing that is public tells of a scope that was left open.
        scopes = task._cancel_status
        end, left = trio.current_time() + _limits.TURN_TIME, _limits.TASKS_IN_A_TURN
        try:
            while is_here and self._calls:
                context, call = self._calls.popleft()
                await in_context(context, call(), leave)
                left -= 1
                if not left or trio.current_time() > end or task._cancel_status is not scopes:
                    leave()
        finally:
            leave()
