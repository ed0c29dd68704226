"""Events: what happens in an app, in one vocabulary, for whoever wants to watch.

Rules of this module:

* Each event is a frozen record, told when it happens, by whoever it happens to, and as it is:
  a listener that fails is logged, and changes nothing.
* All events of one request have the same label object, and its tasks have it too.
* Nobody who doesn't listen pays: where there is no listener, an event costs one look.
* A task may be added by a thread; then its listener is called there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import msgspec

from .. import _errors
from .._asgi import ConnectionClosed, ConnectionOpened, LimitReached, ServerListener
from .._http.url import RequestLabel
from .._tasks.ledger import Ledger, TaskState
from .._tasks.task import BackgroundTask

logger = logging.getLogger("trioweb")


class RequestBegan(msgspec.Struct, frozen=True):
    """The app was called with a request."""

    request: RequestLabel


class RequestAnswered(msgspec.Struct, frozen=True):
    """Its response is over; `is_delivered`: as far as known, the client was there to get it."""

    request: RequestLabel
    status: int
    is_delivered: bool


class RequestEnded(msgspec.Struct, frozen=True):
    """Nothing of it is left: its tasks have ended, and what it had open is closed."""

    request: RequestLabel


class TaskAdded(msgspec.Struct, frozen=True):
    """A task waits in its request's list."""

    task: BackgroundTask


class TaskBegan(msgspec.Struct, frozen=True):
    """A task runs."""

    task: BackgroundTask


class TaskEnded(msgspec.Struct, frozen=True):
    """A task is in this end state."""

    task: BackgroundTask
    state: TaskState


class DrainBegan(msgspec.Struct, frozen=True):
    """A shutdown has begun: nothing new is accepted, what is in flight goes on."""


class CancelBegan(msgspec.Struct, frozen=True):
    """What is still in flight is cancelled, and cleans up."""


class ShutdownReported(msgspec.Struct, frozen=True):
    """A shutdown is over; the log says this of it."""

    text: str


Event = (
    RequestBegan
    | RequestAnswered
    | RequestEnded
    | TaskAdded
    | TaskBegan
    | TaskEnded
    | DrainBegan
    | CancelBegan
    | ShutdownReported
    | ConnectionOpened
    | ConnectionClosed
    | LimitReached
)
Listener = Callable[[Event], object]


class Events:
    """What happens in one app, from its making to its end.

    `hear` takes an event; it is None while nobody listens.
    """

    hear: Listener | None = None

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._ledger: Ledger[BackgroundTask] | None = None
        self._listen_to_server: Callable[[ServerListener], object] | None = None

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Tell `listener` of all that happens within this block."""
        self.add(listener)
        try:
            yield
        finally:
            self.remove(listener)

    def add(self, listener: Listener) -> None:
        self._listeners = (*self._listeners, listener)
        self._connect()

    def remove(self, listener: Listener) -> None:
        listeners = list(self._listeners)
        listeners.remove(listener)
        self._listeners = tuple(listeners)
        self._connect()

    def follow(self, ledger: Ledger[BackgroundTask]) -> None:
        """Tell of the tasks in this ledger from now on: the app has a new one."""
        if self._ledger is not None:
            self._ledger.hear = None
        self._ledger = ledger
        self._connect()

    def join(self, listen: Callable[[ServerListener], object] | None) -> None:
        """Tell of what the server tells, too, as soon as anybody listens."""
        self._listen_to_server = listen
        self._connect()

    def _connect(self) -> None:
        is_heard = bool(self._listeners)
        self.hear = self._tell if is_heard else None
        if self._ledger is not None:
            self._ledger.hear = self._tell_of_task if is_heard else None
        if is_heard and self._listen_to_server is not None:
            listen, self._listen_to_server = self._listen_to_server, None
            listen(self._tell)

    def _tell_of_task(self, task: BackgroundTask) -> None:
        if task.state == "pending":
            self._tell(TaskAdded(task))
        elif task.state == "running":
            self._tell(TaskBegan(task))
        else:
            self._tell(TaskEnded(task, task.state))

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except BaseException as exc:
                _errors.raise_rest(exc, partial(_log_failure, event))


def _log_failure(event: Event, failure: BaseException) -> None:
    logger.error("a listener failed at %s", type(event).__name__, exc_info=failure)
