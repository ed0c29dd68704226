"""One request being answered: what comes in, what goes out, how it came out, and its task list.

Rules of this module:

* The app works with it; handlers see it through a view, `Request`.
* Nothing is computed before it is asked for, and nothing twice.  What few requests need starts
  out on the class: a request that nobody asks pays nothing for it.
* Nothing that the client wrote is trusted: what can't be decoded is a 400 or a 422.
* Where the server is ours and nobody stands between, a body that came with its head and a response
  in one piece take one step each.
"""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

import trio

from .. import _limits
from .._asgi import DISCARDS_UNREAD_BODY, Message, Receive, Scope, Send, ServerExchange
from .._concurrency.grace import Grace
from .._errors import HTTPException
from .._tasks.ledger import Ledger
from .._tasks.list import BackgroundTasks, TaskQueue, list_of
from .._tasks.options import When
from .._tasks.task import BackgroundTask
from .cookies import parse_cookies
from .headers import Headers
from .inbox import Inbox, Pieces, body_is_gone, too_large
from .url import QueryParams, RequestLabel

Outcomes = frozenset[When]

_SUCCESS: Outcomes = frozenset(("success", "always"))
_FAILURE: Outcomes = frozenset(("success", "error", "always"))

# One for all requests, as it is held for a microsecond.
_making = threading.Lock()


