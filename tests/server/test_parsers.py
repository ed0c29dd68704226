"""The seam: either parser makes the same head of the same bytes, whatever it was given before."""

from __future__ import annotations

import re
import sys
from typing import Any

import httptools
import pytest
from hypothesis import given, strategies as st

from trioweb.server import ServerLimits, _strict
from trioweb.server._errors import BadRequest
from trioweb.server._parsers import HttptoolsParser, Parse, parse_with_h11, parser
from trioweb.server._strict import Framing, ParsedHead

from ..support.server_driver import as_h11_gives
from ..support.unhurried import unhurried

LIMITS = ServerLimits()


def head(line: bytes = b"GET / HTTP/1.1", *fields: bytes) -> bytes:
    return b"".join(part + b"\r\n" for part in (line, b"Host: x", *fields, b""))


def verdict(raw: bytes, parse: Parse) -> tuple[ParsedHead, Framing] | int:
    """What the server takes it for, or the status of its refusal."""
    try:
        _strict.check_bytes(raw)
        found = parse(raw)
        return as_h11_gives(found), _strict.check_head(found, LIMITS)
    except BadRequest as exc:
        return exc.status


# All that llhttp knows, and some that it doesn't.
METHODS = re.findall(
    r"\S+",
    """
    ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR
    MKCOL MOVE NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH
    SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE
    PRI ANNOUNCE DESCRIBE FLUSH GET_PARAMETER PAUSE PLAY RECORD REDIRECT SETUP SET_PARAMETER
    TEARDOWN BREW -BLARGH GETT GE M-SEARCHED A 5 ! BASELINE-CONTROL
    """,
)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_the_same_to_both(method: str, version: bytes) -> None:
    target = b"x:1" if method == "CONNECT" else b"/a"
    raw = head(b"%b %b HTTP/%b" % (method.encode(), target, version))
    expected = ParsedHead(method.encode(), target, version, [(b"host", b"x")])
    for parse in (parse_with_h11, HttptoolsParser()):
        assert parse(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            head(b"GET /a%20b?c=d#e HTTP/1.1", b"A: b", b"a:c", b"B:", b"C: \t", b"D:\t e f \t"),
            [(b"a", b"b"), (b"a", b"c"), (b"b", b""), (b"c", b""), (b"d", b"e f")],
        ),
        (head(b"GET / HTTP/1.1", b"!#$%&'*+-.^_`|~09azAZ: x"), [(b"!#$%&'*+-.^_`|~09azaz", b"x")]),
        (
            head(b"GET / HTTP/1.1", b'A: \x80\xff"(),/:;<=>?@[\\]{}'),
            [(b"a", b'\x80\xff"(),/:;<=>?@[\\]{}')],
        ),
        (head(b"GET / HTTP/1.1", b"A: b: c"), [(b"a", b"b: c")]),
    ],
)
def test_fields_are_the_same_to_both(raw: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    for parse in (parse_with_h11, HttptoolsParser()):
        found = parse(raw)
        assert found.fields == [(b"host", b"x"), *expected]
        assert found.target == raw.split(b" ")[1]
        assert type(found.method) is type(found.target) is type(found.version) is bytes
        assert all(type(part) is bytes for field in found.fields for part in field)


TARGETS = [
    *(
        b"/",
        b"//",
        b"/?",
        b"/#",
        b"/?#",
        b"/#?",
        b"/??",
        b"/##",
        b"/a;b,c=d&e+f$g!h*i'j(k)l",
        b"/@:",
    ),
    *(b'/"<>\\^`{|}~', b"/%", b"/%zz%00", b"/[]", b"/*", b"*", b"http://x", b"http://x/"),
    *(
        b"http://x?",
        b"http://x#",
        b"http://x:1?a#b",
        b"http://u:p@x:1/a",
        b"http://@x/",
        b"https://[::1]:1/",
    ),
    *(b"http://a_b~c!$&'()*+,;=/", b"http://%41/", b"HTTP://x", b"http://x:/", b"http://:@x/"),
    *(b"http://x/" + bytes(range(0x21, 0x7F)), b"/" + bytes(range(0x21, 0x7F))),
]


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_the_same_to_both(target: bytes) -> None:
    for method in (b"GET", b"OPTIONS", b"M-SEARCH", b"BREW"):
        raw = head(b"%b %b HTTP/1.1" % (method, target))
        found = verdict(raw, HttptoolsParser())
        assert found == verdict(raw, parse_with_h11)
        # A star is the only one of these that isn't for every method.
        assert isinstance(found, tuple) or (target == b"*" and found == 400)


FRAMING = [
    *(b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 05", b"Content-Length:  5 "),
    *(b"Content-Length: 5\r\nContent-Length: 5", b"Content-Length: 5, 5", b"Content-Length: -1"),
    *(b"Content-Length:", b"Content-Length: 9" + b"9" * 18, b"Content-Length: 9" + b"9" * 25),
    *(b"Content-Length: +5", b"Content-Length: 5 5", b"Content-Length: 0x5", b"Content-Length: 5,"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: CHUNKED", b"Transfer-Encoding: chunked "),
    *(
        b"Transfer-Encoding:\tchunked\t",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: gzip",
    ),
    *(b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding:", b"Transfer-Encoding: ,chunked"),
    b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: identity\r\nContent-Length: 5",
    *(
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: close, keep-alive",
        b"Connection:",
    ),
    *(b"Connection: upgrade", b"Upgrade: x", b"Connection: upgrade\r\nUpgrade: h2c, x"),
    b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5",
    b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked",
    *(b"Expect: 100-continue\r\nContent-Length: 1", b"Expect: x", b"Proxy-Connection: close"),
    *(
        b"Host: y",
        b"HOST: x",
        b"Trailer: a",
        b"TE: trailers",
        b"Content-Lengthy: x",
        b"Keep-Alive: 5",
    ),
]


@pytest.mark.parametrize("line", [b"POST / HTTP/1.1", b"POST / HTTP/1.0", b"CONNECT x:1 HTTP/1.1"])
@pytest.mark.parametrize("fields", FRAMING)
def test_the_framing_is_the_same_to_both(line: bytes, fields: bytes) -> None:
    raw = head(line, fields)
    assert verdict(raw, HttptoolsParser()) == verdict(raw, parse_with_h11)


# Nothing is carried over

KINDS = [
    head(),
    head(b"GET /other?x#y HTTP/1.1", b"A: b"),
    head(b"HEAD / HTTP/1.1"),
    head(b"GET / HTTP/1.0"),
    head(b"GET / HTTP/1.0", b"Connection: keep-alive"),
    head(b"BREW / HTTP/1.1"),
    head(b"PRI / HTTP/1.1"),
    head(b"DESCRIBE / HTTP/1.1"),
    head(b"CONNECT x:1 HTTP/1.1"),
    head(b"GET * HTTP/1.1"),
    head(b"GET / HTTP/9.9"),
    *(head(b"POST / HTTP/1.1", fields) for fields in FRAMING),
    *(head(b"POST / HTTP/1.0", fields) for fields in FRAMING[:3]),
]


@unhurried(max_examples=100)
@given(st.lists(st.sampled_from(KINDS), min_size=2, max_size=12))
def test_a_shared_parser_carries_nothing_over(heads: list[bytes]) -> None:
    shared = HttptoolsParser()
    for raw in heads:
        assert verdict(raw, shared) == verdict(raw, HttptoolsParser())


def test_each_kind_after_each_kind() -> None:
    alone = {raw: verdict(raw, HttptoolsParser()) for raw in KINDS}
    shared = HttptoolsParser()
    for first in KINDS:
        for second in KINDS:
            assert verdict(first, shared) == alone[first]
            assert verdict(second, shared) == alone[second]


def test_heads_are_kept_apart() -> None:
    """What was given out isn't touched by what comes later."""
    shared = HttptoolsParser()
    first = shared(head(b"GET /a HTTP/1.1", b"A: b"))
    copy = ParsedHead(first.method, first.target, first.version, list(first.fields))
    shared(head(b"GET /c HTTP/1.1", b"C: d"))
    assert first == copy


def test_a_parser_is_made_anew_only_where_it_has_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    make = httptools.HttpRequestParser

    def counted(protocol: object) -> Any:
        nonlocal made
        made += 1
        return make(protocol)

    monkeypatch.setattr(httptools, "HttpRequestParser", counted)
    shared = HttptoolsParser()
    for _ in range(5):
        shared(head())
    assert made == 1
    for _ in range(5):
        shared(head(b"POST / HTTP/1.1", b"Content-Length: 5"))
        shared(head())
    assert made == 6


# What h11 finds fault with


@pytest.mark.parametrize("parse", [parse_with_h11, HttptoolsParser()], ids=["h11", "httptools"])
def test_a_fault_that_only_a_parser_finds(parse: Parse) -> None:
    """They aren't left to themselves, but they may refuse."""
    with pytest.raises(BadRequest) as caught:
        parse(head(b"G\x00T / HTTP/1.1"))
    assert caught.value.status == 400
    assert parse(head()).method == b"GET"


# Which parser


def without_httptools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httptools", None)


def test_which_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(parser("auto"), HttptoolsParser)
    assert isinstance(parser("httptools"), HttptoolsParser)
    assert parser("h11") is parse_with_h11
    without_httptools(monkeypatch)
    assert parser("auto") is parse_with_h11
    assert parser("h11") is parse_with_h11


def test_each_call_makes_a_parser_of_its_own() -> None:
    assert parser("httptools") is not parser("httptools")


def test_a_parser_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without_httptools(monkeypatch)
    with pytest.raises(ModuleNotFoundError) as caught:
        parser("httptools")
    assert "pip install httptools," in str(caught.value)
    assert "h11" in str(caught.value)
    assert caught.value.__cause__ is None
