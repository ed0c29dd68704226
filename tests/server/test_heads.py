"""Heads that are known but for method and path: the same verdict as for those that aren't."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trioweb.server import ServerLimits
from trioweb.server._errors import BadRequest
from trioweb.server._heads import HeadReader
from trioweb.server._limits import MAX_KEPT_FIELDS
from trioweb.server._parsers import parser
from trioweb.server._strict import Framing, ParsedHead, RequestHead

from ..support.server_driver import EachParser, ParserName
from ..support.unhurried import unhurried

LIMITS = ServerLimits(max_target_size=40, max_head_size=200)
TAIL = b" HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n"

BEGINNINGS = [b"GET /", b"GET  /", b" GET /", b"GET *", b"OPTIONS *", b"GET http://y/", b"GET"]
BEGINNINGS += [b"CONNECT /", b"CONNECT x:1", b"get /", b"PRI /", b"GET /%00\xff", b"", b"\r\nGET /"]
BEGINNINGS += [b"GET /a b", b"GET /\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /", b"G\0T /"]
BEGINNINGS += [b"M" * 32 + b" /", b"M" * 33 + b" /", b"GET /" + b"a" * 39, b"GET /" + b"a" * 40]
TAILS = [TAIL, b" HTTP/1.0\r\n\r\n", b" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"]
TAILS += [b" HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"]
TAILS += [b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"]
TAILS += [b" HTTP/1.1\r\nHost: x\r\nUpgrade: y\r\nConnection: close, upgrade\r\n\r\n"]
TAILS += [b" HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 150 + b"\r\n\r\n"]
TAILS += [b" HTTP/1.1\r\n\r\n", b" HTTP/2.0\r\nHost: x\r\n\r\n", b"\r\nHost: x\r\n\r\n"]

Verdict = tuple[RequestHead, bytes] | int | None


def verdict(reader: HeadReader, data: bytes) -> Verdict:
    """What a connection makes of it: what is asked and the bytes that are left, or a status."""
    try:
        known = reader.recall(data)
        if known is not None:
            return known, b""
        buffer = bytearray(data)
        asked = reader.take(buffer)
    except BadRequest as exc:
        return exc.status
    return None if asked is None else (asked, bytes(buffer))


def reader_of(http: ParserName, limits: ServerLimits = LIMITS) -> HeadReader:
    return HeadReader(parser(http), limits)


def warm(reader: HeadReader, tail: bytes) -> bool:
    """Whether the reader knows what follows a target."""
    verdict(reader, b"GET /warm" + tail)
    return reader.recall(b"GET /" + tail) is not None


@EachParser
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_what_is_known_is_judged_as_if_it_werent(
    http: ParserName, beginning: bytes, tail: bytes
) -> None:
    reader = reader_of(http)
    warm(reader, tail)
    data = beginning + tail
    assert verdict(reader, data) == verdict(reader_of(http), data)


@pytest.mark.slow
@unhurried()
@given(
    st.lists(
        st.tuples(st.sampled_from(BEGINNINGS) | st.binary(max_size=6), st.sampled_from(TAILS)),
        max_size=5,
    )
)
def test_whatever_came_before(heads: list[tuple[bytes, bytes]]) -> None:
    reader = reader_of("httptools")
    for beginning, tail in heads:
        data = beginning + tail
        found = verdict(reader, data)
        assert found == verdict(reader_of("httptools"), data)
        if found is None or isinstance(found, int) or found[1]:
            return  # a connection wouldn't go on, or not from here


@EachParser
def test_it_is_read_once(http: ParserName) -> None:
    """Else this is all in vain, and nobody would see it."""
    parsed: list[bytes] = []
    parse = parser(http)

    def parse_and_note(raw: bytes) -> ParsedHead:
        parsed.append(raw)
        return parse(raw)

    reader = HeadReader(parse_and_note, LIMITS)
    first, again, other = (
        b"GET /a" + TAIL,
        b"PUT /b?c" + TAIL,
        b"GET /a HTTP/1.1\r\nHost: y\r\n\r\n",
    )
    for data in (first, again, first, other, other):
        verdict(reader, data)
    assert parsed == [first, other]
    known = reader.recall(b"PUT /b?c" + other[6:])
    assert known == RequestHead(b"PUT", b"/b?c", b"1.1", [(b"host", b"y")], Framing())


@pytest.mark.parametrize("size", [MAX_KEPT_FIELDS, MAX_KEPT_FIELDS + 1])
def test_what_is_long_isnt_kept(size: int) -> None:
    reader = reader_of("httptools", ServerLimits())
    tail = b" HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n"
    tail = tail.replace(b"A: ", b"A: " + b"b" * (size - len(tail)))
    assert warm(reader, tail) == (size <= MAX_KEPT_FIELDS)


def test_what_is_known_has_its_limits_all_the_same() -> None:
    reader = reader_of("h11")
    assert warm(reader, TAIL)
    assert reader.recall(b"GET /" + b"a" * 34 + TAIL) is not None
    assert verdict(reader, b"GET /" + b"a" * 40 + TAIL) == 414
