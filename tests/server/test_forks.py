"""Processes that are forked while connections are open: those end when the server ends them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from trioweb.server._system import close_in_child, keep_from_children
from trioweb.server._transport import SocketTransport, StreamTransport

from ..support.certificates import client_context, server_context
from ..support.server_clients import PATIENCE, address_of, connected_to_file, listening
from ..support.server_driver import respond

pytestmark = pytest.mark.processes

Fork = Callable[[], None]


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Forks a child, as a library may, which lives until the end of the test."""
    children: list[Any] = []

    def start() -> None:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there are other threads
            child.start()
        children.append(child)

    yield start
    assert all(child.is_alive() for child in children)
    for child in children:
        child.kill()
        child.join()


def app_that(fork: Fork, *, fails: bool = False) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            fork()
            if fails:
                raise RuntimeError("in the middle")
            await send({"type": "http.response.body", "body": b"two"})

    return app


def read_all(sock: socket.socket, request: bytes) -> bytes:
    """Raises TimeoutError if there is no end."""
    sock.settimeout(PATIENCE / 3)
    sock.sendall(request)
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


OLD = b"GET / HTTP/1.0\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("request_", [OLD, CLOSING])
@pytest.mark.parametrize("encrypts", [False, True])
async def test_a_response_ends_though_a_child_lives_on(
    request_: bytes, encrypts: bool, fork: Fork
) -> None:
    def ask(url: str) -> bytes:
        sock = socket.create_connection(address_of(url))
        if encrypts:
            sock = client_context().wrap_socket(
                sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False
            )
        with sock:
            return read_all(sock, request_)

    context = server_context() if encrypts else None
    async with listening(app_that(fork), ssl_context=context) as server:
        answer = await trio.to_thread.run_sync(ask, server.urls[0])
    assert answer.replace(b"\r\n3\r\n", b"").partition(b"one")[2].startswith(b"two")


@pytest.mark.parametrize("encrypts", [False, True])
async def test_a_response_that_breaks_off_breaks_off_though_a_child_lives_on(
    encrypts: bool, fork: Fork, caplog: pytest.LogCaptureFixture
) -> None:
    def ask(url: str) -> bytes:
        sock = socket.create_connection(address_of(url))
        if encrypts:
            sock = client_context().wrap_socket(
                sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False
            )
        with sock:
            return read_all(sock, OLD)

    context = server_context() if encrypts else None
    async with listening(app_that(fork, fails=True), ssl_context=context) as server:
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            await trio.to_thread.run_sync(ask, server.urls[0])
    assert "in the middle" in caplog.text


@pytest.mark.parametrize(
    "request_", [b"BAD\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n"]
)
async def test_who_is_refused_is_shown_the_end_though_a_child_lives_on(
    request_: bytes, fork: Fork
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            fork()
            await respond(send, b"first")

    def ask(url: str) -> bytes:
        with socket.create_connection(address_of(url)) as sock:
            return read_all(sock, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + request_)

    async with listening(app) as server:
        answer = await trio.to_thread.run_sync(ask, server.urls[0])
    assert b"first" in answer
    assert b"HTTP/1.1 4" in answer


async def test_over_a_unix_socket_too(fork: Fork, tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    async with listening(app_that(fork), uds=path), connected_to_file(path) as client:
        await client.send(OLD)
        with trio.fail_after(PATIENCE):
            assert (await client.rest()).endswith(b"onetwo")


async def test_a_stream_that_was_accepted_elsewhere_ends_too(fork: Fork) -> None:
    ours, theirs = socket.socketpair()
    async with listening(app_that(fork)) as server:
        server.serve_stream(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
        with theirs:
            answer = await trio.to_thread.run_sync(read_all, theirs, OLD)
    assert answer.endswith(b"onetwo")


# What isn't forked by Python hears of nothing.


async def test_a_connection_ends_though_another_process_has_its_socket() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    copy = os.dup(ours.fileno())
    try:
        with theirs:
            await SocketTransport(ours).close()
            theirs.settimeout(PATIENCE)
            assert theirs.recv(1) == b""
    finally:
        os.close(copy)


async def test_a_stream_ends_though_another_process_has_its_socket() -> None:
    ours, theirs = socket.socketpair()
    copy = os.dup(ours.fileno())
    try:
        with theirs:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            await StreamTransport(stream).close()
            theirs.settimeout(PATIENCE)
            assert theirs.recv(1) == b""
    finally:
        os.close(copy)


def test_a_child_closes_its_copies() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        keep_from_children(ours)
        close_in_child()
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""
