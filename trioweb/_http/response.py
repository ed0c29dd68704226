"""Responses: what a handler returns, and how it goes to the server.

Rules of this module:

* A response is checked when it is made: status, header fields and body can't
  fail any more once the first byte is on its way.
* A response to HEAD has the header fields of the one to GET, and no body; 204
  and 304 have none either (RFC 9110, 9.3.2 and 15).
* `send` returns when the server has accepted the last byte.  Meanwhile what the
  client still sends is read and thrown away: Hypercorn's last `send` waits for
  its reader, and its reader for us.
* The iterator behind a stream is closed on every way out, on the task that ran
  it, in bounded time.  A stream that broke off is never ended as a whole one is.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar, Literal, cast
from urllib.parse import quote

import trio
from trio.lowlevel import disable_ki_protection

from .. import _callables, _errors, _limits
from .._asgi import Message, Send
from .._concurrency.grace import Grace, RunSync
from .._shapes import json as _shapes
from .._tasks.runner import BackgroundTask, BackgroundTasks
from .cookies import format_cookie
from .headers import RawHeaders, ResponseHeaders, checked_value, refuse_control_characters
from .request import Request, exchange_behind

logger = logging.getLogger("trioweb")

_WITHOUT_BODY = (204, 304)
_URL_SAFE = ":/%#?=@[]!$&'()*+,;~"
_END: Any = object()


class Response:
    """A response with a body in one piece: `bytes`, `str` (sent as UTF-8) or None.

    `media_type` is the content type, to which `; charset=utf-8` is added for
    text.  `background` are tasks to run after it.
    """

    media_type: ClassVar[str | None] = None
    # Whether sending it waits for more than the server.
    streams: ClassVar[bool] = False

    def __init__(
        self,
        content: Any = None,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTasks | BackgroundTask | None = None,
    ) -> None:
        self.status_code = status_code
        self.background: BackgroundTasks | BackgroundTask | None = (
            None if background is None else _checked_background(background)
        )
        self._content_type = _content_type(media_type or self.media_type)
        # Made when first asked for: most responses have no header field of their own.
        self._headers = ResponseHeaders(headers) if headers else None
        body: object = self.render(content)
        self.body: bytes = (
            body if type(body) is bytes else _as_bytes(body, self, "so is what it renders")
        )
        if self.body and status_code in _WITHOUT_BODY:
            raise ValueError(f"a response with status {status_code} has no body")

    @property
    def status_code(self) -> int:
        """May be set until the response is sent; 204 and 304 send no body, whatever it was."""
        return self._status_code

    @status_code.setter
    def status_code(self, status_code: int) -> None:
        self._status_code = _checked_status(status_code)

    def render(self, content: Any) -> bytes:
        """The body for `content`; a subclass says how."""
        if content is None:
            return b""
        return _as_bytes(content, self, "JSONResponse takes what JSON can hold")

    @property
    def headers(self) -> ResponseHeaders:
        """The header fields to add; those for type and length of the body come by themselves."""
        if self._headers is None:
            self._headers = ResponseHeaders()
        return self._headers

    def set_cookie(
        self,
        key: str,
        value: str = "",
        max_age: int | None = None,
        expires: datetime | str | int | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["lax", "strict", "none"] | None = "lax",
        partitioned: bool = False,
    ) -> None:
        """Add a `Set-Cookie` (RFC 6265).

        `max_age` is in seconds; `expires` is a moment, or so many seconds from now.
        """
        cookie = format_cookie(
            key,
            value,
            max_age=max_age,
            expires=expires,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
        )
        self.headers.append("set-cookie", cookie)

    def delete_cookie(
        self,
        key: str,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["lax", "strict", "none"] | None = "lax",
        partitioned: bool = False,
    ) -> None:
        """Make the browser forget a cookie; `path` and `domain` are those it was set with."""
        self.set_cookie(
            key,
            max_age=0,
            expires="Thu, 01 Jan 1970 00:00:00 GMT",
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
        )

    async def send(self, request: Request, send: Send) -> bool:
        """Give the response to the server; returns when it has accepted the last byte.

        False when the client is known to have left before.
        """
        has_body = request.scope["method"] != "HEAD" and self.status_code not in _WITHOUT_BODY
        body = self.body if has_body else b""
        try:
            if has_body and (sending := self._at_once(request, send)) is not None:
                await sending
                return True
            head = self._head(len(self.body))
            request._answered = True
            try:
                await send(head)
            except trio.Cancelled:
                request._answered = False  # as `_send_head`, whose coroutine is 1 % of a call
                raise
            is_there = request._needs_no_look() or await _is_there(request)
            await _send_last(request, send, body)
        except OSError:
            return False
        return is_there

    def _at_once(self, request: Request, send: Send) -> Awaitable[None] | None:
        """What sends it all in one step, where the server is ours and gave us `send` itself.

        That is a third less for server and response together than two messages (a tenth of a
        request), which whoever wraps `send` still gets to see.
        """
        exchange = exchange_behind(send)
        if exchange is None or type(self.body) is not bytes or not request._needs_no_look():
            return None
        fields = self._fields(None, length_is_ours=True)  # the server says how long it is
        request._answered = True
        sending: Awaitable[None] | None = exchange.send_whole(self.status_code, fields, self.body)
        request._answered = sending is not None
        return sending

    async def close(self, request: Request) -> None:
        """Let go of what the body comes from, when the response won't be sent."""

    def hand_over_tasks(self, request: Request) -> None:
        """Let the tasks it was made with join the request's list."""
        if self.background is not None:
            request.tasks._adopt(self.background)

    def _head(self, size: int | None) -> Message:
        status = self.status_code
        has_no_body = status in _WITHOUT_BODY
        fields = self._fields(
            None if has_no_body else size, length_is_ours=has_no_body or size is not None
        )
        return {"type": "http.response.start", "status": status, "headers": fields}

    def _fields(self, size: int | None, *, length_is_ours: bool) -> RawHeaders:
        """The header fields, with the length of the body where that is given."""
        fields = self._content_type.copy()
        if size is not None:
            fields.append((b"content-length", b"%d" % size))
        if self._headers is not None:
            fields = _merged(fields, self._headers.raw, length_is_ours=length_is_ours)
        return fields


