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
* An endpoint that is `inline` has nothing to leave: it runs in the server's
  call, and only its tasks, if it added any, get a task in the app's nursery.
  The steps are the same; nobody can tell but by the clock.
* Shutdown is one deadline for draining and one, in `Grace`, for cleaning up.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Literal, Protocol, TypeVar

import trio

from . import _errors
from ._background import TaskErrorHandler, TaskRunner
from ._errors import HTTPException
from ._grace import Grace
from ._limits import Limits
from ._markers import DependencyScope
from ._request import Request, Send, describe
from ._response import Response

logger = logging.getLogger("trioweb")

T = TypeVar("T")

# Makes the response for what a handler raised; raises only what is no failure.
ErrorResponse = Callable[[Request, BaseException, Grace], Awaitable[Response]]


class Endpoint(Protocol):
    """A handler with everything it needs: one call makes its response."""

    @property
    def inline(self) -> bool: ...

    @property
    def needs_nursery(self) -> bool: ...

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may take."""

    async def __call__(self, request: Request, steps: Steps) -> Response: ...


class AppLifetime:
    """The app's nursery, from the start of its lifespan to the end of its last task."""

    def __init__(
        self,
        *,
        drain_timeout: float,
        cleanup_timeout: float,
        limits: Limits,
        task_error_handlers: Sequence[TaskErrorHandler] = (),
    ) -> None:
        self.draining = trio.Event()
        self.grace = Grace(cleanup_timeout)
        self.is_open = False
        self._drain_timeout = drain_timeout
        self._max_pending_tasks = limits.max_pending_tasks
        self._runner = TaskRunner(
            max_threads=limits.max_task_threads,
            max_running=limits.max_running_tasks,
            error_handlers=task_error_handlers,
        )
        self.ledger = self._runner.ledger
        self._in_flight = 0
        self._all_landed: trio.Event | None = None  # made when the drain waits for it
        self._inline_steps = Steps(self.grace)

    @property
    def is_full(self) -> bool:
        """Whether so many tasks wait that no request may add more."""
        return self.ledger.pending >= self._max_pending_tasks

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Requests are served within; leaving drains.

        Past the drain timeout what is left is cancelled, and has the cleanup
        timeout.  Cancellation, or an error within, skips to cancelling.
        """
        async with trio.open_nursery() as self._nursery:
            self.is_open = True
            try:
                yield
                await self._drain(self._nursery.cancel_scope)
            except BaseException:
                self.grace.begin()
                raise
            finally:
                self.draining.set()
                self.is_open = False

    async def _drain(self, scope: trio.CancelScope) -> None:
        self.draining.set()
        scope.deadline = trio.current_time() + self._drain_timeout
        self.grace.end_at(scope.deadline + self.grace.seconds)
        if self._in_flight:
            self._all_landed = trio.Event()
            await self._all_landed.wait()

    async def serve(
        self, request: Request, send: Send, endpoint: Endpoint, error_response: ErrorResponse
    ) -> None:
        """Answer one request; returns when the response is over, while its tasks may go on.

        Cancellation: a handler that hasn't returned is cancelled, and has the
        cleanup timeout; the tasks of one that has returned go on.
        """
        self._in_flight += 1
        request._grace = self.grace
        request._ledger = self.ledger
        try:
            if endpoint.inline:
                await self._serve_inline(request, send, endpoint, error_response)
            else:
                life = Life(self, request, send, endpoint, error_response)
                self._start(life.run)
                await life.wait_responded()
        finally:
            self._land()

    async def _serve_inline(
        self, request: Request, send: Send, endpoint: Endpoint, error_response: ErrorResponse
    ) -> None:
        try:
            try:
                response = await self._call_inline(request, endpoint)
            except BaseException as exc:
                request._fail()
                response = await error_response(request, exc, self.grace)
            await deliver(response, request, send)
        finally:
            if request._has_tasks() and self.is_open:
                self._start(self.run_tasks, request, Grace(self.grace.seconds, self.grace))
            else:
                request._end_tasks()

    async def _call_inline(self, request: Request, endpoint: Endpoint) -> Response:
        if endpoint.timeout is None:
            return await endpoint(request, self._inline_steps)
        with trio.move_on_after(endpoint.timeout):
            return await endpoint(request, self._inline_steps)
        raise _too_slow(endpoint)

    async def run_tasks(self, request: Request, grace: Grace) -> None:
        """Run the request's task list to its end, those that join meanwhile included."""
        if request._has_tasks():
            nursery = request._nursery or self._nursery
            where = describe(request.scope)
            await self._runner.run(request.tasks, where, grace, nursery, request._outcomes)
        request._end_tasks()

    def _start(self, run: Callable[..., Awaitable[None]], *args: object) -> None:
        self._in_flight += 1
        self._nursery.start_soon(self._run, run, args)

    async def _run(self, run: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
        try:
            await run(*args)
        except BaseException as exc:
            # Whatever it is, it mustn't take the app's other requests with it.
            _errors.raise_rest(exc, _log_internal_error)
        finally:
            self._land()

    def _land(self) -> None:
        self._in_flight -= 1
        if self._all_landed is not None and not self._in_flight:
            self._all_landed.set()


class Steps:
    """What a request has entered, to be left at one of three steps of its life."""

    def __init__(self, grace: Grace) -> None:
        self.grace = grace
        self.exits: dict[DependencyScope, Exits] = {}

    async def enter(
        self, scope: DependencyScope, manager: AbstractAsyncContextManager[T], name: str
    ) -> T:
        """Enter a generator dependency; it is left at the step that `scope` names."""
        return await self.exits[scope].enter(manager, name)


class Exits(AsyncExitStack):
    """Generator dependencies of one scope, left in reverse on the task that entered them.

    Each sees the exception that leaves the handler and may raise another one
    instead, but can't swallow it: there would be no response.  Leaving is
    sheltered from cancellation, up to the end of the cleanup time.
    """

    def __init__(self, steps: Steps, scope: DependencyScope) -> None:
        super().__init__()
        self._grace = steps.grace
        steps.exits[scope] = self

    async def enter(self, manager: AbstractAsyncContextManager[T], name: str) -> T:
        # What shelters the exit is open from before the entry: scopes nest, and the
        # dependency may hold some of its own, or a nursery, open in between.
        shelter = self.enter_context(trio.CancelScope())
        value = await manager.__aenter__()
        self.push_async_exit(functools.partial(self._leave, shelter, manager, name))
        return value

    async def _leave(
        self,
        shelter: trio.CancelScope,
        manager: AbstractAsyncContextManager[object],
        name: str,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        if exc is not None and not _errors.is_failure(exc):
            self._grace.begin()
        leave = functools.partial(manager.__aexit__, kind, exc, traceback)
        if not await self._grace.clean_up(shelter, leave):
            logger.error("dependency %s didn't close within the cleanup timeout", name)
        return False


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
        self._steps = self._new_steps()
        self._responded = trio.Event()
        self._returned = False
        # What a cancellation of the server's call reaches: the handler, and
        # once that has returned only the sending of its response.
        self._answering = trio.CancelScope()
        self._sending = trio.CancelScope()
        self._call_is_cancelled = False

    def _new_steps(self) -> Steps:
        self._request._grace = Grace(self._app.grace.seconds, self._app.grace)
        return Steps(self._request._grace)

    async def wait_responded(self) -> None:
        """Returns when the server's call may.  Cancellation cancels what `serve` says."""
        try:
            await self._responded.wait()
        except trio.Cancelled:
            self._cancel()
            with trio.move_on_after(self._steps.grace.seconds, shield=True):
                await self._responded.wait()
            raise

    def _cancel(self) -> None:
        self._call_is_cancelled = True
        if self._returned:
            self._sending.cancel()
        else:
            self._answering.cancel()
            self._steps.grace.begin()

    async def run(self) -> None:
        try:
            with self._answering:
                await self._within_nursery()
            if self._answering.cancelled_caught and not self._call_is_cancelled:
                await self._fail(_too_slow(self._endpoint))
        except BaseException as exc:
            await self._fail(exc)
        finally:
            if not self._returned:
                self._request._fail()
            self._request._end_tasks()
            self._responded.set()

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
            self._responded.set()
            await self._app.run_tasks(self._request, self._steps.grace)

    async def _respond(self) -> None:
        try:
            async with Exits(self._steps, "response"):
                response = await self._call_endpoint()
                self._returned = True
                with self._sending:
                    if await response.send(self._request, self._send):
                        self._request._add_outcome("sent")
        except BaseException as exc:
            if not (self._returned and _errors.is_failure(exc)):
                raise
            self._request._add_outcome("error")
            log_late_failure(self._request, exc)

    async def _call_endpoint(self) -> Response:
        response = None
        try:
            async with Exits(self._steps, "function"):
                if self._endpoint.timeout is not None:
                    self._answering.deadline = trio.current_time() + self._endpoint.timeout
                response = await self._endpoint(self._request, self._steps)
                self._answering.deadline = math.inf
                if self._answering.cancel_called:
                    # The handler outlasted its cancellation: it is cancelled all the same.
                    await trio.lowlevel.checkpoint()
        except BaseException:
            if response is not None:
                await response.close(self._request)
            raise
        return response

    async def _fail(self, exc: BaseException) -> None:
        """Answer for what the steps raised; what is no failure goes on."""
        if self._request._answered:
            _errors.raise_rest(exc, functools.partial(log_late_failure, self._request))
            return
        self._request._fail()
        # The cleanup may have used its time up; what follows is no cleanup.
        self._steps = self._new_steps()
        response = await self._error_response(self._request, exc, self._steps.grace)
        await deliver(response, self._request, self._send)
        self._responded.set()
        await self._app.run_tasks(self._request, self._steps.grace)


@asynccontextmanager
async def sheltered_exit(
    manager: AbstractAsyncContextManager[T], seconds: float
) -> AsyncIterator[T]:
    """`async with manager`, whose exit has so many `seconds` where it is left by cancellation."""
    value = await manager.__aenter__()
    try:
        yield value
    except BaseException as exc:
        with trio.move_on_after(seconds, shield=True):
            await manager.__aexit__(type(exc), exc, exc.__traceback__)
        raise
    await manager.__aexit__(None, None, None)


async def deliver(response: Response, request: Request, send: Send) -> None:
    """Send a response; a failure on the way can't be answered any more, so it is logged."""
    try:
        if await response.send(request, send):
            request._add_outcome("sent")
    except BaseException as exc:
        request._add_outcome("error")
        _errors.raise_rest(exc, functools.partial(log_late_failure, request))


def _too_slow(endpoint: Endpoint) -> HTTPException:
    return HTTPException(503, f"The handler took longer than {endpoint.timeout:g} s")


def log_late_failure(request: Request, failure: BaseException) -> None:
    logger.error("%s failed after its response began", describe(request.scope), exc_info=failure)


def _log_internal_error(failure: BaseException) -> None:
    logger.critical("a bug in trioweb, please report it", exc_info=failure)
