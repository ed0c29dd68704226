"""Streams in memory that are as nasty as TCP may be.

Rules of this module:

* Each direction holds so many bytes; who sends more waits.
* Closing with bytes unread, or being sent some after that, resets the connection, and takes
  with it what the other side hasn't read yet: the worst that TCP allows.
* Everything is a checkpoint, also where nothing has to be waited for.
"""

from __future__ import annotations

import trio


class Pipe:
    """One direction."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.data = bytearray()
        self.is_over = False  # the sender has said so
        self.is_closed = False  # the receiver takes no more
        self.is_reset = False
        self._changed = trio.Event()

    def change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self) -> None:
        await self._changed.wait()

    def reset(self) -> None:
        self.is_reset = True
        self.data.clear()
        self.change()


class End(trio.abc.HalfCloseableStream):
    """One end of a connection; `sizes` are those of what it receives at once."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._is_closed = False
        self._is_receiving = False
        self._is_sending = False
        self.closed_at: float | None = None
        self.received = 0  # bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        pipe = self._outgoing
        assert not self._is_sending, "two tasks send"
        if self._is_closed or pipe.is_over:
            raise trio.ClosedResourceError("sent after it was closed")
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        self._is_sending = True
        try:
            while rest:
                self._check_sending()
                room = pipe.capacity - len(pipe.data)
                if room <= 0:
                    await pipe.wait()
                    continue
                pipe.data += rest[:room]
                rest = rest[room:]
                pipe.change()
        finally:
            self._is_sending = False

    def _check_sending(self) -> None:
        pipe = self._outgoing
        if pipe.is_closed:
            self._incoming.reset()
        if pipe.is_closed or pipe.is_reset or self._is_closed:
            raise trio.BrokenResourceError("the connection is over")

    async def wait_send_all_might_not_block(self) -> None:
        """Nobody asks."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        pipe = self._incoming
        assert not self._is_receiving, "two tasks receive"
        await trio.lowlevel.checkpoint()
        self._is_receiving = True
        try:
            while not (pipe.data or pipe.is_over or pipe.is_reset or self._is_closed):
                await pipe.wait()
        finally:
            self._is_receiving = False
        if self._is_closed:
            raise trio.ClosedResourceError("received after it was closed")
        if pipe.is_reset:
            raise trio.BrokenResourceError("reset by the other side")
        data = bytes(pipe.data[:max_bytes])
        del pipe.data[: len(data)]
        self.received += len(data)
        pipe.change()
        return data

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._outgoing.is_over = True
        self._outgoing.change()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.closed_at = trio.current_time()
        self._incoming.is_closed = True
        self._outgoing.is_over = True
        if self._incoming.data:
            self._outgoing.reset()
        self._incoming.change()
        self._outgoing.change()

    def reset(self) -> None:
        """Give the connection up in the rudest way."""
        self._outgoing.reset()
        self._incoming.data.clear()
        self.close()


def stream_pair(to_client: int) -> tuple[End, End]:
    """The client's end and the server's; so many bytes wait for the client to read them."""
    up, down = Pipe(65_536), Pipe(to_client)
    return End(down, up), End(up, down)