class JSONResponse(Response):
    """Anything that msgspec or a pydantic model can make JSON of."""

    media_type: ClassVar[str | None] = "application/json"

    def render(self, content: Any) -> bytes:
        return _shapes.encode_json(content)


class HTMLResponse(Response):
    """HTML text, sent as UTF-8."""

    media_type: ClassVar[str | None] = "text/html"


class PlainTextResponse(Response):
    """Plain text, sent as UTF-8."""

    media_type: ClassVar[str | None] = "text/plain"


class RedirectResponse(Response):
    """Sends the client to `url`; 307 keeps the method, 303 makes it GET.

    Characters that a URL can't hold are percent-encoded; CR, LF and other
    control characters raise ValueError.
    """

    def __init__(
        self,
        url: str,
        status_code: int = 307,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTasks | BackgroundTask | None = None,
    ) -> None:
        super().__init__(None, status_code, headers, background=background)
        refuse_control_characters("header 'location'", url)
        self.headers["location"] = quote(url, safe=_URL_SAFE)


class StreamingResponse(Response):
    """A body in pieces of `str` or `bytes`, each sent as it comes.

    `content` is an async iterator, a `trio.MemoryReceiveChannel`, or an iterator,
    whose every step runs in a worker thread.  When the client leaves, the
    iteration is cancelled and the iterator closed; closing has
    `STREAM_CLOSE_TIMEOUT`, and so has a thread that is within a step.
    """

    streams: ClassVar[bool] = True

    def __init__(
        self,
        content: AsyncIterable[str | bytes] | Iterable[str | bytes],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTasks | BackgroundTask | None = None,
    ) -> None:
        super().__init__(None, status_code, headers, media_type, background)
        self._chunks = _chunks(content)

    async def send(self, request: Request, send: Send) -> bool:
        """As `Response.send`; what the iterator raises comes out of it, after it was closed."""
        has_body = request.scope["method"] != "HEAD" and self.status_code not in _WITHOUT_BODY
        try:
            is_whole = await _was_taken(_send_head(request, send, self._head(None)))
            if is_whole and has_body:
                is_whole = await self._send_chunks(request, send)
        finally:
            await self.close(request)
        if not is_whole:
            return False
        is_there = await _is_there(request)
        return await _was_taken(_send_last(request, send, b"")) and is_there

    async def close(self, request: Request) -> None:
        async with self._chunks.closing(request._grace):
            pass

    async def _send_chunks(self, request: Request, send: Send) -> bool:
        """Send the pieces; False when the client leaves before they end."""
        failures: list[Exception] = []
        try:
            return await self._send_while_client_stays(request, send, failures)
        finally:
            # Out of the nursery, where it would come in a group, and in front of a
            # cancellation, which the next checkpoint brings again.
            if failures:
                raise failures[0]

    @disable_ki_protection
    async def _send_while_client_stays(
        self, request: Request, send: Send, failures: list[Exception]
    ) -> bool:
        is_whole = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_client_leaves, request, nursery.cancel_scope)
            try:
                async with self._chunks.closing(request._grace) as chunks:
                    async for chunk in chunks:
                        body = _as_bytes(chunk, self, "so is each piece")
                        piece = {"type": "http.response.body", "body": body, "more_body": True}
                        if not await _was_taken(send(piece)):
                            break
                    else:
                        is_whole = True
            except Exception as exc:
                failures.append(exc)
            # The last message makes Hypercorn say "disconnect" while the client is
            # still there: nobody may listen any more when it is sent.
            nursery.cancel_scope.cancel()
        return is_whole


