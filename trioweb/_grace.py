"""Time to clean up: shielded scopes, and threads, that all end at one known moment.

Rules of this module:

* Cleanup runs behind a shield, so that an `await` in it isn't cancelled again at once.
* No shield is without a bound: as soon as whoever owns a `Grace` cancels the
  work, it says with `end_at` when the cleanup must be over, and that holds for
  the scopes that are open and for those that open later.
* A `Grace` can be a part of another one: what ends the whole ends the part.
* A thread can't be cancelled.  It is cleanup from the moment it starts: it has
  until then to end, and is abandoned after that.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

T = TypeVar("T")


class ThreadAbandoned(Exception):
    """A thread didn't end within the time for cleanup; it runs on, and nobody waits for it."""


class Grace:
    """The cleanup time of everything in an app, or of one request as a part of that `whole`."""

    def __init__(self, whole: Grace | None = None) -> None:
        self._deadline: float = math.inf if whole is None else whole._deadline
        self._scopes: set[trio.CancelScope] = set()
        self._parts: weakref.WeakSet[Grace] = weakref.WeakSet()
        if whole is not None:
            whole._parts.add(self)

    @contextmanager
    def shelter(self) -> Iterator[trio.CancelScope]:
        """A shielded scope; at the end of the cleanup time it is cancelled, and absorbs that.

        Its `cancelled_caught` then says so.
        """
        with trio.CancelScope(shield=True, deadline=self._deadline) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def end_at(self, deadline: float) -> None:
        """Cleanup must be over at `deadline` (on Trio's clock); an earlier one stays."""
        self._deadline = min(self._deadline, deadline)
        for scope in self._scopes:
            scope.deadline = self._deadline
        for part in self._parts:
            part.end_at(self._deadline)

    async def run_in_thread(self, call: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        """`call()` in a worker thread, which has the cleanup time to end in.

        Cancellation: waiting for a place under `limiter` is cancelled at once, a
        running thread is waited for.  Raises ThreadAbandoned when it runs longer
        than the cleanup time.
        """
        place = _Place(limiter)
        await limiter.acquire_on_behalf_of(place)
        with place.released_unless_taken(), self.shelter():
            # The stub wants a CapacityLimiter; the documentation, its two methods.
            return await trio.to_thread.run_sync(call, limiter=place, abandon_on_cancel=True)  # type: ignore[arg-type]
        raise ThreadAbandoned("a thread ran longer than the time for cleanup")


class _Place:
    """One place under a limiter, taken before the thread that will give it back.

    `trio.to_thread.run_sync` waits for a place and for the thread in one step;
    the first is to be cancelled and the second sheltered, so it gets this for
    its limiter and finds the place taken.
    """

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter
        self._taken = False

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        self._taken = True

    def release_on_behalf_of(self, borrower: object) -> None:
        self._limiter.release_on_behalf_of(self)

    @contextmanager
    def released_unless_taken(self) -> Iterator[None]:
        try:
            yield
        finally:
            if not self._taken:
                self._limiter.release_on_behalf_of(self)
