"""TLS as the server speaks it: what goes through, in how large pieces, and how it ends."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb.server import ClientGone
from trioweb.server._limits import (
    KIB,
    LINGER_TIME,
    MAX_TLS_ANSWERS,
    MIB,
    READ_SIZE,
    TLS_PIECE,
    TLS_TURN,
)
from trioweb.server._tls import TLSTransport
from trioweb.server._transport import Patience, SocketTransport, send_all

from ..support.certificates import client_context, server_context
from ..support.server_clients import PATIENCE, address_of, listening, patient
from ..support.server_driver import GET, respond


class Counted(SocketTransport):
    """Counts what its kernel is given, and may take none of it."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.given: list[int] = []
        self.is_full = False

    def send_nowait(self, data: bytes | memoryview) -> int:
        self.given.append(len(data))
        return 0 if self.is_full else super().send_nowait(data)

    def backlog(self) -> int | None:
        return None if super().backlog() is None else 0  # as of a client that is quick


class Wire:
    """A server's transport after its handshake, and its client."""

    def __init__(
        self, transport: TLSTransport, kernel: Counted, client: trio.SSLStream[trio.SocketStream]
    ) -> None:
        self.transport, self.kernel, self.client = transport, kernel, client


@asynccontextmanager
async def wire(*, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> AsyncIterator[Wire]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    kernel = Counted(ours)
    transport = TLSTransport(kernel, server_context())
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    client = trio.SSLStream(stream, client_context(version), server_hostname="127.0.0.1")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            await transport.shake_hands()
        kernel.given.clear()
        yield Wire(transport, kernel, client)
    finally:
        await transport.close(abort=True)
        await trio.aclose_forcefully(client)


versions = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@versions
async def test_what_is_sent_arrives_however_little_the_kernel_takes(
    version: ssl.TLSVersion,
) -> None:
    data = hashlib.shake_256(b"").digest(3 * MIB + 7)
    got = bytearray()

    async def read(client: trio.SSLStream[trio.SocketStream]) -> None:
        while len(got) < len(data):
            got.extend(await client.receive_some(10_000))

    async with wire(version=version) as w, trio.open_nursery() as nursery:
        nursery.start_soon(read, w.client)
        await send_all(w.transport, data, Patience(PATIENCE))
        assert w.transport.backlog() is not None
    assert bytes(got) == data


@versions
async def test_what_is_received_is_what_was_sent(version: ssl.TLSVersion) -> None:
    data = hashlib.shake_256(b"").digest(MIB + 7)
    got = bytearray()
    async with wire(version=version) as w, trio.open_nursery() as nursery:
        nursery.start_soon(w.client.send_all, data)
        while len(got) < len(data):
            piece = await w.transport.receive(20_000)
            assert 0 < len(piece) <= 20_000
            got += piece
    assert bytes(got) == data


async def test_pieces_are_as_large_as_what_is_sent_up_to_64_kib() -> None:
    async with wire() as w:
        assert w.transport.send_nowait(bytes(TLS_PIECE)) == TLS_PIECE
        assert len(w.kernel.given) == 1
        assert TLS_PIECE >= 64 * KIB
        assert w.kernel.given[0] > TLS_PIECE


async def test_one_who_takes_all_at_once_lets_others_have_a_turn() -> None:
    async with wire() as w:

        def takes_all(data: Any) -> int:
            return len(data)

        w.kernel.send_nowait = takes_all  # type: ignore[method-assign]
        assert w.transport.send_nowait(bytes(4 * TLS_TURN)) == TLS_TURN


async def test_what_the_kernel_doesnt_take_isnt_taken() -> None:
    async with wire() as w:
        w.kernel.is_full = True
        assert w.transport.send_nowait(b"hello") == 0
        assert w.transport.send_nowait(b"hello") == 0  # nor encrypted once more
        assert 0 < (w.transport.backlog() or 0) < 2 * (len(b"hello") + 40)
        w.kernel.is_full = False
        assert await w.transport.send_some(memoryview(b"hello")) == 5
        assert await w.client.receive_some() == b"hello"
        assert w.transport.backlog() == 0


async def test_the_kernel_may_be_full_again_when_it_was_waited_for() -> None:
    async with wire() as w, trio.open_nursery() as nursery:
        w.kernel.is_full = True
        assert w.transport.send_nowait(b"hello") == 0

        async def make_room() -> None:
            await trio.lowlevel.checkpoint()
            w.kernel.is_full = False

        nursery.start_soon(make_room)
        assert await w.transport.send_some(memoryview(b"hello")) == 5


async def test_what_has_come_is_there_without_waiting() -> None:
    async with wire() as w:
        assert w.transport.receive_nowait() is None
        assert not w.transport.has_data()
        await w.client.send_all(b"hello")
        assert w.transport.has_data()
        assert w.transport.receive_nowait() == b"hello"
        await w.client.send_all(b"a" * 10)
        assert await w.transport.receive(4) == b"aaaa"
        assert w.transport.has_data()  # decrypted, and in no kernel
        with trio.CancelScope() as scope:
            scope.cancel()
            await w.transport.receive(6)
        assert scope.cancelled_caught
        assert await w.transport.receive(100) == b"a" * 6  # a cancellation loses nothing


@versions
async def test_a_client_that_says_its_end_may_still_read(version: ssl.TLSVersion) -> None:
    async with wire(version=version) as w, trio.open_nursery() as nursery:
        nursery.start_soon(w.client.unwrap)
        await wait_all_tasks_blocked()
        assert await w.transport.receive() == b""
        assert await w.transport.receive() == b""
        assert w.transport.receive_nowait() == b""
        assert w.transport.send_nowait(b"hello") == 5
        nursery.cancel_scope.cancel()


async def test_an_end_of_the_connection_is_an_end() -> None:
    async with wire() as w:
        await w.client.send_all(b"hello")
        await w.client.transport_stream.send_eof()
        assert w.transport.receive_nowait() == b"hello"
        assert w.transport.receive_nowait() == b""
        assert await w.transport.receive() == b""


async def test_receiving_can_be_ended() -> None:
    async with wire() as w:
        await w.client.send_all(b"hello")
        assert not w.transport.is_refused()
        assert w.transport.end_receiving()
        assert await w.transport.receive() == b"hello"
        assert await w.transport.receive() == b""


@pytest.mark.parametrize("before", [b"", b"hello"])
async def test_what_cant_be_decrypted_is_a_client_that_has_left(before: bytes) -> None:
    async with wire() as w:
        if before:
            await w.client.send_all(before)
        await w.client.transport_stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        if before:
            assert await w.transport.receive() == before
        with pytest.raises(ClientGone):
            await w.transport.receive()


@versions
async def test_the_end_is_said_and_what_comes_then_is_thrown_away(
    version: ssl.TLSVersion,
) -> None:
    async with wire(version=version) as w:
        await w.client.send_all(b"x")
        await w.transport.send_eof()
        assert await w.client.receive_some() == b""  # a client that insists on it has it
        with contextlib.suppress(trio.BrokenResourceError):  # TLS 1.2 knows no half of an end
            await w.client.send_all(b"y" * 100)
        await w.client.transport_stream.send_eof()
        while await w.transport.receive():
            pass


@pytest.mark.parametrize("breaks_off", [False, True])
async def test_a_response_that_breaks_off_has_no_end(breaks_off: bool) -> None:
    async with wire() as w:
        if breaks_off:
            w.kernel.is_full = True
            w.transport.send_nowait(b"hello")
            w.kernel.is_full = False
        await w.transport.close()
        if breaks_off:
            with pytest.raises(trio.BrokenResourceError):
                await w.client.receive_some()
        else:
            assert await w.client.receive_some() == b""


async def test_a_client_that_takes_no_end_has_two_seconds(autojump_clock: MockClock) -> None:
    patient(autojump_clock)
    async with wire() as w:
        w.kernel.is_full = True
        w.kernel.wait_writable = trio.sleep_forever  # type: ignore[method-assign]
        began = trio.current_time()
        await w.transport.close()
        assert trio.current_time() - began == pytest.approx(LINGER_TIME)
        with pytest.raises(trio.BrokenResourceError):
            await w.client.receive_some()


# What no client of Python's can do.


class Answering:
    """Has something to say for each byte that it reads, as TLS may: new keys, for example."""

    def __init__(self, outgoing: ssl.MemoryBIO) -> None:
        self._outgoing = outgoing
        self.fails = False

    def read(self, size: int) -> bytes:
        self._outgoing.write(b"k" * KIB)
        raise ssl.SSLWantReadError

    def write(self, data: bytes) -> int:
        raise ssl.SSLError

    def unwrap(self) -> None:
        raise ssl.SSLError


class FakeContext:
    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **_: Any) -> Answering:
        return Answering(outgoing)


