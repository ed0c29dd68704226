"""Cookies: read from a request's fields, written into a response's, one `Set-Cookie` each.

Rules of this module:

* Reading refuses nothing: what isn't a cookie is passed over, as browsers write what they like.
* Writing refuses what would break out of its place: a name, value or attribute can't begin another
  attribute, another cookie or another field.
* To read takes time in proportion to the length of what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.cookies import SimpleCookie
from typing import Literal

from .._fields import as_text, is_token, refuse_control_characters

_SEPARATOR = re.compile(r"[;\x00-\x1f\x7f]")
_ESCAPED = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")
_QUOTING = SimpleCookie()


def parse_cookies(fields: Iterable[str]) -> dict[str, str]:
    """The cookies of `Cookie` fields, read as browsers write them; the last of a name counts."""
    pairs = (pair.partition("=") for field in fields for pair in field.split(";"))
    return {
        name.strip(): _unquoted(value.strip())
        for name, equals, value in pairs
        if equals and name.strip()
    }


def _unquoted(value: str) -> str:
    """A quoted value without its quotes and escapes.

    In one pass: `SimpleCookie.value_decode` takes time by the square of its length
    before Python 3.12.6 (CVE-2024-7592).
    """
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _ESCAPED.sub(lambda m: chr(int(m[1], 8)) if m[1] else m[2], value[1:-1])


def format_cookie(
    name: str,
    value: str | int,
    *,
    max_age: int | None,
    expires: datetime | str | int | None,
    path: str | None,
    domain: str | None,
    secure: bool,
    httponly: bool,
    samesite: Literal["lax", "strict", "none"] | None,
    partitioned: bool,
) -> str:
    """One `Set-Cookie` value (RFC 6265, 4.1.1).  ValueError for what would break out of it."""
    _check_name(name)
    text = as_text(f"cookie {name!r}", value)
    refuse_control_characters(f"cookie {name!r}", text)
    if samesite is not None and samesite.lower() not in ("lax", "strict", "none"):
        raise ValueError(f"cookie {name!r}: samesite is 'lax', 'strict', 'none' or None")
    attributes = {
        "Max-Age": None if max_age is None else str(int(max_age)),
        "Expires": expires if expires is None or isinstance(expires, str) else _http_date(expires),
        "Path": path,
        "Domain": domain,
        "SameSite": samesite,
    }
    flags = {"Secure": secure, "HttpOnly": httponly, "Partitioned": partitioned}
    parts = [f"{name}={_QUOTING.value_encode(text)[1]}"]
    parts += [f"{key}={_checked_attribute(key, text)}" for key, text in attributes.items() if text]
    parts += [key for key, is_set in flags.items() if is_set]
    return "; ".join(parts)


def _check_name(name: str) -> None:
    if not is_token(name):
        raise ValueError(f"{name!r} isn't a name for a cookie: letters, digits and !#$%&'*+-.^_`|~")


def _checked_attribute(key: str, text: str) -> str:
    if _SEPARATOR.search(text):
        raise ValueError(f"cookie attribute {key}: ';' or control characters in {text!r}")
    return text


def _http_date(moment: datetime | int) -> str:
    """RFC 9110, 5.6.7; a datetime without a zone is taken as UTC, a number as seconds from now."""
    if not isinstance(moment, datetime):
        moment = datetime.now(UTC) + timedelta(seconds=moment)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return format_datetime(moment.astimezone(UTC), usegmt=True)
