"""The app's lifetime: its nursery, from the start of its lifespan to the end of its last task.

Rules of this module:

* What outlives a response lives in the app's nursery, never in the server's
  call: the call is over when the response is, the request when its last task is.
* Shutdown is one deadline for draining and one, in `Grace`, for cleaning up.
* The app ends after what it can't end, as a nursery does, and says every so often who that is.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.lowlevel import enable_ki_protection

from .. import _limits
from .._concurrency.grace import Grace
from .._tasks.runner import TaskRunner
from .departure import DepartureWatch
from .endpoint import ErrorResponse
from .events import CancelBegan, DrainBegan, Event, Events
from .inline import InlineAnswers
from .landing import InFlight
from .life import Lives
from .report import ShutdownReport
from .tasks import RequestTasks

logger = logging.getLogger("trioweb")


class DrainEvent:
    """Set from the begin of a shutdown until the app is served again; it is waited for as an Event.

    An app has one for its whole life: whoever keeps it hears of each shutdown.
    """

    def __init__(self) -> None:
        self._event = trio.Event()

    def is_set(self) -> bool:
        """Any thread may ask."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Returns when the shutdown has begun."""
        await self._event.wait()

    def set(self) -> None:
        self._event.set()

    def renew(self) -> None:
        """The app is served again; who waits since before that goes on waiting."""
        if self._event.is_set():
            self._event = trio.Event()


class AppLifetime:
    """The app's nursery, and who answers in it.

    `inline` serves the requests whose endpoints are, `lives` the others; both are there while
    it `is_open`.  `reports`: whether its end is a shutdown, of which the log is told.
    """

    inline: InlineAnswers
    lives: Lives

    def __init__(
        self,
        runner: TaskRunner,
        grace: Grace,
        events: Events,
        error_response: ErrorResponse,
        draining: DrainEvent,
        *,
        drain_timeout: float,
        reports: bool = True,
    ) -> None:
        self.is_draining = draining.is_set()  # to ask the event would cost each request a call
        self._draining = draining
        self.is_open = False
        self.runner = runner
        self.ledger = runner.ledger
        self.grace = grace
        self.drain_timeout = drain_timeout
        self._events = events
        self._error_response = error_response
        self._reports = reports
        self._report: ShutdownReport | None = None
        self._in_flight = InFlight(events)

    @asynccontextmanager
    @enable_ki_protection
    async def open(self) -> AsyncIterator[None]:
        """Requests are served within; leaving drains, and reports in one log record.

        Past the drain timeout what is left is cancelled, and has the cleanup
        timeout.  Cancellation, or an error within, skips to cancelling.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                self._furnish(self._nursery)
                try:
                    yield
                    await self._drain()
                except BaseException:
                    self._close()
                    await self._cancel_what_is_left()
                    raise
                finally:
                    self._close()
        finally:
            if self._report is not None:
                self._report.report()

    def _furnish(self, nursery: trio.Nursery) -> None:
        """All that answers requests, in this nursery."""
        grace, events, in_flight = self.grace, self._events, self._in_flight
        self._departures = departures = DepartureWatch(nursery)
        self._tasks = tasks = RequestTasks(self.runner, grace, nursery, in_flight)
        self.inline = InlineAnswers(
            tasks, grace, departures, in_flight, events, self._error_response
        )
        self.lives = Lives(
            nursery, tasks, grace, departures, in_flight, events, self._error_response
        )
        self.is_open = True

    def _close(self) -> None:
        self.is_open = self._tasks.is_open = False

    async def _drain(self) -> None:
        scope = self._nursery.cancel_scope
        scope.deadline = trio.current_time() + self.drain_timeout
        self.grace.end_at(scope.deadline + self.grace.seconds)
        self._begin_shutdown()
        await self._in_flight.wait_until_landed()
        self._departures.stop()

    def _begin_shutdown(self) -> None:
        if self.is_draining:
            return
        self.is_draining = True
        self._draining.set()
        self._tell(DrainBegan())
        if self._reports:
            self._report = ShutdownReport(self.ledger, self._events)

    def _tell(self, event: Event) -> None:
        """Of a shutdown: that is what the end of this is, if it `reports`."""
        if self._reports and self._events.hear is not None:
            self._events.hear(event)

    async def _cancel_what_is_left(self) -> None:
        """Cancel all that is in flight; returns when it has cleaned up.

        As a nursery does, it waits for what is ours however long that takes: nobody
        but the process can end what is behind a shield.
        """
        self._begin_shutdown()
        self._tell(CancelBegan())
        self.grace.begin()
        self._nursery.cancel_scope.cancel()
        self.inline.cancel()
        with trio.CancelScope(shield=True):
            with trio.CancelScope(deadline=self.grace.end + _limits.LANDING_TIME):
                await self._in_flight.wait_until_landed()
            self.inline.give_up()
            await self._name_offenders()

    async def _name_offenders(self) -> None:
        """Say who holds the shutdown up, every so often, until nobody does."""
        while self._in_flight.ours:
            for offender in self._offenders():
                logger.error("%s is past the cleanup timeout: still waiting for it", offender)
            with trio.move_on_after(_limits.OFFENDER_INTERVAL):
                while self._in_flight.ours:
                    await self._in_flight.wait_for_landing()

    def _offenders(self) -> list[str]:
        tasks = [f"task {task.name} of {task.request}" for task in self.ledger.running()]
        told = [
            f"on_task_error for task {task.name} of {task.request}"
            for task in self.ledger.reported()
        ]
        return tasks + told + [str(exchange.label) for exchange in self._in_flight.lives]
