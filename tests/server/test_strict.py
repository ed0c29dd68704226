"""The strict layer: each class of faults, every byte in every place, any split, linear time."""

from __future__ import annotations

import itertools
import re
import string
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, strategies as st

from trioweb.server import ServerLimits, _heads, _limits, _strict
from trioweb.server._bodies import Body, ChunkedBody, SizedBody
from trioweb.server._errors import BadRequest
from trioweb.server._parsers import parser
from trioweb.server._strict import Framing, ParsedHead

from ..support.server_driver import PARSERS, ParserName
from ..support.unhurried import unhurried

KIB = 1024
LIMITS = ServerLimits()
WIDE = ServerLimits(max_target_size=KIB * KIB, max_head_size=KIB * KIB, max_fields=KIB * KIB)
HOST = b"Host: x\r\n"

VISIBLE = frozenset(range(0x21, 0x7F))
TOKEN = frozenset((string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode())
TEXT = frozenset({0x09, 0x20, *VISIBLE, *range(0x80, 0x100)})


def head(line: bytes = b"GET / HTTP/1.1", fields: bytes = HOST) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def status_of(check: Callable[[], object]) -> int | None:
    """Of the refusal; None if there is none."""
    try:
        check()
    except BadRequest as exc:
        return exc.status
    return None


def status_of_bytes(raw: bytes) -> int | None:
    return status_of(lambda: _strict.check_bytes(raw))


def read(
    raw: bytes, limits: ServerLimits = LIMITS, http: ParserName = "h11"
) -> tuple[ParsedHead, Framing]:
    """A whole head through all checks.  Raises BadRequest."""
    _strict.check_bytes(raw)
    found = parser(http)(raw)
    return found, _strict.check_head(found, limits)


def statuses_of(raw: bytes, limits: ServerLimits = LIMITS) -> set[int | None]:
    """Of the refusals with each parser."""
    return {status_of(partial(read, raw, limits, http)) for http in PARSERS}


def framing(*fields: bytes, method: bytes = b"POST", version: bytes = b"1.1") -> Framing:
    """What all parsers say of a head with a Host and these fields."""
    raw = head(b"%b / HTTP/%b" % (method, version), HOST + b"".join(f + b"\r\n" for f in fields))
    found, same = (read(raw, LIMITS, http)[1] for http in PARSERS)
    assert found == same
    return found


# Bytes: each in its place


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        (b"GE", b"T / HTTP/1.1\r\nHost: x\r\n\r\n", TOKEN - set(string.ascii_lowercase.encode())),
        (b"GET /a", b"b HTTP/1.1\r\nHost: x\r\n\r\n", VISIBLE),
        (b"GET / HTTP/1.1\r\nHost: x\r\nna", b"me: value\r\n\r\n", TOKEN | {0x3A}),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"name: value\r\n\r\n", TOKEN),
        (b"GET / HTTP/1.1\r\nHost: x\r\nname", b": value\r\n\r\n", TOKEN | {0x3A}),
        (b"GET / HTTP/1.1\r\nHost: x\r\nname:", b"value\r\n\r\n", TEXT),
        (b"GET / HTTP/1.1\r\nHost: x\r\nname: va", b"lue\r\n\r\n", TEXT),
        (b"GET / HTTP/1.1\r\nHost: x\r\nname: value", b"\r\n\r\n", TEXT),
        (b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", TOKEN - set(string.ascii_lowercase.encode())),
        (b"GET", b" / HTTP/1.1\r\nHost: x\r\n\r\n", TOKEN - set(string.ascii_lowercase.encode())),
        (b"GET ", b"/ HTTP/1.1\r\nHost: x\r\n\r\n", VISIBLE),
        (b"GET /", b" HTTP/1.1\r\nHost: x\r\n\r\n", VISIBLE),
        (b"GET / ", b"HTTP/1.1\r\nHost: x\r\n\r\n", set()),
        (b"GET / HTTP/", b"1.1\r\nHost: x\r\n\r\n", set()),
        (b"GET / HTTP/1", b".1\r\nHost: x\r\n\r\n", set()),
        (b"GET / HTTP/1.1", b"\r\nHost: x\r\n\r\n", set()),
        (b"GET / HTTP/1.1\r", b"\nHost: x\r\n\r\n", set()),
        (b"GET / HTTP/1.1\r\nHost: x\r", b"\n\r\n", set()),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r", b"\n", set()),
    ],
)
def test_each_byte_put_into_each_place(before: bytes, after: bytes, allowed: set[int]) -> None:
    accepted = {
        byte for byte in range(256) if status_of_bytes(before + bytes([byte]) + after) is None
    }
    assert accepted == allowed


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n ", b"\r\n\t"])
def test_every_line_ends_with_crlf(end: bytes) -> None:
    lines = (b"GET / HTTP/1.1", b"Host: x", b"Name: value", b"")
    for at in range(len(lines)):
        broken = b"".join(line + (end if n == at else b"\r\n") for n, line in enumerate(lines))
        assert status_of_bytes(broken) == 400, broken


def test_only_two_versions_are_served() -> None:
    for major, minor in itertools.product(range(10), repeat=2):
        found = status_of_bytes(head(b"GET / HTTP/%d.%d" % (major, minor)))
        assert found == (None if (major, minor) in ((1, 0), (1, 1)) else 505)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /",
        b"GET / ",
        b"GET HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET /\x0bHTTP/1.1",
        b"GET / / HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTPS/1.1",
        b"GET / FTP/1.1",
        b"GET / RTSP/1.0",
        b"GET / ICE/1.0",
        b"GET / HTTP/1",
        b"GET / HTTP/1.",
        b"GET / HTTP/.1",
        b"GET / HTTP/11",
        b"GET / HTTP/1,1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/01.1",
        b"GET / HTTP/-1.1",
        b"GET / HTTP/1.\xb9",
        b"get / HTTP/1.1",
        b"Get / HTTP/1.1",
        b" GET / HTTP/1.1",
        b"G ET / HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"",
    ],
)
def test_a_line_that_starts_no_request(line: bytes) -> None:
    assert status_of_bytes(head(line)) == 400


