"""Streams: a body in pieces, as an iterator gives them.

Rules of this module:

* The iterator is closed on every way out, on the task that ran it, in bounded time.
* A stream that broke off is never ended as a whole one is.
* A plain iterator may block: its every step runs in a thread.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, cast

import trio
from trio.lowlevel import disable_ki_protection

from .. import _callables, _errors, _limits
from .._concurrency.grace import Grace, RunSync
from .._tasks.list import BackgroundTasks
from .._tasks.task import BackgroundTask
from .exchange import Exchange
from .response import Response, as_bytes, shows_body_of

logger = logging.getLogger("trioweb")

_END: Any = object()


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
        headers: Mapping[str, str | int] | None = None,
        media_type: str | None = None,
        background: BackgroundTasks | BackgroundTask | None = None,
    ) -> None:
        super().__init__(None, status_code, headers, media_type, background)
        self._chunks = _chunks(content)

    async def send(self, exchange: Exchange) -> bool:
        """As `Response.send`; what the iterator raises comes out of it, after it was closed."""
        try:
            is_whole = await _was_taken(exchange.send_head(self._head(None)))
            if is_whole and shows_body_of(self.status_code, exchange):
                is_whole = await self._send_chunks(exchange)
        finally:
            await self.close(exchange)
        if not is_whole:
            return False
        is_there = await exchange.is_client_there()
        return await _was_taken(exchange.send_last(b"")) and is_there

    async def close(self, exchange: Exchange) -> None:
        async with self._chunks.closing(exchange.grace):
            pass

    async def _send_chunks(self, exchange: Exchange) -> bool:
        """Send the pieces; False when the client leaves before they end."""
        failures: list[Exception] = []
        try:
            return await self._send_while_client_stays(exchange, failures)
        finally:
            # Out of the nursery, where it would come in a group, and in front of a
            # cancellation, which the next checkpoint brings again.
            if failures:
                raise failures[0]

    @disable_ki_protection
    async def _send_while_client_stays(self, exchange: Exchange, failures: list[Exception]) -> bool:
        is_whole = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_client_leaves, exchange, nursery.cancel_scope)
            try:
                async with self._chunks.closing(exchange.grace) as chunks:
                    async for chunk in chunks:
                        body = as_bytes(chunk, self, "so is each piece")
                        piece = {"type": "http.response.body", "body": body, "more_body": True}
                        if not await _was_taken(exchange.send(piece)):
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


async def _cancel_when_client_leaves(exchange: Exchange, scope: trio.CancelScope) -> None:
    await exchange.wait_disconnected()
    scope.cancel()


async def _was_taken(sending: Awaitable[None]) -> bool:
    """False where the client has left: some servers raise OSError then (ASGI's HTTP 2.4)."""
    try:
        await sending
    except OSError:
        return False
    return True
