"""Header fields: how a request's are read, and what a response's refuse."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from trioweb._http.headers import Headers, ResponseHeaders

RAW = [(b"accept", b"text/html"), (b"x-tag", b"a"), (b"accept", b"*/*"), (b"x-name", b"Andr\xe9")]

# Each would let whoever writes the text begin a new line, or a new message.
CONTROLS = ["\r", "\n", "\r\n", "\0", "\x01", "\x0b", "\x0c", "\x1f", "\x7f"]


# A request's


def test_names_are_found_in_any_case_and_the_last_of_a_repeated_one_counts() -> None:
    headers = Headers(RAW)
    assert headers["Accept"] == headers["ACCEPT"] == "*/*"
    assert headers.getlist("aCCept") == ["text/html", "*/*"]
    assert headers["x-name"] == "André"


def test_a_missing_name_is_missing_as_in_any_mapping() -> None:
    headers = Headers(RAW)
    assert headers.get("cookie") is None
    assert headers.getlist("cookie") == []
    assert "cookie" not in headers
    with pytest.raises(KeyError, match="Cookie"):
        headers["Cookie"]


def test_a_name_beyond_latin_1_matches_nothing() -> None:
    headers = Headers(RAW)
    assert "日本" not in headers
    assert headers.getlist("x-name\u2028") == []


def test_headers_are_a_mapping_of_each_name_once() -> None:
    headers = Headers(RAW)
    assert list(headers) == ["accept", "x-tag", "x-name"]
    assert len(headers) == 3
    assert "X-Tag" in headers
    assert dict(headers) == {"accept": "*/*", "x-tag": "a", "x-name": "André"}
    assert repr(headers) == f"Headers({dict(headers)})"


def test_headers_keep_what_they_were_made_of() -> None:
    raw = list(RAW)
    headers = Headers(raw)
    raw.clear()
    assert headers["x-tag"] == "a"


# A response's


def test_setting_replaces_all_of_a_name_and_append_adds() -> None:
    headers = ResponseHeaders({"X-One": "1", "X-Two": "2"})
    headers.append("x-one", "3")
    assert headers.getlist("X-One") == ["1", "3"]
    headers["X-ONE"] = "4"
    assert headers.raw == [(b"x-two", b"2"), (b"x-one", b"4")]


def test_deleting_removes_all_of_a_name() -> None:
    headers = ResponseHeaders({"X-One": "1", "X-Two": "2"})
    headers.append("x-one", "3")
    del headers["X-One"]
    assert headers.raw == [(b"x-two", b"2")]
    with pytest.raises(KeyError, match="X-One"):
        del headers["X-One"]


def test_the_fields_of_another_response_are_copied_with_repeated_ones() -> None:
    first = ResponseHeaders({"set-cookie": "a=1"})
    first.append("set-cookie", "b=2")
    second = ResponseHeaders(first)
    del first["set-cookie"]
    assert second.getlist("set-cookie") == ["a=1", "b=2"]


def test_white_space_around_a_value_is_none_of_it() -> None:
    assert ResponseHeaders({"x": "\t a b \t"}).raw == [(b"x", b"a b")]


@pytest.mark.parametrize(
    "name", ["", "a b", "a:", "é", "\u212a", "x\n", *CONTROLS, "(x)", "x\r\ny: z"]
)
def test_a_name_that_is_not_a_token_is_refused(name: str) -> None:
    headers = ResponseHeaders()
    with pytest.raises(ValueError, match="isn't a header name"):
        headers[name] = "value"
    with pytest.raises(ValueError, match="isn't a header name"):
        headers.append(name, "value")
    with pytest.raises(ValueError, match="isn't a header name"):
        ResponseHeaders({name: "value"})
    assert headers.raw == []


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("around", ["{}", "a{}b", "{}a", "a{}"])
def test_control_characters_in_a_value_are_refused(control: str, around: str) -> None:
    headers = ResponseHeaders()
    value = around.format(control)
    with pytest.raises(ValueError, match="header 'x': control characters"):
        headers["x"] = value
    with pytest.raises(ValueError, match="header 'x': control characters"):
        headers.append("x", value)
    assert headers.raw == []


def test_a_value_beyond_latin_1_is_refused_and_latin_1_is_sent() -> None:
    headers = ResponseHeaders({"x": "é"})
    assert headers.raw == [(b"x", b"\xe9")]
    with pytest.raises(ValueError, match="beyond latin-1"):
        headers["x"] = "日"
    assert headers.raw == [(b"x", b"\xe9")]


def test_a_whole_number_is_its_digits() -> None:
    headers = ResponseHeaders({"retry-after": 5, "age": HTTPStatus.OK})
    headers["content-length"] = 0
    headers.append("x", -1)
    assert headers.raw == [
        (b"retry-after", b"5"),
        (b"age", b"200"),
        (b"content-length", b"0"),
        (b"x", b"-1"),
    ]


@pytest.mark.parametrize("name", [1, b"x", None])
def test_a_name_is_text(name: Any) -> None:
    with pytest.raises(TypeError, match="the name of a header must be a str, not "):
        ResponseHeaders({name: "1"})


@pytest.mark.parametrize("value", [1.5, True, b"1", None, ["1"]])
def test_a_value_is_text(value: Any) -> None:
    with pytest.raises(TypeError, match="header 'x': its value must be a str"):
        ResponseHeaders({"x": value})


@pytest.mark.parametrize("name", ["transfer-encoding", "Transfer-Encoding"])
def test_the_transfer_encoding_is_the_servers(name: str) -> None:
    with pytest.raises(ValueError, match="belongs to the server"):
        ResponseHeaders({name: "chunked"})
    with pytest.raises(ValueError, match="belongs to the server"):
        ResponseHeaders().append(name, "chunked")


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.0", "1,1", "0x1", "1 1", "²", "one"])
def test_a_content_length_that_is_not_a_number_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="isn't a number"):
        ResponseHeaders({"Content-Length": value})


def test_a_second_content_length_is_refused() -> None:
    headers = ResponseHeaders({"content-length": "1"})
    with pytest.raises(ValueError, match="one length"):
        headers.append("Content-Length", "2")
    headers["Content-Length"] = "2"
    assert headers.raw == [(b"content-length", b"2")]


def test_what_raw_gives_is_a_copy_that_nobody_sends() -> None:
    headers = ResponseHeaders({"a": "b"})
    headers.raw.append((b"x", b"a\r\nset-cookie: a=1"))
    assert headers.raw == [(b"a", b"b")]