@pytest.mark.parametrize(
    "field",
    [
        b"",
        b": value",
        b"name",
        b"name value",
        b" name: value",
        b"name : value",
        b"name\t: value",
        b"na me: value",
        b"n\xe4me: value",
        b"(name): value",
        b"name: val\x00ue",
        b"name: val\x7fue",
        b"name: val\rue",
        b"name: val\nue",
        b"name: value\r\n folded",
        b"name: value\r\n\tfolded",
        b"name:\r\n folded",
    ],
)
def test_a_line_that_is_no_field(field: bytes) -> None:
    for fields in (field + b"\r\n" + HOST, HOST + field + b"\r\n"):
        assert status_of_bytes(head(fields=fields)) == 400, fields


def test_a_method_is_as_long_as_the_limit_says() -> None:
    longest = b"A" * _limits.MAX_METHOD_SIZE
    assert status_of_bytes(head(longest + b" / HTTP/1.1")) is None
    assert status_of_bytes(head(longest + b"A / HTTP/1.1")) == 400


# Where a head ends


def cut(raw: bytes, sizes: Iterable[int], limits: ServerLimits) -> tuple[bytes, bytes] | int | None:
    """Feed so many bytes at a time; head and what follows it, or the status of the refusal."""
    buffer, scanned = bytearray(), 0
    for piece in pieces(raw, sizes):
        buffer += piece
        try:
            found = _heads.cut_head(buffer, scanned, limits)
        except BadRequest as exc:
            return exc.status
        if found is not None:
            return found, bytes(buffer) + raw[len(found) + len(buffer) :]
        scanned = len(buffer)
    return None


