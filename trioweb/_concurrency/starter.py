"""Calls that may be over at once: a Trio task of their own only if they wait.

Rules of this module:

* A call has the context of whoever started it, and the nursery's cancellation; nobody waits
  for it, nor does it wait for others: it begins in Trio's next pass, or the one after.
* A task costs as much as a small request.  So calls that begin in the same pass share one as long
  as they don't wait; as soon as one does, each of the rest gets a task of its own.
* A call that leaves a cancel scope open is the last one of its task.  What else Trio keeps by
  task, such as who holds a lock, is shared.
* Ctrl-C comes between calls, or in code that isn't ours.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import trio
from trio.lowlevel import enable_ki_protection

from .context import in_context
from .scopes import Scopes

# Does what never waits, and returns what is left to await, if anything is.  It is given the scopes
# that it begins in, and its own arguments.
Begin = Callable[..., Coroutine[Any, Any, None] | None]
Calls = deque[tuple[contextvars.Context, Begin, tuple[Any, ...]]]


class Starter:
    """Starts calls in a nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._next: Calls | None = None  # those that begin in the next pass, if there are any
        # For the tasks that they share, which mustn't keep what is in anybody's context.
        self._context = contextvars.copy_context()

    @enable_ki_protection
    def start_soon(self, begin: Begin, *args: Any) -> None:
        """`begin(scopes, *args)` in the nursery, soon.  What it raises cancels the nursery."""
        if self._next is None:
            calls: Calls = deque()
            self._context.run(self._nursery.start_soon, self._make, calls)
            self._next = calls
        self._next.append((contextvars.copy_context(), begin, args))

    @enable_ki_protection
    async def _make(self, calls: Calls) -> None:
        """Make these calls, up to one that waits."""
        self._next = None  # who is added from now on begins in the pass after

        def leave() -> None:
            while calls:
                context, begin, args = calls.popleft()
                context.run(self._nursery.start_soon, _alone, begin, args)

        scopes = Scopes()
        try:
            while calls:
                context, begin, args = calls.popleft()
                rest = context.run(begin, scopes, *args)
                if rest is not None:
                    await in_context(context, rest, leave)
                if not scopes.are_all():
                    leave()
        finally:
            if calls:
                leave()


@enable_ki_protection
async def _alone(begin: Begin, args: tuple[Any, ...]) -> None:
    rest = begin(Scopes(), *args)
    if rest is not None:
        await rest