class _Chunks:
    """An iterator of any kind, closed once and in bounded time."""

    def __init__(self, content: AsyncIterable[str | bytes]) -> None:
        self._iterator = aiter(content)
        self._closed = False

    @asynccontextmanager
    async def closing(self, grace: Grace) -> AsyncIterator[AsyncIterator[str | bytes]]:
        """The iterator, closed on the way out; one that takes too long is logged and left.

        The scope that bounds the closing is entered before the first step: the
        scopes that a generator holds open around its `yield` must nest in it.
        """
        if isinstance(self._iterator, _ThreadedIterator):
            self._iterator.run_sync = grace.run_sync
        grace = grace.part()
        with trio.CancelScope() as scope:
            try:
                yield self._iterator
            except trio.Cancelled:
                grace.begin()
                raise
            finally:
                seconds = _limits.STREAM_CLOSE_TIMEOUT
                if not await grace.clean_up(scope, self._close, seconds=seconds):
                    source = self._iterator
                    logger.error("the iterator %r behind a response didn't close in time", source)

    @disable_ki_protection
    async def _close(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None and not self._closed:
            self._closed = True
            try:
                await close()
            except BaseExceptionGroup as exc:
                _errors.raise_but_generator_exit(exc)


class _ThreadedIterator(AsyncIterator[str | bytes]):
    """Takes each step of an iterator in a worker thread: it may block.

    Whoever is cancelled doesn't wait for a step, but `aclose` does, in a thread
    too: it can give up waiting, and the iterator is closed all the same in the end.
    """

    def __init__(self, content: Iterable[str | bytes]) -> None:
        self._iterator = iter(content)
        self._stepping = threading.Lock()
        self.run_sync: RunSync = trio.to_thread.run_sync

    async def __anext__(self) -> str | bytes:
        chunk = await self.run_sync(self._step, abandon_on_cancel=True)
        if chunk is _END:
            raise StopAsyncIteration
        return cast("str | bytes", chunk)

    def _step(self) -> str | bytes:
        with self._stepping:
            return next(self._iterator, _END)

    async def aclose(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            # A limiter of its own: steps that block may hold all the threads.
            limiter = trio.CapacityLimiter(1)
            await self.run_sync(self._close, close, abandon_on_cancel=True, limiter=limiter)

    def _close(self, close: Callable[[], object]) -> None:
        with self._stepping:
            close()

    def __repr__(self) -> str:
        return repr(self._iterator)


def _chunks(content: AsyncIterable[str | bytes] | Iterable[str | bytes]) -> _Chunks:
    if isinstance(content, (str, bytes, bytearray, memoryview)):
        raise TypeError("StreamingResponse takes an iterator of pieces; Response takes it in one")
    if isinstance(content, AsyncIterable):
        return _Chunks(content)
    if not isinstance(content, Iterable):
        raise TypeError(_not_iterable(content))
    return _Chunks(_ThreadedIterator(content))


def _not_iterable(content: object) -> str:
    if inspect.iscoroutine(content):
        content.close()  # or Python warns that it was never awaited
        return f"StreamingResponse takes an iterator, but {content.__name__} has no yield in it"
    if callable(content):
        name = _callables.name(content)
        return f"StreamingResponse takes an iterator: StreamingResponse({name}()), not ({name})"
    return f"StreamingResponse takes an iterator of str or bytes, not {type(content).__name__}"


async def _cancel_when_client_leaves(request: Request, scope: trio.CancelScope) -> None:
    await request.wait_disconnected()
    scope.cancel()


async def _send_head(request: Request, send: Send, head: Message) -> None:
    request._answered = True
    try:
        await send(head)
    except trio.Cancelled:
        request._answered = False  # a send that is cancelled has sent nothing
        raise


async def _is_there(request: Request) -> bool:
    """False if the client has left, as far as that is known, or a task wants to know.

    Asked before the last byte: past it servers say "disconnect" to anybody.
    """
    if request._is_known_to_have_left():
        return False
    return not (request._wants_delivery() and await request._has_left())


async def _was_taken(sending: Awaitable[None]) -> bool:
    """False where the client has left: some servers raise OSError then (ASGI's HTTP 2.4)."""
    try:
        await sending
    except OSError:
        return False
    return True


def _send_last(request: Request, send: Send, body: bytes) -> Awaitable[None]:
    """Send the end of the response, and throw away what is unread of the request meanwhile."""
    if request._may_have_unread_body():
        return _send_last_and_discard(request, send, body)
    return send({"type": "http.response.body", "body": body, "more_body": False})


async def _send_last_and_discard(request: Request, send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
    inbox = request._get_inbox()
    with trio.move_on_after(_limits.LINGER_TIME):
        await inbox.discard(_limits.LINGER_SIZE)
    failure: OSError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.discard, math.inf)
        try:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError as exc:  # the client has left; it mustn't come in a group
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _as_bytes(content: object, response: Response, hint: str) -> bytes:
    if isinstance(content, str):
        return content.encode("utf-8")
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    kinds = type(response).__name__, type(content).__name__
    raise TypeError("a {} holds str or bytes, not {}; {}".format(*kinds, hint))


def _checked_background(
    background: BackgroundTasks | BackgroundTask,
) -> BackgroundTasks | BackgroundTask:
    """As it is; a function or a list in its place would be found out after the answer."""
    if not isinstance(background, (BackgroundTasks, BackgroundTask)):
        right = "BackgroundTask(func, *args), or several: BackgroundTasks([BackgroundTask(…), …])"
        raise TypeError(f"background={background!r} is no task; take {right}")
    return background


def _checked_status(status_code: int) -> int:
    if not isinstance(status_code, int) or not 200 <= status_code <= 599:
        raise ValueError(f"{status_code!r} is no status of a response: 200 to 599")
    return status_code


@functools.lru_cache(maxsize=64)
def _content_type(media_type: str | None) -> RawHeaders:
    """The header field for it, if there is one."""
    if media_type is None:
        return []
    if media_type.startswith("text/") and "charset=" not in media_type:
        media_type += "; charset=utf-8"
    return [(b"content-type", checked_value("content-type", media_type))]


def _merged(ours: RawHeaders, theirs: RawHeaders, *, length_is_ours: bool) -> RawHeaders:
    """The response's own fields over ours; but the length of a body that we know is ours."""
    if length_is_ours:
        theirs = [field for field in theirs if field[0] != b"content-length"]
    names = {name for name, _ in theirs}
    return [field for field in ours if field[0] not in names] + theirs
