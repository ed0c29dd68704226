"""Clients that leave, or only seem to, kept under real servers: ours and Hypercorn."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.hypercorn_process import hypercorn_process
from ..support.processes import HOST, LINE_TIMEOUT, ServerProcess
from ..support.server_clients import RESET
from ..support.trioweb_process import trioweb_process

pytestmark = [pytest.mark.slow, pytest.mark.processes]

APPS = Path(__file__).parents[1] / "support" / "apps"
MIB = 1024 * 1024
SIZE = 20 * MIB  # more than the kernels at both ends take

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["trioweb", "hypercorn"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    if request.param == "hypercorn":
        with hypercorn_process("leaving:app", cwd=APPS) as running:
            yield running
    else:
        with trioweb_process("run", "leaving:app", "--port", "0", cwd=APPS) as ours:
            yield ours
            ours.stop()


@contextlib.contextmanager
def asking(server: ServerProcess, method: str, path: str) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, server.port), LINE_TIMEOUT) as client:
        length = "Content-Length: 0\r\n" if method == "POST" else ""
        client.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode())
        yield client


def read(client: socket.socket, size: int) -> bytes:
    """As many bytes, or as many as come."""
    received = bytearray()
    while len(received) < size and (data := client.recv(min(65536, size - len(received)))):
        received += data
    return bytes(received)


def read_head(client: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    return head


def events(server: ServerProcess, key: str) -> list[str]:
    server.wait_for_line(f"event {key} over\n")
    lines = server.log.splitlines()
    return [line.split()[2] for line in lines if line.startswith(f"event {key} ")]


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_what_was_not_delivered_is_not_taken_for_sent(
    server: ServerProcess, kind: str, reset: bool
) -> None:
    """The client leaves after 64 KiB of 20 MiB."""
    key = f"key{next(_numbers)}"
    with asking(server, "GET", f"/{kind}/{SIZE}/{key}") as client:
        assert len(read(client, 64 * 1024)) == 64 * 1024
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert events(server, key) == ["over"]


@pytest.mark.parametrize("kind", ["whole", "stream"])
@pytest.mark.parametrize("size", [MIB, SIZE])
def test_who_has_all_of_it_may_leave_at_once(server: ServerProcess, kind: str, size: int) -> None:
    key = f"key{next(_numbers)}"
    with asking(server, "GET", f"/{kind}/{size}/{key}") as client:
        read_head(client)
        assert len(read(client, size)) == size
    assert events(server, key) == ["sent", "over"]


def test_what_fails_before_the_first_piece_has_its_own_status(server: ServerProcess) -> None:
    with contextlib.closing(server.connect()) as connection:
        for _ in range(2):
            connection.request("GET", "/forbidden")
            with connection.getresponse() as response:
                assert (response.status, response.read()) == (403, b'{"detail":"Forbidden"}')
    assert "failed" not in server.log


def test_a_stream_of_no_events_has_its_head(server: ServerProcess) -> None:
    with asking(server, "GET", "/events") as client:
        assert b" 200 " in read_head(client).splitlines()[0]


def test_a_client_that_has_closed_its_sending_side_gets_its_answer(server: ServerProcess) -> None:
    with asking(server, "POST", "/slow") as client:
        client.shutdown(socket.SHUT_WR)
        answer = read(client, MIB)
    assert b" 200 " in answer.splitlines()[0]
    assert answer.endswith(b'"slow"')
