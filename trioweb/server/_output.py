"""What goes out: ASGI's response messages to bytes, without any I/O.

Rules of this module:

* Nothing is sent before all of the head was checked: names are tokens, values have no
  CR, LF or NUL, the status is a final one (RFC 9110, 5 and 15).
* The framing is the server's.  A length that the app declared is held to, to the
  byte; `transfer-encoding` is never the app's.
* HEAD, 204 and 304 have no body, whatever the app sends (RFC 9110, 6.4.1).
* The head waits for the first piece of the body, so that they can go out in one piece.
* Whether the connection goes on isn't said here: the head lacks that last field, and its end.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Any, NamedTuple

import msgspec

from .._asgi import Message
from ._errors import ProtocolMisuse
from ._grammar import NO_TRAILERS

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++")
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9a-z]++: [\t -~\x80-\xff]*+\r\n)*+")
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in HTTPStatus
    if status >= 200
}
_WITHOUT_BODY = (204, 304)  # RFC 9112, 6.3

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyEnd(enum.Enum):
    """How a client sees where the body ends."""

    NO_BODY = enum.auto()
    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    CLOSE = enum.auto()  # the end of the connection is the end of the body


class Output(msgspec.Struct, eq=False):
    """The response to one request, from ASGI's messages.

    What is to be sent comes as head and content; there is a head once, with the first content.
    Raises ProtocolMisuse for what can't be sent; then nothing of that message may be.
    """

    has_body: bool  # the client gets to see a body
    version: bytes  # the client's, of HTTP
    started: bool = False
    complete: bool = False
    closes: bool = False  # the app says that the connection is to close
    body_end: BodyEnd | None = None
    _head: bytes = b""  # until it is sent
    _declared: int | None = None  # bytes of the body, by the app's own word
    _left: int | None = None  # how many of those are to come, where there is a body
    _may_tell_length: bool = True
    _body_is_over: bool = False
    _trailers: bool = False

    def start(self, message: Message) -> None:
        """`http.response.start`; it is sent with the first piece of the body."""
        self._start(message["status"], message.get("headers", ()))
        self._trailers = bool(message.get("trailers"))

    def whole(
        self, status: int, fields: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> tuple[bytes, bytes]:
        """Both messages of a response that is whole."""
        is_plain = self.has_body and type(body) is bytes and not self.started
        head = _plain_head(status, tuple(fields)) if is_plain else None
        if head is not None:
            self.started = True
            self._head = head + _date.get()
            return self._whole(body)
        self._start(status, fields)
        if not self.has_body and self._declared is None:
            self._declared = len(body)  # told, as for GET
        return self.body(body, more=False)

    def _start(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        if self.started:
            raise ProtocolMisuse("http.response.start comes once")
        block, self._declared, self.closes, dated = _fields(fields)
        self._head = _status_line(status) + block + (b"" if dated else _date.get())
        if status in _WITHOUT_BODY:
            self.has_body = False
            self._may_tell_length = status != 204
        self._left = self._declared if self.has_body else None
        self.started = True

    def body(self, body: bytes, *, more: bool) -> tuple[bytes, bytes]:
        """`http.response.body`."""
        if not self.started:
            raise ProtocolMisuse("http.response.body comes after http.response.start")
        if self._body_is_over:
            raise ProtocolMisuse("http.response.body came with more_body=False before")
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise ProtocolMisuse(f"a body is bytes, not {type(body).__name__}")
        if isinstance(body, memoryview):
            body = body.tobytes()  # its length counts items, which may be wider than a byte
        if self._left is not None:
            self._left = _checked_size(self._left - len(body), more=more)
        if self.body_end is not None:
            return b"", self._content(body, more=more)
        is_plain = self.has_body and not (more or self._trailers)
        if is_plain and (self._declared is None or self._declared == len(body)):
            return self._whole(body)
        head = self._head + self._choose_body_end(len(body), more=more)
        self._head = b""
        return head, self._content(body, more=more)

    def _whole(self, body: bytes) -> tuple[bytes, bytes]:
        """A response in one piece, as most are: nothing has to be counted."""
        self.body_end = BodyEnd.LENGTH
        self._body_is_over = self.complete = True
        return b"%bcontent-length: %d\r\n" % (self._head, len(body)), body

    def trailers(self, fields: Iterable[tuple[bytes, bytes]], *, more: bool) -> bytes:
        """`http.response.trailers`, an extension of ASGI; dropped where no chunks are sent."""
        if not self._body_is_over or self.complete:
            raise ProtocolMisuse(
                "http.response.trailers comes after the whole body, and was announced"
            )
        fields = [(name.lower(), value) for name, value in fields]
        for name, _ in fields:
            if name in NO_TRAILERS:
                raise ProtocolMisuse(f"{name!r} can't be a trailer: it has to come first")
        lines = _checked([_line(name, value) for name, value in fields])
        self.complete = not more
        if self.body_end is not BodyEnd.CHUNKED:
            return b""
        return lines if more else lines + b"\r\n"

    def _choose_body_end(self, size: int, *, more: bool) -> bytes:
        """Decide where the body will end, and say so: a field of the head."""
        length = self._declared
        if not self.has_body:
            self.body_end = BodyEnd.NO_BODY
            # HEAD and 304 may tell the length that there would have been, 204 may not.
            return b"" if length is None or not self._may_tell_length else _length(length)
        if length is not None or not (more or self._trailers):
            self.body_end = BodyEnd.LENGTH
            return _length(size if length is None else length)
        if self.version == b"1.1":
            self.body_end = BodyEnd.CHUNKED
            return b"transfer-encoding: chunked\r\n"
        self.body_end = BodyEnd.CLOSE
        return b""

    def _content(self, body: bytes, *, more: bool) -> bytes:
        if self.body_end is BodyEnd.CHUNKED:
            # Formatting would take more room than it needs, and give it back, at each large piece.
            content = b"".join((b"%x\r\n" % len(body), body, b"\r\n")) if body else b""
            if not more:
                content += b"0\r\n" if self._trailers else b"0\r\n\r\n"
        elif self.body_end is BodyEnd.NO_BODY:
            content = b""
        else:
            content = body
        if not more:
            self._body_is_over = True
            self.complete = not self._trailers
        return content


def _checked_size(left: int, *, more: bool) -> int:
    if left < 0:
        raise ProtocolMisuse(f"the body is {-left} bytes longer than content-length")
    if left and not more:
        raise ProtocolMisuse(f"the body is {left} bytes shorter than content-length")
    return left


class _Fields(NamedTuple):
    """An app's fields, checked and rendered, without those that frame the message."""

    block: bytes
    length: int | None  # of the body, by the app's own word
    closes: bool
    dated: bool


