"""The app: a thin roof over routes, lifetimes and errors, and the door for ASGI.

Rules of this module:

* It decides who answers; how is decided below.
* Every failure of a request becomes a response or a log record, exactly once;
  cancellation and Ctrl-C go through.
* Source for the messages: the ASGI specification, HTTP 2.5 and Lifespan 2.0.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import msgspec
import trio
from trio.lowlevel import disable_ki_protection

from .. import _callables, _errors, _limits
from .._asgi import Message, Receive, Scope, Send
from .._concurrency.exits import Steps, sheltered
from .._concurrency.grace import Grace, RunSync
from .._errors import ClientDisconnect, HTTPException, RegistrationError, RequestValidationError
from .._http.paths import below_root, origin_form
from .._http.request import Request, State, describe
from .._http.response import JSONResponse, Response
from .._inject.calls import in_thread
from .._inject.plan import Plan
from .._lifetime.app import AppLifetime, Endpoint
from .._routing.matcher import Matcher
from .._routing.router import H, Route, Router
from .._routing.templates import Template
from .._tasks.ledger import TaskStatistics
from .._tasks.runner import BackgroundTask, TaskErrorHandler, TaskRunner
from .debug import debug_response
from .limits import Limits

logger = logging.getLogger("trioweb")

E = TypeVar("E", bound=BaseException)
ExceptionHandler = Callable[[Request, Any], Any]
Lifespan = Callable[["App"], AbstractAsyncContextManager[Mapping[str, Any] | None]]

_TRY_LATER = {"retry-after": "1"}
_TRY_ELSEWHERE = {"connection": "close", "retry-after": "1"}
_WRONG_LOOP = (
    "trioweb runs on Trio, but this server runs the app on asyncio; "
    "start it with: hypercorn -k trio MODULE:APP"
)


class App(Router):
    """An ASGI application.

    `lifespan` is an async context manager that takes the app and may yield a
    mapping, which every `request.state` begins with; it closes after the last
    task.  `debug` answers errors with their traceback.  Shutdown waits
    `drain_timeout` seconds for requests and tasks, then cancels them and gives
    them `cleanup_timeout` seconds.
    """

    def __init__(
        self,
        *,
        lifespan: Lifespan | None = None,
        debug: bool = False,
        limits: Limits | None = None,
        drain_timeout: float = _limits.DRAIN_TIMEOUT,
        cleanup_timeout: float = _limits.CLEANUP_TIMEOUT,
    ) -> None:
        super().__init__()
        self.state: State = State()
        self.debug = debug
        self.limits: Limits = _checked_limits(limits)
        self._lifespan = _no_lifespan if lifespan is None else _checked_lifespan(lifespan)
        self._drain_timeout = _checked_seconds("drain_timeout", drain_timeout)
        self._cleanup_timeout = _checked_seconds("cleanup_timeout", cleanup_timeout)
        self._matcher: Matcher[_Target] = Matcher()
        self._templates: dict[str, list[Template]] = {}
        self._exception_handlers: dict[type[BaseException], ExceptionHandler] = {
            HTTPException: _http_exception,
            RequestValidationError: _validation_error,
            ClientDisconnect: _client_disconnect,
        }
        self._task_error_handlers: list[TaskErrorHandler] = []
        # For tests: who hears of failures besides, and what runs plain functions.
        self._task_error_listeners: list[Callable[[BackgroundTask, BaseException], None]] = []
        self._run_sync: RunSync = trio.to_thread.run_sync
        self._yielded: dict[str, Any] = {}
        self._lifetime = self._new_lifetime()
        self._has_lifespan = False  # from before its startup until it has closed

    @property
    def draining(self) -> trio.Event:
        """Set when the shutdown begins."""
        return self._lifetime.draining

    def url_for(self, name: str, /, **path_params: Any) -> str:
        """The path of the route with this name.  Raises LookupError where there is none."""
        templates = self._templates.get(name, [])
        for template in templates:
            if template.parameters.keys() == path_params.keys():
                return template.fill(**path_params)
        known = [template.text for template in templates] or sorted(self._templates)
        raise LookupError(
            f"no route {name!r} with parameters {sorted(path_params)}; known: {known}"
        )

    def exception_handler(self, exception: type[E]) -> Callable[[H], H]:
        """Register `(request, exc) -> response` for an exception class and its subclasses.

        What it returns is sent as a handler's return value would be, with the
        status of an `HTTPException`, or 500.  The closest class in the
        exception's MRO wins.
        """
        if not (isinstance(exception, type) and issubclass(exception, BaseException)):
            raise RegistrationError(
                "exception_handler takes an exception class",
                wrong=f"@app.exception_handler({exception!r})",
                right="@app.exception_handler(LookupError)",
            )

        def register(handler: H) -> H:
            self._exception_handlers[exception] = handler
            return handler

        return register

    def on_task_error(self, handler: H) -> H:
        """Register `(task, exc)` to hear of tasks that fail, in place of the log.

        It runs where the task ran, before the next one of its list.  A cancellation
        leaves it the cleanup time, so it hears of tasks that fail as they are cancelled.
        """
        if not callable(handler):
            raise RegistrationError(
                "on_task_error takes a function",
                wrong=f"@app.on_task_error({handler!r})",
                right="@app.on_task_error above def report(task, exc): ...",
            )
        self._task_error_handlers.append(handler)
        return handler

    def statistics(self) -> TaskStatistics:
        """How many tasks are in which state since the app started; the counts add up."""
        return self._lifetime.ledger.statistics()

    def tasks(self) -> list[BackgroundTask]:
        """The tasks that run now, those that began first in front."""
        return self._lifetime.ledger.running()

    def _register(self, route: Route) -> None:
        template, plan = route.compile()
        self._matcher.add(template, route.methods, _Target(plan, route.max_body_size))
        self._templates.setdefault(route.name, []).append(template)
        super()._register(route)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application; only servers call it.

        They agree on ASGI's messages, but each has types of its own for them.
        """
        if scope["type"] == "http" and self._lifetime.is_open:
            await self._answer(self._lifetime, scope, receive, send)
        elif not trio.lowlevel.in_trio_run():
            await _refuse_asyncio(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve_outside_lifespan(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._run_lifespan(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})  # a 403 to the client
        else:
            raise NotImplementedError(f"trioweb doesn't speak ASGI's {scope['type']!r}")

    async def _serve_outside_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """After the lifespan nothing is served; where there is none, its nursery is this call's."""
        lifetime = self._lifetime
        if lifetime.draining.is_set():
            await self._answer(lifetime, scope, receive, send)
            return
        # The tasks of all such calls share the limits and the ledger of the app.
        grace = Grace(self._cleanup_timeout, self._run_sync)
        lifetime = AppLifetime(lifetime.runner, grace, drain_timeout=math.inf, reports=False)
        async with lifetime.open():
            await self._answer(lifetime, scope, receive, send)

    def _answer(
        self, lifetime: AppLifetime, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        if self._yielded:
            scope.setdefault("state", dict(self._yielded))
        request = Request(scope, receive, self, self.limits.max_body_size)
        endpoint: Endpoint
        try:
            endpoint = self._find(request, lifetime)
        except HTTPException as exc:
            endpoint = _Refusal(exc.status_code, exc.detail, exc.headers)
        return lifetime.serve(request, send, endpoint, self._error_response)

    def _find(self, request: Request, lifetime: AppLifetime) -> Plan:
        if lifetime.draining.is_set():
            raise HTTPException(503, "The server is shutting down", _TRY_ELSEWHERE)
        if lifetime.ledger.pending >= self.limits.max_pending_tasks:
            raise HTTPException(503, "Too many background tasks wait", _TRY_LATER)
        target, request.path_params = self._matcher.match(
            request.scope["method"], *_path_below_root(request.scope)
        )
        if target.max_body_size is not None:
            request.max_body_size = target.max_body_size
        return target.plan

    async def _error_response(
        self, request: Request, exc: BaseException, grace: Grace | None
    ) -> Response:
        """The response for what a handler raised; what is no failure goes on."""
        log = functools.partial(_log_failure, request)
        if not _errors.is_failure(exc):
            _errors.raise_rest(exc, log)
        chosen, others = _errors.select(exc, self._has_handler_of_its_own)
        if others is not None:
            log(others)
        handler = self._handler_for(chosen)
        if handler is None:
            log(chosen)
            return self._server_error(request, chosen)
        try:
            response = await self._handled(handler, request, chosen, grace)
            response.hand_over_tasks(request)
            return response
        except BaseException as broken:
            broken = _errors.strays_as_failure(broken)
            _errors.raise_rest(broken, log)
            return self._server_error(request, broken)

    @disable_ki_protection
    async def _handled(
        self, handler: ExceptionHandler, request: Request, exc: BaseException, grace: Grace | None
    ) -> Response:
        call = functools.partial(handler, request, exc)
        if _callables.is_async(handler):
            result = await call()
        elif grace is not None:
            result = await in_thread(call, grace)
        else:
            # In the server's call, where nobody says when cleanup has to be over.
            result = await self._run_sync(call, abandon_on_cancel=True)
        if isinstance(result, Response):
            return result
        return JSONResponse(result, getattr(exc, "status_code", 500))

    def _server_error(self, request: Request, exc: BaseException) -> Response:
        if self.debug:
            return debug_response(request, exc)
        return JSONResponse({"detail": _errors.phrase(500)}, 500)

    def _handler_for(self, exc: BaseException) -> ExceptionHandler | None:
        handlers = self._exception_handlers
        return next((handlers[kind] for kind in type(exc).__mro__ if kind in handlers), None)

    def _has_handler_of_its_own(self, exc: BaseException) -> bool:
        handlers = self._exception_handlers
        catch_alls = (Exception, BaseException)
        return any(kind in handlers and kind not in catch_alls for kind in type(exc).__mro__)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        phase = "startup"
        try:
            with self._next_lifetime(scope.get("drain_timeout")) as lifetime:
                manager = self._lifespan(self)
                async with sheltered(manager, "the lifespan", self._cleanup_timeout) as yielded:
                    self._yielded = dict(yielded or {})
                    scope.get("state", {}).update(self._yielded)
                    async with lifetime.open():
                        await send(self._startup_complete())
                        phase = "shutdown"
                        await receive()  # lifespan.shutdown
        except BaseException as exc:
            _errors.raise_rest(exc, functools.partial(_log_lifespan_failure, phase))
            await send({"type": f"lifespan.{phase}.failed", "message": _errors.describe(exc)})
            return
        await send({"type": "lifespan.shutdown.complete"})

    def _startup_complete(self) -> Message:
        """With the times that a shutdown takes, and the limits, for a server that heeds them.

        It needn't drain by itself, then; and middleware hides neither.
        """
        return {
            "type": "lifespan.startup.complete",
            "drain_timeout": self._lifetime.drain_timeout,
            "cleanup_timeout": self._cleanup_timeout,
            "limits": self.limits,
        }

    @contextmanager
    def _next_lifetime(self, drain_timeout: float | None) -> Iterator[AppLifetime]:
        """`drain_timeout`: what the server was told, if it was told any."""
        if self._has_lifespan:
            raise RuntimeError("this app is being served already; one App has one lifespan")
        self._has_lifespan = True
        self._lifetime = lifetime = self._new_lifetime(drain_timeout)
        try:
            yield lifetime
        finally:
            self._has_lifespan = False

    def _new_lifetime(self, drain_timeout: float | None = None) -> AppLifetime:
        runner = TaskRunner(
            max_threads=self.limits.max_task_threads,
            max_running=self.limits.max_running_tasks,
            error_handlers=self._task_error_handlers,
            error_listeners=self._task_error_listeners,
        )
        grace = Grace(self._cleanup_timeout, self._run_sync)
        if drain_timeout is None:
            drain_timeout = self._drain_timeout
        return AppLifetime(runner, grace, drain_timeout=drain_timeout)


class _Target(msgspec.Struct, frozen=True):
    """What the matcher finds."""

    plan: Plan
    max_body_size: int | None


class _Refusal(msgspec.Struct, frozen=True):
    """In an endpoint's place where there is none: 404, 405, 503."""

    status_code: int
    detail: Any
    headers: dict[str, str]
    inline = True
    needs_nursery = False
    waits = False
    reads_body = False
    cancel_on_disconnect = False
    timeout = None

    async def __call__(self, request: Request, steps: Steps) -> Response:
        # Not the one that the matcher raised: with a traceback it would keep itself alive.
        raise HTTPException(self.status_code, self.detail, self.headers)


async def _http_exception(request: Request, exc: HTTPException) -> Response:
    if exc.status_code in (204, 304):
        return Response(None, exc.status_code, exc.headers)
    return JSONResponse({"detail": exc.detail}, exc.status_code, exc.headers)


async def _validation_error(request: Request, exc: RequestValidationError) -> Response:
    return JSONResponse({"detail": exc.errors()}, 422)


async def _client_disconnect(request: Request, exc: ClientDisconnect) -> Response:
    """For the record only: nobody is there to read it."""
    return Response(None, 400)


def _log_failure(request: Request, failure: BaseException) -> None:
    logger.error("%s failed", describe(request.scope), exc_info=failure)


def _log_lifespan_failure(phase: str, failure: BaseException) -> None:
    logger.error("the lifespan failed at %s", phase, exc_info=failure)


def _path_below_root(scope: Scope) -> tuple[str, bytes | None]:
    """The path to route, without the prefix that a proxy or a mounting app speaks for."""
    path: str = scope["path"]
    raw_path: bytes | None = scope.get("raw_path")
    root = scope.get("root_path")
    if not root and path[:1] == "/":
        return path, raw_path  # as nearly all are
    return below_root((root or "").rstrip("/"), *origin_form(path, raw_path))


@asynccontextmanager
async def _no_lifespan(app: App) -> AsyncIterator[None]:
    yield


def _checked_limits(limits: Any) -> Limits:
    if limits is not None and not isinstance(limits, Limits):
        raise RegistrationError(
            "limits is a Limits",
            wrong=f"App(limits={limits!r})",
            right="App(limits=Limits(max_body_size=...))",
        )
    return limits or Limits()


def _checked_seconds(name: str, seconds: Any) -> float:
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise RegistrationError(
            f"{name} is a number of seconds",
            wrong=f"App({name}={seconds!r})",
            right=f"App({name}=20.0)",
        )
    return float(seconds)


def _checked_lifespan(lifespan: Lifespan) -> Lifespan:
    if inspect.isasyncgenfunction(lifespan) or inspect.iscoroutinefunction(lifespan):
        raise RegistrationError(
            "lifespan needs an async context manager",
            wrong=f"async def {lifespan.__name__}(app): ...",
            right=f"@asynccontextmanager above async def {lifespan.__name__}(app): ... yield",
        )
    return lifespan


async def _refuse_asyncio(scope: Scope, receive: Receive, send: Send) -> None:
    """Say in one sentence which command to run instead."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": _WRONG_LOOP})
    elif scope["type"] == "http":
        body = _WRONG_LOOP.encode()
        fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 500, "headers": fields})
        await send({"type": "http.response.body", "body": body})
    else:
        raise RuntimeError(_WRONG_LOOP)
