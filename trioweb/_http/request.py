"""The request: what the server's scope says, and the body as it arrives.

Rules of this module:

* Nothing is computed before it is asked for, and nothing twice.
* Nothing that the client wrote is trusted: the path is the one that was routed,
  never one read out of the Host field; what can't be decoded is a 400 or a 422.
* One place calls the server's `receive`: `_Inbox`.  Reading the body, watching
  for the client's departure and throwing an unread body away all go through it.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MethodType, SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote

import trio

from .. import _limits
from .._asgi import Message, Receive, Scope
from .._concurrency.grace import Grace
from .._errors import ClientDisconnect, HTTPException, Invalid, RequestValidationError
from .._shapes import json as _shapes
from .._tasks.ledger import Ledger
from .._tasks.options import When
from .._tasks.runner import BackgroundTask, BackgroundTasks
from .cookies import parse_cookies
from .headers import Headers
from .paths import origin_form, routed_path

# RFC 3986, 3.2.2: a name, an IPv4 address or an IPv6 address in brackets, and a port.
_HOST = re.compile(r"(?:[\w.~%!$&'()*+,;=-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{0,5})?", re.ASCII)
_PORT = re.compile(r":([0-9]*)\Z")
_PATH_SAFE = "/:@!$&'()*+,;=~"
_METHOD_SAFE = "!#$&'*+^`|~"

# One for all requests, as it is held for a microsecond.
_making = threading.Lock()

_decode_json = _shapes.body_decoder(Any)


class Address(NamedTuple):
    host: str
    port: int | None


class State(SimpleNamespace):
    """Attributes of your own: `app.state.db = …`, `request.state.user = …`."""


@dataclass(frozen=True, slots=True)
class URL:
    """Where a request went.

    `path` is the decoded path that was routed; `raw_path` and `query` are as they
    were sent, percent-encoded.
    """

    scheme: str
    netloc: str
    path: str
    raw_path: str
    query: str

    @property
    def hostname(self) -> str:
        """In lower case, an IPv6 address without its brackets."""
        return _PORT.sub("", self.netloc).strip("[]").lower()

    @property
    def port(self) -> int | None:
        port = _PORT.search(self.netloc)
        return int(port[1]) if port and port[1] else None

    def __str__(self) -> str:
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.netloc}{self.raw_path}{query}"


class QueryParams(Mapping[str, str]):
    """The fields of a query string; the last of a repeated one, `getlist` gives all."""

    __slots__ = ("_values",)

    def __init__(self, query_string: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in _parse_query(query_string):
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        return self._values[name][-1]

    def getlist(self, name: str) -> list[str]:
        """All values of one field, in the order they came."""
        return list(self._values.get(name, ()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values})"


def exchange_behind(method: Callable[..., Any]) -> Any:
    """What a server's `receive` or `send` belongs to, where the server is ours, else None."""
    if type(method) is MethodType and getattr(type(method.__self__), "is_of_trioweb", False):
        return method.__self__
    return None


