"""Lifetimes: the app's nursery, the requests in it, and what ends when.

Rules of this module:

* What outlives a response lives in the app's nursery, never in the server's
  call: the call is over when the response is, the request when its last task is.
* One request goes through these steps, in order: handler; exits of
  `scope="function"`; response; exits of `scope="response"`; the server's call
  returns; tasks; exits of `scope="request"`; its nursery.
* An error leaves the steps before the response as an exception leaves nested
  `with` blocks: through every dependency, the nursery last.  Then it becomes a
  response.  After the response it is logged, once, and what is left goes on.
* An endpoint that is `inline` has nothing to leave: it is answered in the server's
  call, and only its tasks, if it added any, get a task in the app's nursery.
  The steps are the same; nobody can tell but by the clock.
* Its contextvars are its own all the same: the whole answer, with what answers
  for its failure, runs in a copy of the context.
* One request mustn't take the others with it: what comes out of a request's task
  is contained, unless the app itself is being cancelled.
* Ctrl-C comes at a checkpoint, or in code that isn't ours: one between two steps of the
  bookkeeping would make the app wait for a request that is gone.
* Shutdown is one deadline for draining and one, in `Grace`, for cleaning up.
* An inline answer is no child of the app's nursery, but it is cancelled with those
  that are, has the same time to clean up, and the app ends after it.  Past that time
  it is the server's: nothing waits for it, it is named, its tasks are cancelled.
"""

from __future__ import annotations

import contextvars
import enum
import functools
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Any, Protocol, TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from .. import _errors, _limits
from .._asgi import Send
from .._concurrency.context import begin_in
from .._concurrency.exits import Exits, Steps
from .._concurrency.grace import Grace
from .._concurrency.scopes import Scopes
from .._concurrency.starter import Starter
from .._errors import ClientDisconnect, HTTPException
from .._http.request import Request, State, Where, describe
from .._http.response import Response
from .._tasks.ledger import Ledger
from .._tasks.options import When
from .._tasks.runner import BackgroundTask, BackgroundTasks, TaskRun, TaskRunner
from .departure import DepartureWatch
from .report import Closing

logger = logging.getLogger("trioweb")

T = TypeVar("T")

# Makes the response for what a handler raised; raises only what is no failure.
# Where threads get no cleanup time, it has no Grace.
ErrorResponse = Callable[[Request, BaseException, Grace | None], Awaitable[Response]]


