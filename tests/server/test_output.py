"""The response's bytes: framed for every kind of client, and nothing else's bytes among them."""

from __future__ import annotations

import itertools
import string
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import h11
import pytest
from hypothesis import example, given, strategies as st

from trioweb.server import ProtocolMisuse
from trioweb.server._output import CONTINUE, Output, error_response
from trioweb.server._sending import Sender
from trioweb.server._strict import Framing, RequestHead

from ..support.server_driver import without_date
from ..support.unhurried import unhurried

Fields = list[tuple[bytes, bytes]]


class Sent:
    """A response as its sender makes it, without the sending."""

    def __init__(self, method: bytes, version: bytes, *, keep_alive: bool) -> None:
        self._out = Output(method != b"HEAD", version)
        head = RequestHead(method, b"/", version, [], Framing(keep_alive=keep_alive))
        service: Any = SimpleNamespace(closing=False)
        transport: Any = None  # it isn't used
        self._sender = Sender(
            service,
            transport,
            bytearray(),
            head,
            self._out,
            body=None,
            expects_continue=False,
            is_last=False,
        )
        self.start = self._out.start
        self.trailers = self._out.trailers

    def body(self, body: bytes, *, more: bool) -> bytes:
        head, content = self._out.body(body, more=more)
        return self._sender.join(head, content) if head else content

    @property
    def keep_alive(self) -> bool:
        return self._sender.keep_alive

    @property
    def started(self) -> bool:
        return self._out.started

    @property
    def complete(self) -> bool:
        return self._out.complete


def output(method: bytes = b"GET", version: bytes = b"1.1", *, keep_alive: bool = True) -> Sent:
    return Sent(method, version, keep_alive=keep_alive)


def start(
    status: object = 200, headers: Iterable[Any] = (), *, trailers: bool = False
) -> dict[str, Any]:
    message = {"type": "http.response.start", "status": status, "headers": headers}
    return {**message, "trailers": True} if trailers else message


@dataclass
class Read:
    """A response as h11 reads it, as a client that asked with that method."""

    status: int
    reason: bytes
    fields: Fields
    body: bytes
    trailers: Fields
    rest: bytes
    goes_on: bool


