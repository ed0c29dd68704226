"""Transports: a socket without a detour, or any Trio stream, behind one seam.

Rules of this module:

* A socket's bytes go out at once where the kernel takes them: no checkpoint, no
  scope.  Whoever sends piece after piece lets others run between them.
* The operating system's errors end here: what comes out is `ClientGone`.
* Whoever waits for a client does it with `Patience`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Protocol

import trio

from . import _limits
from ._errors import ClientGone
from ._system import SHUTDOWN_ENDS_WAITING, keep_from_children, unsent

# For SO_LINGER, switched on with no time to linger: closing the socket resets the connection.
_RESET = struct.pack("ii", 1, 0)


class Transport(Protocol):
    """One connection's bytes.  Cancelling `send_some` may lose what it was given."""

    async def receive(self, size: int = _limits.READ_SIZE) -> bytes:
        """Some bytes, at most so many; none when the client has closed its side."""
        ...

    def receive_nowait(self) -> bytes | None:
        """As `receive`; None where nothing has come, or nobody knows."""
        ...

    def send_nowait(self, data: bytes) -> int:
        """How many bytes were taken at once.  The rest is to be sent next, and nothing else."""
        ...

    async def send_some(self, data: memoryview) -> int:
        """Wait until at least one byte was taken; how many were."""
        ...

    def backlog(self) -> int | None:
        """How many bytes were taken that the client hasn't got; None where nobody knows."""
        ...

    def is_refused(self) -> bool:
        """Whether the client has refused what was sent; told once."""
        ...

    def has_data(self) -> bool:
        """Whether bytes are known to wait."""
        ...

    def end_receiving(self) -> bool:
        """Have `receive` find the end after what has come; whether that can be done."""
        ...

    async def send_eof(self) -> None:
        """Say that nothing more is coming."""
        ...

    async def close(self, *, abort: bool = False) -> None:
        """Give the connection up.  `abort`: so that the client can't take it for a good end."""
        ...


class SocketTransport:
    """A connected, non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        keep_from_children(sock)

    async def receive(self, size: int = _limits.READ_SIZE) -> bytes:
        # Under load the next request is there when the others have had their turn.
        await trio.lowlevel.checkpoint()
        try:
            while True:
                try:
                    return self._socket.recv(size)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._socket)
        except (OSError, trio.ClosedResourceError) as exc:
            raise ClientGone("the client has left") from exc

    def receive_nowait(self) -> bytes | None:
        try:
            return self._socket.recv(_limits.READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise ClientGone("the client has left") from exc

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise ClientGone("the client has left") from exc

    async def send_some(self, data: memoryview) -> int:
        try:
            while True:
                await trio.lowlevel.wait_writable(self._socket)
                try:
                    return self._socket.send(data)
                except BlockingIOError:
                    continue
        except (OSError, trio.ClosedResourceError) as exc:
            raise ClientGone("the client has left") from exc

    async def wait_writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except (OSError, trio.ClosedResourceError) as exc:
            raise ClientGone("the client has left") from exc

    def backlog(self) -> int | None:
        return unsent(self._socket)

    def is_refused(self) -> bool:
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def has_data(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def end_receiving(self) -> bool:
        if not SHUTDOWN_ENDS_WAITING:
            return False
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            return False
        return True

    async def send_eof(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise ClientGone("the client has left") from exc

    async def close(self, *, abort: bool = False) -> None:
        with contextlib.suppress(OSError):  # the client has left
            if abort:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                # Closing ends the connection only where no other process has the socket too.
                self._socket.shutdown(socket.SHUT_RDWR)
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


class StreamTransport:
    """Any Trio stream: TLS, or a pair of memory streams."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self, size: int = _limits.READ_SIZE) -> bytes:
        try:
            return bytes(await self._stream.receive_some(size))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ClientGone("the client has left") from exc

    def receive_nowait(self) -> bytes | None:
        return None

    def send_nowait(self, data: bytes) -> int:
        return 0

    async def send_some(self, data: memoryview) -> int:
        try:
            await self._stream.send_all(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ClientGone("the client has left") from exc
        return len(data)

    def backlog(self) -> int | None:
        return None

    def is_refused(self) -> bool:
        return False

    def has_data(self) -> bool:
        return False

    def end_receiving(self) -> bool:
        return False

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            try:
                await self._stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise ClientGone("the client has left") from exc

    async def close(self, *, abort: bool = False) -> None:
        if abort:
            await trio.aclose_forcefully(self._stream)
            return
        # TLS says goodbye first, which the client may not take; cancelled, it closes all the same.
        with trio.move_on_after(_limits.LINGER_TIME), contextlib.suppress(trio.BrokenResourceError):
            try:
                with contextlib.suppress(ClientGone):
                    await self.send_eof()
            finally:
                await self._stream.aclose()


class Patience:
    """How long a client may keep us waiting; what it moves buys time back, up to the whole.

    So the limit holds for a client that stalls as for one that sends a byte now and
    then: below `MIN_RATE` the time runs out.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = self._left = seconds
        self._since = 0.0

    @property
    def is_over(self) -> bool:
        return self._left <= 0

    @property
    def portion(self) -> int:
        """How many bytes half of the time is enough for."""
        return max(1, int(min(_limits.WRITE_SIZE, self._seconds * _limits.MIN_RATE / 2)))

    def scope(self) -> trio.CancelScope:
        """For one wait; it's cancelled when the time has run out."""
        self._since = trio.current_time()
        return trio.CancelScope(deadline=self._since + self._left)

    def moved(self, count: int) -> None:
        """The wait is over, and so many bytes came of it."""
        waited = trio.current_time() - self._since
        self._left = min(self._seconds, self._left - waited + count / _limits.MIN_RATE)


async def send_all(transport: Transport, data: bytes, patience: Patience) -> None:
    """Send all of it.  ClientGone when the client doesn't read it."""
    sent = transport.send_nowait(data)
    if sent < len(data):
        await send_rest(transport, memoryview(data)[sent:], patience)


async def send_rest(transport: Transport, rest: memoryview, patience: Patience) -> None:
    while rest:
        before = transport.backlog()
        # What doesn't tell how much of it has gone out is given a little at a time.
        piece = rest[: patience.portion] if before is None else rest
        count = 0
        with patience.scope():
            count = await transport.send_some(piece)
        patience.moved(_delivered(count, before, transport.backlog()))
        if patience.is_over:
            raise ClientGone("the client doesn't read what it is sent")
        rest = rest[count:]


def _delivered(count: int, before: int | None, after: int | None) -> int:
    """How many bytes the client has got: a kernel takes more than that, and takes it late."""
    return count if before is None or after is None else before + count - after
