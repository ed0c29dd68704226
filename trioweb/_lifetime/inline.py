"""Inline answers: a request that leaves nothing open is answered in the server's own call.

Rules of this module:

* Only its tasks, if it added any, get a task in the app's nursery.  The steps are those of a
  request with a task of its own; nobody can tell but by the clock.
* Its contextvars are its own all the same: the whole answer, with what answers
  for its failure, runs in a copy of the context.
* An inline answer isn't a child of the app's nursery, but it is cancelled with those
  that are, has the same time to clean up, and the app ends after it.  Past that time
  it is the server's: nothing waits for it, it is named, its tasks are cancelled.
"""

from __future__ import annotations

import contextvars
import logging
import math

import trio
from trio.lowlevel import enable_ki_protection

from .. import _errors, _limits
from .._concurrency.context import begin_in
from .._concurrency.exits import RequestExits
from .._concurrency.grace import Grace
from .._errors import ClientDisconnect, HTTPException
from .._http.exchange import Exchange
from .delivery import deliver, deliver_last
from .departure import DepartureWatch
from .endpoint import Endpoint, ErrorResponse, too_slow
from .events import Events, RequestBegan, RequestEnded
from .landing import InFlight
from .tasks import RequestTasks

logger = logging.getLogger("trioweb")


class InlineCall:
    """What of an inline answer may wait, where others can cancel it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        # Whether the handler runs; past that only the sending is cancelled.
        self.is_answering = True
        self.reason: HTTPException | ClientDisconnect | None = None

    def leave(self) -> None:
        self.cancel(ClientDisconnect())

    def cancel(self, reason: HTTPException | ClientDisconnect) -> None:
        """End it; a handler with this in place of a response."""
        self.reason = reason
        self.scope.cancel()


class InlineAnswers:
    """Answers the requests of one app that need no task of their own."""

    def __init__(
        self,
        tasks: RequestTasks,
        grace: Grace,
        departures: DepartureWatch,
        in_flight: InFlight,
        events: Events,
        error_response: ErrorResponse,
    ) -> None:
        self._tasks = tasks
        self._grace = grace
        self._departures = departures
        self._in_flight = in_flight
        self._events = events
        self._error_response = error_response
        self._ledger = tasks.ledger
        self._exits = RequestExits(grace)  # nothing of an inline answer enters any
        # Those in flight; where one can be cancelled, by what.
        self._calls: dict[Exchange, InlineCall | None] = in_flight.inline

    @enable_ki_protection
    async def serve(self, exchange: Exchange, endpoint: Endpoint) -> None:
        """Answer one request; returns when the response is over, while its tasks may go on.

        Cancellation: a handler that hasn't returned is cancelled, and has the
        cleanup timeout; the tasks of one that has returned go on.
        """
        exchange.grace = self._grace
        exchange.ledger = self._ledger
        self._calls[exchange] = None
        hear = self._events.hear
        try:
            if hear is not None:
                hear(RequestBegan(exchange.label))
            # What it writes to contextvars nobody else sees.
            rest = begin_in(contextvars.copy_context(), self._answer(exchange, endpoint))
            if rest is not None:
                await rest
        finally:
            if not exchange.end_if_idle():
                self._tasks.start(exchange)
            elif hear is not None:
                hear(RequestEnded(exchange.label))
            del self._calls[exchange]
            if self._in_flight.landed is not None:
                self._in_flight.tell()

    async def _answer(self, exchange: Exchange, endpoint: Endpoint) -> None:
        call: InlineCall | None = None
        has_returned = False
        try:
            if endpoint.waits or (endpoint.reads_body and not exchange.has_body_at_once()):
                call = self._calls[exchange] = InlineCall()
                await self._answer_waiting(call, exchange, endpoint)
                return
            # It can't be cancelled, so it is spared the scope: that costs half a request.
            response = await endpoint(exchange, self._exits)
            has_returned = True
            if response.streams or len(response.body or b"") >= _limits.LARGE_RESPONSE:
                exchange.outlasts_half_close = not endpoint.stops_with_client
                with self._scope(exchange):
                    await deliver(response, exchange, self._events)
            else:
                # What the server does with the bytes is its own: it is named, past the end.
                await deliver(response, exchange, self._events)
        except BaseException as exc:
            if call is not None:
                has_returned = not call.is_answering
            if has_returned and (exchange.is_answered or not _errors.is_failure(exc)):
                raise
            exchange.fail()
            exchange.outlasts_half_close = not endpoint.stops_with_client
            with self._scope(exchange, call):
                response = await self._error_response(
                    exchange, _errors.strays_as_failure(exc), None
                )
                await deliver_last(response, exchange, self._events)

    async def _answer_waiting(
        self, call: InlineCall, exchange: Exchange, endpoint: Endpoint
    ) -> None:
        if endpoint.timeout is not None:
            call.scope.deadline = trio.current_time() + endpoint.timeout
        with call.scope:
            with self._departures.watch(exchange, endpoint, call.leave):
                response = await endpoint(exchange, self._exits)
            if call.scope.cancel_called:
                # It outlasted its cancellation: it is cancelled all the same.
                await response.close(exchange)
            else:
                call.is_answering = False
                call.scope.deadline = math.inf
                exchange.outlasts_half_close = not endpoint.stops_with_client
                await deliver(response, exchange, self._events)
        if call.is_answering:
            raise call.reason or too_slow(endpoint)

    def _scope(self, exchange: Exchange, cancelled: InlineCall | None = None) -> trio.CancelScope:
        """What the rest of an inline answer runs in; of one that was cancelled, for as long
        as the app waits for it."""
        call = self._calls[exchange] = InlineCall()
        was_cancelled = cancelled is not None and cancelled.reason is not None
        if was_cancelled and trio.current_time() < self._grace.end:
            call.scope.deadline = self._grace.end
        return call.scope

    def cancel(self) -> None:
        """The app ends: cancel those that can be."""
        for call in self._calls.values():
            if call is not None:
                call.cancel(HTTPException(503, "The server is shutting down"))

    def give_up(self) -> None:
        """The cleanup time is over: what still runs is the server's."""
        for exchange in self._calls:
            logger.error("the server still runs %s, past the end of the app", exchange.label)
            exchange.end_tasks()
