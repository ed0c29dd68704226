"""What happened in a world: its trace, its records, and what was reported of failures.

Rules of this module:

* A failure is heard of when a log record, a finished `on_task_error` handler or an
  exception handler has it, alone or as a leaf of a group.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import trio

from trioweb import BackgroundTask, HTTPException
from trioweb._concurrency.exits import DependencyScope
from trioweb._errors import leaves
from trioweb._lifetime.events import Event

from ..common.world import BaseWorld, LogLine
from .plans import Failure, RequestPlan, TaskPlan, WorldPlan

# "broken": as a group of its cancellation and an error.
Outcome = Literal["running", "returned", "raised", "broken", "cancelled"]

# What no plan asks for: a mistake, of the app's or of the simulation's.
_MISTAKES = (TypeError, AttributeError, NameError, AssertionError)
UNPLANNED = "isn't in the plan"


class Planned(Exception):
    """A failure that the plan asks for."""


class Handled(Planned):
    """One for which the app has an exception handler."""


@dataclass(eq=False)
class Attempt:
    """One run of a task, or of a handler."""

    began_at: float
    how: Outcome = "running"
    ended_at: float = math.inf

    def end(self, how: Outcome) -> None:
        self.how = how
        self.ended_at = trio.current_time()

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began_at


@dataclass(eq=False)
class TaskRecord:
    """One task that was added, and what became of each attempt."""

    name: str
    plan: TaskPlan
    handle: BackgroundTask
    order: int
    added_at: float
    adder: str  # which task's body, if any
    # Whether it can only run if the handler returned: its request's dependencies are open then.
    needs_success: bool
    attempts: list[Attempt] = field(default_factory=list)
    waited: bool = False

    @property
    def hows(self) -> list[Outcome]:
        return [attempt.how for attempt in self.attempts]


@dataclass(eq=False)
class DependencyRecord:
    """One entry of a generator dependency."""

    scope: DependencyScope
    left: int = 0


@dataclass(eq=False)
class StreamRecord:
    """One iterator behind a response that took its first step."""

    closed: int = 0


@dataclass(eq=False)
class RequestRecord:
    """One request that a client made, from both ends; times are on Trio's clock."""

    number: int
    plan: RequestPlan
    began_at: float
    handler: Attempt | None = None
    tasks: list[TaskRecord] = field(default_factory=list)
    dependencies: list[DependencyRecord] = field(default_factory=list)
    streams: list[StreamRecord] = field(default_factory=list)
    channels: list[trio.MemoryReceiveChannel[bytes]] = field(default_factory=list)
    child_failed_at: float = math.inf
    # The server's side.
    leave: Callable[[], None] = lambda: None
    was_full: bool = False
    was_draining: bool = False
    call_cancelled_at: float = math.inf
    call_over_at: float = math.inf
    sending: int = 0
    has_head: bool = False  # the app began to send that of what its handler returned
    failed_before_head: bool = False  # what was to be streamed did
    status: int | None = None
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    last_byte_at: float = math.inf  # when the app sent it
    all_sent: bool = False  # the app's side: the server accepted the last message
    complete: bool = False  # the client's: it has it all
    left_at: float = math.inf

    @property
    def left(self) -> bool:
        return self.left_at < math.inf

    @property
    def expected_body(self) -> bytes:
        """What the method lets through of what the handler returns."""
        return b"" if self.plan.method == "HEAD" else self.content

    @property
    def content(self) -> bytes:
        if self.plan.response == "empty":
            return b""
        if self.plan.response == "json":
            return b"%d" % self.number
        return b"".join(self.chunk(i) for i in range(self.plan.stream.chunks))

    def chunk(self, index: int) -> bytes:
        return b"<%d.%d>" % (self.number, index)

    @property
    def request_body(self) -> bytes:
        return b"".join(b"[%d]" % i for i in range(self.plan.client.chunks))