def pieces(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """`data` in pieces of these sizes, then the rest."""
    start = 0
    for size in sizes:
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size
    if start < len(data):
        yield data[start:]


WHOLE: tuple[int, ...] = ()
BYTES = itertools.repeat(1)


@pytest.mark.parametrize("sizes", [WHOLE, BYTES], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("rest", [b"", b"x", b"\r\n", head()])
def test_a_head_is_cut_off_at_its_end(rest: bytes, sizes: Iterable[int]) -> None:
    assert cut(head() + rest, sizes, LIMITS) == (head(), rest)


@pytest.mark.parametrize("end", range(len(head())))
def test_a_head_without_its_end_is_waited_for(end: int) -> None:
    buffer = bytearray(head()[:end])
    assert _heads.cut_head(buffer, 0, LIMITS) is None
    assert buffer == head()[:end]


@pytest.mark.parametrize("sizes", [WHOLE, BYTES], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("bad", [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
def test_a_control_character_is_refused_before_the_head_ends(
    bad: int, sizes: Iterable[int]
) -> None:
    for at in range(len(b"GET / HTTP/1.1\r\nHost: x")):
        beginning = b"GET / HTTP/1.1\r\nHost: x"[:at] + bytes([bad])
        assert cut(beginning, sizes, LIMITS) == 400, beginning


@pytest.mark.parametrize("sizes", [WHOLE, BYTES], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("beginning", [b"GET /\n", b"\n", b"\rG", b"GET / HTTP/1.1\r\nA\r\r"])
def test_half_a_line_end_is_refused_before_the_head_ends(
    beginning: bytes, sizes: Iterable[int]
) -> None:
    assert cut(beginning, sizes, LIMITS) == 400


@pytest.mark.parametrize(
    ("data", "rest", "found"),
    [
        (b"", b"", False),
        (b"\r", b"\r", False),
        (b"\n", b"\n", False),
        (b"\r\n", b"", True),
        (b"\r\n\r\n\rG", b"\rG", True),
        (b"GET\r\n", b"GET\r\n", False),
    ],
)
def test_empty_lines_in_front_are_skipped(data: bytes, rest: bytes, found: bool) -> None:
    buffer = bytearray(data)
    assert _heads.skip_empty_lines(buffer) is found
    assert buffer == rest


# Limits of a head


@pytest.mark.parametrize("sizes", [WHOLE, BYTES], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("more", [0, 1, 100])
def test_the_size_of_a_head_has_a_limit(more: int, sizes: Iterable[int]) -> None:
    limits = ServerLimits(max_head_size=300, max_target_size=200)
    raw = head(fields=HOST + b"a: " + b"b" * (300 + more - len(head()) - 5) + b"\r\n")
    assert len(raw) == 300 + more
    assert cut(raw, sizes, limits) == (431 if more else (raw, b""))


@pytest.mark.parametrize("sizes", [WHOLE, BYTES], ids=["whole", "byte by byte"])
def test_a_head_that_goes_on_for_ever_is_refused_at_the_limit(sizes: Iterable[int]) -> None:
    limits = ServerLimits(max_head_size=300, max_target_size=200)
    endless = head()[:-2] + b"a: b\r\n" * 1_000
    assert cut(endless, sizes, limits) == 431
    assert cut(endless[:299], sizes, limits) is None


@pytest.mark.parametrize("sizes", [WHOLE, BYTES], ids=["whole", "byte by byte"])
def test_a_line_that_goes_on_for_ever_is_refused_as_a_target(sizes: Iterable[int]) -> None:
    limits = ServerLimits(max_head_size=10_000, max_target_size=200)
    assert cut(b"GET /" + b"a" * 1_000, sizes, limits) == 414


@pytest.mark.parametrize(("size", "status"), [(200, None), (201, 414), (240, 414), (9_000, 414)])
def test_the_size_of_a_target_has_a_limit(size: int, status: int | None) -> None:
    limits = ServerLimits(max_target_size=200)
    raw = head(b"GET /%b HTTP/1.1" % (b"a" * (size - 1)))
    assert statuses_of(raw, limits) == {status}
    for sizes in (WHOLE, BYTES):
        assert cut(raw, sizes, limits) in ((raw, b""), status)


@pytest.mark.parametrize("http", PARSERS)
def test_the_number_of_fields_has_a_limit(http: ParserName) -> None:
    limits = ServerLimits(max_fields=5)
    assert status_of(lambda: read(head(fields=HOST + b"a: b\r\n" * 4), limits, http)) is None
    assert status_of(lambda: read(head(fields=HOST + b"a: b\r\n" * 5), limits, http)) == 431
    assert status_of(lambda: read(head(fields=b"a: b\r\n" * 6), limits, "httptools")) == 431


# Hosts


@pytest.mark.parametrize(
    "host",
    [
        *(b"x", b"example.com", b"example.com:80", b"EXAMPLE.com:", b"127.0.0.1:65535"),
        *(b"[::1]", b"[::1]:8080", b"[::ffff:1.2.3.4]", b"a_b-c.d~e", b"%41.example", b"0.0.0.0=5"),
    ],
)
def test_a_host(host: bytes) -> None:
    assert statuses_of(head(fields=b"Host: %b\r\n" % host)) == {None}
    assert statuses_of(head(b"GET http://%b/ HTTP/1.1" % host)) == {None}


@pytest.mark.parametrize(
    "host",
    [
        *(b"", b" ", b":80", b"x:port", b"x:123456", b"x:-1", b"x:80:80", b"x y", b"x, y", b"x/y"),
        *(b"x?y", b"x#y", b"x@y", b"user@x", b"x\\y", b"[x]", b"[::1", b"::1]", b"::1", b"[]"),
        *(b"[::1]x", b"[::1]:x", b"<x>", b'"x"', b"x|y", b"{x}", b"x^y", b"h\xe4st", b"x\ty"),
    ],
)
def test_what_is_no_host(host: bytes) -> None:
    assert statuses_of(head(fields=b"Host: %b\r\n" % host)) == {400}


@pytest.mark.parametrize("fields", [b"", b"A: b\r\n", HOST + HOST, HOST + b"HOST: y\r\n"])
def test_there_is_one_host(fields: bytes) -> None:
    assert statuses_of(head(fields=fields)) == {400}


def test_only_http_1_0_goes_without_a_host() -> None:
    assert statuses_of(head(b"GET / HTTP/1.0", b"")) == {None}
    assert statuses_of(head(b"GET / HTTP/1.0", b"Host: x y\r\n")) == {400}
    assert statuses_of(head(b"GET / HTTP/1.0", HOST + HOST)) == {400}


# Targets

ANY_METHOD = (b"GET", b"OPTIONS", b"POST", b"BREW", b"M-SEARCH")


@pytest.mark.parametrize(
    ("target", "methods"),
    [
        (b"/", ANY_METHOD),
        (b"//", ANY_METHOD),
        (b"/a/../b;c?d#e", ANY_METHOD),
        (b"/%zz%", ANY_METHOD),
        (b'/"<>\\^`{|}', ANY_METHOD),
        (b"*", (b"OPTIONS", b"M-SEARCH")),
        (b"http://x", ANY_METHOD),
        (b"http://x?y", ANY_METHOD),
        (b"HTTPS://x:1/y", ANY_METHOD),
        (b"http://user:p%20w@x/", ANY_METHOD),
        (b"http://[::1]:8080/", ANY_METHOD),
        (b"x:1", (b"CONNECT",)),
        (b"[::1]:443", (b"CONNECT",)),
        (b"x", ()),
        (b"x:", ()),
        (b":1", ()),
        (b"a/b", ()),
        (b"?a", ()),
        (b"#a", ()),
        (b"**", ()),
        (b"*/", ()),
        (b"./", ()),
        (b"\\", ()),
        (b"http:", ()),
        (b"http:/x", ()),
        (b"http://", ()),
        (b"http:///", ()),
        (b"http://:1/", ()),
        (b"http://?", ()),
        (b"http://a@b@c/", ()),
        (b"http://x:port/", ()),
        (b"http://[::1/", ()),
        (b"http://a\\b/", ()),
        (b"ftp://x/", ()),
        (b"file:///x", ()),
        (b"httpx://x/", ()),
        (b"x:123456", ()),
        (b"user@x:1", ()),
        (b"http://x:1", ANY_METHOD),
    ],
)
def test_each_form_of_target_has_its_methods(target: bytes, methods: tuple[bytes, ...]) -> None:
    for method in (*ANY_METHOD, b"CONNECT"):
        expected = {None if method in methods else 400}
        assert statuses_of(head(b"%b %b HTTP/1.1" % (method, target))) == expected, method


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"http://x", (b"x", b"")),
        (b"http://x:1/a?b#c", (b"x:1", b"/a?b#c")),
        (b"https://u:p@[::1]?b", (b"[::1]", b"?b")),
        (b"/", None),
        (b"*", None),
        (b"x:1", None),
    ],
)
def test_the_parts_of_a_whole_url(target: bytes, parts: tuple[bytes, bytes] | None) -> None:
    assert _strict.absolute_target(target) == parts


# Lengths


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"5", 5), (b"003", 3), (b" \t7\t ", 7), (b"9" * 19, 10**19 - 1)],
)
def test_a_length(value: bytes, length: int) -> None:
    assert framing(b"Content-Length:" + value).length == length
    assert framing(b"Content-Length:" + value, version=b"1.0").length == length


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"",
            b" ",
            b"-1",
            b"+1",
            b"-0",
            b"1 1",
            b"0_1",
            b"1,1",
            b"1, 1",
            b"1,",
            b",1",
            b",",
            b"1;1",
        ),
        *(b"0x1", b"1e1", b"1.0", b"a", b"1a", b"a1", b"\xb2", b"\xd9\xa1", b'"1"', b"1\t1"),
        b"9" * 21,
    ],
)
def test_what_is_no_length(value: bytes) -> None:
    for version in (b"1.0", b"1.1"):
        raw = head(b"POST / HTTP/" + version, HOST + b"Content-Length: %b\r\n" % value)
        assert statuses_of(raw) == {400}


