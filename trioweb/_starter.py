"""Calls that may be over at once: a Trio task of their own only if they wait.

Rules of this module:

* To a call it is as if `nursery.start_soon` had started it: it begins in Trio's next pass, with
  the context of whoever started it and under the nursery's cancellation, and nobody waits for it.
* A task costs as much as a small request.  So calls that begin in the same pass share one as long
  as they don't wait; as soon as one does, the rest go on in another.
* A call that leaves a cancel scope open is the last one of its task.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import trio

from ._context import in_context

Call = Callable[[], Coroutine[Any, Any, None]]
Calls = deque[tuple[contextvars.Context, Call]]


class Starter:
    """Starts calls in a nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._next: Calls | None = None  # those that begin in the next pass, if there are any

    def start_soon(self, call: Call) -> None:
        """Await `call()` in the nursery, soon.  What it raises cancels the nursery."""
        if self._next is None:
            calls: Calls = deque()
            self._nursery.start_soon(self._make, calls)
            self._next = calls
        self._next.append((contextvars.copy_context(), call))

    async def _make(self, calls: Calls) -> None:
        """Make these calls; once one waits, the rest in another task."""
        if calls is self._next:
            self._next = None
        is_here = True

        def leave() -> None:
            nonlocal is_here
            if is_here and calls:
                self._nursery.start_soon(self._make, calls)
            is_here = False

        task = trio.lowlevel.current_task()
        # Nothing that is public tells of a scope that was left open.
        scopes = task._cancel_status
        try:
            while is_here and calls:
                context, call = calls.popleft()
                await in_context(context, call(), leave)
                if task._cancel_status is not scopes:
                    leave()
        finally:
            leave()
