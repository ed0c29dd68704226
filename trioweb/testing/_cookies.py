"""The cookies that a client keeps and sends.

Rules of this module:

* A jar is a dict of names and values: path, domain and the passing of time don't count, since a
  test looks at one app for a moment.
* What a response deletes is deleted: RFC 6265, section 5.3, says how.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie

from .._http.cookies import parse_cookies
from .._http.headers import Headers

_CODEC = SimpleCookie()


def cookie_field(cookies: Mapping[str, str]) -> dict[str, str]:
    """The `Cookie` field of a request; no field without cookies."""
    pairs = [f"{name}={_CODEC.value_encode(value)[1]}" for name, value in cookies.items()]
    return {"cookie": "; ".join(pairs)} if pairs else {}


def keep_cookies(jar: dict[str, str], headers: Headers) -> None:
    """Change `jar` as the `Set-Cookie` fields of a response say."""
    for field in headers.getlist("set-cookie"):
        pair, *attributes = field.split(";")
        cookies = parse_cookies([pair])
        if _has_expired(attributes):
            for name in cookies:
                jar.pop(name, None)
        else:
            jar.update(cookies)


def _has_expired(attributes: Iterable[str]) -> bool:
    """Max-Age goes before Expires; one that can't be read counts as absent."""
    pairs = (attribute.partition("=") for attribute in attributes)
    values = {name.strip().lower(): value.strip() for name, _, value in pairs}
    with suppress(ValueError):
        if "max-age" in values:
            return int(values["max-age"]) <= 0
        if "expires" in values:
            return parsedate_to_datetime(values["expires"]).timestamp() <= time.time()
    return False