class Endpoint(Protocol):
    """A handler with everything it needs: one call makes its response."""

    @property
    def inline(self) -> bool: ...

    @property
    def needs_nursery(self) -> bool: ...

    @property
    def waits(self) -> bool:
        """Whether a call can take time, but for reading the body."""
        ...

    @property
    def reads_body(self) -> bool: ...

    @property
    def cancel_on_disconnect(self) -> bool: ...

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may take."""

    def __call__(self, request: Request, steps: Steps) -> Coroutine[Any, Any, Response]: ...


class AppLifetime:
    """The app's nursery, from the start of its lifespan to the end of its last task.

    `reports`: whether its end is a shutdown, of which the log is told.
    """

    def __init__(
        self, runner: TaskRunner, grace: Grace, *, drain_timeout: float, reports: bool = True
    ) -> None:
        self.draining = trio.Event()
        self.is_open = False
        self.runner = runner
        self.ledger: Ledger[BackgroundTask] = runner.ledger
        self.grace = grace
        self.drain_timeout = drain_timeout
        self.departures = DepartureWatch()
        self._reports = reports
        # How many tasks run in our nursery, and calls that wait for one of them.
        self._ours = 0
        self._beside: set[Request] = set()
        # What is answered in the server's calls; where it can be cancelled, by what.
        self._inline: dict[Request, InlineCall | None] = {}
        self._inline_steps = Steps(grace)
        self._closing: Closing | None = None
        self._landed: trio.Event | None = None  # made while somebody waits for one to land

    @property
    def _in_flight(self) -> int:
        return self._ours + len(self._inline)

    @asynccontextmanager
    @enable_ki_protection
    async def open(self) -> AsyncIterator[None]:
        """Requests are served within; leaving drains, and reports in one log record.

        Past the drain timeout what is left is cancelled, and has the cleanup
        timeout.  Cancellation, or an error within, skips to cancelling.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                self._starter = Starter(self._nursery)
                self.is_open = True
                try:
                    yield
                    await self._drain()
                except BaseException:
                    self.is_open = False
                    await self._cancel_what_is_left()
                    raise
                finally:
                    self.is_open = False
        finally:
            if self._closing is not None:
                self._closing.report()

    async def _drain(self) -> None:
        scope = self._nursery.cancel_scope
        scope.deadline = trio.current_time() + self.drain_timeout
        self.grace.end_at(scope.deadline + self.grace.seconds)
        self._begin_closing()
        while self._in_flight:
            await self._wait_for_landing()
        self.departures.stop()

    def _begin_closing(self) -> None:
        if not self.draining.is_set():
            self.draining.set()
            if self._reports:
                self._closing = Closing(self.ledger)

    async def _cancel_what_is_left(self) -> None:
        """Cancel all that is in flight; returns when it has cleaned up.

        As a nursery does, it waits for what is ours however long that takes: nobody
        but the process can end what is behind a shield.
        """
        self._begin_closing()
        self.grace.begin()
        self._nursery.cancel_scope.cancel()
        for call in self._inline.values():
            if call is not None:
                call.cancel(HTTPException(503, "The server is shutting down"))
        with trio.CancelScope(shield=True):
            await self._wait_until_landed(self.grace.end + _limits.LANDING_TIME)
            for request in self._inline:
                where = describe(request.scope)
                logger.error("the server still runs %s, past the end of the app", where)
                request._end_tasks()
            await self._name_offenders()

    async def _wait_until_landed(self, deadline: float) -> None:
        with trio.CancelScope(deadline=deadline):
            while self._in_flight:
                await self._wait_for_landing()

    async def _name_offenders(self) -> None:
        """Say who holds the shutdown up, every so often, until nobody does."""
        while self._ours:
            for offender in self._offenders():
                logger.error("%s is past the cleanup timeout: still waiting for it", offender)
            with trio.move_on_after(_limits.OFFENDER_INTERVAL):
                while self._ours:
                    await self._wait_for_landing()

    def _offenders(self) -> list[str]:
        tasks = [f"task {task.name} of {task.request}" for task in self.ledger.running()]
        told = [
            f"on_task_error for task {task.name} of {task.request}"
            for task in self.ledger.reported()
        ]
        return tasks + told + [describe(request.scope) for request in self._beside]

    async def _wait_for_landing(self) -> None:
        if self._landed is None:
            self._landed = trio.Event()
        await self._landed.wait()

    @enable_ki_protection
    async def serve(
        self, request: Request, send: Send, endpoint: Endpoint, error_response: ErrorResponse
    ) -> None:
        """Answer one request; returns when the response is over, while its tasks may go on.

        Cancellation: a handler that hasn't returned is cancelled, and has the
        cleanup timeout; the tasks of one that has returned go on.
        """
        request._grace = self.grace
        request._ledger = self.ledger
        if not endpoint.inline:
            await self._serve_beside(request, send, endpoint, error_response)
            return
        self._inline[request] = None
        try:
            # What it writes to contextvars nobody else sees.
            call = self._answer_inline(request, send, endpoint, error_response)
            rest = begin_in(contextvars.copy_context(), call)
            if rest is not None:
                await rest
        finally:
            if not request._end_if_idle():
                if self.is_open:
                    self._start_tasks(request)
                else:
                    request._end_tasks()
            del self._inline[request]
            self._tell_of_landing()

    async def _serve_beside(
        self, request: Request, send: Send, endpoint: Endpoint, error_response: ErrorResponse
    ) -> None:
        life = Life(self, request, send, endpoint, error_response)
        self._ours += 2  # this call, and the task that it waits for
        self._nursery.start_soon(self._run_beside, life, request)
        try:
            await life.wait_responded()
        finally:
            self._land()

    @enable_ki_protection
    async def _run_beside(self, life: Life, request: Request) -> None:
        scopes = Scopes()
        self._beside.add(request)
        try:
            await life.run()
        except BaseException as exc:
            _contain(exc, scopes)
        finally:
            self._beside.discard(request)
            self._land()

    async def _answer_inline(
        self, request: Request, send: Send, endpoint: Endpoint, error_response: ErrorResponse
    ) -> None:
        call: InlineCall | None = None
        try:
            if endpoint.waits or (endpoint.reads_body and not request._has_body_at_once()):
                call = self._inline[request] = InlineCall()
                await self._answer_waiting(call, request, send, endpoint)
                return
            # It can't be cancelled, so it is spared the scope: that costs half a request.
            response = await endpoint(request, self._inline_steps)
        except BaseException as exc:
            if call is not None and not call.is_answering:
                raise
            request._fail()
            with self._inline_scope(request, call):
                response = await error_response(request, _errors.strays_as_failure(exc), None)
                await deliver(response, request, send)
            return
        if response.streams or len(response.body or b"") >= _limits.LARGE_RESPONSE:
            with self._inline_scope(request):
                await deliver(response, request, send)
        else:
            # What the server does with the bytes is its own: it is named, past the end.
            await deliver(response, request, send)

    async def _answer_waiting(
        self, call: InlineCall, request: Request, send: Send, endpoint: Endpoint
    ) -> None:
        if endpoint.timeout is not None:
            call.scope.deadline = trio.current_time() + endpoint.timeout
        with call.scope:
            with self.watch(request, endpoint, call.leave):
                response = await endpoint(request, self._inline_steps)
            if call.scope.cancel_called:
                # It outlasted its cancellation: it is cancelled all the same.
                await response.close(request)
            else:
                call.is_answering = False
                call.scope.deadline = math.inf
                await deliver(response, request, send)
        if call.is_answering:
            raise call.reason or _too_slow(endpoint)

    def _inline_scope(
        self, request: Request, cancelled: InlineCall | None = None
    ) -> trio.CancelScope:
        """What the rest of an inline answer runs in; of one that was cancelled, for as long
        as the app waits for it."""
        call = self._inline[request] = InlineCall()
        was_cancelled = cancelled is not None and cancelled.reason is not None
        if was_cancelled and trio.current_time() < self.grace.end:
            call.scope.deadline = self.grace.end
        return call.scope

    def watch(
        self, request: Request, endpoint: Endpoint, leave: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Call `leave` when the client leaves while the handler runs, if it is one for that."""
        if endpoint.cancel_on_disconnect:
            return self.departures.over(request, self._nursery, leave)
        return nullcontext()

    async def run_tasks(self, request: Request, grace: Grace) -> None:
        """Run the request's task list to its end, those that join meanwhile included."""
        try:
            if not request._end_if_idle():
                nursery = request._nursery or self._nursery
                running = self.runner.run(
                    request.tasks, Where(request.scope), grace, nursery, request._outcomes
                )
                if request._nursery is None:
                    await running
                else:
                    with _heard_of(request._nursery, grace):
                        await running
        finally:
            request._end_tasks()

    def _start_tasks(self, request: Request) -> None:
        """Run its tasks, soon, without keeping of the request what they can't have a part of.

        But what the handler put into its state lives as long as they do: a temporary file, say.
        """
        where = Where(request.scope)
        self._ours += 1
        self._starter.start_soon(
            self._begin_tasks, request.tasks, where, request._outcomes, request._state
        )

    def _begin_tasks(
        self, tasks: BackgroundTasks, where: Where, outcomes: frozenset[When], state: State | None
    ) -> Coroutine[Any, Any, None] | None:
        """Run a request's tasks up to one that waits; what is left, if anything is."""
        run = None
        try:
            run = self.runner.begin(tasks, where, outcomes)
        except BaseException as exc:
            tasks._end(where)
            _errors.raise_rest(exc, _log_internal_error)
        finally:
            if run is None:
                self._land()
        return None if run is None else self._finish_tasks(tasks, where, run, state)

    async def _finish_tasks(
        self, tasks: BackgroundTasks, where: Where, run: TaskRun, state: State | None
    ) -> None:
        try:
            await run.finish(self.grace.part(), self._nursery)
        except BaseException as exc:
            _contain(exc, run.scopes)
        finally:
            tasks._end(where)
            self._land()

    def _land(self) -> None:
        self._ours -= 1
        self._tell_of_landing()

    def _tell_of_landing(self) -> None:
        if self._landed is not None:
            self._landed.set()
            self._landed = None


def _contain(exc: BaseException, scopes: Scopes) -> None:
    """Let through what ends the app: its own cancellation, by these `scopes`, and Ctrl-C."""
    exc = _errors.strays_as_failure(exc, scopes.task, scopes.are_cancelled)
    _errors.raise_rest(exc, _log_internal_error)


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


class Phase(enum.Enum):
    """How far a request is, and what a cancellation of the server's call does to it."""

    ANSWERING = enum.auto()  # the handler is cancelled, and has the cleanup time
    LEAVING = enum.auto()  # it has returned: its exits have the cleanup time
    SENDING = enum.auto()  # only the sending is cancelled
    FAILING = enum.auto()  # the exception handler or its sending is, with the cleanup time
    OVER = enum.auto()  # nothing is


class Life:
    """One request on a task of its own in the app's nursery."""

    def __init__(
        self,
        app: AppLifetime,
        request: Request,
        send: Send,
        endpoint: Endpoint,
        error_response: ErrorResponse,
    ) -> None:
        self._app = app
        self._request = request
        self._send = send
        self._endpoint = endpoint
        self._error_response = error_response
        self._steps = Steps(app.grace.part())
        self._phase = Phase.ANSWERING
        self._answering = trio.CancelScope()
        self._sending = trio.CancelScope()
        self._failing = trio.CancelScope()
        self._call_is_cancelled = False
        self._client_has_left = False
        self._responded = trio.Event()

    async def wait_responded(self) -> None:
        """Returns when the server's call may.  Cancellation cancels what `serve` says."""
        try:
            await self._responded.wait()
            # The app's end and the call's may come at once: then both are heard of.
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            self._cancel()
            with trio.move_on_after(self._app.grace.seconds, shield=True):
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
            self._steps.grace.begin()

    def _leave(self) -> None:
        self._client_has_left = True
        self._answering.cancel()
        self._steps.grace.begin()

    async def run(self) -> None:
        try:
            await self._live()
        finally:
            if self._phase is Phase.ANSWERING:
                self._request._fail()
            self._phase = Phase.OVER
            self._request._end_tasks()
            self._responded.set()

    async def _live(self) -> None:
        trio_task = trio.lowlevel.current_task()
        try:
            with self._answering:
                await self._within_nursery()
            if not (self._request._answered or self._call_is_cancelled):
                raise self._why_unanswered()
        except BaseException as exc:
            await self._fail(_errors.strays_as_failure(exc, trio_task))
        if self._call_is_cancelled and self._phase is Phase.ANSWERING:
            # Nobody is there to answer, but the handler failed like any other.
            self._request._fail()
            await self._run_tasks()

    def _why_unanswered(self) -> Exception:
        if self._client_has_left:
            return ClientDisconnect()
        if self._answering.cancelled_caught:
            return _too_slow(self._endpoint)
        return RuntimeError("the request's nursery was cancelled before it was answered")

    async def _within_nursery(self) -> None:
        if self._endpoint.needs_nursery:
            try:
                async with trio.open_nursery() as self._request._nursery:
                    await self._within_dependencies()
            finally:
                self._request._nursery = None
        else:
            await self._within_dependencies()

    async def _within_dependencies(self) -> None:
        async with Exits(self._steps, "request"):
            await self._respond()
            await self._run_tasks()

    async def _respond(self) -> None:
        try:
            async with Exits(self._steps, "response"):
                response = await self._call_endpoint()
                self._phase = Phase.SENDING
                if self._call_is_cancelled:
                    self._sending.cancel()
                with self._sending:
                    if await response.send(self._request, self._send):
                        self._request._add_outcome("sent")
        except BaseException as exc:
            if self._phase is not Phase.SENDING or not _errors.is_failure(exc):
                raise
            _fail_late(self._request, exc)

    async def _call_endpoint(self) -> Response:
        response = None
        try:
            async with Exits(self._steps, "function"):
                if self._endpoint.timeout is not None:
                    self._answering.deadline = trio.current_time() + self._endpoint.timeout
                with self._app.watch(self._request, self._endpoint, self._leave):
                    response = await self._endpoint(self._request, self._steps)
                if self._answering.cancel_called:
                    # The handler outlasted its cancellation: it is cancelled all the same.
                    await trio.lowlevel.checkpoint()
                self._answering.deadline = math.inf
                self._phase = Phase.LEAVING
        except BaseException:
            self._phase = Phase.ANSWERING
            if response is not None:
                await response.close(self._request)
            raise
        return response

    async def _run_tasks(self) -> None:
        """The tasks, and time of their own to clean up, whatever became of the call."""
        self._phase = Phase.OVER
        self._responded.set()
        self._renew_grace()
        try:
            await self._app.run_tasks(self._request, self._steps.grace)
        finally:
            if self._request._tasks is not None:
                # Back from the tasks' contexts to our own, which takes a checkpoint.
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _renew_grace(self) -> None:
        self._steps.grace = self._request._grace = self._app.grace.part()

    async def _fail(self, exc: BaseException) -> None:
        """Answer for what the steps raised; what is no failure goes on."""
        is_too_late = self._request._answered or self._call_is_cancelled
        has_returned = self._phase is not Phase.ANSWERING and not _errors.is_failure(exc)
        if is_too_late or has_returned:
            _errors.raise_rest(exc, functools.partial(log_late_failure, self._request))
            return
        self._request._fail()
        self._phase = Phase.FAILING
        self._renew_grace()
        with self._failing:
            response = await self._error_response(self._request, exc, self._steps.grace)
            await deliver(response, self._request, self._send)
        await self._run_tasks()


async def deliver(response: Response, request: Request, send: Send) -> None:
    """Send a response; a failure on the way can't be answered any more, so it is logged."""
    try:
        # Nothing is left after this that might ask for a list first.
        if await response.send(request, send) and request._tasks is not None:
            request._add_outcome("sent")
    except BaseException as exc:
        _errors.raise_rest(exc, functools.partial(_fail_late, request))


def _fail_late(request: Request, failure: BaseException) -> None:
    request._add_outcome("error")
    log_late_failure(request, failure)


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


def _too_slow(endpoint: Endpoint) -> HTTPException:
    return HTTPException(503, f"The handler took longer than {endpoint.timeout:g} s")


def log_late_failure(request: Request, failure: BaseException) -> None:
    logger.error("%s failed too late to be answered", describe(request.scope), exc_info=failure)


def _log_internal_error(failure: BaseException) -> None:
    logger.critical("a bug in trioweb, please report it", exc_info=failure)
