"""TLS over a socket: ssl's state machine between two buffers, and the socket without a detour.

Rules of this module:

* What is given to send is encrypted in large pieces, and each goes out at once where the kernel
  takes it.  Trio's own stream costs each of them two locks and three checkpoints, which is more
  than the encryption does.
* A piece is taken once the kernel has all of its ciphertext.  Until then it is held here, one piece
  at most, and whoever comes again comes with the same bytes.
* That nothing more is coming is said in TLS too, unless a response broke off: without it a client
  knows that something is missing.
"""

from __future__ import annotations

import contextlib
import ssl

import trio

from . import _limits
from ._errors import ClientGone
from ._transport import SocketTransport


class TLSTransport:
    """A connected, non-blocking socket whose client speaks TLS."""

    def __init__(self, transport: SocketTransport, context: ssl.SSLContext) -> None:
        self._transport = transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent = memoryview(b"")  # ciphertext that the kernel hasn't taken
        self._ahead = 0  # bytes of plaintext that are encrypted, and not taken yet
        self._has_ended = False  # by the client's word, or with its connection
        self._has_said_end = False

    @property
    def session(self) -> ssl.SSLObject:
        """What was agreed upon in the handshake; not to read from, nor to write to."""
        return self._tls

    async def shake_hands(self) -> None:
        """Raises ClientGone if that fails."""
        while not self._shakes_hands():
            await self._wait_flushed()
            self._feed(await self._transport.receive())
            if self._has_ended:
                raise ClientGone("the client left before the end of the TLS handshake")
        await self._wait_flushed()

    def _shakes_hands(self) -> bool:
        """Whether that is over."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as exc:
            self._flush()  # it says why
            raise ClientGone("the TLS handshake failed") from exc
        return True

    # The way in.

    async def receive(self, size: int = _limits.READ_SIZE) -> bytes:
        if self._has_said_end:
            return await self._transport.receive(size)  # to be thrown away
        if self._has_ended or self._incoming.pending or self._tls.pending():
            await trio.lowlevel.checkpoint()
        while (data := self._decrypted(size)) is None:
            self._feed(await self._transport.receive())
        return data

    def receive_nowait(self) -> bytes | None:
        data = self._decrypted(_limits.READ_SIZE)
        if data is None:
            # Once: a client may go on and on with what holds no data, such as new keys.
            encrypted = self._transport.receive_nowait()
            if encrypted is not None:
                self._feed(encrypted)
                data = self._decrypted(_limits.READ_SIZE)
        return data

    def _feed(self, encrypted: bytes) -> None:
        if encrypted:
            self._incoming.write(encrypted)
        else:
            self._has_ended = True

    def _decrypted(self, size: int) -> bytes | None:
        """At most so many bytes of what has come; None if more has to come first."""
        pieces: list[bytes] = []
        try:
            while size > 0 and (piece := self._tls.read(size)):
                pieces.append(piece)
                size -= len(piece)
            self._has_ended = self._has_ended or size > 0
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            if not pieces:
                raise ClientGone("the client's TLS is broken") from exc
        self._answer()
        return b"".join(pieces) if pieces or self._has_ended else None

    def _answer(self) -> None:
        """TLS answers some of what it reads by itself, which mustn't pile up."""
        if self._outgoing.pending:
            with contextlib.suppress(ClientGone):  # there may be something to read all the same
                self._flush()
            if self._outgoing.pending > _limits.MAX_TLS_ANSWERS:
                raise ClientGone("the client doesn't read what TLS answers")

    # The way out.

    def send_nowait(self, data: bytes | memoryview) -> int:
        view, taken = memoryview(data), 0
        while self._flush():
            taken += self._taken()
            piece = view[taken : taken + _limits.TLS_PIECE]
            if not piece or taken >= _limits.TLS_TURN:
                break
            self._encrypt(piece)
            self._ahead = len(piece)
        return taken

    async def send_some(self, data: memoryview) -> int:
        while True:
            await self._transport.wait_writable()
            if taken := self.send_nowait(data):
                return taken

    def _encrypt(self, piece: memoryview) -> None:
        try:
            while piece:
                piece = piece[self._tls.write(piece) :]
        except ssl.SSLError as exc:
            raise ClientGone("the client's TLS is broken") from exc

    def _taken(self) -> int:
        taken, self._ahead = self._ahead, 0
        return taken

    def _flush(self) -> bool:
        """Give the kernel what is encrypted; whether it has taken all of it."""
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            self._unsent = self._unsent[self._transport.send_nowait(self._unsent) :]
            if self._unsent:
                return False
        return True

    async def _wait_flushed(self) -> None:
        while not self._flush():
            await self._transport.wait_writable()

    # The connection.

    def backlog(self) -> int | None:
        held = self._transport.backlog()
        return None if held is None else held + len(self._unsent) - self._ahead

    def is_refused(self) -> bool:
        return self._transport.is_refused()

    def has_data(self) -> bool:
        return bool(self._incoming.pending or self._tls.pending()) or self._transport.has_data()

    def end_receiving(self) -> bool:
        return self._transport.end_receiving()

    async def send_eof(self) -> None:
        self._has_said_end = True
        with contextlib.suppress(OSError):  # it waits for the client to say the same
            self._tls.unwrap()
        await self._wait_flushed()
        await self._transport.send_eof()

    async def close(self, *, abort: bool = False) -> None:
        try:
            if not (abort or self._has_said_end or self._ahead):
                with trio.move_on_after(_limits.LINGER_TIME), contextlib.suppress(ClientGone):
                    await self.send_eof()
        finally:
            await self._transport.close(abort=abort)
