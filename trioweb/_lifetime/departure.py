"""Clients that leave: whose handler may be cancelled is, once it has run for a while.

Rules of this module:

* A handler that is quick costs an entry in a queue: nobody listens for its
  client's departure.  One task for the whole app looks at the queue's head, and
  starts to listen for those that have run for `DEPARTURE_GRACE`.
* Who listens fails for itself: what the server's `receive` raises is logged, and
  whoever reads the body has it too.
* Nobody listens in another request's contextvars, and what is kept for all keeps nobody's.
* Only the handler is watched: past the last byte of a response servers say
  "disconnect" to anybody who asks.
"""

from __future__ import annotations

import contextvars
import logging
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import trio

from .. import _errors, _limits
from .._http.exchange import Exchange
from .endpoint import Endpoint

logger = logging.getLogger("trioweb")


class _Watched:
    """One handler that runs, for as long as this is entered."""

    def __init__(self, exchange: Exchange, leave: Callable[[], None]) -> None:
        self.since = trio.current_time()
        # These until the handler has ended: this stays in the queue for a while, and
        # mustn't keep its request that long.
        self.exchange: Exchange | None = exchange
        self.context: contextvars.Context | None = contextvars.copy_context()
        self.leave: Callable[[], None] | None = leave
        self.listening: trio.CancelScope | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        self.exchange = self.leave = self.context = None
        if self.listening is not None:
            self.listening.cancel()

    def start_listening(self, nursery: trio.Nursery) -> None:
        """In the request's own context: whoever wraps its `receive` runs in there."""
        if self.context is not None:
            self.context.run(nursery.start_soon, self._listen)

    async def _listen(self) -> None:
        """Call `leave` if the client leaves before the handler has ended."""
        if self.exchange is None:
            return
        try:
            with trio.CancelScope() as self.listening:
                await self.exchange.wait_disconnected()
            # Both may happen at once; a handler that has returned stays as it is.
            if self.leave is not None:
                self.leave()
        except BaseException as exc:
            # Whoever reads the body has it from the server too; nobody else is concerned.
            _errors.raise_rest(_errors.strays_as_failure(exc), _log_failure)


class DepartureWatch:
    """Cancels the handlers of clients that have left.  It listens for that in `nursery`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._context = contextvars.copy_context()
        self._young: deque[_Watched] = deque()
        self._changed: trio.Event | None = None  # made while the queue is empty
        self._is_running = False
        self._running = trio.CancelScope()

    def watch(
        self, exchange: Exchange, endpoint: Endpoint, leave: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Call `leave` when the client leaves within this block, if the endpoint asks for that."""
        if not endpoint.cancel_on_disconnect:
            return nullcontext()
        watched = _Watched(exchange, leave)
        self._young.append(watched)
        if not self._is_running:
            self._is_running = True
            self._context.run(self._nursery.start_soon, self._run)
        elif self._changed is not None:
            self._changed.set()
        return watched

    def stop(self) -> None:
        self._running.cancel()

    async def _run(self) -> None:
        with self._running:
            while True:
                await self._wait_for_one()
                watched = self._young.popleft()
                await trio.sleep_until(watched.since + _limits.DEPARTURE_GRACE)
                watched.start_listening(self._nursery)

    async def _wait_for_one(self) -> None:
        if not self._young:
            self._changed = trio.Event()
            await self._changed.wait()
            self._changed = None


def _log_failure(failure: BaseException) -> None:
    logger.error("the server's receive failed: its client isn't watched", exc_info=failure)
