"""A client for tests: an app run in memory, by ASGI messages, without a server.

Rules of this module:

* The app and its requests run in a nursery of the test's own: leaving `client`
  leaves nothing behind, and shuts down as a server would.
* The client is at the other end of a connection without buffers: each message
  that the app sends waits until it is taken, each piece of a body until it is
  asked for.  So a test sees every step, and nothing happens ahead of it.
* Towards the app it behaves as Hypercorn does: past the last byte of a response,
  and when the client has left, `receive` says `http.disconnect`, and what is
  sent is dropped without a word.
* What the test itself raises comes out as it was raised, in no exception group,
  and at once: nothing is drained for a test that has failed.
* Nothing waits for a time of its own: under a mock clock, time is the app's.
"""

from __future__ import annotations

import contextvars
import json
import re
import sys
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from difflib import get_close_matches
from email.message import Message as MIMEFields
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from typing import Any, NoReturn, TypedDict, TypeVar, Unpack
from urllib.parse import quote, unquote, urlencode, urlsplit

import trio

from .. import _errors
from .._app.app import App
from .._app.limits import Limits
from .._asgi import ASGIApp, Message, Scope
from .._http.cookies import parse_cookies
from .._http.headers import Headers, checked_value
from .._shapes import json as _shapes
from .._tasks.runner import BackgroundTask
from ..server import ParserName
from ._wire import Wire

C = TypeVar("C", bound="Client")
Fields = Mapping[str, str] | Sequence[tuple[str, str]]

_ABSOLUTE_URL = re.compile(r"(https?)://([^/?#]+)(.*)", re.DOTALL)
# "%" is safe: what is encoded already stays as it is.
_PATH_SAFE = "/:@!$&'()*+,;=~%"
_QUERY_SAFE = _PATH_SAFE + "?"
_COOKIES = SimpleCookie()
# Trio's rounds that a sender whose client has left gives to who watches for that: the
# same is seen in every run then, and a sender that never waits hears of it at all.
_HEADWAY = 10
_ASGI = {"version": "3.0", "spec_version": "2.1"}


class IncompleteResponse(Exception):
    """The app's call ended before its response was complete; a server closes the connection."""


class RequestOptions(TypedDict, total=False):
    """What a request can have beside its method and URL.

    `params`: fields of the query, added to those in the URL; a list repeats its
    field, None leaves it out.  `headers`: over the client's own.  `cookies`: for
    this request, over those that the client keeps.  `json`: anything that a
    handler can return.  `content`: the body as bytes, as str (sent as UTF-8), or
    as an async iterable of pieces: each is asked for when the app has taken the
    one before, and the iterable is closed with the request.  `disconnect_after`:
    the client leaves after so many bytes of the response's body.
    """

    params: Mapping[str, object] | Sequence[tuple[str, object]]
    headers: Fields
    cookies: Mapping[str, str]
    json: object
    content: str | bytes | AsyncIterable[bytes]
    disconnect_after: int


# What to do where other clients have an option for it.
_INSTEAD = {
    "data": "content=, as in content=urlencode({...}) with its content-type, or json=",
    "body": "content=, or json=",
    "files": "content=, with the multipart body that a form would send",
    "auth": 'headers={"authorization": "..."}',
    "follow_redirects": 'await c.get(response.headers["location"])',
    "allow_redirects": 'await c.get(response.headers["location"])',
    "timeout": "with trio.fail_after(5): await c.get(...)",
}


def client(
    app: App,
    *,
    asgi: ASGIApp | None = None,
    threads: bool = False,
    base_url: str = "http://testserver",
    headers: Fields = (),
) -> AbstractAsyncContextManager[Client]:
    """Run `app` between the start and the end of its lifespan.

    `asgi` is what a server would be given where that isn't `app` itself:
    middleware around it.  Without `threads`, every `def` runs in place instead of
    in a thread.  `headers` are sent with each request.

    Error handling: raises what the lifespan raises.  What is raised within comes
    out as it is.

    Resource handling: leaving the block is `Client.shutdown`.  Leaving it by an
    exception or cancellation cancels everything at once; what cleans up has
    `cleanup_timeout`.
    """
    c = Client(app, asgi or app, base_url, headers)
    return _Opening("client", _running(app, c, threads=threads))


