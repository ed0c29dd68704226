"""The strict layer: what h11 and llhttp leave open, closed for both.

Rules of this module:

* A head reaches a parser whole, and only when each of its bytes is in its place
  (RFC 9112, 2 to 5): so both parsers see nothing on which they could differ, and no
  verdict depends on how the bytes were split.
* What a parser made of it is checked for sense: one Host, one length, a target that
  fits the method.  Anything that two readers could take in two ways is refused,
  never repaired.
* Bodies are framed here, for both parsers: a length is a subtraction, chunks are a
  grammar of three lines.
* Time is linear in the input, whatever it is.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .._asgi import RawFields
from . import _limits
from ._errors import BadRequest
from ._limits import ServerLimits

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
# RFC 9110, 5.5: visible characters, space, tab, and obs-text; no control characters.
_FIELD = rb"(?:%s++:[\t -~\x80-\xff]*+\r\n)" % _TOKEN
# Methods are tokens, but no registered one has lower case letters; "get" is no GET.
_METHOD = rb"[!#$%%&'*+\-.^_`|~0-9A-Z]{1,%d}" % _limits.MAX_METHOD_SIZE
_START_LINE = rb"(?P<method>%s) (?P<target>[!-~]++) HTTP/(?P<version>[0-9]\.[0-9])\r\n" % _METHOD

# A method, but for CONNECT, and a path: no form of a target that has rules of its own.
_PLAIN_START = re.compile(rb"(?!CONNECT )(%s) (/[!-~]*+)" % _METHOD)

_HEAD = re.compile(rb"%s%s*+\r\n" % (_START_LINE, _FIELD))
_START = re.compile(_START_LINE)
_NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")
_TRAILER = re.compile(_FIELD)

_RAW_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding):([^\r]*+)", re.I)

_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_EXTENSION = rb"[ \t]*+;[ \t]*+%s++(?:[ \t]*+=[ \t]*+(?:%s++|%s))?" % (_TOKEN, _TOKEN, _QUOTED)
_CHUNK = re.compile(
    rb"(?P<size>[0-9A-Fa-f]{1,%d})(?P<extensions>(?:%s)*+)\r\n"
    % (_limits.MAX_CHUNK_DIGITS, _EXTENSION)
)

# RFC 3986, 3.2.2: a name, an IPv4 address or an IPv6 address in brackets, and a port.
_HOST = re.compile(rb"(?:[\w.~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_CONNECT_TARGET = re.compile(rb"(?:[\w.~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_ABSOLUTE = re.compile(
    rb"https?://(?:[\w.~%!$&'()*+,;=:-]*@)?(?P<authority>[^/?#@]+)(?P<rest>(?:[/?#].*)?)", re.I
)
# RFC 9110, 9.3.7; SSDP's M-SEARCH is the other method that asks no resource in particular.
_WITHOUT_RESOURCE = (b"OPTIONS", b"M-SEARCH")

_MEANINGFUL = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect")
)
_SINGLE = frozenset((b"host", b"content-length"))

# RFC 9110, 6.5.1: framing, routing, request modifiers and authentication.
NO_TRAILERS = frozenset(
    (
        *(b"content-length", b"transfer-encoding", b"trailer", b"te", b"host"),
        *(b"connection", b"keep-alive", b"proxy-connection", b"upgrade"),
        *(b"expect", b"max-forwards", b"authorization", b"proxy-authorization", b"cookie"),
    )
)


class Head(NamedTuple):
    """A request's head as a parser read it: `target` as sent, `fields` with lower case names."""

    method: bytes
    target: bytes
    version: bytes
    fields: RawFields


@dataclass(frozen=True, slots=True)
class Framing:
    """What a head says of the bytes after it.  `length` is None for chunks."""

    length: int | None = 0
    keep_alive: bool = True
    expects_continue: bool = False


_PLAIN = Framing()


def skip_empty_lines(buffer: bytearray) -> bool:
    """RFC 9112, 2.2: empty lines in front of a request are ignored.  Whether there were any."""
    found = False
    while buffer.startswith(b"\r\n"):
        del buffer[:2]
        found = True
    return found


def cut_head(buffer: bytearray, scanned: int, limits: ServerLimits) -> bytes | None:
    """Take a whole head off the front of `buffer`; None while its end is missing.

    The first `scanned` bytes were seen before.  Raises BadRequest as soon as it
    can't become a head any more.
    """
    end = buffer.find(b"\r\n\r\n", max(0, scanned - 3), limits.max_head_size)
    if end < 0:
        _check_beginning(buffer, scanned, limits)
        return None
    head = bytes(buffer[: end + 4])
    del buffer[: end + 4]
    return head


def _check_beginning(buffer: bytearray, scanned: int, limits: ServerLimits) -> None:
    longest_line = limits.max_target_size + _limits.MAX_METHOD_SIZE + len("  HTTP/1.1\r\n")
    if len(buffer) > longest_line and buffer.find(b"\r\n", 0, longest_line) < 0:
        raise BadRequest(414, "the request's target is too long")
    if len(buffer) >= limits.max_head_size:
        raise BadRequest(431, "the head of the request is too large")
    # The last byte that was seen may be a CR that waited for its LF.
    _check_text(buffer, max(0, scanned - 1))


def _check_text(head: bytes | bytearray, start: int) -> None:
    if _NO_TEXT.search(head, start):
        raise BadRequest(400, "a control character or a bare line feed in the head")


def check_bytes(head: bytes) -> None:
    """Raises BadRequest unless each byte of a whole head is in its place."""
    match = _HEAD.fullmatch(head)
    if match is None:
        _check_text(head, 0)
        line = _START.match(head)
        raise BadRequest(400, f"malformed {'request line' if line is None else 'header field'}")
    if match["version"] not in (b"1.1", b"1.0"):
        raise BadRequest(505, "the version is neither HTTP/1.0 nor HTTP/1.1")