def read(data: bytes, method: bytes = b"GET") -> Read:
    """Raises h11's RemoteProtocolError for what is no whole response."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    head = client.next_event()
    assert isinstance(head, h11.Response), head
    body, rest = b"", None
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            assert rest is None
            rest = b""
            client.receive_data(b"")
        else:
            assert isinstance(event, h11.Data)
            body += event.data
    fields, trailers = list(head.headers), list(event.headers)
    if rest is None:
        rest = client.trailing_data[0]
    goes_on = client.their_state is h11.DONE
    return Read(head.status_code, head.reason, fields, body, trailers, rest, goes_on)


# Framing


def framed(
    method: bytes,
    version: bytes,
    status: int,
    headers: Fields,
    bodies: Sequence[bytes],
    *,
    keep_alive: bool = True,
) -> tuple[bytes, Sent]:
    """All bytes of a response, without its date."""
    out = output(method, version, keep_alive=keep_alive)
    out.start(start(status, headers))
    last = len(bodies) - 1
    data = b"".join(out.body(body, more=n < last) for n, body in enumerate(bodies))
    assert out.complete
    return without_date(data), out


LENGTH = (b"content-length", b"5")
CHUNKS = b"transfer-encoding: chunked\r\n"
CLOSE = b"connection: close\r\n"
KEEP = b"connection: keep-alive\r\n"


@pytest.mark.parametrize(
    ("method", "version", "status", "headers", "bodies", "lines", "content"),
    [
        # One piece: its length is told, whoever asks.
        (b"GET", b"1.1", 200, [], [b"hello"], b"content-length: 5\r\n", b"hello"),
        (b"GET", b"1.0", 200, [], [b"hello"], b"content-length: 5\r\n" + KEEP, b"hello"),
        (b"GET", b"1.1", 200, [], [b""], b"content-length: 0\r\n", b""),
        (b"BREW", b"1.1", 418, [], [b"tea"], b"content-length: 3\r\n", b"tea"),
        # The app's own length.
        (b"GET", b"1.1", 200, [LENGTH], [b"hello"], b"content-length: 5\r\n", b"hello"),
        (b"GET", b"1.1", 200, [LENGTH], [b"he", b"llo"], b"content-length: 5\r\n", b"hello"),
        (b"GET", b"1.1", 200, [LENGTH], [b"hello", b""], b"content-length: 5\r\n", b"hello"),
        (b"GET", b"1.0", 200, [LENGTH], [b"", b"hello"], b"content-length: 5\r\n" + KEEP, b"hello"),
        (
            b"GET",
            b"1.1",
            200,
            [(b"Content-Length", b"005")],
            [b"hello"],
            b"content-length: 5\r\n",
            b"hello",
        ),
        # Several pieces of unknown length.
        (b"GET", b"1.1", 200, [], [b"he", b"llo"], CHUNKS, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        (b"GET", b"1.1", 200, [], [b"hello", b""], CHUNKS, b"5\r\nhello\r\n0\r\n\r\n"),
        (b"GET", b"1.1", 200, [], [b"", b"hello"], CHUNKS, b"5\r\nhello\r\n0\r\n\r\n"),
        (b"GET", b"1.1", 200, [], [b"", b"", b""], CHUNKS, b"0\r\n\r\n"),
        (b"GET", b"1.1", 200, [], [b"x" * 26, b""], CHUNKS, b"1a\r\n%b\r\n0\r\n\r\n" % (b"x" * 26)),
        (b"GET", b"1.0", 200, [], [b"he", b"llo"], CLOSE, b"hello"),
        # No body, whatever is sent.
        (b"HEAD", b"1.1", 200, [], [b"hello"], b"", b""),
        (b"HEAD", b"1.1", 200, [LENGTH], [b"hello"], b"content-length: 5\r\n", b""),
        (b"HEAD", b"1.1", 200, [LENGTH], [b""], b"content-length: 5\r\n", b""),
        (b"HEAD", b"1.1", 200, [], [b"he", b"llo"], b"", b""),
        (b"HEAD", b"1.0", 200, [], [b"he", b"llo"], KEEP, b""),
        (b"GET", b"1.1", 204, [], [b""], b"", b""),
        (b"GET", b"1.1", 204, [LENGTH], [b"hello"], b"", b""),
        (b"GET", b"1.1", 204, [(b"content-length", b"0")], [b""], b"", b""),
        (b"GET", b"1.1", 204, [], [b"he", b"llo"], b"", b""),
        (b"GET", b"1.1", 304, [], [b"hello"], b"", b""),
        (b"GET", b"1.1", 304, [LENGTH], [b""], b"content-length: 5\r\n", b""),
        (b"HEAD", b"1.0", 204, [], [b""], KEEP, b""),
        # What the app says of chunks is for the server to say.
        (
            b"GET",
            b"1.1",
            200,
            [(b"Transfer-Encoding", b"gzip")],
            [b"x"],
            b"content-length: 1\r\n",
            b"x",
        ),
        # The app may close the connection, and can't keep it open.
        (
            b"GET",
            b"1.1",
            200,
            [(b"Connection", b"a, Close")],
            [b""],
            b"content-length: 0\r\n" + CLOSE,
            b"",
        ),
        (b"GET", b"1.1", 200, [(b"connection", b"upgrade")], [b""], b"content-length: 0\r\n", b""),
        (
            b"GET",
            b"1.1",
            200,
            [(b"connection", b"close")],
            [b"x", b""],
            CHUNKS + CLOSE,
            b"1\r\nx\r\n0\r\n\r\n",
        ),
        (b"GET", b"1.0", 200, [(b"connection", b"keep-alive")], [b"x", b""], CLOSE, b"x"),
    ],
)
def test_framing(
    method: bytes,
    version: bytes,
    status: int,
    headers: Fields,
    bodies: list[bytes],
    lines: bytes,
    content: bytes,
) -> None:
    data, out = framed(method, version, status, headers, bodies)
    assert data.partition(b"\r\n")[2] == lines + b"\r\n" + content
    found = read(data, method)
    assert found.status == status
    assert out.keep_alive is (CLOSE not in lines)


EVERY_COMBINATION = list(
    itertools.product(
        ([], [LENGTH]),
        ([b"hello"], [b"he", b"llo"], [b"hello", b""]),
        (True, False),
    )
)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("status", [200, 201, 204, 205, 299, 304, 404, 500, 999])
def test_every_client_sees_the_same_body(method: bytes, version: bytes, status: int) -> None:
    for headers, bodies, keep_alive in EVERY_COMBINATION:
        _check_body(method, version, status, headers, bodies, keep_alive=keep_alive)


def _check_body(
    method: bytes,
    version: bytes,
    status: int,
    headers: Fields,
    bodies: Sequence[bytes],
    *,
    keep_alive: bool,
) -> None:
    data, out = framed(method, version, status, headers, bodies, keep_alive=keep_alive)
    bodiless = method == b"HEAD" or status in (204, 304)
    ends_with_connection = not bodiless and version == b"1.0" and len(bodies) > 1 and not headers
    assert out.keep_alive is (keep_alive and not ends_with_connection)
    found = read(data + (b"" if ends_with_connection else b"rest"), method)
    assert found.status == status
    assert found.body == (b"" if bodiless else b"hello")
    assert found.rest == (b"" if ends_with_connection else b"rest")
    named = [name for name, _ in found.fields]
    assert len(set(named)) == len(named)
    assert found.goes_on is out.keep_alive


def test_a_status_line_has_its_words() -> None:
    assert framed(b"GET", b"1.1", 404, [], [b""])[0].startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert framed(b"GET", b"1.0", 299, [], [b""])[0].startswith(b"HTTP/1.1 299 \r\n")
    assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_fields_are_sent_in_their_order_with_lower_case_names() -> None:
    headers = [(b"Set-Cookie", b"a"), (b"X", b""), (b"set-cookie", b"b"), (b"y", b"\t\xff ~")]
    found = framed(b"GET", b"1.1", 200, headers, [b""])[0]
    assert found.split(b"\r\n")[1:5] == [b"set-cookie: a", b"x: ", b"set-cookie: b", b"y: \t\xff ~"]


@pytest.mark.parametrize("pair", [tuple, list])
@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("iterable", [list, tuple, iter])
def test_headers_are_any_iterable_of_pairs_of_bytes(pair: Any, kind: Any, iterable: Any) -> None:
    headers = iterable([pair((kind(b"A"), kind(b"b"))), pair((kind(b"c"), kind(b"d")))])
    assert framed(b"GET", b"1.1", 200, headers, [b""])[0].split(b"\r\n")[1:3] == [b"a: b", b"c: d"]


def test_headers_may_be_left_out() -> None:
    out = output()
    out.start({"type": "http.response.start", "status": 200})
    assert read(out.body(b"x", more=False)).body == b"x"


def test_a_date_is_put_in_unless_the_app_has_its_own() -> None:
    def dates(headers: Fields) -> list[bytes]:
        out = output()
        out.start(start(200, headers))
        fields = read(out.body(b"", more=False)).fields
        return [value for name, value in fields if name == b"date"]

    [date] = dates([])
    assert parsedate_to_datetime(date.decode()).year >= 2024
    assert dates([(b"Date", b"today")]) == [b"today"]


def test_the_head_waits_for_the_first_piece_of_the_body() -> None:
    out = output()
    out.start(start())
    assert (out.started, out.complete) == (True, False)
    assert out.body(b"he", more=True).endswith(b"\r\n\r\n2\r\nhe\r\n")
    assert not out.complete
    assert out.body(b"", more=True) == b""
    assert out.body(b"llo", more=False) == b"3\r\nllo\r\n0\r\n\r\n"
    assert out.complete


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("headers", [[], [LENGTH]])
def test_a_body_is_anything_like_bytes(kind: Any, headers: Fields) -> None:
    data, _ = framed(b"GET", b"1.1", 200, headers, [kind(b"he"), kind(b"llo")])
    assert read(data).body == b"hello"
    data, _ = framed(b"GET", b"1.1", 200, headers, [kind(b"hello")])
    assert read(data).body == b"hello"


# Trailers


def test_trailers() -> None:
    out = output()
    out.start(start(trailers=True))
    data = out.body(b"hello", more=False)
    assert not out.complete
    data += out.trailers([(b"A", b"b")], more=True)
    assert not out.complete
    data += out.trailers([(b"c", b"d"), (b"e", b"")], more=False)
    assert out.complete
    found = read(data + b"rest")
    assert (found.body, found.rest) == (b"hello", b"rest")
    assert found.trailers == [(b"a", b"b"), (b"c", b"d"), (b"e", b"")]


@pytest.mark.parametrize("name", [b"Content-Length", b"transfer-encoding", b"Host"])
def test_what_has_to_come_first_is_no_trailer(name: bytes) -> None:
    out = output()
    out.start(start(trailers=True))
    out.body(b"hello", more=False)
    with pytest.raises(ProtocolMisuse, match="can't be a trailer"):
        out.trailers([(name, b"5")], more=False)


def test_a_view_of_wide_items_is_as_long_as_its_bytes() -> None:
    wide: Any = memoryview(array("H", [1, 2, 3]))
    data, _ = framed(b"GET", b"1.1", 200, [], [wide])
    assert read(data).body == wide.tobytes()


def test_trailers_may_be_empty() -> None:
    out = output()
    out.start(start(trailers=True))
    data = out.body(b"", more=False) + out.trailers([], more=False)
    assert (read(data + b"rest").rest, read(data).trailers) == (b"rest", [])


@pytest.mark.parametrize(
    ("method", "version", "headers"),
    [(b"HEAD", b"1.1", []), (b"GET", b"1.0", []), (b"GET", b"1.1", [LENGTH])],
)
def test_trailers_are_dropped_where_there_are_no_chunks(
    method: bytes, version: bytes, headers: Fields
) -> None:
    out = output(method, version)
    out.start(start(200, headers, trailers=True))
    data = out.body(b"hello", more=False)
    assert out.trailers([(b"a", b"b")], more=False) == b""
    assert out.complete
    assert read(data, method).body == (b"" if method == b"HEAD" else b"hello")
    assert b"a: b" not in data


# Misuse


def refused(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(ProtocolMisuse) as caught:
        call(*args, **options)
    return str(caught.value)


def started(headers: Fields | None = None, **options: Any) -> Sent:
    out = output()
    out.start(start(200, headers or [], **options))
    return out


def ended(**options: Any) -> Sent:
    out = started(**options)
    out.body(b"", more=False)
    return out


def test_messages_have_an_order() -> None:
    assert "after http.response.start" in refused(output().body, b"", more=False)
    assert "comes once" in refused(started().start, start())
    assert "comes once" in refused(ended().start, start())
    assert "more_body=False" in refused(ended().body, b"", more=False)
    assert "more_body=False" in refused(ended(trailers=True).body, b"", more=True)
    for out in (output(), started(), started(trailers=True), ended()):
        assert "after the whole body" in refused(out.trailers, [], more=False)
    out = ended(trailers=True)
    out.trailers([], more=False)
    assert "after the whole body" in refused(out.trailers, [], more=False)


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 1000, -200, "200", 200.5, None, b"200"])
def test_what_is_no_final_status(status: object) -> None:
    out = output()
    assert "200 to 999" in refused(out.start, start(status))
    assert not out.started


@pytest.mark.parametrize("value", [b"", b" ", b"-1", b"+1", b"1,1", b"a", b"0x1", b"1 ", b"\xb2"])
def test_what_is_no_length(value: bytes) -> None:
    assert "content-length" in refused(output().start, start(200, [(b"Content-Length", value)]))


def test_there_is_one_length() -> None:
    assert "content-length" in refused(output().start, start(200, [LENGTH, LENGTH]))


@pytest.mark.parametrize(
    ("bodies", "text"),
    [
        ([b"hello!"], "1 bytes longer"),
        ([b"hel", b"lo!"], "1 bytes longer"),
        ([b"hello", b"", b"!"], "1 bytes longer"),
        ([b""], "5 bytes shorter"),
        ([b"hell"], "1 bytes shorter"),
        ([b"he", b""], "3 bytes shorter"),
    ],
)
def test_a_declared_length_is_held_to(bodies: list[bytes], text: str) -> None:
    out = started([LENGTH])
    sent = b"".join(out.body(body, more=True) for body in bodies[:-1])
    assert text in refused(out.body, bodies[-1], more=False)
    assert not out.complete
    assert (sent.partition(b"\r\n\r\n")[2]) == b"".join(bodies[:-1])


def test_what_was_refused_was_as_if_it_had_not_come() -> None:
    """An app that catches the error may do it right then."""
    out = output()
    refused(out.start, start(200, [LENGTH, (b"a\r\n", b"b")]))
    out.start(start(200, [LENGTH]))
    refused(out.body, b"hell", more=False)
    refused(out.body, b"hello!", more=True)
    found = out.body(b"he", more=True)
    refused(out.body, b"l", more=False)
    found += out.body(b"llo", more=False)
    assert read(found).body == b"hello"


@pytest.mark.parametrize("body", ["text", None, 5, [b"a"]])
@pytest.mark.parametrize("more", [True, False])
@pytest.mark.parametrize("headers", [[], [LENGTH]])
def test_a_body_that_is_not_bytes_ends_nothing(body: Any, more: bool, headers: Fields) -> None:
    for out in (started(headers), started(headers)):
        with pytest.raises((TypeError, ProtocolMisuse)):
            out.body(body, more=more)
        assert not out.complete
        assert read(out.body(b"hello", more=False)).body == b"hello"


def test_trailers_that_cannot_be_sent_end_nothing() -> None:
    out = ended(trailers=True)
    refused(out.trailers, [(b"a", b"b\r\n")], more=False)
    assert not out.complete
    assert out.trailers([(b"a", b"b")], more=False) == b"a: b\r\n\r\n"
    assert out.complete


# Injection

CONTROL = [*range(0x09), *range(0x0A, 0x20), 0x7F]
TOKEN = (string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode()


@pytest.mark.parametrize("bad", [bytes([byte]) for byte in CONTROL])
@pytest.mark.parametrize("text", [b"%b", b"a%b", b"%ba", b"a%bb: c"])
def test_no_control_character_gets_into_a_value(bad: bytes, text: bytes) -> None:
    value = text % bad
    for headers in ([(b"x", value)], [(b"a", b"b"), (b"x", value), (b"c", b"d")]):
        assert "control characters" in refused(output().start, start(200, headers))
        assert "control characters" in refused(ended(trailers=True).trailers, headers, more=False)


@pytest.mark.parametrize(
    "value", [b"b\r\nevil: yes", b"b\r\n", b"\r\n", b"b\r\n\r\nHTTP/1.1 200 OK", b"b\n", b"b\r\n c"]
)
def test_no_line_gets_in_by_a_value(value: bytes) -> None:
    for name in (b"x", b"date", b"set-cookie"):
        assert "control characters" in refused(output().start, start(200, [(name, value)]))


@pytest.mark.parametrize(
    "name",
    [
        *(
            b"",
            b" ",
            b"a b",
            b" a",
            b"a ",
            b"a:",
            b":",
            b":a",
            b"a\r\nb",
            b"a\r\n",
            b"\r\na",
            b"a\x00",
        ),
        *(
            b"a: b\r\nc",
            b"evil: yes\r\nx",
            b"a\n",
            b"\xe4",
            b"a(",
            b"a/b",
            b'a"',
            b"a,",
            b"{a}",
            b"a\tb",
        ),
        *(b"content-length: 0,", b"transfer-encoding: chunked,", b"connection: close,", b"a: b"),
    ],
)
def test_a_name_is_a_token(name: bytes) -> None:
    for value in (b"", b"x"):
        assert "token" in refused(output().start, start(200, [(name, value)]))
        assert "token" in refused(ended(trailers=True).trailers, [(name, value)], more=False)


def test_each_byte_in_a_name() -> None:
    def accepted(name: bytes) -> bool:
        try:
            output().start(start(200, [(name, b"b")]))
        except ProtocolMisuse:
            return False
        return True

    assert {n for n in range(256) if accepted(bytes([n]))} == set(TOKEN)
    assert {n for n in range(256) if accepted(b"a" + bytes([n]) + b"b")} == set(TOKEN)


@pytest.mark.parametrize(
    "headers", [[("x", b"y")], [(b"x", "y")], [("x", "y")], [(b"x",)], [b"x"], [None], None, 5]
)
def test_what_is_no_pair_of_bytes_is_refused(headers: Any) -> None:
    out = output()
    with pytest.raises((TypeError, ValueError, ProtocolMisuse)):
        out.start(start(200, headers))
    assert not out.started


@pytest.mark.parametrize("name", [b"content-length", b"connection", b"transfer-encoding"])
def test_nothing_gets_in_by_what_the_server_says_itself(name: bytes) -> None:
    for value in (b"5\r\nevil: yes", b"close\r\nevil: yes", b"\x00"):
        out = output()
        try:
            out.start(start(200, [(name, value)]))
        except ProtocolMisuse:
            continue
        data = out.body(b"hello", more=False)
        assert b"evil" not in data
        assert b"\x00" not in data


# Errors of the server's own


def test_an_answer_of_the_servers_own() -> None:
    found = read(error_response(503, "The server is busy", [(b"retry-after", b"1")]))
    assert (found.status, found.reason) == (503, b"Service Unavailable")
    assert found.body == b"The server is busy\n"
    assert (b"retry-after", b"1") in found.fields
    assert (b"connection", b"close") in found.fields


def test_the_reason_of_an_answer_may_be_any_text() -> None:
    assert read(error_response(400, "no ☃ \r\n\x00é")).body == b"no ? \r\n\x00\xe9\n"


# Whatever an app sends

name = st.sampled_from(
    [
        b"a",
        b"X-Y",
        b"content-length",
        b"Connection",
        b"date",
        b"transfer-encoding",
        b"a: b",
        b"",
        b"a\n",
    ]
)
value = st.one_of(
    st.sampled_from([b"5", b"0", b"close", b"x", b"", b"a\r\nb: c", b"\x00", b"chunked", b"\xff"]),
    st.binary(max_size=4),
)
pairs = st.lists(st.tuples(name, value), max_size=3)
messages = st.one_of(
    st.builds(start, st.sampled_from([200, 200, 204, 304, 500, 100, None]), pairs),
    st.builds(lambda pairs: start(200, pairs, trailers=True), pairs),
    st.builds(
        lambda body, more: {"type": "http.response.body", "body": body, "more": more},
        st.binary(max_size=6),
        st.booleans(),
    ),
    st.builds(
        lambda pairs, more: {"type": "http.response.trailers", "headers": pairs, "more": more},
        pairs,
        st.booleans(),
    ),
)
first = st.builds(start, st.sampled_from([200, 200, 204, 304, 404]), pairs)
scripts = st.one_of(
    st.lists(messages, max_size=8),
    st.builds(lambda start, rest: [start, *rest], first, st.lists(messages, max_size=6)),
)


PIECE = {"type": "http.response.body", "body": b"ab", "more": False}


class Script:
    """What came of an app's messages: those that weren't refused, and their bytes."""

    def __init__(self, out: Sent) -> None:
        self.out = out
        self.sent = b""
        self.body = b""
        self.fields: Fields = []  # but for those that are the server's to say
        self.refused = 0

    def play(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            try:
                self.sent += self._send(message)
            except ProtocolMisuse:
                self.refused += 1
            else:
                self.body += message.get("body", b"")
                if message["type"] == "http.response.start":
                    self.fields = _without_framing(message["headers"])

    def _send(self, message: dict[str, Any]) -> bytes:
        if message["type"] == "http.response.start":
            self.out.start(message)
            return b""
        if message["type"] == "http.response.body":
            return self.out.body(message["body"], more=message["more"])
        return self.out.trailers(message["headers"], more=message["more"])


@pytest.mark.slow
@unhurried(max_examples=150)
@given(
    scripts,
    st.sampled_from([b"GET", b"HEAD"]),
    st.sampled_from([b"1.1", b"1.0"]),
    st.booleans(),
)
@example([start()], b"GET", b"1.1", True)
@example([start(), {**PIECE, "more": True}], b"GET", b"1.1", True)
@example([start(), {**PIECE, "more": True}], b"GET", b"1.0", True)
@example([start(), PIECE], b"GET", b"1.1", True)
def test_whatever_an_app_sends_is_http_or_refused(
    messages: list[dict[str, Any]], method: bytes, version: bytes, keep_alive: bool
) -> None:
    script = Script(output(method, version, keep_alive=keep_alive))
    script.play(messages)
    out = script.out
    if not script.sent:
        assert not out.complete
    elif out.complete:
        found = read(script.sent + (b"rest" if out.keep_alive else b""), method)
        assert found.body == (
            b"" if method == b"HEAD" or found.status in (204, 304) else script.body
        )
        assert found.rest == (b"rest" if out.keep_alive else b"")
        assert found.goes_on is out.keep_alive
        assert _without_framing(found.fields) == script.fields
    elif out.keep_alive and method != b"HEAD" and script.sent[9:12] not in (b"204", b"304"):
        # What has broken off can't be taken for whole, but where the head is all there is.
        with pytest.raises(h11.RemoteProtocolError):
            read(script.sent)


def _without_framing(fields: Fields) -> Fields:
    framing = (b"content-length", b"transfer-encoding", b"connection", b"date")
    found = [(name.lower(), value.strip(b" \t")) for name, value in fields]
    return [field for field in found if field[0] not in framing]


def test_a_script_that_goes_well() -> None:
    for version, length, pieces in itertools.product((b"1.0", b"1.1"), (True, False), (1, 2, 3)):
        bodies = [*[{**PIECE, "more": True}] * (pieces - 1), PIECE]
        headers = [(b"content-length", b"%d" % (2 * pieces))] if length else []
        script = Script(output(b"GET", version))
        script.play([start(200, headers), *bodies])
        assert (script.refused, script.out.complete) == (0, True)
        assert read(script.sent).body == b"ab" * pieces