class State:
    """Attributes of your own: `app.state.db = …`, `request.state.user = …`."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...
        def __delattr__(self, name: str) -> None: ...

    def __repr__(self) -> str:
        return f"State({vars(self)})"


def state_in(scope: Scope) -> dict[str, Any]:
    """What the scope holds for whoever sees this request; in place, so that all see it."""
    state = scope.get("state")
    if not isinstance(state, dict):
        state = scope["state"] = dict(state or {})
    return state


def state_over(values: dict[str, Any]) -> State:
    """One whose attributes are these values: what is set here is seen there, and the reverse."""
    state = State()
    state.__dict__ = values
    return state


class Exchange:
    """One request, from its head to the end of its tasks."""

    # What handlers see of it, made when the first one asks; gone when the answer is.
    view: Any = None
    # The request's own, while a handler runs that takes one.
    nursery: trio.Nursery | None = None
    # Whether the server was given the head of a response.
    is_answered: bool = False
    # The time that closing what it has open may take once it is cancelled.
    grace: Grace = Grace(_limits.CLEANUP_TIMEOUT)
    # Where its tasks are counted.
    ledger: Ledger[BackgroundTask] | None = None
    # The tasks that wait for its end, if anybody asked for a list.
    queue: TaskQueue | None = None
    # How it came out, for the tasks that depend on it.
    outcomes: Outcomes = _SUCCESS
    # What its handlers keep there, if anybody asked for it.
    kept_state: State | None = None
    # The whole body, once it is known.
    known_body: bytes | None = None
    # Whether a client that has closed its sending side is answered all the same.
    outlasts_half_close: bool = False

    _headers: Headers | None = None
    _query_params: QueryParams | None = None
    _cookies: dict[str, str] | None = None
    _label: RequestLabel | None = None
    _tasks: BackgroundTasks | None = None
    _inbox: Inbox | None = None
    _is_streamed = False
    _body_is_gone = False
    _is_over = False

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        app: Any,
        path_params: dict[str, Any],
        max_body_size: int,
    ) -> None:
        self.scope: Scope = scope
        self.send: Send = send
        self.app: Any = app
        self.path_params: dict[str, Any] = path_params
        self.max_body_size: int = max_body_size
        # Our own server's side of it, if `send` is its own.
        self.server: ServerExchange | None = _server_behind(send)
        self._receive = receive

    # The head

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers(self.scope["headers"])
        return self._headers

    @property
    def query_params(self) -> QueryParams:
        if self._query_params is None:
            self._query_params = QueryParams(self.scope.get("query_string", b""))
        return self._query_params

    @property
    def cookies(self) -> Mapping[str, str]:
        if self._cookies is None:
            self._cookies = parse_cookies(self.headers.getlist("cookie"))
        return self._cookies

    @property
    def label(self) -> RequestLabel:
        """`POST /items/3`: its name for people."""
        if self._label is None:
            scope = self.scope
            self._label = RequestLabel(scope["method"], scope["path"], scope.get("raw_path"))
        return self._label

    @property
    def state(self) -> State:
        """The handlers' own for this request; begins with what the app's lifespan yielded.

        It is the scope's `state`, for middleware to see what handlers have set.
        """
        if self.kept_state is None:
            self.kept_state = state_over(state_in(self.scope))
        return self.kept_state

    # The body, and the client's leaving

    async def body(self) -> bytes:
        """The whole body.  Raises `HTTPException(413)` past `max_body_size`, before it is read
        where its length was declared, and `ClientDisconnect` when the client leaves within it.

        Cancellation: what has arrived is lost; don't read on.
        """
        if self.known_body is None and not self.has_body_at_once():
            self.known_body = await self._pieces().join()
        return cast(bytes, self.known_body)

    def has_body_at_once(self) -> bool:
        """Whether `body` won't wait: the server is ours, and has all of it."""
        if self._inbox is None and not self._is_streamed:
            server = _server_behind(self._receive)
            if server is not None:
                self.known_body = server.take_body(self.max_body_size)
        return self.known_body is not None

    def stream(self) -> AsyncIterator[bytes]:
        """The body in pieces, as they arrive; each is thrown away when the next is asked for.

        Errors as for `body`; RuntimeError when the body was streamed before, or
        another task reads it.
        """
        if self.known_body is not None:
            return Pieces(Inbox.holding(self.known_body), len(self.known_body))
        return self._pieces()

    def _pieces(self) -> Pieces:
        if self._is_streamed:
            raise RuntimeError(
                "this request's body was streamed, or another task reads it; "
                "it can't be read twice: await request.body() once, and share what it returns"
            )
        if self._body_is_gone or self._is_over:
            if not self._may_have_body():
                return Pieces(Inbox.holding(b""), 0)
            raise body_is_gone()
        self._is_streamed = True
        self._check_declared_size()
        return Pieces(self._get_inbox(), self.max_body_size)

    def _check_declared_size(self) -> None:
        declared = self.headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()):
            raise HTTPException(400, "Content-Length is not a number")
        # Longer than any limit before int() would take long.
        if len(declared) > 20 or int(declared) > self.max_body_size:
            raise too_large(self.max_body_size)

    def _get_inbox(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self._receive, complete=self.known_body is not None)
        return self._inbox

    async def wait_disconnected(self) -> None:
        """Returns when the client has left.

        It means nothing past the last byte of the response, when servers say so of
        clients that are still there.
        """
        await self._get_inbox().wait_disconnected()

    async def wait_departed(self) -> None:
        """As `wait_disconnected`; but one who may still read stays, where that counts."""
        inbox = self._get_inbox()
        await inbox.wait_disconnected()
        if inbox.half_closed and self.outlasts_half_close:
            await trio.sleep_forever()  # what is sent to it will tell

    async def is_client_there(self) -> bool:
        """False if the client has left, as far as that is known, or a task wants to know.

        Asked before the last byte: past it servers say "disconnect" to anybody.
        """
        if self._is_known_to_have_left():
            return False
        return not (self.wants_delivery() and await self._has_left())

    def _is_known_to_have_left(self) -> bool:
        inbox = self._inbox
        return inbox is not None and inbox.disconnected and not inbox.half_closed

    def wants_delivery(self) -> bool:
        """Whether a task asks if the client got the response."""
        return self.queue is not None and self.queue.asks_for_delivery

    async def _has_left(self) -> bool:
        """Whether the client has left already."""
        for _ in range(_limits.DEPARTURE_LOOKS):
            with trio.move_on_after(_limits.DEPARTURE_TIME / _limits.DEPARTURE_LOOKS):
                await self.wait_disconnected()
                return self._is_known_to_have_left()
        return False

    # The response

    def send_whole(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> Awaitable[None] | None:
        """What sends a response in one step, by `server`; None where messages have to be sent.

        That is a third less for server and response together than two messages (a tenth of a
        request), which whoever wraps `send` still gets to see.
        """
        server = self.server
        # Who wants to know whether the client is there has to look before the last byte.
        if server is None or self._is_known_to_have_left() or self.wants_delivery():
            return None
        self.is_answered = True
        sending = server.send_whole(status, fields, body)
        self.is_answered = sending is not None
        return sending

    async def send_head(self, head: Message) -> None:
        self.is_answered = True
        try:
            await self.send(head)
        except trio.Cancelled:
            self.is_answered = False  # a send that is cancelled has sent nothing
            raise

    async def send_all_but_last(self, body: bytes) -> bytes:
        """Send a body but for its last byte, and return that.

        Whoever wants to know if the client got the body asks in between: what it hasn't got as a
        whole it still waits for, while one that has may leave at once.
        """
        await self.send({"type": "http.response.body", "body": body[:-1], "more_body": True})
        return body[-1:]

    def send_last(self, body: bytes) -> Awaitable[None]:
        """Send the end of the response, and throw away what is unread of the request meanwhile."""
        self.end_body()
        if self._has_unread_body():
            return self._send_last_and_discard(body)
        return self.send({"type": "http.response.body", "body": body, "more_body": False})

    def end_body(self) -> None:
        """The response is over, or broken off: whoever reads on is told that it's too late."""
        self._body_is_gone = True
        if self._inbox is not None:
            self._inbox.end()

    def _has_unread_body(self) -> bool:
        """Whether a body may be left for us to throw away; our own server does so by itself."""
        extensions = self.scope.get("extensions")
        if extensions and DISCARDS_UNREAD_BODY in extensions:
            return False
        if self._inbox is not None:
            return not self._inbox.over
        return self.known_body is None and self._may_have_body()

    def _may_have_body(self) -> bool:
        """Whether the request has a body, as far as its head says."""
        if not self.scope["http_version"].startswith("1"):
            return True
        for name, value in self.scope["headers"]:  # `any` costs twice as much
            if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
                return True
        return False

    async def _send_last_and_discard(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        inbox = self._get_inbox()
        with trio.move_on_after(_limits.LINGER_TIME):
            await inbox.discard(_limits.LINGER_SIZE)
        failure: OSError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.discard, math.inf)
            try:
                await self.send({"type": "http.response.body", "body": b"", "more_body": False})
            except OSError as exc:  # the client has left; it mustn't come in a group
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    # The tasks

    @property
    def tasks(self) -> BackgroundTasks:
        """Its task list, the one that a `BackgroundTasks` parameter gets."""
        if self._tasks is None:
            with _making:  # threads ask too
                if self._tasks is None:
                    self.queue = queue = TaskQueue(self.ledger, self.label)
                    if self._is_over:  # asked behind that: the end closes a queue that it finds
                        queue.closed = True
                    # Last: whoever has the list adds to it, without a look at anything else.
                    self._tasks = list_of(queue)
        return self._tasks

    def adopt(self, brought: BackgroundTasks | BackgroundTask) -> None:
        """Let the tasks that a response was made with join the list."""
        queue = self.queue
        if queue is None:
            _ = self.tasks
            queue = cast(TaskQueue, self.queue)
        queue.adopt(brought)

    def fail(self) -> None:
        """The handler failed: of its tasks run those for that; then those of who answers for it."""
        if self.queue is not None:
            self.queue.keep({"error", "always"})
        self.outcomes = _FAILURE

    def add_outcome(self, outcome: When) -> None:
        self.outcomes |= {outcome}  # for tasks that may still be added, too

    def end_if_idle(self) -> bool:
        """Refuse tasks from now on, if none waits; whether it does so."""
        self._is_over = True  # a list that is first asked for now is closed
        self.view = None  # they hold each other
        return self.queue is None or self.queue.close_if_empty()

    def end_tasks(self) -> None:
        """What still waits is cancelled, and nobody would run what is added later: an error."""
        self._is_over = True
        self.view = None
        if self.queue is not None:
            self.queue.end()


def _server_behind(method: object) -> ServerExchange | None:
    """What a server's `receive` or `send` belongs to, where the server is ours."""
    if type(method) is MethodType and getattr(type(method.__self__), "is_of_trioweb", False):
        return cast(ServerExchange, method.__self__)
    return None
