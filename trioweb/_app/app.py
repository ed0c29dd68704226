"""The app: a thin roof over routes, lifetimes and errors, and the door for ASGI.

Rules of this module:

* It decides who answers; how is decided below.
* Source for the messages: the ASGI specification, HTTP 2.5 and Lifespan 2.0.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

import msgspec
import trio

from .. import _limits
from .._asgi import Receive, Scope, Send, ServerSettings
from .._concurrency.exits import RequestExits
from .._concurrency.grace import Grace
from .._errors import HTTPException, RegistrationError
from .._http.exchange import Exchange, State, state_in
from .._http.paths import below_root, origin_form
from .._http.response import Response, responder
from .._inject.plan import Plan
from .._instead import takes_options, tells_instead
from .._lifetime.app import AppLifetime, DrainEvent
from .._routing.matcher import Matcher
from .._routing.router import H, Route, Router
from .._routing.templates import Template
from .._shapes.codecs import Codecs
from .._tasks.ledger import TaskStatistics
from .._tasks.runner import TaskRunner
from .._tasks.task import BackgroundTask, TaskErrorHandler
from .failures import Failures, check_exception_class, check_task_error_handler
from .inner import Inner
from .lifespan import Yielded, check_lifespan, checked_manager, no_lifespan, run_lifespan
from .limits import Limits
from .pressure import PendingLimit

E = TypeVar("E", bound=BaseException)
Lifespan = Callable[["App"], AbstractAsyncContextManager[Yielded]]

_NO_STATE = object()
_TRY_LATER = {"retry-after": "1"}
_TRY_ELSEWHERE = {"connection": "close", "retry-after": "1"}
_WRONG_LOOP = (
    "trioweb runs on Trio, but this server runs the app on asyncio; "
    "start it with: trioweb run MODULE:APP, or hypercorn -k trio MODULE:APP"
)


@tells_instead(when_set=True)
class App(Router):
    """An ASGI application.

    `lifespan` is an async context manager that takes the app and may yield a
    mapping, which every `request.state` begins with; it closes after the last
    task.  `dependencies` are those of each route.  `debug` answers errors with their
    traceback.  `encoders` and `decoders` are functions for types that nobody else knows:
    from a value to what JSON can hold, in what a handler returns, and back, in bodies and
    parameters.  Shutdown waits `drain_timeout` seconds for requests and tasks, then
    cancels them and gives them `cleanup_timeout` seconds.
    """

    @takes_options("App")
    def __init__(
        self,
        *,
        lifespan: Lifespan | None = None,
        dependencies: Sequence[Any] = (),
        debug: bool = False,
        limits: Limits | None = None,
        encoders: Mapping[type[Any], Callable[[Any], Any]] | None = None,
        decoders: Mapping[type[Any], Callable[[Any], Any]] | None = None,
        drain_timeout: float = _limits.DRAIN_TIMEOUT,
        cleanup_timeout: float = _limits.CLEANUP_TIMEOUT,
    ) -> None:
        super().__init__(dependencies=dependencies)
        self.state: State = State()
        self._limits = _checked_limits(limits)
        self._inner = Inner(self._limits, debug=debug)
        if lifespan is not None:
            check_lifespan(lifespan)
        self._lifespan: Lifespan = lifespan or no_lifespan
        self._drain_timeout = _checked_seconds("drain_timeout", drain_timeout)
        self._cleanup_timeout = _checked_seconds("cleanup_timeout", cleanup_timeout)
        self._matcher: Matcher[_Target] = Matcher()
        self._templates: dict[str, list[Template]] = {}
        self._codecs = Codecs(encoders, decoders)
        self._plans: list[Plan] = []  # of the routes, in their order
        self._failures = Failures(self._inner, responder(self._codecs))
        self._pending_limit = PendingLimit(self._inner.events)
        self._task_error_handlers: list[TaskErrorHandler] = []
        self._yielded: Mapping[str, Any] = {}
        self._server_state: object = _NO_STATE
        self._draining = DrainEvent()
        self._lifetime = self._new_lifetime(None)
        self._has_lifespan = False  # from before its startup until it has closed

    @property
    def debug(self) -> bool:
        """Whether errors are answered with their traceback; `trioweb dev` has it so anyway."""
        return self._inner.debug

    @debug.setter
    def debug(self, debug: bool) -> None:
        self._inner.debug = debug

    @property
    def limits(self) -> Limits:
        """The app's own; what its server was told counts besides, as long as it serves it."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = _checked_limits(limits)
        self._inner.set_limits(self._limits)

    @property
    def draining(self) -> DrainEvent:
        """Set when the shutdown begins: one event for the app's whole life.

        It has `is_set()` and `wait()`, as a `trio.Event` has.  Where the same app is served once
        more, as in tests, it is no longer set.
        """
        return self._draining

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
        exception's MRO wins; each has one handler.  Raises RegistrationError.
        """
        check_exception_class(exception)

        def register(handler: H) -> H:
            self._failures.add(exception, handler)
            return handler

        return register

    def on_task_error(self, handler: H) -> H:
        """Register `(task, exc)` to hear of tasks that fail, in place of the log.

        It runs where the task ran, before the next one of its list.  A cancellation
        leaves it the cleanup time, so it hears of tasks that fail as they are cancelled.
        """
        check_task_error_handler(handler)
        self._task_error_handlers.append(handler)
        return handler

    def statistics(self) -> TaskStatistics:
        """How many tasks are in which state since the app started; the counts add up."""
        return self._lifetime.ledger.statistics()

    def tasks(self) -> list[BackgroundTask]:
        """The tasks that run now, those that began first in front."""
        return self._lifetime.ledger.running()

    def _register(self, route: Route) -> None:
        template, plan = route.compile(self._codecs)
        self._matcher.add(template, route.methods, _Target(plan, route.max_body_size))
        self._templates.setdefault(route.name, []).append(template)
        super()._register(route)
        self._plans.append(plan)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application; only servers call it.

        They agree on ASGI's messages, but each has types of its own for them.
        """
        lifetime = self._lifetime
        if scope["type"] == "http" and lifetime.is_open:
            await self._answer(lifetime, scope, receive, send)
        elif not trio.lowlevel.in_trio_run():
            await _refuse_asyncio(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve_outside_lifespan(scope, receive, send)
        elif scope["type"] == "lifespan":
            await run_lifespan(_Host(self), scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})  # a 403 to the client
        else:
            raise NotImplementedError(f"trioweb doesn't speak ASGI's {scope['type']!r}")

    async def _serve_outside_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """After the lifespan nothing is served; where there is none, its nursery is this call's."""
        # The tasks of all such calls share the limits and the ledger of the app.
        draining = DrainEvent()
        if self._draining.is_set():
            draining.set()
        lifetime = AppLifetime(
            self._lifetime.runner,
            Grace(self._cleanup_timeout, self._inner.run_sync),
            self._inner.events,
            self._failures.respond,
            draining,
            drain_timeout=math.inf,
            reports=False,
        )
        async with lifetime.open():
            await self._answer(lifetime, scope, receive, send)

    def _answer(
        self, lifetime: AppLifetime, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        if self._yielded or scope.get("state") is self._server_state:
            self._begin_state(scope)
        limits = self._inner.limits
        endpoint: Plan | _Refusal
        try:
            if lifetime.is_draining:
                raise HTTPException(503, "The server is shutting down", _TRY_ELSEWHERE)
            ledger = lifetime.ledger
            if ledger.added - ledger.left >= limits.max_pending_tasks:
                self._pending_limit.refuse(ledger, limits.max_pending_tasks)
                raise HTTPException(503, "Too many background tasks wait", _TRY_LATER)
            target, path_params = self._matcher.match(scope["method"], *_path_below_root(scope))
        except HTTPException as exc:
            endpoint = _Refusal(exc.status_code, exc.detail, exc.headers)
            exchange = Exchange(scope, receive, send, self, {}, limits.max_body_size)
        else:
            endpoint, max_body_size = target.plan, target.max_body_size
            if max_body_size is None:
                max_body_size = limits.max_body_size
            exchange = Exchange(scope, receive, send, self, path_params, max_body_size)
        answers = lifetime.inline if endpoint.inline else lifetime.lives
        return answers.serve(exchange, endpoint)

    def _begin_state(self, scope: Scope) -> None:
        """What a dispatcher around us, or another app of its, keeps there stays, under ours."""
        if scope.get("state") is self._server_state:
            scope["state"] = dict(scope["state"])  # as the server should have done
        state_in(scope).update(self._yielded)

    def _new_lifetime(self, told: ServerSettings | None) -> AppLifetime:
        limits = self._inner.limits
        runner = TaskRunner(
            max_threads=limits.max_task_threads,
            max_running=limits.max_running_tasks,
            error_handlers=self._task_error_handlers,
        )
        drain_timeout, cleanup_timeout = self._drain_timeout, self._cleanup_timeout
        if told is not None and told.drain_timeout is not None:
            drain_timeout = told.drain_timeout
        if told is not None and told.cleanup_timeout is not None:
            cleanup_timeout = told.cleanup_timeout
        self._inner.events.follow(runner.ledger)
        return AppLifetime(
            runner,
            Grace(cleanup_timeout, self._inner.run_sync),
            self._inner.events,
            self._failures.respond,
            self._draining,
            drain_timeout=drain_timeout,
        )


def inner_of(app: App) -> Inner:
    """What an app's users don't see, for who serves it in a test or watches it."""
    return app._inner


def plans_of(app: App) -> list[tuple[Route, Plan]]:
    """The routes, each with what was made of it when it was registered."""
    return list(zip(app.routes, app._plans, strict=True))


def lifetime_of(app: App) -> AppLifetime:
    """The one that counts now: of the running lifespan, else of the last one."""
    return app._lifetime


class _Host:
    """The app, as its lifespan sees it."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.inner = app._inner

    def enter(self) -> AbstractAsyncContextManager[Yielded]:
        return checked_manager(self._app._lifespan, self._app)

    @contextmanager
    def next_lifetime(self, told: ServerSettings | None) -> Iterator[AppLifetime]:
        app = self._app
        if app._has_lifespan:
            raise RuntimeError("this app is being served already; one App has one lifespan")
        app._has_lifespan = True
        try:
            self.inner.obey(told)
            self.inner.events.join(None if told is None else told.listen)
            app._draining.renew()
            app._lifetime = app._new_lifetime(told)
            yield app._lifetime
        finally:
            self.inner.obey(None)
            self.inner.events.join(None)
            app._has_lifespan = False

    def keep(self, yielded: Mapping[str, Any], scope: Scope) -> None:
        self._app._yielded = yielded
        self._app._server_state = scope.get("state", _NO_STATE)


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
    stops_with_client = True
    timeout = None

    async def __call__(self, exchange: Exchange, exits: RequestExits) -> Response:
        # Not the one that the matcher raised: with a traceback it would keep itself alive.
        raise HTTPException(self.status_code, self.detail, self.headers)


def _path_below_root(scope: Scope) -> tuple[str, bytes | None]:
    """The path to route, without the prefix that a proxy or a mounting app speaks for."""
    path: str = scope["path"]
    raw_path: bytes | None = scope.get("raw_path")
    root = scope.get("root_path")
    if not root and path[:1] == "/":
        return path, raw_path  # as nearly all are
    return below_root((root or "").rstrip("/"), *origin_form(path, raw_path))


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


async def _refuse_asyncio(scope: Scope, receive: Receive, send: Send) -> None:
    """Say in one sentence which command to run instead."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": _WRONG_LOOP})
        raise RuntimeError(_WRONG_LOOP)  # Starlette's test client waits for that
    if scope["type"] == "http":
        body = _WRONG_LOOP.encode()
        fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 500, "headers": fields})
        await send({"type": "http.response.body", "body": body})
    else:
        raise RuntimeError(_WRONG_LOOP)
