"""A request's tasks: run after its response, in its own nursery or the app's.

Rules of this module:

* What outlives a response lives in the app's nursery, never in the server's call.
* Tasks keep nothing of their request but its label and what its handlers put into its state.
* Ctrl-C comes at a checkpoint, or in code that isn't ours: one between two steps of the
  bookkeeping would make the app wait for a request that is gone.
* One request mustn't take the others with it: what comes out of its tasks is contained, unless
  the app itself is being cancelled.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from .. import _errors
from .._concurrency.grace import Grace
from .._concurrency.scopes import Scopes
from .._concurrency.starter import Starter
from .._http.exchange import Exchange, Outcomes, State
from .._tasks.list import TaskQueue
from .._tasks.run import TaskRun
from .._tasks.runner import TaskRunner
from .landing import InFlight


class RequestTasks:
    """Runs the task lists of one app's requests, as long as it `is_open`."""

    def __init__(
        self,
        runner: TaskRunner,
        grace: Grace,
        nursery: trio.Nursery,
        in_flight: InFlight,
    ) -> None:
        self.is_open = True
        self.ledger = runner.ledger
        self._runner = runner
        self._grace = grace
        self._nursery = nursery
        self._starter = Starter(nursery)
        self._in_flight = in_flight

    def start(self, exchange: Exchange) -> None:
        """Run the tasks of a request that was answered, soon.

        They keep of it what they have a part of: its label, and its state, which lives as long as
        they do: a handler may have put a temporary file there.
        """
        queue = exchange.queue
        self._in_flight.ours += 1
        if queue is not None and self.is_open:
            self._starter.start_soon(self._begin, queue, exchange.outcomes, exchange.kept_state)
        else:
            exchange.end_tasks()
            self._in_flight.land(exchange.label)

    def _begin(
        self, scopes: Scopes, queue: TaskQueue, outcomes: Outcomes, state: State | None
    ) -> Coroutine[Any, Any, None] | None:
        """Run a request's tasks up to one that waits; what is left, if anything is."""
        run = TaskRun(self._runner, queue, outcomes, scopes)
        is_left = False
        try:
            is_left = run.begin()
        except BaseException as exc:
            queue.end()
            _errors.raise_rest(exc, _errors.log_bug)
        finally:
            if not is_left:
                self._in_flight.land(queue.label)
        return self._finish(queue, run, state) if is_left else None

    async def _finish(self, queue: TaskQueue, run: TaskRun, state: State | None) -> None:
        try:
            await run.finish(self._grace.part(), self._nursery)
        except BaseException as exc:
            contain(exc, run.scopes)
        finally:
            queue.end()
            self._in_flight.land(queue.label)

    async def run(self, exchange: Exchange, grace: Grace) -> None:
        """Run the list of a request that has a Trio task of its own, to its end."""
        try:
            if not exchange.end_if_idle() and (queue := exchange.queue) is not None:
                run = TaskRun(self._runner, queue, exchange.outcomes, Scopes())
                if exchange.nursery is None:
                    await run.finish(grace, self._nursery)
                else:
                    with _heard_of(exchange.nursery, grace):
                        await run.finish(grace, exchange.nursery)
        finally:
            exchange.end_tasks()


def contain(exc: BaseException, scopes: Scopes) -> None:
    """Let through what ends the app: its own cancellation, by these `scopes`, and Ctrl-C."""
    exc = _errors.strays_as_failure(exc, scopes.task, scopes.are_cancelled)
    _errors.raise_rest(exc, _errors.log_bug)


@contextmanager
def _heard_of(nursery: trio.Nursery, grace: Grace) -> Iterator[None]:
    """Begin the cleanup time when a child cancels the request's nursery.

    What is in a shelter doesn't hear of it, so somebody beside it has to listen.
    """
    listening = trio.CancelScope()

    async def listen() -> None:
        with listening:
            try:
                await trio.sleep_forever()
            finally:
                if not listening.cancel_called:
                    grace.begin()

    nursery.start_soon(listen)
    try:
        yield
    finally:
        listening.cancel()
