"""What is to happen in a world, drawn from one seed before it begins.

Rules of this module:

* Plans are data: they print, they compare, and tests write them by hand too.
* A client has at most one fault, so that what it must get all the same can be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from trioweb import Limits

from ...support.server_driver import ParserName
from ..common.plans import SECONDS, Draw, Shown

Fault = Literal[
    "none",
    "stalls while sending",
    "stalls while reading",
    "resets while sending",
    "resets while reading",
    "closes its side early",
]
Ending = Literal["shutdown", "cancel", "shutdown, then cancel", "cancelled from outside"]
Failure = Literal["no", "before", "within"]
Route = Literal["plain", "nursery"]
Method = Literal["GET", "HEAD", "POST"]

# Of the server; clients pause as long, so that the next request comes at the very end of it.
_IDLE_TIMEOUTS = (0.2, 2.0)


@dataclass(frozen=True, kw_only=True, repr=False)
class TaskPlan(Shown):
    """One background task."""

    seconds: float = 0.0
    cleanup: float = 0.0  # seconds behind a shield
    beside: bool = False
    fails: bool = False


@dataclass(frozen=True, kw_only=True, repr=False)
class RequestPlan(Shown):
    """One request, and what the handler does with it."""

    route: Route = "plain"
    method: Method = "GET"
    is_old: bool = False  # HTTP/1.0, and keep-alive if it says so
    body: int = 0  # bytes
    chunk: int = 0  # bytes in each, or else its length is told
    expects_continue: bool = False
    says_close: bool = False
    reads_body: bool = True
    seconds: float = 0.0  # of the handler
    cleanup: float = 0.0  # seconds behind a shield of the handler's
    fails: Failure = "no"
    size: int = 5  # bytes of the response's body
    pieces: int = 0  # that it is streamed in
    piece_seconds: float = 0.0  # before each
    tasks: tuple[TaskPlan, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class ConnectionPlan(Shown):
    """One client, and how its bytes go."""

    requests: tuple[RequestPlan, ...]
    after: float = 0.0
    ahead: int = 0  # requests that are sent before the answers to the ones before them came
    send_sizes: tuple[int, ...] = ()  # bytes that the server gets at once, one after the other
    send_seconds: float = 0.0  # between them
    capacity: int = 65_536  # bytes on their way to the client
    read_size: int = 65_536  # bytes that it takes at once
    read_seconds: float = 0.0  # between that
    fault: Fault = "none"
    at_byte: int = 0  # where the fault happens
    pause: float = 0.0  # before each request but the first
    leaves: bool = True  # after the last answer; else it waits for the server to close
    ends_with_junk: bool = False


@dataclass(frozen=True, kw_only=True, repr=False)
class WorldPlan(Shown):
    """Everything that is to happen."""

    connections: tuple[ConnectionPlan, ...]
    http: ParserName = "httptools"
    ends_at: float = 5.0
    ending: Ending = "shutdown"
    cancel_after: float = 0.5  # seconds of draining
    drain_timeout: float = 5.0
    cleanup_timeout: float = 2.0
    lifespan_seconds: float = 0.0
    head_timeout: float = 3.0
    body_timeout: float = 4.0
    write_timeout: float = 6.0
    idle_timeout: float = 2.0
    max_requests: int = 100
    max_connection_requests: int = 100

    @property
    def limits(self) -> Limits:
        return Limits(
            head_timeout=self.head_timeout,
            body_timeout=self.body_timeout,
            write_timeout=self.write_timeout,
            idle_timeout=self.idle_timeout,
            max_requests=self.max_requests,
            max_connection_requests=self.max_connection_requests,
        )


def world_of(seed: int) -> WorldPlan:
    """The plan of the world with this seed."""
    return _Draw(Random(seed)).world()


class _Draw(Draw):
    """Draws plans."""

    def world(self) -> WorldPlan:
        self._cleanup = self._one_of((0.5, 2.0))
        return WorldPlan(
            connections=self._some(self._connection, 1, 5),
            http=self._one_of(("h11", "httptools")),
            ends_at=self._one_of((0.0, 0.1, 0.5, 1.0, 3.0, 20.0, 60.0)),
            ending=self._one_of(
                (
                    *("shutdown",) * 4,
                    *("cancel", "shutdown, then cancel", "cancelled from outside"),
                )
            ),
            cancel_after=self._one_of((0.0, 0.5)),
            drain_timeout=self._one_of((0.0, 0.5, 5.0, 20.0)),
            cleanup_timeout=self._cleanup,
            lifespan_seconds=self._one_of((0.0, 0.0, 0.5)),
            head_timeout=self._one_of((0.2, 3.0)),
            body_timeout=self._one_of((0.2, 4.0)),
            write_timeout=self._one_of((6.0, 20.0)),
            idle_timeout=self._one_of(_IDLE_TIMEOUTS),
            max_requests=self._one_of((1, 2, 100, 100)),
            max_connection_requests=self._one_of((1, 2, 100, 100, 100)),
        )

    def _connection(self) -> ConnectionPlan:
        faults: tuple[Fault, ...] = (
            "stalls while sending",
            "stalls while reading",
            "resets while sending",
            "resets while reading",
            "closes its side early",
        )
        return ConnectionPlan(
            requests=self._some(self._request, 1, 4),
            after=self._seconds(),
            ahead=self._one_of((0, 0, 0, 1, 9)),
            send_sizes=self._some(self._size, 0, 6),
            send_seconds=self._one_of((0.0, 0.0, 0.0, 0.01, 0.3)),
            capacity=self._one_of((500, 20_000, 65_536)),
            read_size=self._one_of((500, 5_000, 65_536, 65_536)),
            read_seconds=self._one_of((0.0, 0.0, 0.0, 0.05)),
            fault=self._one_of(faults) if self._chance(0.4) else "none",
            at_byte=self._one_of((0, 1, 17, 60, 150, 400, 3_000)),
            pause=self._one_of((0.0, 0.0, 0.1, *_IDLE_TIMEOUTS)),
            leaves=self._chance(0.5),
            ends_with_junk=self._chance(0.1),
        )

    def _request(self) -> RequestPlan:
        methods: tuple[Method, ...] = ("GET", "GET", "HEAD", "POST", "POST")
        method = self._one_of(methods)
        is_old = self._chance(0.1)
        body = self._one_of((0, 1, 300, 3_000, 100_000)) if method == "POST" else 0
        chunked = body and not is_old and self._chance(0.5)
        streamed = self._chance(0.3) and not is_old
        return RequestPlan(
            route=self._one_of(("plain", "plain", "nursery")),
            method=method,
            is_old=is_old,
            body=body,
            chunk=self._one_of((7, 1_000)) if chunked else 0,
            expects_continue=bool(body) and not is_old and self._chance(0.2),
            says_close=self._chance(0.1),
            reads_body=self._chance(0.7),
            seconds=self._seconds(),
            cleanup=self._one_of((0.0, 0.0, self._cleanup / 2)),
            fails=self._failure(streamed=streamed),
            size=self._one_of((0, 5, 5, 3_000, 100_000)),
            pieces=self._one_of((1, 2, 5)) if streamed else 0,
            piece_seconds=self._one_of((0.0, 0.0, 0.3)),
            tasks=self._some(self._task, 0, 2),
        )

    def _failure(self, *, streamed: bool) -> Failure:
        if not self._chance(0.15):
            return "no"
        return self._one_of(("before", "within")) if streamed else "before"

    def _task(self) -> TaskPlan:
        return TaskPlan(
            seconds=self._one_of((*SECONDS, 10_000.0)),
            cleanup=self._one_of((0.0, 0.0, self._cleanup / 2)),
            beside=self._chance(0.5),
            fails=self._chance(0.2),
        )

    def _size(self) -> int:
        return self._one_of((1, 1, 2, 7, 40, 1_000, 100_000))
