"""What happened in a world: its trace and its records; `invariants` judges them at the end."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from trioweb import App, BackgroundTask
from trioweb.server import Server

from .plans import ConnectionPlan, RequestPlan, TaskPlan, WorldPlan
from .streams import End

_ADDRESS = re.compile("0x[0-9a-f]+")


class Planned(Exception):
    """A failure that the plan asks for."""


@dataclass(eq=False)
class TaskRecord:
    """One task that was added, and how each of its runs ended."""

    plan: TaskPlan
    handle: BackgroundTask
    runs: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Answer:
    """A response as a client got it.  `body` is a beginning until it is complete."""

    began_at: float
    status: int
    headers: dict[bytes, bytes]
    body: bytes = b""
    completed_at: float = math.inf

    @property
    def is_complete(self) -> bool:
        return self.completed_at < math.inf


@dataclass(eq=False)
class RequestRecord:
    """One request; times are on Trio's clock, and infinite until they have come."""

    number: int
    plan: RequestPlan
    read_at: float = math.inf  # its head, by the server
    sent_at: float = math.inf  # all of it, by the client
    calls: int = 0
    called_at: float = math.inf
    returned_at: float = math.inf
    streamed_at: float = math.inf  # all pieces of the response
    failed: bool = False  # as planned
    received: bytes | None = None  # of its body, by the handler
    tasks: list[TaskRecord] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """What its body is."""
        return _pattern(b"<%d>", self.number, self.plan.body)

    @property
    def content(self) -> bytes:
        """What the response's body is."""
        return _pattern(b"[%d]", self.number, self.plan.size)

    @property
    def made_at(self) -> float:
        """When the app had all of the response."""
        is_streamed = self.plan.pieces and self.plan.method != "HEAD"
        return max(self.returned_at, self.streamed_at if is_streamed else -math.inf)


def _pattern(form: bytes, number: int, size: int) -> bytes:
    piece = form % number
    return (piece * (size // len(piece) + 1))[:size]


@dataclass(eq=False)
class ConnectionRecord:
    """One client's connection, from both ends."""

    plan: ConnectionPlan
    requests: list[RequestRecord]
    began_at: float = math.inf
    answers: list[Answer] = field(default_factory=list)
    theirs: End | None = None
    fault_at: float = math.inf  # when its fault happened
    stopped_at: float = math.inf  # when it sent its last byte
    was_reset: bool = False  # by the server
    problem: str | None = None  # with what it got


class World:
    """Everything that one run knows of itself."""

    def __init__(self, seed: int, plan: WorldPlan) -> None:
        self.seed = seed
        self.plan = plan
        self.trace: list[str] = []
        self.violations: list[str] = []
        self.is_open = False  # the database that the lifespan holds open
        self.app: App
        self.server: Server
        self.ended_at = math.inf
        self.shut_down_at = math.inf
        self.cancelled_at = math.inf
        self.tasks_left = 0
        self.next_deadline = math.inf
        self.log: list[LogLine] = []
        self.requests: list[RequestRecord] = []
        self.connections = [self._connection(plan) for plan in plan.connections]

    def _connection(self, plan: ConnectionPlan) -> ConnectionRecord:
        records = []
        for request in plan.requests:
            records.append(RequestRecord(len(self.requests), request))
            self.requests.append(records[-1])
        return ConnectionRecord(plan, records)

    @property
    def is_stopping(self) -> bool:
        return min(self.shut_down_at, self.cancelled_at, self.ended_at) < math.inf

    @property
    def app_cancelled_at(self) -> float:
        """From when on what is left is cancelled."""
        return min(self.shut_down_at + self.plan.drain_timeout, self.cancelled_at)

    def tasks(self) -> Iterator[TaskRecord]:
        for request in self.requests:
            yield from request.tasks

    def note(self, event: str) -> None:
        self.trace.append(f"{trio.current_time():10.3f}  {_ADDRESS.sub('0x…', event)}")

    def violate(self, problem: str) -> None:
        self.trace.append(f"VIOLATION: {problem}")
        self.violations.append(problem)

    def expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.violate(problem)

    def touch(self, who: str) -> None:
        """Use the database."""
        self.expect(self.is_open, f"{who} ran after the lifespan closed")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record of trioweb's log."""

    at: float
    level: int
    text: str
    exc: BaseException | None


class LogWatch(logging.Handler):
    """Hears what trioweb logs."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        exc = record.exc_info[1] if record.exc_info is not None else None
        self._world.note(f"log: {record.getMessage()} {exc!r}")
        line = LogLine(trio.current_time(), record.levelno, record.getMessage(), exc)
        self._world.log.append(line)