async def test_who_doesnt_read_what_tls_answers_is_let_go() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        kernel = Counted(ours)
        transport = TLSTransport(kernel, cast(ssl.SSLContext, FakeContext()))
        transport.receive_nowait()
        assert theirs.recv(10 * KIB) == b"k" * KIB
        kernel.is_full = True
        for _ in range(MAX_TLS_ANSWERS // KIB + 1):  # one more is on its way to the kernel
            assert transport.receive_nowait() is None
        with pytest.raises(ClientGone, match="doesn't read"):
            transport.receive_nowait()
        kernel.is_full = False
        await transport.close(abort=True)
        with pytest.raises(ClientGone):
            await transport.send_eof()


async def test_who_sends_what_holds_no_data_is_read_once_by_who_doesnt_wait() -> None:
    """New keys, for one: whoever sends them without end would have the loop for himself."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        kernel = Counted(ours)
        transport = TLSTransport(kernel, cast(ssl.SSLContext, FakeContext()))
        theirs.sendall(b"k" * (READ_SIZE + 1))
        assert transport.receive_nowait() is None
        assert kernel.has_data()
        assert transport.receive_nowait() is None
        assert not kernel.has_data()
        await transport.close(abort=True)


async def test_what_tls_refuses_to_encrypt_is_a_client_that_has_left() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        transport = TLSTransport(Counted(ours), cast(ssl.SSLContext, FakeContext()))
        with pytest.raises(ClientGone):
            transport.send_nowait(b"hello")
        await transport.close()


# As clients see it.


@pytest.mark.parametrize("piece", [1, 16 * KIB, MIB])
async def test_a_client_that_insists_on_an_end_reads_all(piece: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for more in (True, True, True, False):
                message = {"type": "http.response.body", "body": bytes(piece), "more_body": more}
                await send(message)

    def read(url: str) -> bytes:
        with (
            socket.create_connection(address_of(url), timeout=PATIENCE) as sock,
            client_context().wrap_socket(
                sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False
            ) as client,
        ):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")  # only the end says that it was all
            parts = []
            while part := client.recv(64 * KIB):
                parts.append(part)
            return b"".join(parts)

    async with listening(app, ssl_context=server_context()) as server:
        answer = await trio.to_thread.run_sync(read, server.urls[0])
    assert answer.endswith(b"\r\n\r\n" + bytes(4 * piece))


async def test_requests_in_one_record_are_answered_one_after_the_other() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await respond(send, b"hello")

    async with listening(app, ssl_context=server_context()) as server:
        stream = await trio.open_ssl_over_tcp_stream(
            *address_of(server.urls[0]), ssl_context=client_context(), https_compatible=True
        )
        async with stream:
            await stream.send_all(GET * 3)
            got = b""
            while got.count(b"hello") < 3:
                got += await stream.receive_some()
    assert got.count(b"HTTP/1.1 200") == 3


async def test_why_a_handshake_failed_is_logged_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    caplog.set_level("DEBUG", logger="trioweb.server")
    async with listening(app, ssl_context=server_context()) as server:
        for sent in (GET, b""):
            stream = await trio.open_tcp_stream(*address_of(server.urls[0]))
            async with stream:
                await stream.send_all(sent)
                await stream.send_eof()
                async for _ in stream:
                    ...
    failed, left = (line for line in caplog.messages if "handshake" in line)
    assert "HTTP_REQUEST" in failed
    assert "the client left" in left