@pytest.mark.parametrize("second", [b"content-length", b"Content-Length", b"CONTENT-LENGTH"])
@pytest.mark.parametrize("values", [(b"5", b"5"), (b"5", b"6"), (b"5", b""), (b"", b"5")])
def test_there_is_one_length(second: bytes, values: tuple[bytes, bytes]) -> None:
    for between in (b"", b"a: b\r\n"):
        first, other = values
        fields = b"Content-Length: %b\r\n%b%b: %b\r\n" % (first, between, second, other)
        assert statuses_of(head(fields=HOST + fields)) == {400}
        assert statuses_of(head(fields=fields + HOST)) == {400}


@pytest.mark.parametrize(
    "name", [b"content-lengt", b"content-length2", b"x-content-length", b"content_length"]
)
def test_only_the_length_is_the_length(name: bytes) -> None:
    assert framing(name + b": abc").length == 0


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"POST", b"BREW"])
def test_any_method_may_have_a_body(method: bytes) -> None:
    assert framing(method=method).length == 0
    assert framing(b"Content-Length: 3", method=method).length == 3
    assert framing(b"Transfer-Encoding: chunked", method=method).length is None


# Codings


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED", b" \tchunked\t "])
def test_chunked(value: bytes) -> None:
    assert framing(b"Transfer-Encoding:" + value).length is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((b"gzip, chunked",), 501),
        ((b"gzip", b"chunked"), 501),
        ((b"identity, chunked",), 501),
        ((b"",), 400),
        ((b",",), 400),
        ((b"identity",), 400),
        ((b"gzip",), 400),
        ((b"chunked, gzip",), 400),
        ((b"chunked", b"gzip"), 400),
        ((b"chunked, chunked",), 400),
        ((b"chunked", b"chunked"), 400),
        ((b"chunked", b""), 400),
        ((b"chunked,",), 400),
        ((b"xchunked",), 400),
        ((b"chunkedx",), 400),
        ((b"chunked;q=1",), 400),
        ((b'"chunked"',), 400),
        ((b"chun ked",), 400),
        ((b"\xa0chunked",), 400),
    ],
)
def test_no_coding_but_one_chunked_at_the_end(fields: tuple[bytes, ...], status: int) -> None:
    codings = b"".join(b"Transfer-Encoding: %b\r\n" % value for value in fields)
    assert statuses_of(head(b"POST / HTTP/1.1", HOST + codings)) == {status}


@pytest.mark.parametrize("value", [b"chunked", b"identity", b"gzip, chunked"])
def test_a_coding_excludes_a_length_and_http_1_0(value: bytes) -> None:
    coding, length = b"Transfer-Encoding: %b\r\n" % value, b"Content-Length: 5\r\n"
    assert statuses_of(head(b"POST / HTTP/1.1", HOST + coding + length)) == {400}
    assert statuses_of(head(b"POST / HTTP/1.1", HOST + length + coding)) == {400}
    assert statuses_of(head(b"POST / HTTP/1.0", HOST + coding)) == {400}


# Whether the connection goes on, and 100 Continue


@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        (b"1.1", (), True),
        (b"1.1", (b"keep-alive",), True),
        (b"1.1", (b"close",), False),
        (b"1.1", (b"CLOSE",), False),
        (b"1.1", (b"upgrade, close",), False),
        (
            b"1.1",
            (
                b"upgrade",
                b" close\t",
            ),
            False,
        ),
        (b"1.1", (b"keep-alive, close",), False),
        (b"1.1", (b"closed", b"not-close"), True),
        (b"1.1", (b"",), True),
        (b"1.0", (), False),
        (b"1.0", (b"keep-alive",), True),
        (b"1.0", (b"Keep-Alive, TE",), True),
        (b"1.0", (b"keep-alive", b"close"), False),
        (b"1.0", (b"close",), False),
    ],
)
def test_keep_alive(version: bytes, fields: tuple[bytes, ...], keep_alive: bool) -> None:
    found = framing(*(b"Connection: " + value for value in fields), version=version)
    assert found.keep_alive is keep_alive


def test_a_connection_ends_with_a_tunnel() -> None:
    for http in PARSERS:
        found, its_framing = read(head(b"CONNECT x:1 HTTP/1.1"), LIMITS, http)
        assert found.target == b"x:1"
        assert not its_framing.keep_alive


@pytest.mark.parametrize(
    ("fields", "version", "expects"),
    [
        ((b"Expect: 100-continue", b"Content-Length: 3"), b"1.1", True),
        ((b"Expect: 100-Continue", b"Transfer-Encoding: chunked"), b"1.1", True),
        ((b"Expect: 100-continue", b"Content-Length: 0"), b"1.1", False),
        ((b"Expect: 100-continue",), b"1.1", False),
        ((b"Expect:", b"Content-Length: 3"), b"1.1", False),
        ((b"Content-Length: 3",), b"1.1", False),
        ((b"Expect: 100-continue", b"Content-Length: 3"), b"1.0", False),
    ],
)
def test_who_waits_for_100_continue(
    fields: tuple[bytes, ...], version: bytes, expects: bool
) -> None:
    assert framing(*fields, version=version).expects_continue is expects


@pytest.mark.parametrize(
    "value", [b"100", b"200-ok", b"100-continue, x", b"x=1", b"100-continue;a"]
)
def test_other_expectations_cannot_be_met(value: bytes) -> None:
    assert statuses_of(head(fields=HOST + b"Expect: %b\r\n" % value)) == {417}


