"""The strict layer: what h11 and llhttp leave open, closed for both.

Rules of this module:

* A head reaches a parser whole, and only when each of its bytes is in its place
  (RFC 9112, 2 to 5): so both parsers see nothing on which they could differ, and no
  verdict depends on how the bytes were split.
* What a parser made of it is checked for sense: one Host, one length, a target that
  fits the method.  Anything that two readers could take in two ways is refused,
  never repaired.
* Time is linear in the input, whatever it is.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

import msgspec

from .._asgi import RawFields
from . import _limits
from ._errors import BadRequest
from ._grammar import FIELD
from ._limits import ServerLimits

# Methods are tokens, but no registered one has lower case letters; "get" is no GET.
_METHOD = rb"[!#$%%&'*+\-.^_`|~0-9A-Z]{1,%d}" % _limits.MAX_METHOD_SIZE
_START_LINE = rb"(?P<method>%s) (?P<target>[!-~]++) HTTP/(?P<version>[0-9]\.[0-9])\r\n" % _METHOD

# A method, but for CONNECT, and a path: no form of a target that has rules of its own.
PLAIN_START = re.compile(rb"(?!CONNECT )(%s) (/[!-~]*+)" % _METHOD)

_HEAD = re.compile(rb"%s%s*+\r\n" % (_START_LINE, FIELD))
_START = re.compile(_START_LINE)
NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")

_RAW_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding):([^\r]*+)", re.I)

# RFC 3986, 3.2.2: a name, an IPv4 address or an IPv6 address in brackets, and a port.
_HOST = re.compile(rb"(?:[\w.~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_CONNECT_TARGET = re.compile(rb"(?:[\w.~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_ABSOLUTE = re.compile(
    rb"https?://(?:[\w.~%!$&'()*+,;=:-]*@)?(?P<authority>[^/?#@]+)(?P<rest>(?:[/?#].*)?)", re.I
)
# RFC 9110, 9.3.7; SSDP's M-SEARCH is the other method that asks no resource in particular.
_WITHOUT_RESOURCE = (b"OPTIONS", b"M-SEARCH")

_MEANINGFUL = frozenset(
    (
        *(b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"),
        *(b"upgrade", b"sec-websocket-key"),
    )
)
_SINGLE = frozenset((b"host", b"content-length"))


class ParsedHead(NamedTuple):
    """A request's head as a parser read it: `target` as sent, `fields` with lower case names."""

    method: bytes
    target: bytes
    version: bytes
    fields: RawFields


class Framing(msgspec.Struct, frozen=True):
    """What a head says of the bytes after it.

    `length`: of the body; None for chunks.  `keep_alive`: whether the client wants to go on with
    the connection.  `expects_continue`: whether it waits for 100 Continue before its body.
    `is_websocket`: whether it wants a WebSocket.
    """

    length: int | None = 0
    keep_alive: bool = True
    expects_continue: bool = False
    is_websocket: bool = False


class RequestHead(NamedTuple):
    """A head that was parsed and judged: all that is known of a request before its body."""

    method: bytes
    target: bytes
    version: bytes
    fields: RawFields
    framing: Framing


_PLAIN = Framing()


def check_beginning(buffer: bytearray, scanned: int, limits: ServerLimits) -> None:
    """Raises BadRequest if this can't become a head; the first `scanned` bytes were seen before."""
    longest_line = limits.max_target_size + _limits.MAX_METHOD_SIZE + len("  HTTP/1.1\r\n")
    if len(buffer) > longest_line and buffer.find(b"\r\n", 0, longest_line) < 0:
        raise BadRequest(414, "the request's target is too long")
    if len(buffer) >= limits.max_head_size:
        raise BadRequest(431, "the head of the request is too large")
    # The last byte that was seen may be a CR that waited for its LF.
    _check_text(buffer, max(0, scanned - 1))


def _check_text(head: bytes | bytearray, start: int) -> None:
    if NO_TEXT.search(head, start):
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


def check_head(head: ParsedHead, limits: ServerLimits) -> Framing:
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


def _check_target(head: ParsedHead) -> None:
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


def _framing(found: dict[bytes, bytes], head: ParsedHead) -> Framing:
    length = _length(found, head.version)
    options = {option.strip().lower() for option in found.get(b"connection", b"").split(b",")}
    wants_more = b"keep-alive" in options if head.version == b"1.0" else True
    # What follows a CONNECT isn't ours to read, whatever was answered.
    keep_alive = wants_more and b"close" not in options and head.method != b"CONNECT"
    expectation = found.get(b"expect", b"").lower()
    if expectation not in (b"", b"100-continue"):
        raise BadRequest(417, "no expectation but 100-continue can be met")
    expects_continue = bool(expectation) and length != 0 and head.version == b"1.1"
    is_websocket = b"upgrade" in options and _asks_for_websocket(found, head)
    return Framing(length, keep_alive, expects_continue, is_websocket)


def _asks_for_websocket(found: dict[bytes, bytes], head: ParsedHead) -> bool:
    """RFC 6455, 4.1."""
    protocols = [name.strip().lower() for name in found.get(b"upgrade", b"").split(b",")]
    is_whole = b"sec-websocket-key" in found and head.version == b"1.1"
    return is_whole and b"websocket" in protocols and head.method == b"GET"


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
