"""What is to happen in a world, drawn from one seed before it begins.

Rules of this module:

* Plans are data: they print, they compare, and tests write them by hand too.
* What makes a promise of time void (a shield that is longer than the cleanup
  time, a lifespan that hangs) is a choice of few worlds: the others stay strict.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random
from typing import Literal

from trioweb._concurrency.exits import DependencyScope
from trioweb._tasks.options import When

from ..common.plans import SECONDS, Draw, Shown

Failure = Literal["error", "handled", "http", "group", "exit", "stray", "closed"]
RouteKind = Literal["plain", "nursery", "scoped", "blocking", "threaded", "timeout"]
ResponseKind = Literal["json", "empty", "stream", "channel", "iterator"]
Swallow = Literal["no", "once", "and return", "and break"]
# What becomes of the handler when its client leaves: as its method says, or as told.
Watch = Literal["default", "watched", "unwatched"]
ServerKind = Literal["hypercorn", "patient"]

ROUTE_TIMEOUT = 1.0  # seconds, of the routes of kind "timeout"
SCOPES: tuple[DependencyScope, ...] = ("request", "response", "function")
SAFE_METHODS = ("GET", "HEAD")

WATCHES: tuple[Watch, ...] = ("default", "watched", "unwatched")

# With generators as dependencies: of async functions, or of plain ones.
_DEPENDENT: tuple[RouteKind, ...] = ("scoped", "blocking")
_ROUTES: tuple[RouteKind, ...] = (
    "plain",
    "plain",
    "nursery",
    *_DEPENDENT,
    "threaded",
    "timeout",
)
_LONG = (*SECONDS, 30.0, 10_000.0, 10_000.0, 10_000.0)


@dataclass(frozen=True, kw_only=True, repr=False)
class TaskPlan(Shown):
    """One background task: it works, adds others, fails or returns, and cleans up."""

    seconds: float = 0.0
    in_thread: bool = False
    beside: bool = False
    when: When = "success"
    failure: Failure = "error"
    failures: int = 0  # so many attempts fail before one returns
    attempts: int = 1  # more than one: it has a Retry
    timeout: float | None = None
    cleanup: float = 0.0  # seconds behind a shield of its own
    swallow: Swallow = "no"
    adds: tuple[TaskPlan, ...] = ()
    adds_in_cleanup: bool = False


@dataclass(frozen=True, kw_only=True, repr=False)
class ChildPlan(Shown):
    """What a handler starts itself, in the injected nursery."""

    seconds: float = 0.0
    fails: bool = False


@dataclass(frozen=True, kw_only=True, repr=False)
class DependencyPlan(Shown):
    """A generator dependency: what happens before and after its `yield`."""

    scope: DependencyScope
    enter_seconds: float = 0.0
    exit_seconds: float = 0.0
    enter_fails: bool = False
    exit_fails: bool = False
    adds: tuple[TaskPlan, ...] = ()  # at its exit


@dataclass(frozen=True, kw_only=True, repr=False)
class StreamPlan(Shown):
    """The body of a streaming response."""

    chunks: int = 2
    seconds: float = 0.0  # before each chunk
    fails: bool = False  # after the last chunk
    close_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, repr=False)
class ClientPlan(Shown):
    """How a client behaves in one exchange."""

    chunks: int = 0  # of the request's body
    send_seconds: float = 0.0  # before each chunk
    read_seconds: float = 0.0  # for each message of the response
    leaves_after_sending: int | None = None
    leaves_after_reading: int | None = None
    leaves_at: float | None = None  # seconds after the exchange began
    leaves_with_handler: bool = False  # as its last step is taken
    pause: float = 0.0  # before its next request


@dataclass(frozen=True, kw_only=True, repr=False)
class RequestPlan(Shown):
    """One request, and what the handler does with it."""

    route: RouteKind = "plain"
    method: str = "GET"
    watch: Watch = "default"
    reads_body: bool = False
    waits_for_departure: bool = False  # for so many seconds, in place of work
    seconds: float = 0.0
    cleanup: float = 0.0  # seconds behind a shield of the handler's own
    swallow: Swallow = "no"
    failure: Failure | None = None
    tasks: tuple[TaskPlan, ...] = ()
    brought: tuple[TaskPlan, ...] = ()  # by the response
    handler_tasks: tuple[TaskPlan, ...] = ()  # added by the exception handler
    handler_fails: bool = False
    children: tuple[ChildPlan, ...] = ()
    dependencies: tuple[DependencyPlan, ...] = ()  # of routes "scoped" and "blocking"
    response: ResponseKind = "json"
    stream: StreamPlan = StreamPlan()
    client: ClientPlan = ClientPlan()

    @property
    def may_fail(self) -> bool:
        """Whether anything but a cancellation can make it fail."""
        return bool(
            self.failure
            or self.route == "timeout"
            or any(child.fails for child in self.children)
            or any(d.enter_fails or d.exit_fails for d in self.dependencies)
            or self.stream.fails
        )

    @property
    def may_break_off(self) -> bool:
        """Whether there may be a response that ends before its last byte, or none."""
        return self.stream.fails or any(child.fails for child in self.children)

    @property
    def path(self) -> str:
        """Where it goes, without its number."""
        return f"/{self.route}/{self.watch}"

    @property
    def is_watched(self) -> bool:
        """Whether the handler is to be cancelled when its client leaves."""
        if self.watch == "default":
            return self.method in SAFE_METHODS and self.route != "threaded"
        return self.watch == "watched"


@dataclass(frozen=True, kw_only=True, repr=False)
class ConnectionPlan(Shown):
    """One client's requests, one after another, `after` so many seconds."""

    requests: tuple[RequestPlan, ...]
    after: float = 0.0


