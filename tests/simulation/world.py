"""What happened in a world: its trace, its records, and what was reported of failures.

Rules of this module:

* It only writes down; `invariants` judges when the world has ended.  What can be
  seen at one moment only is a violation at that moment.
* A failure is heard of when a log record, a finished `on_task_error` handler or an
  exception handler has it, alone or as a leaf of a group.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import trio

from trioweb import App, BackgroundTask, HTTPException
from trioweb._errors import leaves
from trioweb._markers import DependencyScope

from .plans import Failure, RequestPlan, TaskPlan, WorldPlan

Attempt = Literal["running", "returned", "raised", "cancelled"]


# Where an object lies in memory is no seed's doing.
_ADDRESS = re.compile("0x[0-9a-f]+")


class Planned(Exception):
    """A failure that the plan asks for."""


class Handled(Planned):
    """One for which the app has an exception handler."""


@dataclass(eq=False)
class TaskRecord:
    """One task that was added, and what became of each attempt."""

    name: str
    plan: TaskPlan
    handle: BackgroundTask
    order: int
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(eq=False)
class DependencyRecord:
    """One entry of a generator dependency."""

    scope: DependencyScope
    task: trio.lowlevel.Task
    left: int = 0


@dataclass(eq=False)
class StreamRecord:
    """One iterator behind a response that took its first step."""

    closed: int = 0


@dataclass(eq=False)
class RequestRecord:
    """One request that a client made, from both ends."""

    number: int
    plan: RequestPlan
    handler_began: bool = False
    handler_ended: Attempt = "running"
    tasks: list[TaskRecord] = field(default_factory=list)
    dependencies: list[DependencyRecord] = field(default_factory=list)
    streams: list[StreamRecord] = field(default_factory=list)
    channels: list[trio.MemoryReceiveChannel[bytes]] = field(default_factory=list)
    # The server's side.
    was_full: bool = False
    was_draining: bool = False
    call_cancelled: bool = False
    sending: int = 0
    status: int | None = None
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    left: bool = False

    @property
    def expected_body(self) -> bytes:
        if self.plan.response == "json":
            return b"%d" % self.number
        return b"".join(self.chunk(i) for i in range(self.plan.stream.chunks))

    def chunk(self, index: int) -> bytes:
        return b"<%d.%d>" % (self.number, index)

    @property
    def request_body(self) -> bytes:
        return b"".join(b"[%d]" % i for i in range(self.plan.client.chunks))


class World:
    """Everything that one run knows of itself."""

    def __init__(self, seed: int, plan: WorldPlan) -> None:
        self.seed = seed
        self.plan = plan
        self.random = Random(seed)
        self.trace: list[str] = []
        self.violations: list[str] = []
        self.requests: list[RequestRecord] = []
        self.is_open = False  # the database that the lifespan holds open
        self.failures: list[BaseException] = []  # outside tasks, each to be heard of
        self.heard: Counter[int] = Counter()
        self.chained: set[int] = set()
        self._heard_of: list[BaseException] = []  # keeps the ids above their own
        self.app: App

    def note(self, event: str) -> None:
        same = _ADDRESS.sub("0x…", event)
        self.trace.append(f"{trio.current_time():10.3f}  {same}")

    def violate(self, problem: str) -> None:
        self.trace.append(f"VIOLATION: {problem}")
        self.violations.append(problem)

    def expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.violate(problem)

    def touch(self, who: str) -> None:
        """Use the database."""
        self.expect(self.is_open, f"{who} ran after the lifespan closed")

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


class LogWatch(logging.Handler):
    """Hears what trioweb logs."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        exc = record.exc_info[1] if record.exc_info is not None else None
        self._world.note(f"log: {record.getMessage()} {exc!r}")
        self._world.expect(record.levelno < logging.CRITICAL, record.getMessage())
        if exc is not None:
            self._world.hear(exc)