def _fields(fields: Iterable[tuple[bytes, bytes]]) -> _Fields:
    fields = tuple(fields)
    try:
        return _rendered(fields)
    except TypeError:  # a pair may be a list, which has no hash
        return _rendered(tuple((bytes(name), bytes(value)) for name, value in fields))


# Most responses of an app have one of a few heads: looking one up costs 0.5 µs, making it 3.
@functools.lru_cache(maxsize=256)
def _rendered(fields: tuple[tuple[bytes, bytes], ...]) -> _Fields:
    lines: list[bytes] = []
    lengths: list[int] = []
    closes = dated = False
    for name, value in fields:
        name = name.lower()
        if name == b"content-length":
            lengths.append(_checked_length(value))
        elif name == b"connection":
            closes = closes or b"close" in [part.strip() for part in value.lower().split(b",")]
        elif name != b"transfer-encoding":
            lines.append(_line(name, value))
            dated = dated or name == b"date"
    if len(lengths) > 1:
        raise ProtocolMisuse("more than one content-length")
    return _Fields(_checked(lines), lengths[0] if lengths else None, closes, dated)


@functools.lru_cache(maxsize=256)
def _plain_head(status: int, fields: tuple[tuple[bytes, bytes], ...]) -> bytes | None:
    """Status line and fields of a response with nothing special about it, without the date."""
    block, length, closes, dated = _rendered(fields)
    is_plain = length is None and not (closes or dated or status in _WITHOUT_BODY)
    return _status_line(status) + block if is_plain else None


def _checked_length(value: bytes) -> int:
    if not value.isdigit():
        raise ProtocolMisuse(f"content-length is a number of bytes, not {value!r}")
    return int(value)


def _status_line(status: Any) -> bytes:
    line = _STATUS_LINES.get(status)
    if line is not None:
        return line
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise ProtocolMisuse(f"a final response has a status from 200 to 999, not {status!r}")
    return b"HTTP/1.1 %d \r\n" % status


def _line(name: bytes, value: bytes) -> bytes:
    if not _NAME.fullmatch(name):
        raise ProtocolMisuse(f"{name!r} can't be sent: a field's name is a token")
    return b"%b: %b\r\n" % (name, value)


def _length(size: int) -> bytes:
    return b"content-length: %d\r\n" % size


def _checked(lines: list[bytes]) -> bytes:
    """All lines in one, once it is sure that they are so many fields, and nothing else."""
    block = b"".join(lines)
    if not _FIELDS.fullmatch(block) or block.count(b"\n") != len(lines):
        bad = next(line for line in lines if not _FIELDS.fullmatch(line) or line.count(b"\n") != 1)
        raise ProtocolMisuse(
            f"{bad[:-2]!r} can't be sent: a field's name is a token, "
            "its value has no control characters (CR, LF, NUL, …)"
        )
    return block


class _Date:
    """The date field, made anew once a second."""

    second = 0
    field = b""

    def get(self) -> bytes:
        now = time()
        if not 0 <= now - self.second < 1:
            self.second = int(now)
            self.field = b"date: %s\r\n" % formatdate(self.second, usegmt=True).encode()
        return self.field


_date = _Date()


def error_response(status: int, reason: str, fields: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A whole response of the server's own, after which the connection closes."""
    own = [(b"content-type", b"text/plain; charset=utf-8"), *fields]
    body = reason.encode("latin-1", "replace") + b"\n"
    head, content = Output(has_body=True, version=b"1.1").whole(status, own, body)
    return head + b"connection: close\r\n\r\n" + content
