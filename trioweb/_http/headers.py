"""Header fields: read from a request, checked on their way into a response.

Rules of this module:

* Names are compared without case and kept in lower case, as ASGI wants them.
* What goes out is checked where it is set, so that the traceback shows the line
  that set it, and nothing has been sent yet: names are tokens (RFC 9110, 5.6.2),
  values are latin-1 without control characters other than tab (RFC 9110, 5.5).
* A server owns its connection: `transfer-encoding` is not ours to send.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping

from .._asgi import RawFields

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# RFC 9110, Fetch, and what proxies add.
_SENT_WITH_ANY = frozenset(
    """accept accept-charset accept-encoding accept-language access-control-request-headers
    access-control-request-method authorization baggage cache-control connection content-encoding
    content-language content-length content-type cookie date dnt early-data expect forwarded from
    host http2-settings if-match if-modified-since if-none-match if-range if-unmodified-since
    keep-alive max-forwards origin pragma prefer priority proxy-authorization proxy-connection
    range referer save-data te traceparent tracestate trailer transfer-encoding upgrade
    upgrade-insecure-requests user-agent via x-forwarded-for x-forwarded-host x-forwarded-port
    x-forwarded-prefix x-forwarded-proto x-forwarded-server x-real-ip x-request-id
    x-requested-with""".split()  # noqa: SIM905
)


class Headers(Mapping[str, str]):
    """A request's header fields; names in any case, the last of a repeated one.

    `getlist` gives all of them.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = list(raw)

    def __getitem__(self, name: str) -> str:
        key = _key(name)
        for field, value in reversed(self._raw):
            if field == key:
                return value.decode("latin-1")
        raise KeyError(name)

    def getlist(self, name: str) -> list[str]:
        """All values of one field, in the order they came."""
        key = _key(name)
        return [value.decode("latin-1") for field, value in self._raw if field == key]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(field.decode("latin-1") for field, _ in self._raw))

    def __len__(self) -> int:
        return len({field for field, _ in self._raw})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)})"


class ResponseHeaders(Headers, MutableMapping[str, str]):
    """A response's header fields.  Setting one replaces all of that name; `append` adds.

    Raises ValueError for a name that isn't a token, for CR, LF, NUL and other
    control characters, for what latin-1 can't hold, and for a `content-length`
    that isn't a number or is a second one.
    """

    __slots__ = ()

    def __init__(self, items: Mapping[str, str] | None = None) -> None:
        # Of a repeated field, such as set-cookie, a mapping shows only the last.
        super().__init__(items.raw if isinstance(items, ResponseHeaders) else ())
        if not self._raw:
            self.update(items or {})

    @property
    def raw(self) -> RawFields:
        """A copy: what is set goes through the checks."""
        return list(self._raw)

    def append(self, name: str, value: str) -> None:
        field = _checked_field(name, value)
        if field[0] == b"content-length" and name in self:
            raise ValueError("a second content-length: a response has one length")
        self._raw.append(field)

    def __setitem__(self, name: str, value: str) -> None:
        field = _checked_field(name, value)
        self._raw = [other for other in self._raw if other[0] != field[0]]
        self._raw.append(field)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        key = _key(name)
        self._raw = [other for other in self._raw if other[0] != key]


def checked_value(name: str, value: str) -> bytes:
    """A field's value as bytes, without white space at its ends; ValueError if it can't be sent."""
    if not isinstance(value, str):
        raise TypeError(f"header {name!r}: its value must be a str, not {value!r}")
    refuse_control_characters(f"header {name!r}", value)
    try:
        return value.strip(" \t").encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"header {name!r}: {value!r} has characters beyond latin-1") from None


def is_token(text: str) -> bool:
    """RFC 9110, 5.6.2: what names of fields and of methods are made of."""
    return _TOKEN.fullmatch(text) is not None


def is_sent_with_any(name: str) -> bool:
    """Whether clients, browsers and proxies send a field with any request, whatever it is for."""
    return name in _SENT_WITH_ANY or name.startswith("sec-")


def refuse_control_characters(slot: str, text: str) -> None:
    """Raises ValueError for CR, LF, NUL and the like, all but tab."""
    if _CONTROL.search(text):
        raise ValueError(f"{slot}: control characters (CR, LF, NUL, …) in {text!r}")


def _checked_field(name: str, value: str) -> tuple[bytes, bytes]:
    field = (_checked_name(name), checked_value(name, value))
    if field[0] == b"content-length" and not field[1].isdigit():
        raise ValueError(f"header {name!r}: {value!r} isn't a number of bytes")
    return field


def _checked_name(name: str) -> bytes:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} isn't a header name: letters, digits and !#$%&'*+-.^_`|~")
    key = name.lower().encode("ascii")
    if key == b"transfer-encoding":
        raise ValueError("transfer-encoding belongs to the server; leave it out")
    return key


def _key(name: str) -> bytes:
    # "replace" can't make a foreign name match: tokens have no '?'.
    return name.lower().encode("latin-1", "replace")