class Request:
    """One HTTP request.  Handlers, dependencies and exception handlers take it as a parameter."""

    # What is computed when first asked for starts out on the class: a request
    # that nobody asks pays nothing for it.
    _headers: Headers | None = None
    _query_params: QueryParams | None = None
    _cookies: dict[str, str] | None = None
    _url: URL | None = None
    _state: State | None = None
    _tasks: BackgroundTasks | None = None
    _inbox: _Inbox | None = None
    _body: bytes | None = None
    _nursery: trio.Nursery | None = None
    _streamed = False
    _ended = False
    # Whether the server was given the head of a response.
    _answered = False
    # The time that closing what it has open may take once it is cancelled.
    _grace = Grace(_limits.CLEANUP_TIMEOUT)
    # Where its tasks are counted.
    _ledger: Ledger[BackgroundTask] | None = None
    # How it came out, for the tasks that depend on it.
    _outcomes: frozenset[When] = frozenset(("success", "always"))

    def __init__(self, scope: Scope, receive: Receive, app: Any, max_body_size: int) -> None:
        self.scope = scope
        self.app = app
        self.path_params: dict[str, Any] = {}
        self.max_body_size = max_body_size
        self._receive = receive

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def url(self) -> URL:
        if self._url is None:
            sent = (self.scope["path"], self.scope.get("raw_path"))
            path = routed_path(*origin_form(*sent))
            query = self.scope.get("query_string", b"").decode("latin-1")
            scheme = self.scope.get("scheme", "http")
            self._url = URL(scheme, self._netloc(), path, _as_sent(*sent), query)
        return self._url

    def _netloc(self) -> str:
        """The Host field where it is one host, else the address that the server listens on."""
        hosts = self.headers.getlist("host")
        if len(hosts) == 1 and _HOST.fullmatch(hosts[0]):
            return hosts[0]
        host, port = self.scope.get("server") or ("localhost", None)
        if port is None:
            return "localhost"  # nothing is known, or only a Unix socket's path
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

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
    def client(self) -> Address | None:
        client = self.scope.get("client")
        return Address(client[0], client[1]) if client else None

    @property
    def state(self) -> State:
        """Yours for this request; begins with what the app's lifespan yielded."""
        if self._state is None:
            self._state = State(**self.scope.get("state", {}))
        return self._state

    @property
    def tasks(self) -> BackgroundTasks:
        """The request's task list, the one that a `BackgroundTasks` parameter gets."""
        if self._tasks is None:
            with _making:  # threads ask too
                if self._tasks is None:
                    tasks = BackgroundTasks()
                    tasks._queue.ledger = self._ledger
                    self._tasks = tasks
                    if self._ended:  # asked last: the end closes a list that it finds
                        tasks._queue.closed = True
        return self._tasks

    def url_for(self, name: str, /, **path_params: Any) -> str:
        """The absolute URL of a route of this app, by the route's name."""
        root = quote(self.scope.get("root_path", "").rstrip("/"), safe=_PATH_SAFE)
        path = self.app.url_for(name, **path_params)
        return f"{self.url.scheme}://{self.url.netloc}{root}{path}"

    async def body(self) -> bytes:
        """The whole body.  Raises `HTTPException(413)` past `max_body_size`, before it is read
        where its length was declared, and `ClientDisconnect` when the client leaves within it.

        Cancellation: what has arrived is lost; don't read on.
        """
        if self._body is None:
            self._body = self._body_at_once()
        if self._body is None:
            self._body = await self._pieces().join()
        return self._body

    async def json(self) -> Any:
        """The body as JSON.  Raises `RequestValidationError`, a 422, when it is none."""
        try:
            return _decode_json(await self.body())
        except Invalid as exc:
            raise RequestValidationError(
                [{**problem, "loc": ["body", *problem["loc"]]} for problem in exc.problems]
            ) from None

    def _has_body_at_once(self) -> bool:
        """Whether `body` won't wait; asked once, before anybody reads it."""
        self._body = self._body_at_once()
        return self._body is not None

    def _body_at_once(self) -> bytes | None:
        """The body, where the server is ours, gave us its `receive` itself, and has all of it."""
        if self._inbox is not None or self._streamed:
            return None
        exchange = exchange_behind(self._receive)
        body: bytes | None = None if exchange is None else exchange.take_body(self.max_body_size)
        return body

    def stream(self) -> AsyncIterator[bytes]:
        """The body in pieces, as they arrive; each is thrown away when the next is asked for.

        Errors as for `body`; RuntimeError when the body was streamed before, or
        another task reads it.
        """
        if self._body is not None:
            return _Pieces(_Inbox.holding(self._body), len(self._body))
        return self._pieces()

    def _pieces(self) -> _Pieces:
        if self._streamed:
            raise RuntimeError(
                "this request's body was streamed, or another task reads it; "
                "it can't be read twice: await request.body() once, and share what it returns"
            )
        self._streamed = True
        self._check_declared_size()
        return _Pieces(self._get_inbox(), self.max_body_size)

    async def wait_disconnected(self) -> None:
        """Returns when the client has left.

        It means nothing past the last byte of the response, when servers say so of
        clients that are still there.
        """
        await self._get_inbox().wait_disconnected()

    def _check_declared_size(self) -> None:
        declared = self.headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()):
            raise HTTPException(400, "Content-Length is no number")
        # Longer than any limit before int() would take long.
        if len(declared) > 20 or int(declared) > self.max_body_size:
            raise _too_large(self.max_body_size)

    def _get_inbox(self) -> _Inbox:
        if self._inbox is None:
            self._inbox = _Inbox(self._receive, complete=self._body is not None)
        return self._inbox

    def _may_have_unread_body(self) -> bool:
        if self._inbox is not None:
            return not self._inbox.over
        if self._body is not None:
            return False
        if not self.scope["http_version"].startswith("1"):
            return True
        for name, value in self.scope["headers"]:  # `any` costs twice as much
            if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
                return True
        return False

    def _needs_no_look(self) -> bool:
        """Whether the client is not known to have left, and nobody asks."""
        return not (self._is_known_to_have_left() or self._wants_delivery())

    def _end_if_idle(self) -> bool:
        """Refuse tasks from now on, if none waits; whether it does so."""
        self._ended = True  # a list that is first asked for now is closed
        return self._tasks is None or self._tasks._queue.close_if_empty()

    def _fail(self) -> None:
        """The handler failed: of its tasks run those for that; then those of who answers for it."""
        if self._tasks is not None:
            self._tasks._queue.keep({"error", "always"})
        self._outcomes = frozenset(("success", "error", "always"))

    def _add_outcome(self, outcome: When) -> None:
        self._outcomes |= {outcome}  # for tasks that may still be added, too

    def _wants_delivery(self) -> bool:
        """Whether a task asks if the client got the response."""
        return self._tasks is not None and self._tasks._queue.asks_for_delivery

    def _is_known_to_have_left(self) -> bool:
        return self._inbox is not None and self._inbox.disconnected

    async def _has_left(self) -> bool:
        """Whether the client has left already."""
        for _ in range(_limits.DEPARTURE_LOOKS):
            with trio.move_on_after(_limits.DEPARTURE_TIME / _limits.DEPARTURE_LOOKS):
                await self.wait_disconnected()
                return True
        return False

    def _end_tasks(self) -> None:
        """What still waits is cancelled, and nobody would run what is added later: an error."""
        self._ended = True
        if self._tasks is not None:
            self._tasks._end(Where(self.scope))

    def __repr__(self) -> str:
        return f"<Request {describe(self.scope)}>"