# Bodies of a known size


@pytest.mark.parametrize("sizes", [WHOLE, BYTES, (2,), (5,), (6,)])
def test_a_body_of_a_known_size(sizes: Iterable[int]) -> None:
    found = take(SizedBody(5), b"hello, and the next", sizes)
    assert found == Taken(b"hello", True, b", and the next", None)


def test_a_body_of_a_known_size_that_breaks_off() -> None:
    assert take(SizedBody(5), b"hell", BYTES) == Taken(b"hell", False, b"", None)
    assert SizedBody(0).over


# Chunks


class Taken(NamedTuple):
    """What a body made of its bytes; `status` of the refusal, if there was one."""

    content: bytes
    over: bool
    rest: bytes
    status: int | None


def take(body: Body, data: bytes, sizes: Iterable[int]) -> Taken:
    """Feed it piece by piece, as a connection does; what comes after its end is left."""
    buffer, content, fed = bytearray(), b"", 0
    for piece in pieces(data, sizes):
        buffer += piece
        fed += len(piece)
        try:
            content += body.take(buffer)
        except BadRequest as exc:
            return Taken(content, body.over, b"", exc.status)
        if body.over:
            break
    return Taken(content, body.over, bytes(buffer) + data[fed:], None)


def take_chunks(data: bytes, sizes: Iterable[int] = WHOLE, limits: ServerLimits = LIMITS) -> Taken:
    found = take(ChunkedBody(limits), data, sizes)
    # What came before a refusal depends on the split; that there is one doesn't.
    return found if found.status is None else Taken(b"", False, b"", found.status)


EachSplit = pytest.mark.parametrize(
    "sizes", [WHOLE, BYTES, itertools.repeat(3)], ids=["whole", "byte by byte", "by three"]
)


@EachSplit
@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
        (b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
        (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
        (b"1;a\r\nx\r\n0;b\r\n\r\n", b"x"),
        (b"1;a=b\r\nx\r\n0\r\n\r\n", b"x"),
        (b'1;a="b"\r\nx\r\n0\r\n\r\n', b"x"),
        (b'1;a="";c\r\nx\r\n0\r\n\r\n', b"x"),
        (b'1;a="b;c=\\"d\\\\e\\" f\t\xe9";g\r\nx\r\n0\r\n\r\n', b"x"),
        (b"1 ; a = b\t;\tc\r\nx\r\n0\r\n\r\n", b"x"),
        (b"1\r\nx\r\n0\r\na: b\r\n\r\n", b"x"),
        (b"1\r\nx\r\n0\r\na:\r\nb: \xff \t\r\n\r\n", b"x"),
        (b"1\r\nx\r\n0\r\nvary: *\r\nx-content-length: 5\r\n\r\n", b"x"),
    ],
)
def test_chunks(data: bytes, content: bytes, sizes: Iterable[int]) -> None:
    for rest in (b"", b"\r\n", head()):
        assert take_chunks(data + rest, sizes) == Taken(content, True, rest, None)
    for end in range(len(data)):
        found = take_chunks(data[:end], sizes)
        assert (found.over, found.status) == (False, None), data[:end]
        assert content.startswith(found.content)


SIZE_LINES = [
    *(
        b"",
        b" ",
        b"g",
        b"-1",
        b"+1",
        b"0x1",
        b"1_0",
        b"1 ",
        b" 1",
        b"\t1",
        b"1\t",
        b"1.0",
        b"1,",
        b"\xb2",
    ),
    *(
        b"00000000000000001",
        b"1;",
        b"1; ",
        b"1;;a",
        b"1;a;",
        b"1 a",
        b"1;a b",
        b"1;a=",
        b"1;=b",
        b";a",
    ),
    *(b"1;a=b=c", b"1;a=b c", b"1;(", b"1;a=(", b'1;a="b', b'1;a=b"', b'1;a="b"c', b'1;a="b\\"'),
    *(
        b'1;a="\x00"',
        b'1;a="\x7f"',
        b'1;a="\\\x01"',
        b'1;"a"',
        b"1;\xe4",
        b"1;a=\xe4",
        b"1;a\x0b",
        b"1\x00",
    ),
]


@EachSplit
@pytest.mark.parametrize("line", SIZE_LINES)
def test_a_line_that_is_no_size_of_a_chunk(line: bytes, sizes: Iterable[int]) -> None:
    for before in (b"", b"1\r\nx\r\n"):
        assert take_chunks(before + line + b"\r\nx\r\n0\r\n\r\n", sizes).status == 400


