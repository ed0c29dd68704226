"""A life: one request on a task of its own in the app's nursery.

Rules of this module:

* One request goes through these steps, in order: handler; exits of
  `scope="function"`; response; exits of `scope="response"`; the server's call
  returns; tasks; exits of `scope="request"`; its nursery.
* An error leaves the steps before the response as an exception leaves nested
  `with` blocks: through every dependency, the nursery last.  Then it becomes a
  response.  After the response it is logged, once, and what is left goes on.
"""

from __future__ import annotations

import enum
import functools
import math

import trio
from trio.lowlevel import enable_ki_protection

from .. import _errors
from .._concurrency.exits import Exits, RequestExits
from .._concurrency.grace import Grace
from .._concurrency.scopes import Scopes
from .._errors import ClientDisconnect
from .._http.exchange import Exchange
from .._http.response import Response
from .delivery import deliver_last, fail_late, log_late_failure
from .departure import DepartureWatch
from .endpoint import Endpoint, ErrorResponse, too_slow
from .events import Events, RequestAnswered, RequestBegan
from .landing import InFlight
from .tasks import RequestTasks, contain


class Phase(enum.Enum):
    """How far a request is, and what a cancellation of the server's call does to it."""

    ANSWERING = enum.auto()  # the handler is cancelled, and has the cleanup time
    LEAVING = enum.auto()  # it has returned: its exits have the cleanup time
    SENDING = enum.auto()  # only the sending is cancelled
    FAILING = enum.auto()  # the exception handler or its sending is, with the cleanup time
    OVER = enum.auto()  # nothing is


class Lives:
    """Answers the requests of one app that need a task of their own, in the app's nursery."""

    def __init__(
        self,
        nursery: trio.Nursery,
        tasks: RequestTasks,
        grace: Grace,
        departures: DepartureWatch,
        in_flight: InFlight,
        events: Events,
        error_response: ErrorResponse,
    ) -> None:
        self.tasks = tasks
        self.grace = grace
        self.departures = departures
        self.events = events
        self.error_response = error_response
        self._nursery = nursery
        self._in_flight = in_flight

    @enable_ki_protection
    async def serve(self, exchange: Exchange, endpoint: Endpoint) -> None:
        """Answer one request; returns when the response is over, while its tasks may go on.

        Cancellation: a handler that hasn't returned is cancelled, and has the
        cleanup timeout; the tasks of one that has returned go on.
        """
        exchange.grace = self.grace
        exchange.ledger = self.tasks.ledger
        life = Life(self, exchange, endpoint)
        self._in_flight.ours += 2  # this call, and the task that it waits for
        self._nursery.start_soon(self._run, life, exchange)
        try:
            await life.wait_responded()
        finally:
            self._in_flight.land()

    @enable_ki_protection
    async def _run(self, life: Life, exchange: Exchange) -> None:
        scopes = Scopes()
        self._in_flight.lives.add(exchange)
        try:
            if self.events.hear is not None:
                self.events.hear(RequestBegan(exchange.label))
            await life.run()
        except BaseException as exc:
            contain(exc, scopes)
        finally:
            self._in_flight.lives.discard(exchange)
            self._in_flight.land(exchange.label if self.events.hear is not None else None)


