"""Header fields: read from a request, checked on their way into a response.

Rules of this module:

* Names are compared without case and kept in lower case, as ASGI wants them.
* What goes out is checked where it is set: see `_fields`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping

from .._asgi import RawFields
from .._fields import checked_field

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
    that isn't a number or is a second one; TypeError for what is neither text nor
    a whole number.
    """

    __slots__ = ()

    def __init__(self, items: Mapping[str, str | int] | None = None) -> None:
        # Of a repeated field, such as set-cookie, a mapping shows only the last.
        super().__init__(items.raw if isinstance(items, ResponseHeaders) else ())
        if not self._raw:
            for name, value in dict(items or {}).items():
                self[name] = value

    @property
    def raw(self) -> RawFields:
        """A copy: what is set goes through the checks."""
        return list(self._raw)

    def append(self, name: str, value: str | int) -> None:
        field = checked_field(name, value)
        if field[0] == b"content-length" and name in self:
            raise ValueError("a second content-length: a response has one length")
        self._raw.append(field)

    def __setitem__(self, name: str, value: str | int) -> None:
        field = checked_field(name, value)
        self._raw = [other for other in self._raw if other[0] != field[0]]
        self._raw.append(field)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        key = _key(name)
        self._raw = [other for other in self._raw if other[0] != key]


def is_sent_with_any(name: str) -> bool:
    """Whether clients, browsers and proxies send a field with any request, whatever it is for."""
    return name in _SENT_WITH_ANY or name.startswith("sec-")


def _key(name: str) -> bytes:
    # "replace" can't make a foreign name match: tokens have no '?'.
    return name.lower().encode("latin-1", "replace")
