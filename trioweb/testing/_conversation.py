"""One request and its response in memory, between the app's call and the client.

Rules of this module:

* Nothing is buffered: each message that the app sends waits until the client takes it, each piece
  of a body is asked for when the app has taken the one before.  So a test sees every step, and
  nothing happens ahead of it.
* The app meets what it meets on Hypercorn: past the last byte of a response, and when the client
  has left, `receive` says `http.disconnect`, and what is sent is dropped without a word.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from .._asgi import Message
from ._nursery import open_nursery
from ._requests import Content

# A send to a client that has left yields to other tasks so many times: whoever waits for the
# disconnect hears of it before the sender goes on, in every run, also of a sender that never waits.
_TURNS_AFTER_LEAVING = 10


class IncompleteResponse(Exception):
    """The app's call ended before its response was complete; a server closes the connection."""


class Conversation:
    """What the app and the client say to each other for one request.

    The app's call has `receive` and `send`, and `fail` and `close` for how it ended; the client
    has `uploading`, `take` and `leave`.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        size = 1 if isinstance(content, bytes) else 0
        self._upload, self._inbox = trio.open_memory_channel[Message](size)
        self._outbox, self._download = trio.open_memory_channel[Message](0)
        self._over = trio.Event()  # the response is complete, or the client has left
        self._failure: Exception | None = None

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        with suppress(trio.EndOfChannel, trio.ClosedResourceError):
            return await self._inbox.receive()
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's `send`; returns when the client has taken the message, or left."""
        try:
            await self._outbox.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            for _ in range(_TURNS_AFTER_LEAVING):
                await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._over.set()

    def fail(self, exc: Exception) -> None:
        """The app's call raised `exc`: `take` raises it, or this does where nobody takes."""
        if self._over.is_set():
            raise exc
        self._failure = exc

    def close(self) -> None:
        """The app's call has ended."""
        self._over.set()
        self._inbox.close()
        self._outbox.close()

    @asynccontextmanager
    async def uploading(self) -> AsyncIterator[None]:
        """Send the request's body within the block.  Raises what its iterable raises."""
        failures: list[Exception] = []
        async with open_nursery() as nursery:
            if isinstance(self._content, bytes):
                self._upload.send_nowait(_body_message(self._content, more_body=False))
                self._upload.close()
            else:
                nursery.start_soon(self._send_pieces, self._content, nursery, failures)
            yield
            nursery.cancel_scope.cancel()
        for failure in failures:
            raise failure

    async def take(self) -> Message:
        """The next message of the response.  Raises `IncompleteResponse`, or what the app raised.

        Raises trio.ClosedResourceError when the client has left.
        """
        with suppress(trio.EndOfChannel):
            return await self._download.receive()
        raise self._failure or IncompleteResponse("the app's call ended within its response")

    def leave(self) -> None:
        """The client goes, whether it has the whole response or not."""
        self._over.set()
        self._inbox.close()
        self._download.close()

    async def _send_pieces(
        self, content: AsyncIterable[bytes], nursery: trio.Nursery, failures: list[Exception]
    ) -> None:
        try:
            async with _closing(content) as pieces:
                async for piece in pieces:
                    await self._put(_body_message(piece, more_body=True))
            await self._put(_body_message(b"", more_body=False))
            self._upload.close()
        except Exception as exc:
            failures.append(exc)
            nursery.cancel_scope.cancel()

    async def _put(self, message: Message) -> None:
        """Returns when the app has taken it; waits to be cancelled where the app takes no more."""
        with suppress(trio.BrokenResourceError):
            await self._upload.send(message)
            return
        await trio.sleep_forever()


@asynccontextmanager
async def _closing(content: AsyncIterable[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """The iterator of `content`.

    A generator is closed, or the garbage collector would complain of it.
    """
    iterator = aiter(content)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


def _body_message(body: bytes, *, more_body: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more_body}
