"""Streams: a body in pieces, as an iterator gives them.

Rules of this module:

* The first piece is asked for before the head goes out: what fails by then is answered as a
  handler's failure is.  A client doesn't wait for its head longer than `FIRST_PIECE_TIME`, though.
* The iterator is closed on every way out, on the task that ran it, in bounded time.
* A stream that broke off is never ended as a whole one is.
* A plain iterator may block: its every step runs in a thread, and all of them in one context.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import logging
import math
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, cast

import outcome
import trio
from trio.lowlevel import disable_ki_protection

from .. import _callables, _errors, _limits
from .._asgi import Message
from .._concurrency.grace import Grace
from .._tasks.list import BackgroundTasks
from .._tasks.task import BackgroundTask
from .exchange import Exchange
from .response import Response, as_bytes, shows_body_of

logger = logging.getLogger("trioweb")

_END: Any = object()


class StreamingResponse(Response):
    """A body in pieces of `str` or `bytes`, each sent as it comes.

    `content` is an async iterator, a `trio.MemoryReceiveChannel`, or an iterator,
    whose every step runs in a worker thread.  What it raises before its first piece
    is answered as if the handler had raised it, unless that takes longer than
    `FIRST_PIECE_TIME`: then the head goes out first.  When the client leaves, the
    iteration is cancelled and the iterator closed; closing has
    `STREAM_CLOSE_TIMEOUT`, and so has a thread that is within a step.
    """

    streams: ClassVar[bool] = True
    is_whole: bool = False

    def __init__(
        self,
        content: AsyncIterable[str | bytes] | Iterable[str | bytes],
        status_code: int = 200,
        headers: Mapping[str, str | int] | None = None,
        media_type: str | None = None,
        background: BackgroundTasks | BackgroundTask | None = None,
    ) -> None:
        super().__init__(None, status_code, headers, media_type, background)
        self._chunks = _chunks(content)

    async def send(self, exchange: Exchange) -> bool:
        """As `Response.send`; what the iterator raises comes out of it, after it was closed."""
        stream = _Stream(exchange, self)
        try:
            if shows_body_of(self.status_code, exchange):
                self.is_whole = await self._send_chunks(stream)
            else:
                self.is_whole = await stream.begin()
        finally:
            await self.close(exchange)
        return self.is_whole and await stream.end()

    async def close(self, exchange: Exchange) -> None:
        async with self._chunks.closing(exchange.grace):
            pass

    async def _send_chunks(self, stream: _Stream) -> bool:
        """Send head and pieces; False when the client leaves before they end."""
        failures: list[BaseException] = []
        try:
            is_whole = await self._send_while_client_stays(stream, failures)
        except BaseException as exc:
            # One for whoever has to clean up, in place of a group of those who ran beside it.
            if not failures and _errors.is_only(exc, (trio.Cancelled,)):
                await trio.lowlevel.checkpoint_if_cancelled()
            raise
        finally:
            # Out of the nursery, where it would come in a group, and in front of a
            # cancellation, which the next checkpoint brings again.
            if failures:
                raise failures[0]
        return await stream.begin() and is_whole

    @disable_ki_protection
    async def _send_while_client_stays(
        self, stream: _Stream, failures: list[BaseException]
    ) -> bool:
        is_whole = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.begin_in_time, nursery.cancel_scope)
            nursery.start_soon(stream.attend, nursery.cancel_scope)
            try:
                async with self._chunks.closing(stream.exchange.grace) as chunks:
                    async for chunk in chunks:
                        if not await stream.send(as_bytes(chunk, self, "so is each piece")):
                            break
                    else:
                        is_whole = True
            except BaseException as exc:
                if not _errors.is_failure(exc):
                    raise
                failures.append(exc)
            await stream.wait_begun()
            # The last message makes Hypercorn say "disconnect" while the client is
            # still there: nobody may listen any more when it is sent.
            nursery.cancel_scope.cancel()
        return is_whole


class _Stream:
    """One stream on its way: its head, its pieces, its end, and whether the client is there."""

    def __init__(self, exchange: Exchange, response: StreamingResponse) -> None:
        self.exchange = exchange
        self._response = response
        self._head = response._head(None)
        self._has_begun = False
        self._is_taken = False
        self._begun: trio.Event | None = None  # while somebody sends the head
        self._attending = trio.CancelScope()
        # Until the client has all that it was promised, and may leave.
        self._left = _declared_size(self._head)
        self._is_there: bool | None = None  # before the last byte, where that is known

    async def begin(self, *, now: bool = False) -> bool:
        """Send the head, if nobody has yet; False where the client has left.

        `now`: servers keep it until the first piece; it isn't to wait for that.
        """
        if self._begun is not None:
            await self.wait_begun()
        if not self._has_begun:
            await self._begin(now)
        if not self._is_taken:
            self.exchange.is_answered = True  # as far as it can be: nobody else is to try
        return self._is_taken

    async def wait_begun(self) -> None:
        """Returns when nobody is sending the head: cancelled, it would be there in part."""
        if self._begun is not None:
            await self._begun.wait()

    async def _begin(self, now: bool) -> None:
        self._begun = trio.Event()
        try:
            is_taken = await _was_taken(self.exchange.send_head(self._head))
            if now and is_taken:
                is_taken = await _was_taken(self.exchange.send(_piece(b"")))
            self._is_taken = is_taken
        finally:
            # Cancelled too: the server may have taken it, and a second one would be a mistake.
            self._has_begun = True
            self._begun.set()
            self._begun = None

    async def send(self, body: bytes) -> bool:
        """Send a piece; False where the client has left."""
        if not await self.begin():
            return False
        self._left -= len(body)
        if self._left <= 0 and self._is_there is None:
            self._is_there = await self.exchange.is_client_there()
            self._attending.cancel()
        return await _was_taken(self.exchange.send(_piece(body)))

    async def end(self) -> bool:
        """Send the end; False where the client is known to have left before."""
        if self._is_there is None:
            self._is_there = await self.exchange.is_client_there()
        return await _was_taken(self.exchange.send_last(b"")) and self._is_there

    async def begin_in_time(self, streaming: trio.CancelScope) -> None:
        await trio.sleep(_limits.FIRST_PIECE_TIME)
        if not await self.begin(now=True):
            streaming.cancel()

    async def attend(self, streaming: trio.CancelScope) -> None:
        """Cancel `streaming` when the client leaves before it has all that it was promised."""
        with self._attending:
            await self.exchange.wait_departed()
            streaming.cancel()


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

    Whoever is cancelled doesn't wait for a step.  `aclose` does, and may give up waiting: the
    thread that is within the step closes the iterator behind it, so that one thread is left, not
    two.  Its contextvars are those of whoever made it, and what it sets there stays.
    """

    def __init__(self, content: Iterable[str | bytes]) -> None:
        self._iterator = iter(content)
        self._context = contextvars.copy_context()
        self._deciding = threading.Lock()  # who closes
        self._is_stepping = False
        self._closing: trio.lowlevel.TrioToken | None = None  # from then on no step begins
        self._has_closed = trio.Event()
        self._outcome: outcome.Outcome[None] = outcome.Value(None)

    async def __anext__(self) -> str | bytes:
        # A limiter of its own: it may hold what those wait for who have all of another's places.
        chunk = await trio.to_thread.run_sync(
            self._step, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
        )
        if chunk is _END:
            raise StopAsyncIteration
        return chunk

    def _step(self) -> str | bytes:
        with self._deciding:
            if self._closing is not None:
                return cast(str, _END)  # nobody waits for it any more, and it has come late
            self._is_stepping = True
        try:
            return self._context.run(next, self._iterator, _END)
        finally:
            with self._deciding:
                self._is_stepping = False
                closing = self._closing
            if closing is not None:
                self._close_behind_step(closing)

    def _close_behind_step(self, closing: trio.lowlevel.TrioToken) -> None:
        self._outcome = outcome.capture(self._close)
        with contextlib.suppress(trio.RunFinishedError):
            closing.run_sync_soon(self._has_closed.set)

    async def aclose(self) -> None:
        if not hasattr(self._iterator, "close"):
            return
        with self._deciding:
            self._closing = trio.lowlevel.current_trio_token()
            is_stepping = self._is_stepping
        if is_stepping:
            await self._has_closed.wait()
            self._outcome.unwrap()
        else:
            await trio.to_thread.run_sync(
                self._close, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
            )

    def _close(self) -> None:
        self._context.run(self._iterator.close)  # type: ignore[attr-defined]  # it has one

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


def _declared_size(head: Message) -> float:
    """Bytes of the body, by the response's own word."""
    for name, value in head["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return math.inf


def _piece(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def _was_taken(sending: Awaitable[None]) -> bool:
    """False where the client has left: some servers raise OSError then (ASGI's HTTP 2.4)."""
    try:
        await sending
    except OSError:
        return False
    return True