class World(BaseWorld[WorldPlan]):
    """Everything that one run knows of itself."""

    def __init__(self, seed: int, plan: WorldPlan) -> None:
        super().__init__(seed, plan)
        self.random = Random(seed)
        self.requests: list[RequestRecord] = []
        self.has_started = False
        self.lifespan_left_at = math.inf
        self.held_until = -math.inf  # by shields that are longer than the cleanup time
        self.failures: list[BaseException] = []  # outside tasks, each to be heard of
        self.heard: Counter[int] = Counter()
        self.chained: set[int] = set()
        self.events: list[Event] = []  # in every other world; in the rest nobody listens
        self._heard_of: list[BaseException] = []  # keeps the ids above their own
        self.watchers: trio.Nursery

    @property
    def listens(self) -> bool:
        return self.seed % 2 == 0

    @property
    def cleaned_up_at(self) -> float:
        """When all that is left has to be over."""
        return self.app_cancelled_at + self.plan.cleanup_timeout

    def add_to_log(self, line: LogLine) -> None:
        super().add_to_log(line)
        self.expect(line.level < logging.CRITICAL, line.text)
        if line.exc is not None:
            self.hear(line.exc)

    async def clean_up(self, seconds: float) -> None:
        await super().clean_up(seconds)
        if seconds > self.plan.cleanup_timeout:
            self.held_until = trio.current_time()

    async def watch(self, task: TaskRecord) -> None:
        """Wait for a task as its adder may; twice, for the second time needn't wait."""
        await task.handle.wait()
        in_time = trio.current_time() == task.handle.ended_at
        self.expect(in_time, f"{task.handle!r} was waited for too long, or not long enough")
        await task.handle.wait()
        task.waited = True

    def tasks(self) -> Iterator[TaskRecord]:
        for request in self.requests:
            yield from request.tasks

    def audit(self) -> None:
        """The statistics add up, and say what the handles say."""
        counts = self.app.statistics()
        states = Counter(task.handle.state for task in self.tasks())
        by_state = {state: getattr(counts, state) for state in counts.__slots__ if state != "added"}
        self.expect(counts.added == sum(by_state.values()), f"{counts} doesn't add up")
        told = {state: count for state, count in by_state.items() if count}
        self.expect(told == dict(states), f"statistics say {told}, the handles {dict(states)}")
        listed = set(self.app.tasks())
        running = {task.handle for task in self.tasks() if task.handle.state == "running"}
        self.expect(listed == running, f"app.tasks() lists {listed}, {running} run")

    def failure(self, kind: Failure, where: str) -> BaseException:
        """An exception to raise, named for where."""
        if kind == "http":
            return HTTPException(409)
        if kind == "handled":
            return Handled(where)
        if kind == "exit":
            return SystemExit(where)
        if kind == "closed":
            return GeneratorExit(where)
        if kind == "group":
            return ExceptionGroup(where, [Planned(f"{where}, one"), Planned(f"{where}, two")])
        return Planned(where)

    def failure_to_report(self, kind: Failure, where: str) -> BaseException:
        """The same outside a task, where it must be heard of by itself."""
        exc = self.failure(kind, where)
        self.note(f"{where} fails")
        if kind != "http":
            self.failures += leaves(exc)
        return exc

    def forget(self, exc: BaseException) -> None:
        """Nobody can hear of this failure."""
        forgotten = set(map(id, leaves(exc)))
        self.failures = [failure for failure in self.failures if id(failure) not in forgotten]

    def hear(self, exc: BaseException) -> None:
        for leaf in leaves(exc):
            self.expect(not isinstance(leaf, _MISTAKES), f"{leaf!r} {UNPLANNED}")
        self._heard_of.append(exc)
        self.heard.update(id(leaf) for leaf in leaves(exc))
        self._follow(exc)

    def _follow(self, exc: BaseException | None) -> None:
        """What a traceback shows beside the exception itself."""
        while exc is not None and id(exc) not in self.chained:
            self.chained.add(id(exc))
            if isinstance(exc, BaseExceptionGroup):
                for member in exc.exceptions:
                    self._follow(member)
            self._follow(exc.__cause__)
            exc = exc.__context__
