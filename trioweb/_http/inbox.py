"""The inbox: the one reader of a server's `receive`.

Rules of this module:

* Reading the body, watching for the client's departure and throwing an unread body away all
  go through one inbox; nobody else calls `receive`.
* What the client sends is read ahead no further than `READ_AHEAD`, and no body is longer than its
  limit.
* A body is there up to the end of the response: past that whoever asks is told so, and nobody is
  given a part of one for the whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

import trio

from .. import _limits
from .._asgi import HALF_CLOSED, Message, Receive
from .._errors import ClientDisconnect, HTTPException


class Inbox:
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
        # Disconnected, but only its sending side is known to be closed: it may still read.
        self.half_closed = False
        self._ended = False
        self._broken = False
        self._receiving = False
        self._changed: trio.lowlevel.ParkingLot | None = None  # made when somebody waits there

    @classmethod
    def holding(cls, body: bytes) -> Inbox:
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
        while True:
            if self._ended:
                raise body_is_gone()
            if self._chunks:
                break
            if self._complete:
                return None
            if self.disconnected:
                raise ClientDisconnect
            await self._receive_one()
        chunk = self._chunks.popleft()
        self._waiting -= len(chunk)
        self._tell()
        return chunk

    def end(self) -> None:
        """The response is over, and so is the time to read; what was read up stays so."""
        self._ended = not self.read_up

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
            self.half_closed = HALF_CLOSED in message
            return
        self._complete = not message.get("more_body", False)
        if chunk := message.get("body", b""):
            self._chunks.append(chunk)
            self._waiting += len(chunk)


class Pieces(AsyncIterator[bytes]):
    """What an inbox has, piece by piece, up to `limit` bytes.

    No generator: a loop over one that is left early leaves it open, for the
    garbage collector to find and Trio to complain of.
    """

    def __init__(self, inbox: Inbox, limit: int) -> None:
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
            raise too_large(self._limit)


def body_is_gone() -> RuntimeError:
    return RuntimeError(
        "the request's body went with the end of the response, and nobody had read it: "
        "await request.body() in the handler, or take it as a parameter; "
        "what was read once, tasks can read again"
    )


def too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"The body is larger than {limit} bytes")
