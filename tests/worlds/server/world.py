"""What happened in a world: its records; `invariants` judges them at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from trioweb import BackgroundTask
from trioweb.server import Server

from ..common.world import BaseWorld
from .plans import ConnectionPlan, RequestPlan, TaskPlan, WorldPlan
from .streams import End


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


class World(BaseWorld[WorldPlan]):
    """Everything that one run knows of itself."""

    def __init__(self, seed: int, plan: WorldPlan) -> None:
        super().__init__(seed, plan)
        self.server: Server
        self.ended_at = math.inf
        self.tasks_left = 0
        self.next_deadline = math.inf
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

    def tasks(self) -> Iterator[TaskRecord]:
        for request in self.requests:
            yield from request.tasks
