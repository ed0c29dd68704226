"""What the server makes of a client's bytes, without a server: requests, and how they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from trioweb.server import ServerLimits
from trioweb.server._bodies import ChunkedBody, SizedBody
from trioweb.server._errors import BadRequest
from trioweb.server._heads import HeadReader
from trioweb.server._parsers import Parse
from trioweb.server._strict import Framing, RequestHead


class Request(NamedTuple):
    """One whole request.  `raw`: all of its bytes."""

    head: RequestHead
    body: bytes
    raw: bytes


class Reading(NamedTuple):
    """All that was read.  `refused`: the status of what came last; None if it's waited for."""

    requests: tuple[Request, ...]
    refused: int | None


class Reader:
    """One connection's input."""

    def __init__(self, pieces: Iterable[bytes], parse: Parse, limits: ServerLimits) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._heads = HeadReader(parse, limits)
        self._limits = limits
        self._buffer = bytearray()
        self._received = b""

    def read(self) -> Reading:
        requests: list[Request] = []
        try:
            while (request := self._next_request()) is not None:
                requests.append(request)
                if not request.head.framing.keep_alive:
                    break
        except BadRequest as exc:
            return Reading(tuple(requests), exc.status)
        return Reading(tuple(requests), None)

    def _next_request(self) -> Request | None:
        begin = self._consumed
        head = self._next_head()
        if head is None:
            return None
        body = self._next_body(head.framing)
        if body is None:
            return None
        raw = self._received[begin : self._consumed].lstrip(b"\r\n")
        return Request(head, body, raw)

    def _next_head(self) -> RequestHead | None:
        """As `Connection._read_head` does it."""
        buffer, heads = self._buffer, self._heads
        while True:
            if buffer:
                head = heads.take(buffer)
                if head is not None:
                    return head
            data = self._receive()
            if not buffer and (head := heads.recall(data)) is not None:
                return head
            if not data:
                return None
            buffer += data

    def _next_body(self, framing: Framing) -> bytes | None:
        """As `Exchange.receive` does it."""
        length = framing.length
        body = ChunkedBody(self._limits) if length is None else SizedBody(length)
        content = b""
        while not body.over:
            content += body.take(self._buffer)
            if not body.over:
                data = self._receive()
                if not data:
                    return None
                self._buffer += data
        return content

    def _receive(self) -> bytes:
        data = next(self._pieces, b"")
        self._received += data
        return data

    @property
    def _consumed(self) -> int:
        return len(self._received) - len(self._buffer)


def read(pieces: Iterable[bytes], parse: Parse, limits: ServerLimits) -> Reading:
    return Reader(pieces, parse, limits).read()
