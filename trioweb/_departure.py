"""Clients that leave: whose handler may be cancelled is, once it has run for a while.

Rules of this module:

* A handler that is quick costs an entry in a queue: nobody listens for its
  client's departure.  One task for the whole app looks at the queue's head, and
  starts to listen for those that have run for `DEPARTURE_GRACE`.
* Only the handler is watched: past the last byte of a response servers say
  "disconnect" to anybody who asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from . import _limits
from ._request import Request


class _Watched:
    """One handler that runs.  `listen` is what waits for its client to leave, until it ends."""

    def __init__(self, listen: Callable[[], Awaitable[None]]) -> None:
        self.since = trio.current_time()
        self.listen: Callable[[], Awaitable[None]] | None = listen
        self.listening = trio.CancelScope()

    def end(self) -> None:
        # It stays in the queue for a while, and mustn't keep its request that long.
        self.listen = None
        self.listening.cancel()


class DepartureWatch:
    """Cancels the handlers of clients that have left."""

    def __init__(self) -> None:
        self._young: deque[_Watched] = deque()
        self._changed: trio.Event | None = None  # made while the queue is empty
        self._is_running = False
        self._running = trio.CancelScope()

    @contextmanager
    def over(
        self, request: Request, nursery: trio.Nursery, leave: Callable[[], None]
    ) -> Iterator[None]:
        """Call `leave` when the request's client leaves within this block.

        The listening happens in `nursery`.
        """

        async def listen() -> None:
            await request.wait_disconnected()
            leave()

        watched = _Watched(listen)
        self._young.append(watched)
        if not self._is_running:
            self._is_running = True
            nursery.start_soon(self._run, nursery)
        elif self._changed is not None:
            self._changed.set()
        try:
            yield
        finally:
            watched.end()

    def stop(self) -> None:
        self._running.cancel()

    async def _run(self, nursery: trio.Nursery) -> None:
        with self._running:
            while True:
                await self._wait_for_one()
                watched = self._young.popleft()
                await trio.sleep_until(watched.since + _limits.DEPARTURE_GRACE)
                if watched.listen is not None:
                    nursery.start_soon(self._listen, watched.listening, watched.listen)

    async def _wait_for_one(self) -> None:
        if not self._young:
            self._changed = trio.Event()
            await self._changed.wait()
            self._changed = None

    async def _listen(
        self, listening: trio.CancelScope, listen: Callable[[], Awaitable[None]]
    ) -> None:
        with listening:
            await listen()
