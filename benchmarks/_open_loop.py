"""Requests at a constant rate, whatever the server makes of them.

Rules of this module:

* A request has a moment when it is due, and its latency counts from there.  A server that
  stalls is charged for all the requests that came due meanwhile (no coordinated omission).
* It spins instead of sleeping, on a core of its own: timers are coarser than what it measures.
* A connection that the server closes, as every server does after so many requests, is replaced
  before it is needed.
"""

from __future__ import annotations

import gc
import selectors
import socket
from collections import deque
from contextlib import ExitStack
from time import perf_counter

from .apps.endpoints import Endpoint, WrongAnswer
from .apps.servers import HOST

RECEIVED = 64 * 1024  # bytes at a time; the answer is smaller
PATIENCE = 30.0  # seconds, beside the time that the requests come in


class Connection:
    """One request at a time, on one socket after the other."""

    def __init__(self, port: int, request: bytes, selector: selectors.BaseSelector) -> None:
        self.due = 0.0
        self._port = port
        self._request = request
        self._selector = selector
        self._received = b""
        self._open()

    def _open(self) -> None:
        self._socket = socket.create_connection((HOST, self._port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(self._socket, selectors.EVENT_READ, self)

    def close(self) -> None:
        self._selector.unregister(self._socket)
        self._socket.close()

    def send(self, due: float) -> None:
        self.due = due
        self._socket.sendall(self._request)

    def receive(self) -> bool:
        """Whether the answer is complete.  Raises WrongAnswer."""
        data = self._socket.recv(RECEIVED)
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not data or not head.startswith(b"HTTP/1.1 200 "[: len(head)]):
            raise WrongAnswer(f"under load: {self._received[:200]!r}")
        head = head.lower()
        if not blank or len(body) < int(head.partition(b"content-length: ")[2].split()[0]):
            return False
        self._received = b""
        if b"\r\nconnection: close" in head:
            self.close()
            self._open()
        return True


def offer(
    port: int, endpoint: Endpoint, rate: float, seconds: float, connections: int
) -> list[float]:
    """Seconds from when each request was due until its answer was there, sorted.

    Raises WrongAnswer.
    """
    request = f"{endpoint.method} {endpoint.target} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n"
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        idle: deque[Connection] = deque()
        for _ in range(connections):
            idle.append(Connection(port, request.encode(), selector))
            stack.callback(idle[-1].close)
        gc.disable()  # its pauses would look like the server's
        stack.callback(gc.enable)
        return sorted(_spin(selector, idle, rate, int(rate * seconds)))


def _spin(
    selector: selectors.BaseSelector, idle: deque[Connection], rate: float, count: int
) -> list[float]:
    latencies: list[float] = []
    begin = perf_counter()
    sent = 0
    while len(latencies) < count:
        now = perf_counter()
        while sent < count and idle and begin + sent / rate <= now:
            connection = idle.popleft()
            connection.send(begin + sent / rate)
            sent += 1
        for key, _ in selector.select(0):
            connection = key.data
            if connection.receive():
                latencies.append(perf_counter() - connection.due)
                idle.append(connection)
        if now > begin + count / rate + PATIENCE:
            raise WrongAnswer(f"{count - len(latencies)} of {count} answers didn't come")
    return latencies