class Life:
    """One request on a task of its own."""

    def __init__(self, lives: Lives, exchange: Exchange, endpoint: Endpoint) -> None:
        self._lives = lives
        self._exchange = exchange
        self._endpoint = endpoint
        self._exits = RequestExits(lives.grace.part())
        self._phase = Phase.ANSWERING
        self._answering = trio.CancelScope()
        self._sending = trio.CancelScope()
        self._failing = trio.CancelScope()
        self._call_is_cancelled = False
        self._client_has_left = False
        self._responded = trio.Event()

    async def wait_responded(self) -> None:
        """Returns when the server's call may.  Cancellation cancels what `Lives.serve` says."""
        try:
            await self._responded.wait()
            # The app's end and the call's may come at once: then both are heard of.
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            self._cancel()
            with trio.move_on_after(self._lives.grace.seconds, shield=True):
                await self._responded.wait()
            raise

    def _cancel(self) -> None:
        self._call_is_cancelled = True
        reached = {
            Phase.ANSWERING: self._answering,
            Phase.SENDING: self._sending,
            Phase.FAILING: self._failing,
        }.get(self._phase)
        if reached is not None:
            reached.cancel()
        if self._phase in (Phase.ANSWERING, Phase.LEAVING, Phase.FAILING):
            self._exits.grace.begin()

    def _leave(self) -> None:
        self._client_has_left = True
        self._answering.cancel()
        self._exits.grace.begin()

    async def run(self) -> None:
        try:
            await self._live()
        finally:
            if self._phase is Phase.ANSWERING:
                self._exchange.fail()
            self._phase = Phase.OVER
            self._exchange.end_tasks()
            self._responded.set()

    async def _live(self) -> None:
        trio_task = trio.lowlevel.current_task()
        try:
            with self._answering:
                await self._within_nursery()
            if not (self._exchange.is_answered or self._call_is_cancelled):
                raise self._why_unanswered()
        except BaseException as exc:
            await self._fail(_errors.strays_as_failure(exc, trio_task))
        if self._call_is_cancelled and self._phase is Phase.ANSWERING:
            # Nobody is there to answer, but the handler failed like any other.
            self._exchange.fail()
            await self._run_tasks()

    def _why_unanswered(self) -> Exception:
        if self._client_has_left:
            return ClientDisconnect()
        if self._answering.cancelled_caught:
            return too_slow(self._endpoint)
        return RuntimeError("the request's nursery was cancelled before it was answered")

    async def _within_nursery(self) -> None:
        if self._endpoint.needs_nursery:
            try:
                async with trio.open_nursery() as self._exchange.nursery:
                    await self._within_dependencies()
            finally:
                self._exchange.nursery = None
        else:
            await self._within_dependencies()

    async def _within_dependencies(self) -> None:
        late: BaseException | None = None
        try:
            async with Exits(self._exits, "request"):
                late = await self._respond()
                await self._run_tasks()
                # Told already, but each dependency has to know that it was no success.
                _raise(late)
        except BaseException as exc:
            if exc is not late:
                raise
        finally:
            del late  # or it would keep itself alive, by its traceback

    async def _respond(self) -> BaseException | None:
        """Answer the request; returns what the response failed with when it was too late."""
        cut_off: ClientDisconnect | None = None
        try:
            async with Exits(self._exits, "response"):
                response = await self._call_endpoint()
                self._phase = Phase.SENDING
                if self._call_is_cancelled:
                    self._sending.cancel()
                with self._sending:
                    await self._send(response)
                # Of what was cut off nothing has failed, but it is half done.
                cut_off = None if response.is_whole else ClientDisconnect()
                _raise(cut_off)
        except BaseException as exc:
            if self._phase is not Phase.SENDING or not _errors.is_failure(exc):
                raise
            if exc is cut_off:
                return exc
            fail_late(self._exchange, exc)
            return exc
        return None

    async def _send(self, response: Response) -> None:
        exchange, hear = self._exchange, self._lives.events.hear
        exchange.outlasts_half_close = not self._endpoint.stops_with_client
        try:
            is_delivered = await response.send(exchange)
        except BaseException as exc:
            if not exchange.is_answered and _errors.is_failure(exc):
                self._phase = Phase.ANSWERING  # it can still be answered, as the handler's can
            raise
        exchange.end_body()
        if is_delivered:
            exchange.add_outcome("sent")
        if hear is not None:
            hear(RequestAnswered(exchange.label, response.status_code, is_delivered))

    async def _call_endpoint(self) -> Response:
        response = None
        try:
            async with Exits(self._exits, "function"):
                if self._endpoint.timeout is not None:
                    self._answering.deadline = trio.current_time() + self._endpoint.timeout
                with self._lives.departures.watch(self._exchange, self._endpoint, self._leave):
                    response = await self._endpoint(self._exchange, self._exits)
                if self._answering.cancel_called:
                    # The handler outlasted its cancellation: it is cancelled all the same.
                    await trio.lowlevel.checkpoint()
                self._answering.deadline = math.inf
                self._phase = Phase.LEAVING
        except BaseException:
            self._phase = Phase.ANSWERING
            if response is not None:
                await response.close(self._exchange)
            raise
        return response

    async def _run_tasks(self) -> None:
        """The tasks, and time of their own to clean up, whatever became of the call."""
        self._phase = Phase.OVER
        self._responded.set()
        self._renew_grace()
        try:
            await self._lives.tasks.run(self._exchange, self._exits.grace)
        finally:
            if self._exchange.queue is not None:
                # Back from the tasks' contexts to our own, which takes a checkpoint.
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _renew_grace(self) -> None:
        self._exits.grace = self._exchange.grace = self._lives.grace.part()

    async def _fail(self, exc: BaseException) -> None:
        """Answer for what the steps raised; what isn't a failure goes on."""
        is_too_late = self._exchange.is_answered or self._call_is_cancelled
        has_returned = self._phase is not Phase.ANSWERING and not _errors.is_failure(exc)
        if is_too_late or has_returned:
            _errors.raise_rest(exc, functools.partial(log_late_failure, self._exchange))
            return
        self._exchange.fail()
        self._phase = Phase.FAILING
        self._renew_grace()
        with self._failing:
            response = await self._lives.error_response(self._exchange, exc, self._exits.grace)
            await deliver_last(response, self._exchange, self._lives.events)
        await self._run_tasks()


def _raise(exc: BaseException | None) -> None:
    if exc is not None:
        raise exc