@EachSplit
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n\n", b"\x00\r\n"])
def test_every_line_of_chunks_ends_with_crlf(end: bytes, sizes: Iterable[int]) -> None:
    parts = (b"1;a=b", b"x", b"2", b"yz", b"0", b"a: b", b"")
    for at in range(len(parts)):
        broken = b"".join(part + (end if n == at else b"\r\n") for n, part in enumerate(parts))
        if not (at == 6 and end.startswith(b"\r\n")):  # what follows the end isn't theirs
            assert take_chunks(broken + b"x\r\n", sizes).status == 400, broken


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        (b"", b"1\r\nx\r\n0\r\n\r\n", b"0"),
        (b"0", b"1\r\nx\r\n0\r\n\r\n", b"0"),
        (b"1", b"\r\nx\r\n0\r\n\r\n", b""),
        (b"1", b";a\r\nx\r\n0\r\n\r\n", b" \t"),
        (b"1;", b"a\r\nx\r\n0\r\n\r\n", b" \t" + bytes(TOKEN)),
        (b"1;a", b"\r\nx\r\n0\r\n\r\n", bytes(TOKEN)),
        (b"1;a", b"b\r\nx\r\n0\r\n\r\n", b";=" + bytes(TOKEN)),
        (b"1;a", b"=b\r\nx\r\n0\r\n\r\n", b" \t" + bytes(TOKEN)),
        (b"1;a=", b"b\r\nx\r\n0\r\n\r\n", b" \t" + bytes(TOKEN)),
        (b'1;a="', b'b"\r\nx\r\n0\r\n\r\n', bytes(TEXT - {0x22})),
        (b'1;a="\\', b'"\r\nx\r\n0\r\n\r\n', bytes(TEXT)),
        (b'1;a="b"', b"\r\nx\r\n0\r\n\r\n", b""),
        (b"1;a\r", b"\nx\r\n0\r\n\r\n", b""),
        (b"1\r\n", b"x\r\n0\r\n\r\n", b""),
        (b"1\r\nx", b"\r\n0\r\n\r\n", b""),
        (b"1\r\nx\r", b"\n0\r\n\r\n", b""),
        (b"1\r\nx\r\n0\r\n", b"a: b\r\n\r\n", bytes(TOKEN)),
        (b"1\r\nx\r\n0\r\na", b": b\r\n\r\n", b":" + bytes(TOKEN)),
        (b"1\r\nx\r\n0\r\na:", b"b\r\n\r\n", bytes(TEXT)),
        (b"1\r\nx\r\n0\r\na: b", b"\r\n\r\n", bytes(TEXT)),
        (b"1\r\nx\r\n0\r\na: b\r", b"\n\r\n", b""),
        (b"1\r\nx\r\n0\r\n\r", b"\n", b""),
    ],
)
def test_each_byte_put_into_each_place_of_chunks(
    before: bytes, after: bytes, allowed: bytes
) -> None:
    found = {byte: take_chunks(before + bytes([byte]) + after) for byte in range(256)}
    accepted = {byte for byte, taken in found.items() if taken == Taken(b"x", True, b"", None)}
    assert accepted == set(allowed)
    for byte in range(256):
        assert take_chunks(before + bytes([byte]) + after, BYTES) == found[byte]


FORBIDDEN = [
    *(
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Trailer: a",
        b"TE: trailers",
        b"Host: y",
    ),
    *(b"Connection: close", b"Keep-Alive: 5", b"Proxy-Connection: close", b"Upgrade: h2c"),
    *(b"Expect: 100-continue", b"Max-Forwards: 1", b"Authorization: a", b"Proxy-Authorization: a"),
    b"Cookie: a=b",
]


@EachSplit
@pytest.mark.parametrize("line", FORBIDDEN)
def test_what_cannot_be_a_trailer(line: bytes, sizes: Iterable[int]) -> None:
    for changed in (line, line.lower(), line.upper(), b"a: b\r\n" + line):
        assert take_chunks(b"0\r\n" + changed + b"\r\n\r\n", sizes).status == 400


@EachSplit
@pytest.mark.parametrize(
    "line",
    [b"a", b": b", b" a: b", b"a : b", b"a b: c", b"a: \x00", b"a: \x7f", b"a: b\rc", b"\xe4: b"],
)
def test_what_is_no_trailer(line: bytes, sizes: Iterable[int]) -> None:
    for before in (b"", b"a: b\r\n"):
        assert take_chunks(b"0\r\n" + before + line + b"\r\n\r\n", sizes).status == 400


# Limits of chunks

SMALL = ServerLimits(max_head_size=100, max_fields=3)


@EachSplit
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"0\r\n" + b"a: b\r\n" * 3 + b"\r\n", None),
        (b"0\r\n" + b"a: b\r\n" * 4 + b"\r\n", 431),
        (b"0\r\na: " + b"b" * 93 + b"\r\n\r\n", None),
        (b"0\r\na: " + b"b" * 94 + b"\r\n\r\n", 431),
        (b"0\r\na: " + b"b" * 1_000, 431),
        (b"1;" + b"a" * 99 + b"\r\nx\r\n0\r\n\r\n", None),
        (b"1;" + b"a" * 100 + b"\r\nx\r\n0\r\n\r\n", 400),
        (b"1;a\r\nx\r\n" * 50 + b"0\r\n\r\n", None),
        (b"1;a\r\nx\r\n" * 51 + b"0\r\n\r\n", 400),
        (b"1;" + b"a" * 5_000, 431),
        (b"0" * 5_000, 431),
    ],
)
def test_limits_of_chunks(data: bytes, status: int | None, sizes: Iterable[int]) -> None:
    found = take_chunks(data, sizes, SMALL)
    assert found.status == status
    assert found.over == (status is None)


@EachSplit
def test_the_line_of_a_chunk_has_a_limit(sizes: Iterable[int]) -> None:
    longest = b"1;" + b"a" * (_limits.MAX_CHUNK_LINE - 4) + b"\r\n"
    assert take_chunks(longest + b"x\r\n0\r\n\r\n", sizes).over
    assert take_chunks(b"1;a" + longest[2:] + b"x\r\n0\r\n\r\n", sizes).status == 431


def test_a_chunk_may_be_as_large_as_its_digits_say() -> None:
    body, buffer = ChunkedBody(LIMITS), bytearray(b"F" * 16 + b"\r\nabc")
    assert body.take(buffer) == b"abc"
    assert not body.over


# Any split

