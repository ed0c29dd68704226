"""Where a request went: its URL, the fields of its query, and its name for people.

Rules of this module:

* The path is the one that was routed, never one read out of the Host field.
* What can't be decoded is a 400.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

import msgspec

from .. import _limits
from .._asgi import Scope
from .._errors import HTTPException
from .._instead import tells_instead
from .paths import as_sent, origin_form, routed_path

# RFC 3986, 3.2.2: a name, an IPv4 address or an IPv6 address in brackets, and a port.
_HOST = re.compile(r"(?:[\w.~%!$&'()*+,;=-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{0,5})?", re.ASCII)
_PORT = re.compile(r":([0-9]*)\Z")
_METHOD_SAFE = "!#$&'*+^`|~"


class Address(NamedTuple):
    host: str
    port: int | None


@tells_instead()
@dataclass(frozen=True, slots=True)
class URL:
    """Where a request went.

    `path` is the decoded path that was routed; `raw_path` and `query` are as they
    were sent, percent-encoded.
    """

    scheme: str
    netloc: str
    path: str
    raw_path: str
    query: str

    @property
    def hostname(self) -> str:
        """In lower case, an IPv6 address without its brackets."""
        return _PORT.sub("", self.netloc).strip("[]").lower()

    @property
    def port(self) -> int | None:
        port = _PORT.search(self.netloc)
        return int(port[1]) if port and port[1] else None

    def __str__(self) -> str:
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.netloc}{self.raw_path}{query}"


def url_of(scope: Scope, hosts: Sequence[str]) -> URL:
    """The URL of a request with these Host fields."""
    sent = (scope["path"], scope.get("raw_path"))
    path = routed_path(*origin_form(*sent))
    query = scope.get("query_string", b"").decode("latin-1")
    return URL(scope.get("scheme", "http"), _netloc(scope, hosts), path, as_sent(*sent), query)


def _netloc(scope: Scope, hosts: Sequence[str]) -> str:
    """The Host field where it is one host, else the address that the server listens on."""
    if len(hosts) == 1 and _HOST.fullmatch(hosts[0]):
        return hosts[0]
    host, port = scope.get("server") or ("localhost", None)
    if port is None:
        return "localhost"  # nothing is known, or only a Unix socket's path
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@tells_instead()
class QueryParams(Mapping[str, str]):
    """The fields of a query string; the last of a repeated one, `getlist` gives all."""

    __slots__ = ("_values",)

    def __init__(self, query_string: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in _parse_query(query_string):
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        return self._values[name][-1]

    def getlist(self, name: str) -> list[str]:
        """All values of one field, in the order they came."""
        return list(self._values.get(name, ()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values})"


def _parse_query(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_limits.MAX_QUERY_FIELDS,
        )
    except UnicodeError:
        raise HTTPException(400, "The query string is not UTF-8, percent-encoded") from None
    except ValueError:
        raise HTTPException(
            400, f"The query string has more than {_limits.MAX_QUERY_FIELDS} fields"
        ) from None


class RequestLabel(msgspec.Struct, frozen=True, eq=False, gc=False):
    """`POST /items/3`: a request for people, put into words only when somebody asks (20 µs).

    `str` of it is one line, whatever the client sent; it keeps nothing else of the request.
    Each request has one of its own, which equals no other's.
    """

    method: str
    path: str
    raw_path: bytes | None

    def __str__(self) -> str:
        return f"{quote(self.method, safe=_METHOD_SAFE)} {as_sent(self.path, self.raw_path)}"
