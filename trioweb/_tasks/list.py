"""Task lists: what waits to run after a response, and who may still add to it.

Rules of this module:

* Whatever was added to a list runs or is counted: a list whose request is over refuses new tasks
  aloud.  Threads add too: adding is one step, and so is closing.
* What users hold is a view: lists that became one share the queue behind it.
* Ctrl-C, which Python raises between any two instructions, waits while a task is put into a list
  or taken out of it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence, Set as AbstractSet
from typing import Any, ParamSpec, TypeVarTuple

from trio.lowlevel import enable_ki_protection

from .._instead import tells_instead
from .ledger import Ledger
from .options import When
from .task import BackgroundTask, cancel_task

# Of all lists, as two may become one: what is done under it takes a microsecond.
_adding = threading.RLock()

P = ParamSpec("P")
PosArgs = TypeVarTuple("PosArgs")


@tells_instead()
class BackgroundTasks:
    """The list of what runs after the response.

    A handler or dependency takes it as a parameter, whoever has the request finds
    it there, as `request.tasks`, and a response can bring one along:
    `JSONResponse(…, background=tasks)`.
    """

    __slots__ = ("_queue",)

    def __init__(self, tasks: Sequence[BackgroundTask] = ()) -> None:
        self._queue = TaskQueue()
        for task in tasks:
            self._queue.add(task)

    @enable_ki_protection
    def add_task(
        self, func: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> BackgroundTask:
        """Run `func(*args, **kwargs)` after the response, when those added before have ended.

        A `def` runs in a worker thread.  Raises RuntimeError when the request this
        list belonged to is over.
        """
        task = BackgroundTask(func, *args, **kwargs)
        self._queue.add(task)
        return task

    @enable_ki_protection
    def start_soon(self, func: Callable[[*PosArgs], object], /, *args: *PosArgs) -> BackgroundTask:
        """Run `func(*args)` after the response, beside the others.  Else as `add_task`."""
        task = BackgroundTask(func, *args)
        task.is_concurrent = True
        self._queue.add(task)
        return task

    def __len__(self) -> int:
        """How many tasks wait for their turn."""
        return len(self._queue.waiting) + len(self._queue.concurrent or ())


class TaskQueue:
    """The tasks of one request, or of lists that aren't anybody's yet.

    `ledger` is where they are counted, `label` names their request; an app's have both.
    """

    closed: bool = False
    # Closed, because this queue became a part of that one.
    joined: TaskQueue | None = None
    # Set while the list runs: told of a task that joined.
    notice: Callable[[BackgroundTask], None] | None = None
    # Whether there was a task that asks if the client got the response.
    asks_for_delivery: bool = False
    # Those that start as soon as the list runs, beside each other; few lists have any.
    concurrent: deque[BackgroundTask] | None = None

    def __init__(self, ledger: Ledger[BackgroundTask] | None = None, label: Any = None) -> None:
        self.ledger: Ledger[BackgroundTask] | None = ledger
        self.label: Any = label
        self.waiting: deque[BackgroundTask] = deque()

    def add(self, task: BackgroundTask) -> None:
        with _adding:
            queue = self
            while queue.joined is not None:
                queue = queue.joined
            if queue.closed:
                raise RuntimeError(f"can't add task {task.name!r}: the request it is for is over")
            if task.is_queued:
                raise RuntimeError(f"{task!r} is in a list already: a task runs once")
            task.is_queued = True
            queue._enter(task)

    @enable_ki_protection
    def adopt(self, brought: BackgroundTasks | BackgroundTask) -> None:
        """Take over what a response brought along; what is added to that later joins too."""
        if isinstance(brought, BackgroundTask):
            self.add(brought)
        elif brought._queue is not self:
            self._join(brought._queue)
            brought._queue = self  # or it would have no length any more

    def _join(self, other: TaskQueue) -> None:
        with _adding:
            if other.ledger is not None:
                raise RuntimeError("this BackgroundTasks belongs to another request")
            if self.closed and other.is_waiting:
                raise RuntimeError("can't add these BackgroundTasks: the request is over")
            other.joined = self
            for task in other._taken():
                self._enter(task)

    def _enter(self, task: BackgroundTask) -> None:
        task.label = self.label
        if self.ledger is not None:
            self.ledger.enter(task)
        if task.options.when == "sent":
            self.asks_for_delivery = True
        if task.is_concurrent:
            self._append_concurrent(task)
        else:
            self.waiting.append(task)
        if self.notice is not None:
            self.notice(task)

    def _append_concurrent(self, task: BackgroundTask) -> None:
        if self.concurrent is None:
            self.concurrent = deque()
        self.concurrent.append(task)

    @property
    def is_waiting(self) -> bool:
        """Whether tasks wait for their turn."""
        return bool(self.waiting or self.concurrent)

    def _taken(self) -> list[BackgroundTask]:
        tasks = [*(self.concurrent or ()), *self.waiting]
        self.concurrent = None
        self.waiting.clear()
        return tasks

    def keep(self, outcomes: AbstractSet[When]) -> None:
        """Skip those that aren't for these outcomes."""
        with _adding:
            tasks = self._taken()
            self.asks_for_delivery = self.asks_for_delivery and "sent" in outcomes
            kept = [task for task in tasks if task.options.when in outcomes]
            self.waiting.extend(task for task in kept if not task.is_concurrent)
            self.concurrent = deque(task for task in kept if task.is_concurrent) or None
        for task in tasks:
            if task.options.when not in outcomes:
                self._owner().end(task, "skipped")

    def close_if_empty(self) -> bool:
        """Refuse what is added from now on, if nothing waits; whether it does so."""
        # Only Trio's thread takes them out: no lock is needed to see that some wait.
        if self.waiting or self.concurrent:
            return False
        with _adding:
            self.closed = self.closed or not self.is_waiting
            return self.closed

    def end(self) -> None:
        """What still waits is cancelled; what is added later is refused."""
        with _adding:
            self.closed = True
            tasks = self._taken()
        self._cancel(tasks)

    def cancel(self) -> None:
        """What waits is cancelled: its request was, before it could run."""
        with _adding:
            tasks = self._taken()
        self._cancel(tasks)

    def _cancel(self, tasks: Sequence[BackgroundTask]) -> None:
        for task in tasks:
            cancel_task(task, self._owner())

    def _owner(self) -> Ledger[BackgroundTask]:
        assert self.ledger is not None, "only what belongs to a request is ended"
        return self.ledger


def list_of(queue: TaskQueue) -> BackgroundTasks:
    """A view of this queue, for users."""
    tasks = BackgroundTasks.__new__(BackgroundTasks)
    tasks._queue = queue
    return tasks


def queue_of(tasks: BackgroundTasks) -> TaskQueue:
    return tasks._queue