token = st.text(alphabet=string.ascii_letters, min_size=1, max_size=4).map(str.encode)
extension = st.one_of(
    st.just(b""),
    st.tuples(token, token).map(lambda pair: b"; %b=%b" % pair),
    st.sampled_from([b';a="b\\"c"', b" ;a", b";", b";a=", b";\x00"]),
)
chunk = st.builds(
    lambda data, extension: b"%x%b\r\n%b\r\n" % (len(data), extension, data),
    st.binary(min_size=1, max_size=20),
    extension,
)
trailer = st.one_of(
    st.tuples(token, token).map(lambda pair: b"x-%b: %b\r\n" % pair),
    st.sampled_from([b"host: x\r\n", b"a\r\n", b" a: b\r\n", b"a: b\n"]),
)
chunked = st.builds(
    lambda chunks, trailers, rest: (
        b"".join(chunks) + b"0\r\n" + b"".join(trailers) + b"\r\n" + rest
    ),
    st.lists(chunk, max_size=4),
    st.lists(trailer, max_size=3),
    st.binary(max_size=5),
)


@st.composite
def damaged(draw: Any, strategy: st.SearchStrategy[bytes]) -> bytes:
    """Something of that kind, with up to two bytes put in, taken out or changed."""
    data = bytearray(draw(strategy))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        to = at + draw(st.integers(0, 1))
        data[at:to] = draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\x00", b";", b"0"]))
    return bytes(data)


splits = st.lists(st.integers(1, 12), max_size=60)


@pytest.mark.slow
@unhurried(max_examples=200)
@given(damaged(chunked), splits)
@example(b"1\r\nx\r", [1] * 9)
@example(b"0\r\n\r\n\r\n", [1] * 9)
def test_what_chunks_say_does_not_depend_on_the_split(data: bytes, sizes: list[int]) -> None:
    limits = ServerLimits(max_head_size=40, max_fields=2)
    for limit in (LIMITS, limits):
        assert take_chunks(data, sizes, limit) == take_chunks(data, WHOLE, limit)


line = st.sampled_from([b"GET / HTTP/1.1", b"GET /%b HTTP/1.0" % (b"a" * 50), b"X", b"", b"\x00"])
fields = st.lists(
    st.sampled_from([HOST, b"a: b\r\n", b"a: %b\r\n" % (b"b" * 60), b"a\r\n", b"\r", b"a: b\n"]),
    max_size=4,
).map(b"".join)
heads = st.builds(lambda line, fields, rest: head(line, fields) + rest, line, fields, st.binary())


@pytest.mark.slow
@unhurried(max_examples=200)
@given(damaged(heads), splits)
@example(b"GET /%b HTTP/1.0\r\n\r\n" % (b"a" * 71), [1] * 90)  # too long, before it ends
def test_where_a_head_ends_does_not_depend_on_the_split(data: bytes, sizes: list[int]) -> None:
    """What is refused before its end is refused as a whole, and what isn't has the same end."""
    for limits in (LIMITS, ServerLimits(max_head_size=100, max_target_size=40)):
        expected, found = cut(data, WHOLE, limits), cut(data, sizes, limits)
        if isinstance(expected, tuple) and not isinstance(found, tuple):
            assert isinstance(found, int)
            assert status_of(partial(read, expected[0], limits)) is not None
        else:
            assert isinstance(found, int) == isinstance(expected, int)
            assert isinstance(found, int) or found == expected


# Linear time


class Counted(bytearray):
    """A buffer that counts the bytes that are looked at in it."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(data)
        self.steps = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        found = super().find(sub, start, end)
        stop = len(self) if end is None else min(end, len(self))
        self.steps += max(0, (stop if found < 0 else found + len(sub)) - max(0, start))
        return found


class CountedPattern:
    """A pattern for one byte that counts the bytes that it may have looked at."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.steps = 0

    def search(self, data: Any, start: int = 0) -> re.Match[bytes] | None:
        self.steps += len(data) - start
        return self._pattern.search(data, start)


def sizes_for(step: int) -> list[int]:
    """What a test by so many bytes a step is done with."""
    return [KIB, 4 * KIB, 16 * KIB] if step == 1 else [KIB, 8 * KIB, 64 * KIB]


