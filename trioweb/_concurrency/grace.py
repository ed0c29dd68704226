"""Time to clean up: shielded scopes, and threads, that all end at one known moment.

Rules of this module:

* Cleanup runs behind a shield, so that an `await` in it isn't cancelled again at once.
* No shield is without a bound: whoever cancels the work says so with `begin`, or
  beforehand with `end_at`, and that bounds the shelters that are open and those
  that open later.
* A `Grace` can be a part of another one: what ends the whole ends the part.
* A thread can't be cancelled.  It is cleanup from the moment it starts: it has
  until then to end, and is abandoned after that.  One that closes something begins
  even when there is no time left: what it does is done, though nobody waits.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import trio

from .._errors import is_only

T = TypeVar("T")

# `trio.to_thread.run_sync` is one.  Its stub wants a CapacityLimiter; its
# documentation, the two methods of one that `_Place` has.
RunSync = Callable[..., Awaitable[Any]]


class ThreadAbandoned(Exception):
    """A thread didn't end within the time for cleanup; it runs on, and nobody waits for it."""


class Grace:
    """The cleanup time of everything in an app, or of one request as a part of that.

    It takes `seconds` once it has begun.  `run_sync` is what runs threads, with
    the signature of `trio.to_thread.run_sync`.
    """

    _end = math.inf
    # Its open shelters, and those of its parts; most requests never open one.
    _scopes: set[trio.CancelScope] | None = None

    def __init__(
        self,
        seconds: float,
        run_sync: RunSync = trio.to_thread.run_sync,
        whole: Grace | None = None,
    ) -> None:
        self.seconds = seconds
        self.run_sync = run_sync
        self._whole = whole

    @property
    def end(self) -> float:
        """When cleanup must be over, on Trio's clock."""
        return self._end if self._whole is None else min(self._end, self._whole.end)

    def part(self) -> Grace:
        """A `Grace` of its own that ends with this one, or earlier."""
        return Grace(self.seconds, self.run_sync, self)

    def begin(self) -> None:
        """The work was cancelled just now: the time for its cleanup begins."""
        self.end_at(trio.current_time() + self.seconds)

    def end_at(self, end: float) -> None:
        """Cleanup must be over at `end` (on Trio's clock); an earlier one stays."""
        self._end = min(self._end, end)
        for scope in self._scopes or ():
            scope.deadline = min(scope.deadline, self._end)

    @contextmanager
    def shelter(self, scope: trio.CancelScope, deadline: float) -> Iterator[None]:
        """Shield `scope`, which is open, from cancellation until `deadline`, then cancel it.

        A cleanup time that ends earlier than is known now brings that forward.
        """
        # In this order: a shield that goes up looks whether the deadline has passed.
        scope.deadline = deadline
        scope.shield = True
        shelters = [grace._shelters() for grace in self._wholes()]
        for scopes in shelters:
            scopes.add(scope)
        try:
            yield
        finally:
            for scopes in shelters:
                scopes.discard(scope)
            scope.shield = False

    def _shelters(self) -> set[trio.CancelScope]:
        if self._scopes is None:
            self._scopes = set()
        return self._scopes

    def _wholes(self) -> Iterator[Grace]:
        """This one, what it is a part of, and so on."""
        grace: Grace | None = self
        while grace is not None:
            yield grace
            grace = grace._whole

    async def clean_up(
        self,
        scope: trio.CancelScope,
        close: Callable[[], Awaitable[object]],
        *,
        seconds: float = math.inf,
        at_least: float = -math.inf,
    ) -> bool:
        """Run `close` in the shelter of `scope`; whether it ended in time.

        `scope` has to be entered before whatever `close` closes: scopes that this
        holds open nest in it then.  The time ends after so many `seconds`, or with
        the cleanup time, but not before `at_least` (on Trio's clock).
        """
        deadline = max(min(self.end, trio.current_time() + seconds), at_least)
        with self.shelter(scope, deadline):
            try:
                await close()
            except BaseException as exc:
                if not (scope.cancel_called and is_only(exc, (trio.Cancelled,))):
                    raise
                return False
        return True

    async def run_in_thread(self, call: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        """`call()` in a worker thread, which has the cleanup time to end in.

        Cancellation: waiting for a place under `limiter` is cancelled at once, a
        running thread is waited for.  Raises ThreadAbandoned when it runs longer
        than the cleanup time.
        """
        place = _Place(limiter)
        await limiter.acquire_on_behalf_of(place)
        with (
            place.released_unless_taken(),
            trio.CancelScope() as scope,
            self.shelter(scope, self.end),
        ):
            try:
                result = await self.run_sync(call, limiter=place, abandon_on_cancel=True)
            except trio.Cancelled:
                # Nobody but the end of the cleanup time reaches through the shield.
                raise ThreadAbandoned("a thread ran longer than the time for cleanup") from None
        return cast(T, result)

    async def close_in_thread(self, close: Callable[[], object]) -> None:
        """`close()` in a worker thread, which begins even when there is no time left.

        Cancellation: the thread is abandoned.  Whoever calls this shelters it.
        """
        with trio.CancelScope(shield=True) as scope:
            await self.run_sync(close, limiter=_Begin(scope), abandon_on_cancel=True)


class _Begin:
    """In a limiter's place: lowers the shield when all that is left is to start the thread.

    It limits nothing: whoever closes something may be what all the threads wait for.
    """

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        self._scope.shield = False

    def release_on_behalf_of(self, borrower: object) -> None:
        pass


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
