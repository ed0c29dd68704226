"""What must hold for any bytes.  `check` raises Difference where it doesn't."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import h11
import httptools

from trioweb.server import ServerLimits
from trioweb.server._parsers import parser

from ...support.server_driver import PARSERS, ParserName, as_h11_gives
from .reader import Reading, Request, read

Target = Literal["h11", "httptools", "differential"]

# The second ones are so small that inputs come to them.
LIMITS = (
    ServerLimits(),
    ServerLimits(max_target_size=60, max_head_size=200, max_fields=5),
)


class Difference(AssertionError):
    """What must be the same isn't, or something was raised that mustn't be."""


def check(data: bytes, target: Target) -> Reading:
    """All checks of one input; what it is read as."""
    parsers: tuple[ParserName, ...] = PARSERS if target == "differential" else (target,)
    for limits in LIMITS:
        expected = _read([data], parsers[0], limits)
        for name in parsers:
            for split in splits(data):
                found = _read(split, name, limits)
                if not _same(found, expected, limits):
                    raise Difference(f"{name}, {split}:\n{found}\nnot\n{expected}")
        if limits is LIMITS[0]:
            for request in expected.requests:
                _check_with_others(request)
            reading = expected
    return reading


def splits(data: bytes) -> Iterator[list[bytes]]:
    """In whole, byte by byte, and two of the many between, always the same for the same data."""
    yield [data]
    yield [data[n : n + 1] for n in range(len(data))]
    rng = random.Random(zlib.crc32(data))
    for longest in (5, 80):
        pieces, start = [], 0
        while start < len(data):
            size = rng.randint(1, longest)
            pieces.append(data[start : start + size])
            start += size
        yield pieces


def _read(pieces: list[bytes], name: ParserName, limits: ServerLimits) -> Reading:
    try:
        return _alike(read(pieces, parser(name), limits))
    except Exception as exc:
        raise Difference(f"{name}, {pieces}: {exc!r}") from exc


def _alike(reading: Reading) -> Reading:
    return reading._replace(
        requests=tuple(r._replace(head=as_h11_gives(r.head)) for r in reading.requests)
    )


def _same(found: Reading, expected: Reading, limits: ServerLimits) -> bool:
    """Of two faults in one head the split, or the parser, says which is found first: what is
    too large may be malformed too, and what has an unknown coding.
    """
    answers = {found.refused, expected.refused}
    same = len(answers) == 1 or answers == {400, 501}
    if limits is not LIMITS[0]:
        same = same or None not in answers
    return same and found.requests == expected.requests


# What others make of it


class Other(NamedTuple):
    """What someone else makes of a request's bytes; `fault` is why it refuses them."""

    method: bytes
    target: bytes
    body: bytes
    fault: str = ""


class Explained(NamedTuple):
    """A refusal of someone else's that is known.  What is refused can't be taken otherwise."""

    who: str
    fault: str  # a pattern
    where: bytes  # a pattern in the request
    why: str


EXPLAINED = (
    Explained(
        "h11",
        "illegal chunk header",
        rb"(?s)\r\n\r\n.*[0-9A-Fa-f][ \t]+;",
        "RFC 9112, 7.1.1 has recipients take bad whitespace before an extension; h11 doesn't",
    ),
    Explained(
        "llhttp",
        "Invalid character in chunk (size|extensions)",
        rb"(?s)\r\n\r\n.*(?:[ \t]+[;=]|[;=][ \t]+)",
        "RFC 9112, 7.1.1 has recipients take bad whitespace in extensions; llhttp doesn't",
    ),
    Explained(
        "llhttp",
        "[Ii]nvalid method|Expected (space after method|HTTP/2 Connection Preface)",
        rb"\A",
        "RFC 9110, 9.1 has any token for a method; llhttp has a list, and some are RTSP's",
    ),
    Explained(
        "llhttp",
        "Unexpected char in url server",
        rb"(?i)\A\S+ https?://[^/?# ]*#",
        "fragments aren't sent, but where they are they are ignored; llhttp wants a path first",
    ),
    Explained(
        "llhttp",
        "invalid `Transfer-Encoding`",
        rb"(?i)\r\ntransfer-encoding:[ \t]*chunked *\t",
        "RFC 9110, 5.6.3 has tabs where spaces may be; llhttp doesn't after a coding",
    ),
)


def _check_with_others(request: Request) -> None:
    for who, ask in OTHERS.items():
        other = ask(request.raw)
        if other is None or (other.fault and _is_explained(who, other.fault, request.raw)):
            continue
        head = request.head
        if other != Other(head.method, head.target, request.body):
            raise Difference(f"{who} by itself makes {other} of {request}")


def _is_explained(who: str, fault: str, raw: bytes) -> bool:
    return any(
        who == known.who and re.search(known.fault, fault) and re.search(known.where, raw)
        for known in EXPLAINED
    )


def ask_h11(raw: bytes) -> Other | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(raw) + 1)
    method = target = body = b""
    try:
        connection.receive_data(raw)
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Request):
                method, target = event.method, event.target
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return Other(method, target, body, f"waits: {event}")
    except h11.RemoteProtocolError as exc:
        return Other(method, target, body, str(exc))
    return Other(method, target, body, "something is left" * bool(connection.trailing_data[0]))


def ask_llhttp(raw: bytes) -> Other | None:
    told = _Told()
    llhttp = httptools.HttpRequestParser(told)
    try:
        llhttp.feed_data(raw)
    except httptools.HttpParserUpgrade:
        return None  # it leaves HTTP for CONNECT, and for any Upgrade
    except httptools.HttpParserError as exc:
        return Other(b"", b"", b"", str(exc))
    fault = "" if told.is_complete else "waits"
    return Other(llhttp.get_method(), told.target, told.body, fault)


class _Told:
    """What llhttp calls."""

    def __init__(self) -> None:
        self.target = self.body = b""
        self.is_complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


OTHERS: dict[str, Callable[[bytes], Other | None]] = {"h11": ask_h11, "llhttp": ask_llhttp}