class _Inbox:
    """The one reader of a server's `receive`.

    Two tasks can wait here: one that reads the body, one that watches for the
    client leaving.  Whichever comes first receives a message, for both.
    """

    def __init__(self, receive: Receive, *, complete: bool = False) -> None:
        self._receive = receive
        self._chunks: deque[bytes] = deque()
        self._waiting = 0  # bytes in _chunks
        self._complete = complete  # the server has given all of the body
        self.disconnected = False
        self._broken = False
        self._receiving = False
        self._changed: trio.lowlevel.ParkingLot | None = None  # made when somebody waits there

    @classmethod
    def holding(cls, body: bytes) -> _Inbox:
        """One that has received a whole body already."""
        inbox = cls(trio.sleep_forever)
        inbox._accept({"type": "http.request", "body": body})
        return inbox

    @property
    def over(self) -> bool:
        """Whether the server has nothing more of the body for us."""
        return self._complete or self.disconnected or self._broken

    @property
    def read_up(self) -> bool:
        """Whether the whole body was taken out."""
        return self._complete and not self._chunks

    async def next_chunk(self) -> bytes | None:
        """The next piece of the body, None past its end."""
        while not self._chunks:
            if self._complete:
                return None
            if self.disconnected:
                raise ClientDisconnect
            await self._receive_one()
        chunk = self._chunks.popleft()
        self._waiting -= len(chunk)
        self._tell()
        return chunk

    async def wait_disconnected(self) -> None:
        """Returns when the client has left.  Reads ahead no more than `READ_AHEAD` bytes."""
        while not self.disconnected:
            if self._waiting > _limits.READ_AHEAD:
                await self._wait_for_change()
            else:
                await self._receive_one()

    async def discard(self, size: float) -> None:
        """Throw away up to `size` bytes of what is left of the body."""
        while not self.over and size > 0:
            await self._receive_one()
            size -= self._waiting
            self._chunks.clear()
            self._waiting = 0

    async def _receive_one(self) -> None:
        if self._receiving:
            await self._wait_for_change()
            return
        self._receiving = True
        try:
            self._accept(await self._receive())
        except Exception:
            self._broken = True  # asking again would fail again
            raise
        finally:
            self._receiving = False
            self._tell()

    async def _wait_for_change(self) -> None:
        if self._changed is None:
            self._changed = trio.lowlevel.ParkingLot()
        await self._changed.park()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.unpark_all()

    def _accept(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.disconnected = True
            return
        self._complete = not message.get("more_body", False)
        if chunk := message.get("body", b""):
            self._chunks.append(chunk)
            self._waiting += len(chunk)


class _Pieces(AsyncIterator[bytes]):
    """What an inbox has, piece by piece, up to `limit` bytes.

    No generator: a loop over one that is left early leaves it open, for the
    garbage collector to find and Trio to complain of.
    """

    def __init__(self, inbox: _Inbox, limit: int) -> None:
        self._inbox = inbox
        self._limit = limit
        self._received = 0

    async def __anext__(self) -> bytes:
        piece = await self._inbox.next_chunk()
        if piece is None:
            raise StopAsyncIteration
        self._count(piece)
        return piece

    async def join(self) -> bytes:
        """All of them; most bodies come in one, which costs half of what a loop does."""
        pieces: list[bytes] = []
        while not self._inbox.read_up and (piece := await self._inbox.next_chunk()) is not None:
            self._count(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _count(self, piece: bytes) -> None:
        self._received += len(piece)
        if self._received > self._limit:
            raise _too_large(self._limit)


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"The body is larger than {limit} bytes")


class Where:
    """`POST /items/3`: a request for people, put into words only when somebody asks (20 µs).

    `str` of it is one line, whatever the client sent; it keeps nothing else of the request.
    """

    __slots__ = ("_method", "_path", "_raw_path")

    def __init__(self, scope: Scope) -> None:
        self._method: str = scope["method"]
        self._path: str = scope["path"]
        self._raw_path: bytes | None = scope.get("raw_path")

    def __str__(self) -> str:
        path = _as_sent(self._path, self._raw_path)
        return f"{quote(self._method, safe=_METHOD_SAFE)} {path}"


def _as_sent(path: str, raw_path: bytes | None) -> str:
    """The path as it was sent; where the server doesn't say, as it could have been."""
    path, raw_path = origin_form(path, raw_path)
    if raw_path:
        # "%" is safe here: what is encoded already stays as it is.
        return quote(raw_path, safe=_PATH_SAFE + "%")
    return quote(path, safe=_PATH_SAFE, errors="replace")


def describe(scope: Scope) -> str:
    """`POST /items/3`: the request for people, in one line whatever the client sent."""
    return str(Where(scope))


def _parse_query(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_limits.MAX_QUERY_FIELDS,
        )
    except UnicodeError:
        raise HTTPException(400, "The query string is not UTF-8, percent-encoded") from None
    except ValueError:
        raise HTTPException(
            400, f"The query string has more than {_limits.MAX_QUERY_FIELDS} fields"
        ) from None