def connect(
    app: App,
    *,
    asgi: ASGIApp | None = None,
    http: ParserName = "auto",
    limits: Limits | None = None,
    threads: bool = False,
    base_url: str = "http://testserver",
    headers: Fields = (),
) -> AbstractAsyncContextManager[ConnectedClient]:
    """As `client`, but through the embedded server: each request is HTTP over a memory stream.

    So the limits of the server hold, and bytes can be sent that no client would
    send.  `http` is the parser, `limits` those of the app by default.
    """
    wire = Wire(asgi or app, limits or app.limits, http)
    c = ConnectedClient(app, wire, base_url, headers)
    return _Opening("connect", _running(app, c, threads=threads))


@asynccontextmanager
async def _running(app: App, c: C, *, threads: bool) -> AsyncIterator[C]:
    with _attached(app, c, threads=threads):
        async with _open_nursery() as nursery:
            await c._start(nursery)
            yield c
            await c.shutdown()


class _Opening(AbstractAsyncContextManager[C]):
    """What `client` and `connect` give: of use in `async with` only, and it says so."""

    def __init__(self, name: str, opening: AbstractAsyncContextManager[C]) -> None:
        self._name = name
        self._opening = opening

    async def __aenter__(self) -> C:
        return await self._opening.__aenter__()

    async def __aexit__(self, *exc: Any) -> bool | None:
        return await self._opening.__aexit__(*exc)

    def __enter__(self) -> NoReturn:
        raise TypeError(self._usage(f"with {self._name}(app) as c: ..."))

    def __exit__(self, *exc: object) -> None:
        """Python looks for it before it enters."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(self._usage(f"c = {self._name}(app), then c.{name}"))

    def _usage(self, wrong: str) -> str:
        right = f"async with {self._name}(app) as c: ..."
        return f"a client is there within its block\n    wrong:  {wrong}\n    right:  {right}"


class Client:
    """Sends requests to an app.  Made by `client`.

    `app` is the app.  `cookies` are those that responses have set and not deleted, by
    name, sent with each request whatever their path, domain and age; change them at
    will.  `task_errors` are the tasks that failed or timed out, each with its
    exception, in that order; they are reported as always besides.
    """

    def __init__(self, app: App, asgi: ASGIApp, base_url: str, headers: Fields) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}
        self.task_errors: list[tuple[BackgroundTask, BaseException]] = []
        self._asgi = asgi
        self._base_url = base_url.rstrip("/")
        self._headers = headers
        self._lifespan = _Lifespan(asgi)
        self._calls: set[trio.CancelScope] = set()

    async def _start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        await self._lifespan.start(nursery)

    async def shutdown(self) -> None:
        """Shut down as a server does, to the end of the lifespan, whose exception this raises.

        Calls of the app that still run when its `drain_timeout` is over are
        cancelled.  Later requests are answered by 503.  A second time does nothing.
        """
        deadline = trio.current_time() + self.app._drain_timeout
        for call in self._calls:
            call.deadline = min(call.deadline, deadline)
        await self._lifespan.shut_down()

    async def wait_tasks(self) -> None:
        """Returns when no task of the app waits or runs any more.

        Cancellation cancels the waiting, not the tasks.
        """
        await trio.lowlevel.checkpoint()
        await self.app._lifetime.ledger.wait_idle()

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("GET", …)`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("POST", …)`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("PUT", …)`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("PATCH", …)`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("DELETE", …)`."""
        return await self.request("DELETE", url, **options)

    async def options(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("OPTIONS", …)`."""
        return await self.request("OPTIONS", url, **options)

    async def head(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("HEAD", …)`."""
        return await self.request("HEAD", url, **options)

    async def request(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> ClientResponse:
        """Send a request; returns at the last byte of the response, while its tasks go on.

        `url` is a path, with or without a query, or absolute; what isn't ASCII is
        percent-encoded.  A redirect is a response like any other.

        Error handling: raises `IncompleteResponse`, ValueError for what can't be
        sent, TypeError for an option that there isn't, and what `content` raises: its
        client has left then.  A handler's exception is a 500 and a record in the log.

        Cancellation: the client leaves, as it does by closing a connection.
        """
        async with self.stream(method, url, **options) as response:
            await response.read()
        return response

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> AsyncIterator[ClientResponse]:
        """Send a request; gives the response at its head, to be read piece by piece.

        Each piece that the app sends waits until it is read.  Leaving the block
        before the last one is the client leaving.  Else as `request`, but for
        what `content` raises: that cancels the block, and comes out of it.
        """
        scope, exchange = self._prepare(method, url, options)
        self._nursery.start_soon(self._call, scope, exchange)
        async with exchange.uploading():
            try:
                head = await exchange.take()
                response = ClientResponse(head, exchange, options.get("disconnect_after"))
                _keep(self.cookies, response.headers)
                yield response
            finally:
                exchange.leave()

    def _prepare(self, method: str, url: str, options: RequestOptions) -> tuple[Scope, _Exchange]:
        _check_options(method, options)
        content, described = _content(options)
        if isinstance(content, bytes) and not content and method not in ("POST", "PUT", "PATCH"):
            described = {}
        scheme, netloc, path, query = _split(self._base_url, url, options.get("params", ()))
        cookies = {**self.cookies, **options.get("cookies", {})}
        scope = _scope(method, scheme, netloc, path, query)
        scope["headers"] = _fields(
            {"host": netloc, **_cookie_field(cookies), **described},
            self._headers,
            options.get("headers", ()),
        )
        scope["state"] = dict(self._lifespan.state)
        return scope, _Exchange(content)

    async def _call(self, scope: Scope, exchange: _Exchange) -> None:
        with trio.CancelScope() as call:
            self._calls.add(call)
            try:
                await self._asgi(scope, exchange.receive, exchange.send)
            except Exception as exc:
                exchange.fail(exc)  # middleware's: an App has answered for its own
            finally:
                self._calls.discard(call)
                exchange.close()


class ConnectedClient(Client):
    """A client of the embedded server.  Made by `connect`."""

    def __init__(self, app: App, wire: Wire, base_url: str, headers: Fields) -> None:
        super().__init__(app, wire, base_url, headers)
        self._wire = wire

    def open_stream(self) -> trio.abc.HalfCloseableStream:
        """The client's end of a new connection, for bytes of your own."""
        return self._wire.open_stream()


class ClientResponse(AsyncIterator[bytes]):
    """A response.  `async for` gives the pieces of its body that haven't been read yet.

    `status_code`; `headers`, a mapping with names in any case and `getlist`;
    `cookies`, those that it set; `is_complete`: whether the last byte has been read.

    Iterating raises `IncompleteResponse`, and trio.ClosedResourceError past the
    end of its block.  Cancellation loses nothing.
    """

    def __init__(self, head: Message, exchange: _Exchange, disconnect_after: int | None) -> None:
        self.status_code: int = head["status"]
        self.headers: Headers = Headers(head["headers"])
        self.cookies: dict[str, str] = {}
        _keep(self.cookies, self.headers)
        self.is_complete: bool = False
        self._exchange = exchange
        self._chunks: list[bytes] = []
        self._room = sys.maxsize if disconnect_after is None else disconnect_after
        self._is_over = False
        self._leave_if_full()

    @property
    def content(self) -> bytes:
        """What has been read of the body."""
        return b"".join(self._chunks)

    @property
    def text(self) -> str:
        """`content`, decoded as its content type says, else as UTF-8."""
        fields = MIMEFields()
        fields["content-type"] = self.headers.get("content-type", "")
        return self.content.decode(fields.get_content_charset("utf-8"), "replace")

    def json(self) -> Any:
        """`content` as JSON.  Raises ValueError."""
        return json.loads(self.content)

    async def read(self) -> bytes:
        """Read to the last byte, or to where the client leaves; returns `content`."""
        async for _ in self:
            pass
        return self.content

    async def __anext__(self) -> bytes:
        while not self._is_over:
            if chunk := self._accept(await self._exchange.take()):
                return chunk
        raise StopAsyncIteration

    def _accept(self, message: Message) -> bytes:
        body = message.get("body", b"")
        chunk: bytes = body[: self._room]
        self._room -= len(chunk)
        self._chunks.append(chunk)
        if not message.get("more_body", False):
            self._is_over = True
            self.is_complete = len(chunk) == len(body)
        self._leave_if_full()
        return chunk

    def _leave_if_full(self) -> None:
        if self._room <= 0:
            self._is_over = True
            self._exchange.leave()

    def __repr__(self) -> str:
        size = sum(map(len, self._chunks))
        return f"<ClientResponse {self.status_code}, {size} bytes read>"


class _Lifespan:
    """The server's part in an app's lifespan."""

    def __init__(self, asgi: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        self._asgi = asgi
        self._started = trio.Event()
        self._shutting_down = trio.Event()
        self._ended = trio.Event()
        self._failure: BaseException | None = None

    async def start(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._run)
        await self._started.wait()
        self._raise_failure()

    async def shut_down(self) -> None:
        self._shutting_down.set()
        await self._ended.wait()
        self._raise_failure()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": _ASGI, "state": self.state}
        await self._asgi(scope, self._receive, self._send)
        self._started.set()  # middleware may swallow the lifespan
        self._ended.set()

    async def _receive(self) -> Message:
        if not self._started.is_set():
            return {"type": "lifespan.startup"}
        await self._shutting_down.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            # The message has but its text; the exception is being handled by who sends it.
            self._failure = sys.exception() or RuntimeError(message["message"])
        self._started.set()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


class _Exchange:
    """One request and its response, between the app's call and the client."""

    def __init__(self, content: bytes | AsyncIterable[bytes]) -> None:
        self._content = content
        size = 1 if isinstance(content, bytes) else 0
        self._upload, self._inbox = trio.open_memory_channel[Message](size)
        self._outbox, self._download = trio.open_memory_channel[Message](0)
        self._over = trio.Event()  # the response is complete, or the client has left
        self._failure: Exception | None = None

    async def receive(self) -> Message:
        """What an app calls `receive`."""
        with suppress(trio.EndOfChannel, trio.ClosedResourceError):
            return await self._inbox.receive()
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """What an app calls `send`; returns when the client has taken the message, or left."""
        try:
            await self._outbox.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            for _ in range(_HEADWAY):
                await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._over.set()

    def fail(self, exc: Exception) -> None:
        """The call raised; so does the client's `take`.  Raises `exc` where nobody takes."""
        if self._over.is_set():
            raise exc
        self._failure = exc

    def close(self) -> None:
        """The call is over."""
        self._over.set()
        self._inbox.close()
        self._outbox.close()

    async def take(self) -> Message:
        """The next message of the response.  Raises `IncompleteResponse`."""
        with suppress(trio.EndOfChannel):
            return await self._download.receive()
        raise self._failure or IncompleteResponse("the app's call ended within its response")

    def leave(self) -> None:
        """The client wants no more of it."""
        self._over.set()
        self._inbox.close()
        self._download.close()

    @asynccontextmanager
    async def uploading(self) -> AsyncIterator[None]:
        """The request's body is on its way within.  Raises what its iterable raises."""
        failures: list[Exception] = []
        async with _open_nursery() as nursery:
            if isinstance(self._content, bytes):
                self._upload.send_nowait(_body(self._content, more_body=False))
                self._upload.close()
            else:
                nursery.start_soon(self._send_pieces, self._content, nursery, failures)
            yield
            nursery.cancel_scope.cancel()
        for failure in failures:
            raise failure

    async def _send_pieces(
        self, content: AsyncIterable[bytes], nursery: trio.Nursery, failures: list[Exception]
    ) -> None:
        try:
            async with _closing(content) as pieces:
                async for piece in pieces:
                    await self._put(_body(piece, more_body=True))
            await self._put(_body(b"", more_body=False))
            self._upload.close()
        except Exception as exc:
            failures.append(exc)
            nursery.cancel_scope.cancel()

    async def _put(self, message: Message) -> None:
        """Returns when the app has taken it; where it takes no more, when cancelled."""
        with suppress(trio.BrokenResourceError):
            await self._upload.send(message)
            return
        await trio.sleep_forever()


@asynccontextmanager
async def _open_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery from whose block a failure comes as it is, not in a group.

    But Ctrl-C, in the app, comes before what that did to the block.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:
                if not _errors.is_failure(exc):
                    raise
                failure = exc
                nursery.cancel_scope.cancel()
    except BaseException as exc:
        is_ctrl_c = any(isinstance(leaf, KeyboardInterrupt) for leaf in _errors.leaves(exc))
        if failure is None or is_ctrl_c:
            raise
        raise failure from exc
    if failure is not None:
        raise failure


@asynccontextmanager
async def _closing(content: AsyncIterable[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Its iterator; a generator is closed, or the garbage collector would complain of it."""
    iterator = aiter(content)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


@contextmanager
def _attached(app: App, c: Client, *, threads: bool) -> Iterator[None]:
    def note(task: BackgroundTask, exc: BaseException) -> None:
        c.task_errors.append((task, exc))

    run_sync = app._run_sync
    app._task_error_listeners.append(note)
    if not threads:
        app._run_sync = _run_in_place
    try:
        yield
    finally:
        app._run_sync = run_sync
        app._task_error_listeners.remove(note)


async def _run_in_place(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """In place of `trio.to_thread.run_sync`; contextvars are as separate as in a thread."""
    await trio.lowlevel.checkpoint()
    return contextvars.copy_context().run(call, *args)


def _split(
    base_url: str, url: str, params: Mapping[str, object] | Sequence[tuple[str, object]]
) -> tuple[str, str, bytes, bytes]:
    """Scheme, netloc, path and query of a request, the last two percent-encoded."""
    match = _ABSOLUTE_URL.fullmatch(base_url + url if url.startswith("/") else url)
    if match is None:
        raise ValueError(
            f"{url!r} is neither a path nor an absolute URL\n"
            f"    wrong:  await c.get({url!r})\n    right:  await c.get('/{url}')"
        )
    scheme, netloc, rest = match.groups()
    path, _, query = rest.partition("#")[0].partition("?")
    queries = [quote(query, safe=_QUERY_SAFE), urlencode(_pairs(params))]
    raw_path = quote(path or "/", safe=_PATH_SAFE)
    return scheme, netloc, raw_path.encode(), "&".join(filter(None, queries)).encode()


def _pairs(
    params: Mapping[str, object] | Sequence[tuple[str, object]],
) -> list[tuple[str, str]]:
    items = params.items() if isinstance(params, Mapping) else params
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, values in items
        for value in (values if isinstance(values, (list, tuple)) else [values])
        if value is not None
    ]


def _scope(method: str, scheme: str, netloc: str, path: bytes, query: bytes) -> Scope:
    server = urlsplit(f"//{netloc}")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": unquote(path.decode()),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "client": ("127.0.0.1", 50000),
        "server": (server.hostname, server.port or {"http": 80, "https": 443}[scheme]),
    }


def _check_options(method: str, options: RequestOptions) -> None:
    known = RequestOptions.__annotations__
    for option in options.keys() - known.keys():
        close = [f"{match}=" for match in get_close_matches(option, known, 1)]
        right = _INSTEAD.get(option) or " ".join(close) or f"some of {', '.join(known)}"
        raise TypeError(
            f"a request has no option {option!r}\n"
            f"    wrong:  await c.{method.lower()}(..., {option}=...)\n    right:  {right}"
        )


def _content(options: RequestOptions) -> tuple[bytes | AsyncIterable[bytes], dict[str, str]]:
    """The body, and the header fields that describe it."""
    if "json" in options:
        if "content" in options:
            raise ValueError("a request has one body: json= or content=, not both")
        body = _shapes.encode_json(options["json"])
        return body, {"content-type": "application/json", "content-length": str(len(body))}
    content = options.get("content", b"")
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        return content, {"content-length": str(len(content))}
    return content, {"transfer-encoding": "chunked"}


def _fields(ours: Mapping[str, str], *theirs: Fields) -> list[tuple[bytes, bytes]]:
    """Header fields for ASGI; a name that comes later replaces what came before of it."""
    fields: list[tuple[bytes, bytes]] = []
    for more in (ours, *theirs):
        items = more.items() if isinstance(more, Mapping) else more
        added = [(name.lower().encode("ascii"), checked_value(name, text)) for name, text in items]
        names = {name for name, _ in added}
        if b"content-length" in names:
            names.add(b"transfer-encoding")  # a length that is declared is believed
        fields = [field for field in fields if field[0] not in names] + added
    return fields


def _cookie_field(cookies: Mapping[str, str]) -> dict[str, str]:
    pairs = [f"{name}={_COOKIES.value_encode(value)[1]}" for name, value in cookies.items()]
    return {"cookie": "; ".join(pairs)} if pairs else {}


def _keep(jar: dict[str, str], headers: Headers) -> None:
    """Do to `jar` what a response's `Set-Cookie` fields say."""
    for field in headers.getlist("set-cookie"):
        pair, *attributes = field.split(";")
        cookies = parse_cookies([pair])
        if _has_expired(attributes):
            for name in cookies:
                jar.pop(name, None)
        else:
            jar.update(cookies)


def _has_expired(attributes: Iterable[str]) -> bool:
    """RFC 6265, 5.3: Max-Age before Expires; what can't be read is as if it weren't there."""
    pairs = (attribute.partition("=") for attribute in attributes)
    values = {name.strip().lower(): value.strip() for name, _, value in pairs}
    with suppress(ValueError):
        if "max-age" in values:
            return int(values["max-age"]) <= 0
        if "expires" in values:
            return parsedate_to_datetime(values["expires"]).timestamp() <= time.time()
    return False


def _body(body: bytes, *, more_body: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more_body}
