"""Cookies: how a request's are read, and what a response's refuse."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from trioweb._http.cookies import format_cookie, parse_cookies

# Each would let whoever writes the text begin a new line, or a new message.
CONTROLS = ["\r", "\n", "\r\n", "\0", "\x01", "\x0b", "\x0c", "\x1f", "\x7f"]


def cookie(value: str | int = "1", **attributes: Any) -> str:
    absent = dict.fromkeys(("max_age", "expires", "path", "domain", "samesite"))
    flags = dict.fromkeys(("secure", "httponly", "partitioned"), False)
    return format_cookie("id", value, **{**absent, **flags, **attributes})


# A request's


@pytest.mark.parametrize(
    ("fields", "cookies"),
    [
        ([], {}),
        (["a=1"], {"a": "1"}),
        (["a=1; b=2;c=3"], {"a": "1", "b": "2", "c": "3"}),
        (["a=1", "b=2"], {"a": "1", "b": "2"}),
        (["a=1; a=2"], {"a": "2"}),
        (["a=1=2"], {"a": "1=2"}),
        (["a="], {"a": ""}),
        (["nothing; =1; ; a=1"], {"a": "1"}),
        (['a="b c"; d="\\"e\\"\\054"'], {"a": "b c", "d": '"e",'}),
        (['a="'], {"a": '"'}),
        # Names that browsers send though no server may set them.
        (["a b=1; c[d]=2"], {"a b": "1", "c[d]": "2"}),
    ],
)
def test_cookies_are_read_as_browsers_write_them(
    fields: list[str], cookies: dict[str, str]
) -> None:
    assert parse_cookies(fields) == cookies


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (r'"a\"b\\c"', 'a"b\\c'),
        (r'"a\054b\303\251"', "a,bÃ©"),
        (r'"\400\08"', "40008"),
        (r"a\054b", r"a\054b"),
        ('"a', '"a'),
        ('"', '"'),
        ('""', ""),
        ('"\\"', "\\"),
    ],
)
def test_a_quoted_cookie_is_read_without_its_escapes(sent: str, value: str) -> None:
    assert parse_cookies([f"a={sent}"]) == {"a": value}


def test_a_long_quoted_cookie_is_read_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    # SimpleCookie searches the rest again for each escape: 60 kB take 11 s.
    monkeypatch.setattr("http.cookies._unquote", None)
    assert parse_cookies(['a="' + r"\"" * 30_000 + '"']) == {"a": '"' * 30_000}


# A response's


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({}, "id=1"),
        ({"max_age": 60}, "id=1; Max-Age=60"),
        ({"max_age": 0}, "id=1; Max-Age=0"),
        ({"path": "/a", "domain": "example.com"}, "id=1; Path=/a; Domain=example.com"),
        ({"secure": True, "httponly": True}, "id=1; Secure; HttpOnly"),
        ({"samesite": "strict"}, "id=1; SameSite=strict"),
        ({"partitioned": True, "secure": True}, "id=1; Secure; Partitioned"),
        ({"expires": "whenever"}, "id=1; Expires=whenever"),
        ({"expires": datetime(2031, 2, 3, 4, 5, 6)}, "id=1; Expires=Mon, 03 Feb 2031 04:05:06 GMT"),
        (
            {"expires": datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)},
            "id=1; Expires=Mon, 03 Feb 2031 04:05:06 GMT",
        ),
        (
            {"expires": datetime(2031, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=5)))},
            "id=1; Expires=Sun, 02 Feb 2031 23:05:06 GMT",
        ),
    ],
)
def test_each_attribute_of_a_cookie_is_written(attributes: dict[str, Any], text: str) -> None:
    assert cookie(**attributes) == text


@pytest.mark.parametrize("value", ["", "a b", 'say "hi"', "a;b,c", "a\\b", "é", "tab\there"])
def test_what_is_written_is_read_back(value: str) -> None:
    text = cookie(value)
    assert text.partition("=")[2].isascii()
    assert parse_cookies([text]) == {"id": value}
    assert ";" not in text


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "é", "a\r\nb"])
def test_a_cookies_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="isn't a name for a cookie"):
        format_cookie(
            name,
            "1",
            max_age=None,
            expires=None,
            path=None,
            domain=None,
            secure=False,
            httponly=False,
            samesite=None,
            partitioned=False,
        )


@pytest.mark.parametrize("control", CONTROLS)
def test_control_characters_in_a_cookie_are_refused(control: str) -> None:
    with pytest.raises(ValueError, match="cookie 'id': control characters"):
        cookie(f"a{control}b")
    for slot in ("path", "domain", "expires"):
        with pytest.raises(ValueError, match=f"cookie attribute {slot.title()}"):
            cookie(**{slot: f"a{control}b"})


@pytest.mark.parametrize("slot", ["path", "domain", "expires"])
def test_a_cookies_attribute_brings_no_other_along(slot: str) -> None:
    with pytest.raises(ValueError, match=f"cookie attribute {slot.title()}"):
        cookie(**{slot: "a; Domain=evil.com"})


@pytest.mark.parametrize("samesite", ["", "Laxer", "other", "lax\r\nx: y"])
def test_samesite_is_one_of_three(samesite: str) -> None:
    with pytest.raises(ValueError, match="samesite is"):
        cookie(samesite=samesite)


def test_a_cookie_that_expires_in_so_many_seconds() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    moment = parsedate_to_datetime(cookie(expires=30).partition("Expires=")[2])
    assert before <= moment - timedelta(seconds=30) <= datetime.now(UTC)
    assert "Expires=Thu, 01 Jan 1970" not in cookie(expires=0)


def test_a_cookies_value_may_be_a_whole_number() -> None:
    assert cookie(3) == "id=3"


@pytest.mark.parametrize("value", [1.5, True, None, b"a"])
def test_a_cookies_value_is_a_str(value: Any) -> None:
    with pytest.raises(TypeError, match=f"^cookie 'id': its value must be a str, not {value!r}$"):
        cookie(value)


def test_a_naive_moment_is_utc_wherever_the_server_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert "01 Jan 2030 12:00:00 GMT" in cookie(expires=datetime(2030, 1, 1, 12))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_samesite_in_any_case() -> None:
    assert cookie(samesite="Lax").endswith("SameSite=Lax")