@pytest.mark.parametrize("step", [1, 7, 1_000])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: b"GET /" + b"a" * size,
        lambda size: b"GET / HTTP/1.1\r\na: " + b"b" * size,
        lambda size: b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (size // 6),
        lambda size: b"GET / HTTP/1.1\r\na: " + b"\r\n" * (size // 2),
    ],
    ids=["target", "field", "fields", "line ends"],
)
def test_a_head_in_pieces_is_looked_at_once(
    make: Callable[[int], bytes], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in sizes_for(step):
        text = CountedPattern(_strict.NO_TEXT)
        with monkeypatch.context() as patch:
            patch.setattr(_strict, "NO_TEXT", text)
            buffer, scanned, data = Counted(), 0, make(size)
            for piece in pieces(data, itertools.repeat(step)):
                buffer += piece
                if _heads.cut_head(buffer, scanned, WIDE) is not None:
                    break
                scanned = len(buffer)
        # Each piece, three bytes before it that the end may have begun in, and one for a CR.
        fed = len(data)
        assert buffer.steps + text.steps <= 2 * fed + 5 * (fed // step + 1), size


@pytest.mark.parametrize("step", [1, 7, 1_000, 100_000])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: b"1\r\nx\r\n" * (size // 6),
        lambda size: b"1;a\r\nx\r\n" * (size // 8),
        lambda size: b"%x\r\n%b\r\n" % (size, b"x" * size),
        lambda size: b"1;" + b"a" * min(size, _limits.MAX_CHUNK_LINE - 10),
        lambda size: b"0\r\n" + b"a: b\r\n" * (size // 6),
        lambda size: b"0\r\na: " + b"b" * size,
    ],
    ids=["small chunks", "with extensions", "large chunk", "extension", "trailers", "trailer"],
)
def test_chunks_in_pieces_are_looked_at_once(make: Callable[[int], bytes], step: int) -> None:
    for size in sizes_for(step):
        body, buffer, data = ChunkedBody(WIDE), Counted(), make(size)
        for piece in pieces(data, itertools.repeat(step)):
            buffer += piece
            body.take(buffer)
        assert buffer.steps <= 4 * len(data) + 4 * (len(data) // step + 1), size


SPACES = b" " * 64 * KIB
HEADS: dict[str, Callable[[int], bytes]] = {
    "target": lambda size: head(b"GET /%b HTTP/1.1" % (b"a" * size)),
    "no version": lambda size: head(b"GET /%b" % (b"a" * size)),
    "method": lambda size: head(b"A" * size),
    "whole URL": lambda size: head(b"GET http://%b@x/ HTTP/1.1" % (b"a:" * (size // 2))),
    "no URL": lambda size: head(b"GET http://%b HTTP/1.1" % (b"a:" * (size // 2))),
    "many users": lambda size: head(b"GET http://%b HTTP/1.1" % (b"a@" * (size // 2))),
    "tunnel": lambda size: head(b"CONNECT %b:1x HTTP/1.1" % (b"a" * size)),
    "brackets": lambda size: head(b"CONNECT [%b:1 HTTP/1.1" % (b":" * size)),
    "fields": lambda size: head(fields=HOST + b"a: b\r\n" * (size // 6)),
    "empty fields": lambda size: head(fields=HOST + b"a:\r\n" * (size // 4)),
    "bad field": lambda size: head(fields=HOST + b"a: b\r\n" * (size // 6) + b"a\r\n"),
    "name": lambda size: head(fields=HOST + b"a" * size + b": b\r\n"),
    "no name": lambda size: head(fields=HOST + b"a" * size + b"\r\n"),
    "value": lambda size: head(fields=HOST + b"a: " + b"b" * size + b"\r\n"),
    "words": lambda size: head(fields=HOST + b"a: " + b"b " * (size // 2) + b"\r\n"),
    "spaces": lambda size: head(fields=HOST + b"a: b" + SPACES[:size] + b"b\r\n"),
    "spaces in front": lambda size: head(fields=HOST + b"a:" + SPACES[:size] + b"b\r\n"),
    "nothing but spaces": lambda size: head(fields=HOST + b"a:" + SPACES[:size] + b"\r\n"),
    "bad value": lambda size: head(fields=HOST + b"a: " + b"b" * size + b"\x00\r\n"),
    "host": lambda size: head(fields=b"Host: " + b"a" * size + b"\r\n"),
    "no host": lambda size: head(fields=b"Host: " + b"a" * size + b"/\r\n"),
    "connection": lambda size: head(fields=HOST + b"Connection: " + b"a," * (size // 2) + b"\r\n"),
    "connections": lambda size: head(fields=HOST + b"Connection: a\r\n" * (size // 15)),
    "expect": lambda size: head(fields=HOST + b"Expect: " + b"1" * size + b"\r\n"),
    "coding": lambda size: head(fields=HOST + b"Transfer-Encoding:" + b"," * size + b"\r\n"),
    "codings": lambda size: head(fields=HOST + b"Transfer-Encoding: a\r\n" * (size // 22)),
    "length": lambda size: head(fields=HOST + b"Content-Length: " + b"1" * size + b"\r\n"),
    "lengths": lambda size: head(fields=HOST + b"Content-Length: 1\r\n" * (size // 19)),
    "list of lengths": lambda size: head(
        fields=HOST + b"Content-Length: " + b"1," * (size // 2) + b"1\r\n"
    ),
    "length and spaces": lambda size: head(
        fields=HOST + b"Content-Length: 1," + SPACES[:size] + b"1\r\n"
    ),
    "spaces and length": lambda size: head(
        fields=HOST + b"Content-Length:" + SPACES[:size] + b"1\r\n"
    ),
}


def is_linear(small: Callable[[], object], large: Callable[[], object]) -> bool:
    """Whether 16 times as much takes about 16 times as long; what is quadratic never does."""
    bound = FACTOR * max(min(_time(small) for _ in range(5)), 20e-6)
    return any(_time(large) < bound for _ in range(20))


def _time(call: Callable[[], object]) -> float:
    """Of the processor's: what others do meanwhile isn't counted."""
    began = time.thread_time()
    call()
    return time.thread_time() - began


# How much longer 16 times as much may take: linear is 16, quadratic 256.
FACTOR = 80


@pytest.mark.parametrize("http", PARSERS)
@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_the_time_for_a_head_is_linear(make: Callable[[int], bytes], http: ParserName) -> None:
    small, large = make(4 * KIB), make(64 * KIB)
    assert status_of(lambda: read(small, WIDE, http)) == status_of(lambda: read(large, WIDE, http))
    assert is_linear(
        lambda: status_of(lambda: read(small, WIDE, http)),
        lambda: status_of(lambda: read(large, WIDE, http)),
    )


LINES: dict[str, Callable[[int], bytes]] = {
    "size": lambda size: b"0" * size,
    "name": lambda size: b"1;" + b"a" * size,
    "names": lambda size: b"1" + b";a" * (size // 2),
    "values": lambda size: b"1" + b";a=b" * (size // 4),
    "spaces": lambda size: b"1;a" + SPACES[:size],
    "spaced": lambda size: b"1" + b" ; a" * (size // 4) + b" ",
    "quoted": lambda size: b'1;a="' + b"b" * size + b'"',
    "never quoted": lambda size: b'1;a="' + b"b" * size,
    "escaped": lambda size: b'1;a="' + b'\\"' * (size // 2),
    "quotes": lambda size: b"1" + b';a=""' * (size // 5) + b'"',
}


@pytest.mark.parametrize("make", LINES.values(), ids=LINES)
def test_the_time_for_the_line_of_a_chunk_is_linear(
    make: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_limits, "MAX_CHUNK_LINE", KIB * KIB)
    small, large = (make(size * KIB) + b"\r\n" for size in (4, 64))
    assert is_linear(
        lambda: take_chunks(small, WHOLE, WIDE), lambda: take_chunks(large, WHOLE, WIDE)
    )