def plain_start(raw: bytes, end: int) -> tuple[bytes, ...] | None:
    """Method and target, if they are all there is before `end`, and have nothing special."""
    match = _PLAIN_START.fullmatch(raw, 0, end)
    return match and match.groups()


def check_raw_framing(raw: bytes) -> None:
    """For a parser that mends what says how long the body is, or judges it in its own way."""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in _RAW_FRAMING.findall(raw):
        (lengths if len(name) == len(b"content-length") else codings).append(value.strip(b" \t"))
    if len(lengths) > 1 or not all(length.isdigit() for length in lengths):
        raise BadRequest(400, "malformed content-length")
    if codings:
        is_old = raw.partition(b"\r")[0].endswith(b"1.0")
        length = lengths[0] if lengths else None
        _check_coding(b",".join(codings), length, b"1.0" if is_old else b"1.1")


def check_head(head: Head, limits: ServerLimits) -> Framing:
    """What follows the head, once it makes sense.  Raises BadRequest if it doesn't."""
    if len(head.target) > limits.max_target_size:
        raise BadRequest(414, "the request's target is too long")
    if len(head.fields) > limits.max_fields:
        raise BadRequest(431, "the request has too many header fields")
    if not head.target.startswith(b"/") or head.method == b"CONNECT":
        _check_target(head)
    found = _meaningful(head.fields)
    _check_host(found.get(b"host"), head.version)
    if head.version == b"1.1" and len(found) == 1 and head.method != b"CONNECT":
        return _PLAIN  # a Host, and nothing else that means something here
    return _framing(found, head)


def absolute_target(target: bytes) -> tuple[bytes, bytes] | None:
    """Authority, and what follows it, of a target that is a whole URL (RFC 9112, 3.2.2)."""
    match = _ABSOLUTE.fullmatch(target)
    return match and (match["authority"], match["rest"])


def _check_target(head: Head) -> None:
    """RFC 9112, 3.2: each form has its methods."""
    if head.method == b"CONNECT":
        is_good = _CONNECT_TARGET.fullmatch(head.target) is not None
    elif head.target == b"*":
        is_good = head.method in _WITHOUT_RESOURCE
    else:
        url = absolute_target(head.target)
        is_good = url is not None and _is_host(url[0])
    if not is_good:
        raise BadRequest(400, "the request's target has no form that fits its method")


def _meaningful(fields: RawFields) -> dict[bytes, bytes]:
    """The fields that the server heeds; those that are lists in one."""
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        if name in _MEANINGFUL:
            if name in found:
                if name in _SINGLE:
                    raise BadRequest(400, f"more than one {name.decode()}")
                value = b"%s,%s" % (found[name], value)
            found[name] = value
    return found


def _check_host(host: bytes | None, version: bytes) -> None:
    if host is None:
        if version == b"1.1":
            raise BadRequest(400, "no host")
    elif not _is_host(host):
        raise BadRequest(400, "malformed host")


@functools.lru_cache(maxsize=256)
def _is_host(host: bytes) -> bool:
    return _HOST.fullmatch(host) is not None


def _framing(found: dict[bytes, bytes], head: Head) -> Framing:
    length = _length(found, head.version)
    options = {option.strip().lower() for option in found.get(b"connection", b"").split(b",")}
    wants_more = b"keep-alive" in options if head.version == b"1.0" else True
    # What follows a CONNECT isn't ours to read, whatever was answered.
    keep_alive = wants_more and b"close" not in options and head.method != b"CONNECT"
    expectation = found.get(b"expect", b"").lower()
    if expectation not in (b"", b"100-continue"):
        raise BadRequest(417, "no expectation but 100-continue can be met")
    expects_continue = bool(expectation) and length != 0 and head.version == b"1.1"
    return Framing(length, keep_alive, expects_continue)


def _length(found: dict[bytes, bytes], version: bytes) -> int | None:
    """Bytes of the body, or None for chunks (RFC 9112, 6.3)."""
    length, coding = found.get(b"content-length"), found.get(b"transfer-encoding")
    if coding is not None:
        _check_coding(coding, length, version)
        return None
    if length is None:
        return 0
    # Longer than any body, and int() would take long.
    if not length.isdigit() or len(length) > 19:
        raise BadRequest(400, "malformed content-length")
    return int(length)


def _check_coding(coding: bytes, length: bytes | None, version: bytes) -> None:
    if length is not None:
        raise BadRequest(400, "both content-length and transfer-encoding")
    if version == b"1.0":
        raise BadRequest(400, "transfer-encoding in HTTP/1.0")
    codings = [name.strip(b" \t").lower() for name in coding.split(b",")]
    if codings.count(b"chunked") != 1 or codings[-1] != b"chunked":
        raise BadRequest(400, "transfer-encoding doesn't end with its only chunked")
    if len(codings) > 1:
        raise BadRequest(501, "no transfer coding but chunked is understood")


class Body(Protocol):
    """Takes a body apart.  `over`: its last byte was seen."""

    over: bool

    def take(self, buffer: bytearray) -> bytes:
        """Remove what belongs to the body from the front of `buffer`; its content."""
        ...


class SizedBody:
    """A body of so many bytes."""

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
    """A body in chunks (RFC 9112, 7.1).  `take` raises BadRequest for what is none.

    Extensions and trailers are checked and dropped.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.over = False
        self._limits = limits
        self._left = 0  # bytes of the current chunk
        self._step = self._take_size
        self._scanned = 0  # bytes of a line that isn't whole yet
        self._extensions = 0  # bytes of them so far
        self._trailers = 0  # bytes of them so far
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
