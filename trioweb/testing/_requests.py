"""From what a test asks for to what the app is sent: a request's scope and its body.

Rules of this module:

* What a client over HTTP couldn't send is refused here, before the app is called.
* Nothing is added that the test didn't ask for, but `host` and the fields that describe the body.
* An option of another client is answered with what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple, TypedDict
from urllib.parse import quote, unquote, urlencode, urlsplit

from .._asgi import Scope
from .._fields import checked_value
from .._shapes.encoding import encode_json
from ._cookies import cookie_field

Content = bytes | AsyncIterable[bytes]
Fields = Mapping[str, str] | Sequence[tuple[str, str]]
Params = Mapping[str, object] | Sequence[tuple[str, object]]

_ASGI_VERSIONS = {"version": "3.0", "spec_version": "2.1"}

_ABSOLUTE_URL = re.compile(r"(https?)://([^/?#]+)(.*)", re.DOTALL)
_PORTS = {"http": 80, "https": 443}
# "%" is safe: what is percent-encoded already stays as it is.
_PATH_SAFE = "/:@!$&'()*+,;=~%"
_QUERY_SAFE = _PATH_SAFE + "?"
# The methods whose body is declared even where it is empty (RFC 9110, section 8.6).
_HAS_BODY = ("POST", "PUT", "PATCH")


class RequestOptions(TypedDict, total=False):
    """What a request can have beside its method and URL.

    `params`: fields of the query, added to those in the URL; a list repeats its
    field, None leaves it out.  `headers`: over the client's own.  `cookies`: for
    this request, over those that the client keeps.  `json`: anything that a
    handler can return.  `content`: the body as bytes, as str (sent as UTF-8), or
    as an async iterable of pieces: each is asked for when the app has taken the
    one before, and the iterable is closed with the request.  `disconnect_after`:
    the client leaves after so many bytes of the response's body.
    """

    params: Params
    headers: Fields
    cookies: Mapping[str, str]
    json: object
    content: str | bytes | AsyncIterable[bytes]
    disconnect_after: int


# What to write instead of the options that other clients have.
_INSTEAD = {
    "data": "content=, as in content=urlencode({...}) with its content-type, or json=",
    "body": "content=, or json=",
    "files": "content=, with the multipart body that a form would send",
    "auth": 'headers={"authorization": "..."}',
    "follow_redirects": 'await c.get(response.headers["location"])',
    "allow_redirects": 'await c.get(response.headers["location"])',
    "timeout": "with trio.fail_after(5): await c.get(...)",
}


class PreparedRequest(NamedTuple):
    """A request as the app is to get it."""

    scope: Scope
    content: Content


class RequestBuilder:
    """Builds the requests of one client: `headers` are sent with each of them."""

    def __init__(self, base_url: str, headers: Fields) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = headers

    def build(
        self, method: str, url: str, options: RequestOptions, jar: Mapping[str, str]
    ) -> PreparedRequest:
        """Raises ValueError for what can't be sent, TypeError for an option that there isn't."""
        _check_options(method, options)
        content, described = _content(method, options)
        target = _target(self._base_url, url, options.get("params", ()))
        cookies = {**jar, **options.get("cookies", {})}
        scope = _scope(method, target)
        scope["headers"] = _raw_fields(
            {"host": target.netloc, **cookie_field(cookies), **described},
            self._headers,
            options.get("headers", ()),
        )
        return PreparedRequest(scope, content)


class _Target(NamedTuple):
    """A URL's parts; path and query are percent-encoded."""

    scheme: str
    netloc: str
    path: bytes
    query: bytes


def _check_options(method: str, options: RequestOptions) -> None:
    known = RequestOptions.__annotations__
    for option in options.keys() - known.keys():
        close = [f"{match}=" for match in get_close_matches(option, known, 1)]
        right = _INSTEAD.get(option) or " ".join(close) or f"some of {', '.join(known)}"
        raise TypeError(
            f"a request has no option {option!r}\n"
            f"    wrong:  await c.{method.lower()}(..., {option}=...)\n    right:  {right}"
        )


def _content(method: str, options: RequestOptions) -> tuple[Content, dict[str, str]]:
    """The body, and the header fields that describe it."""
    if "json" in options:
        if "content" in options:
            raise ValueError("a request has one body: json= or content=, not both")
        body = encode_json(options["json"])
        return body, {"content-type": "application/json", "content-length": str(len(body))}
    content = options.get("content", b"")
    if isinstance(content, str):
        content = content.encode()
    if not isinstance(content, bytes):
        return content, {"transfer-encoding": "chunked"}
    if content or method in _HAS_BODY:
        return content, {"content-length": str(len(content))}
    return content, {}


def _target(base_url: str, url: str, params: Params) -> _Target:
    match = _ABSOLUTE_URL.fullmatch(base_url + url if url.startswith("/") else url)
    if match is None:
        raise ValueError(
            f"{url!r} is neither a path nor an absolute URL\n"
            f"    wrong:  await c.get({url!r})\n    right:  await c.get('/{url}')"
        )
    scheme, netloc, rest = match.groups()
    path, _, query = rest.partition("#")[0].partition("?")
    raw_path = quote(path or "/", safe=_PATH_SAFE)
    queries = [quote(query, safe=_QUERY_SAFE), urlencode(_query_pairs(params))]
    return _Target(scheme, netloc, raw_path.encode(), "&".join(filter(None, queries)).encode())


def _query_pairs(params: Params) -> list[tuple[str, str]]:
    items = params.items() if isinstance(params, Mapping) else params
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, values in items
        for value in (values if isinstance(values, (list, tuple)) else [values])
        if value is not None
    ]


def _scope(method: str, target: _Target) -> Scope:
    server = urlsplit(f"//{target.netloc}")
    return {
        "type": "http",
        "asgi": _ASGI_VERSIONS,
        "http_version": "1.1",
        "method": method,
        "scheme": target.scheme,
        "path": unquote(target.path.decode()),
        "raw_path": target.path,
        "query_string": target.query,
        "root_path": "",
        "client": ("127.0.0.1", 50000),
        "server": (server.hostname, server.port or _PORTS[target.scheme]),
    }


def _raw_fields(ours: Mapping[str, str], *theirs: Fields) -> list[tuple[bytes, bytes]]:
    """Header fields for ASGI; those that come later replace earlier ones of the same name."""
    fields: list[tuple[bytes, bytes]] = []
    for more in (ours, *theirs):
        items = more.items() if isinstance(more, Mapping) else more
        added = [(name.lower().encode("ascii"), checked_value(name, text)) for name, text in items]
        names = {name for name, _ in added}
        if b"content-length" in names:
            names.add(b"transfer-encoding")  # a length that is declared is believed
        fields = [field for field in fields if field[0] not in names] + added
    return fields
