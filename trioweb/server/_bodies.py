"""Bodies of requests: so many bytes, or chunks (RFC 9112, 6 and 7).

Rules of this module:

* Bodies are framed here, for both parsers: a length is a subtraction, chunks are a grammar of
  three lines.  No verdict depends on how the bytes were split.
* A body takes what is its own off the front of a buffer, and leaves what follows.
* Extensions of chunks and trailers are checked and dropped.
* Time is linear in the input, whatever it is.
"""

from __future__ import annotations

import re
from typing import Protocol

from . import _limits
from ._errors import BadRequest
from ._grammar import FIELD, NO_TRAILERS, TOKEN
from ._limits import ServerLimits

_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_EXTENSION = rb"[ \t]*+;[ \t]*+%s++(?:[ \t]*+=[ \t]*+(?:%s++|%s))?" % (TOKEN, TOKEN, _QUOTED)
_CHUNK = re.compile(
    rb"(?P<size>[0-9A-Fa-f]{1,%d})(?P<extensions>(?:%s)*+)\r\n"
    % (_limits.MAX_CHUNK_DIGITS, _EXTENSION)
)
_TRAILER = re.compile(FIELD)


class Body(Protocol):
    """Takes a body apart.  `over`: its last byte was seen."""

    over: bool

    def take(self, buffer: bytearray) -> bytes:
        """Remove what belongs to the body from the front of `buffer`; its content."""
        ...


class SizedBody:
    """A body of so many bytes."""

    __slots__ = ("left", "over")

    def __init__(self, size: int) -> None:
        self.left = size  # bytes that are still to be taken
        self.over = size == 0

    def take(self, buffer: bytearray) -> bytes:
        content = bytes(buffer[: self.left])
        del buffer[: self.left]
        self.left -= len(content)
        self.over = self.left == 0
        return content


class ChunkedBody:
    """A body in chunks.  `take` raises BadRequest for what can't be one."""

    def __init__(self, limits: ServerLimits) -> None:
        self.over = False
        self._limits = limits
        self._left = 0  # bytes of the current chunk
        self._step = self._take_size
        self._scanned = 0  # bytes of a line that isn't whole yet
        self._extensions = 0  # bytes of all so far
        self._trailers = 0  # bytes of all so far
        self._trailer_fields = 0

    def take(self, buffer: bytearray) -> bytes:
        pieces: list[bytes] = []
        while not self.over and self._step(buffer, pieces):
            pass
        return b"".join(pieces)

    # Each step takes one thing off the front of the buffer, and says which comes next;
    # False when it needs more than there is.

    def _take_size(self, buffer: bytearray, pieces: list[bytes]) -> bool:
        line = self._cut_line(buffer, _limits.MAX_CHUNK_LINE)
        if line is None:
            return False
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise BadRequest(400, "malformed chunk size")
        self._extensions += len(match["extensions"])
        if self._extensions > self._limits.max_head_size:
            raise BadRequest(400, "too many chunk extensions")
        self._left = int(match["size"], 16)
        self._step = self._take_data if self._left else self._take_trailer
        return True

    def _take_data(self, buffer: bytearray, pieces: list[bytes]) -> bool:
        piece = bytes(buffer[: self._left])
        del buffer[: self._left]
        self._left -= len(piece)
        if piece:
            pieces.append(piece)
        if self._left:
            return False
        self._step = self._take_end_of_data
        return True

    def _take_end_of_data(self, buffer: bytearray, pieces: list[bytes]) -> bool:
        end = buffer[:2]
        if not b"\r\n".startswith(end):
            raise BadRequest(400, "a chunk is longer than its size")
        if len(end) < 2:
            return False
        del buffer[:2]
        self._step = self._take_size
        return True

    def _take_trailer(self, buffer: bytearray, pieces: list[bytes]) -> bool:
        line = self._cut_line(buffer, self._limits.max_head_size - self._trailers)
        if line is None:
            return False
        if line == b"\r\n":
            self.over = True
            return True
        self._trailers += len(line)
        self._trailer_fields += 1
        self._check_trailer(line)
        return True

    def _check_trailer(self, line: bytes) -> None:
        if not _TRAILER.fullmatch(line):
            raise BadRequest(400, "malformed trailer")
        if line.partition(b":")[0].lower() in NO_TRAILERS:
            raise BadRequest(400, "a field that can't be a trailer")
        if self._trailer_fields > self._limits.max_fields:
            raise BadRequest(431, "the request has too many trailers")

    def _cut_line(self, buffer: bytearray, limit: int) -> bytes | None:
        """Take a line with its CRLF off the front; None while its end is missing."""
        end = buffer.find(b"\n", self._scanned, limit)
        if end < 0:
            if len(buffer) >= limit:
                raise BadRequest(431, "a chunk's line or the trailers are too long")
            self._scanned = len(buffer)
            return None
        self._scanned = 0
        line = bytes(buffer[: end + 1])
        if not line.endswith(b"\r\n"):
            raise BadRequest(400, "a bare line feed in the framing of the body")
        del buffer[: end + 1]
        return line