@dataclass(frozen=True, kw_only=True, repr=False)
class WorldPlan(Shown):
    """Everything that is to happen."""

    connections: tuple[ConnectionPlan, ...]
    ends_at: float = 5.0
    ending: Literal["shutdown", "cancel"] = "shutdown"
    server: ServerKind = "hypercorn"
    graceful_timeout: float = 3.0  # Hypercorn's, for its calls
    drain_timeout: float = 20.0
    cleanup_timeout: float = 5.0
    # After so many seconds of shutdown all is cancelled, as by a second signal.
    patience: float = inf
    lifespan_seconds: float = 0.0  # of the user's lifespan, to close
    max_body_size: int = 1_000
    max_pending_tasks: int = 10_000
    max_running_tasks: int | None = None
    max_task_threads: int = 20
    task_errors: Literal["log", "async", "sync", "fails"] = "log"
    audits: tuple[float, ...] = ()  # seconds between looks at the statistics


def world_of(seed: int) -> WorldPlan:
    """The plan of the world with this seed."""
    return _Draw(Random(seed)).world()


class _Draw(Draw):
    """Draws plans."""

    def world(self) -> WorldPlan:
        cleanup = self._one_of((0.1, 1.0, 5.0))
        self._longest_cleanup = cleanup if self._chance(0.9) else 2 * cleanup + 6
        return WorldPlan(
            connections=self._some(self._connection, 1, 5),
            ends_at=self._one_of((0.0, 0.1, 0.5, 1.0, 3.0, 10.0, 60.0)),
            ending="cancel" if self._chance(0.2) else "shutdown",
            server=self._one_of(("hypercorn", "patient")),
            graceful_timeout=self._one_of((0.0, 0.5, 3.0)),
            drain_timeout=self._one_of((0.0, 0.5, 3.0, 20.0)),
            cleanup_timeout=cleanup,
            patience=self._one_of((inf,) * 6 + (0.0, 0.5, 3.0, 30.0)),
            lifespan_seconds=self._one_of((0.0, 0.0, 0.0, 0.5, 10_000.0)),
            max_body_size=self._one_of((20, 1_000, 1_000)),
            max_pending_tasks=self._one_of((1, 3, 10_000)),
            max_running_tasks=self._one_of((None, None, 1, 2)),
            max_task_threads=self._one_of((1, 2, 20)),
            task_errors=self._one_of(("log", "log", "async", "sync", "fails")),
            audits=self._some(self._seconds, 0, 5),
        )

    def _connection(self) -> ConnectionPlan:
        return ConnectionPlan(requests=self._some(self._request, 1, 2), after=self._seconds())

    def _request(self) -> RequestPlan:
        route = self._one_of(_ROUTES)
        response = self._response(route)
        in_thread = route == "threaded"
        return RequestPlan(
            route=route,
            method=self._one_of(("GET", "GET", "GET", "HEAD", "POST", "POST")),
            watch=self._watch() if not in_thread else "default",
            reads_body=self._chance(0.5) and not in_thread,
            waits_for_departure=self._chance(0.1) and not in_thread,
            seconds=self._seconds(),
            cleanup=self._cleanup(),
            swallow=self._swallow(("once", "and return")),
            failure=self._failure() if self._chance(0.25) else None,
            tasks=self._some(self._task, 0, 3),
            # Of what an abandoned thread returns nobody would know.
            brought=self._some(self._task, 0, 2) if not in_thread else (),
            handler_tasks=self._some(self._task, 0, 2),
            handler_fails=self._chance(0.2),
            children=self._some(self._child, 0, 2) if route == "nursery" else (),
            dependencies=self._dependencies(route) if route in _DEPENDENT else (),
            response=response,
            stream=self._stream() if response not in ("json", "empty") else StreamPlan(),
            client=self._client(),
        )

    def _watch(self) -> Watch:
        return self._one_of(("default", "default", "watched", "unwatched"))

    def _response(self, route: RouteKind) -> ResponseKind:
        if self._chance(0.6):
            return self._one_of(("json", "json", "json", "empty"))
        kinds: tuple[ResponseKind, ...] = ("stream", "stream", "iterator")
        return self._one_of((*kinds, "channel", "channel") if route == "nursery" else kinds)

    def _task(self, depth: int = 0) -> TaskPlan:
        in_thread = self._chance(0.2)
        adds = self._chance(0.15) and depth < 2
        return TaskPlan(
            seconds=self._one_of(_LONG),
            in_thread=in_thread,
            beside=self._chance(0.4),
            when=self._one_of(("success", "success", "success", "sent", "error", "always")),
            failure=self._one_of(("error", "error", "error", "group", "exit", "stray", "closed")),
            failures=self._one_of((0, 0, 0, 1, 2, 9)),
            attempts=self._one_of((1, 1, 2, 3)),
            timeout=self._one_of((None, None, 0.5, 2.0)) if not in_thread else None,
            cleanup=self._cleanup() if not in_thread else 0.0,
            swallow=self._swallow(("once", "and return", "and break")),
            adds=tuple(self._task(depth + 1) for _ in range(1 + adds)) if adds else (),
            adds_in_cleanup=self._chance(0.5),
        )

    def _child(self) -> ChildPlan:
        return ChildPlan(seconds=self._one_of(_LONG), fails=self._chance(0.3))

    def _dependencies(self, route: RouteKind) -> tuple[DependencyPlan, ...]:
        return tuple(self._dependency(scope, route) for scope in SCOPES)

    def _dependency(self, scope: DependencyScope, route: RouteKind) -> DependencyPlan:
        return DependencyPlan(
            scope=scope,
            # A thread that is abandoned while it enters has nobody to leave it.
            enter_seconds=self._seconds() if route == "scoped" else 0.0,
            exit_seconds=self._one_of((*SECONDS, 10_000.0)),
            enter_fails=self._chance(0.05),
            exit_fails=self._chance(0.15),
            adds=self._some(self._task, 0, 1) if scope == "function" else (),
        )

    def _stream(self) -> StreamPlan:
        fails = self._chance(0.2)
        return StreamPlan(
            chunks=self._random.randint(0, 3),
            seconds=self._seconds(),
            fails=fails,
            # A cancellation in its `finally` would take the failure's place.
            close_seconds=0.0 if fails else self._one_of((*SECONDS, 10_000.0)),
        )

    def _client(self) -> ClientPlan:
        chunks = self._one_of((0, 0, 1, 3, 15))
        leaves = self._one_of(("no",) * 4 + ("sending", "reading", "at", "with handler"))
        return ClientPlan(
            chunks=chunks,
            send_seconds=self._one_of((0.0, 0.0, 0.1, 1.0)),
            read_seconds=self._one_of((0.0, 0.0, 0.0, 0.1, 1.0, 10_000.0, inf)),
            leaves_after_sending=self._random.randint(0, chunks) if leaves == "sending" else None,
            leaves_after_reading=self._random.randint(0, 3) if leaves == "reading" else None,
            leaves_at=self._seconds() if leaves == "at" else None,
            leaves_with_handler=leaves == "with handler",
            pause=self._seconds(),
        )

    def _failure(self) -> Failure:
        return self._one_of(("error", "handled", "handled", "http", "group", "exit"))

    def _swallow(self, ways: tuple[Swallow, ...]) -> Swallow:
        return self._one_of(ways) if self._chance(0.2) else "no"

    def _cleanup(self) -> float:
        """Mostly none; in most worlds never longer than the app gives."""
        return self._one_of((0.0, 0.0, 0.0, self._longest_cleanup / 2, self._longest_cleanup))
