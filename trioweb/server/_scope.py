"""ASGI's connection scope, from a head and where it came from.

Rules of this module:

* The path is the target's, percent-decoded once; what a client wrote is passed on as it
  is, never interpreted.
* A target that is a whole URL speaks for itself: its authority takes the place of the
  Host field (RFC 9112, 3.2.2).
* Client and scheme are those of the connection, unless its peer is trusted and says otherwise
  (`_forwarded`).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

from .._asgi import DISCARDS_UNREAD_BODY, RawFields, Scope
from ._forwarded import Address, TrustedPeers
from ._strict import RequestHead, absolute_target
from ._tls_extension import TLSExtension


class ScopeMaker:
    """Makes the scopes of one connection's requests."""

    __slots__ = (
        *("_base", "_fields", "_known", "_root", "_root_raw", "_state", "_tls", "_trusted"),
        "client_name",
    )

    def __init__(
        self,
        *,
        scheme: str,
        client: Address | None,
        server: Address | None,
        tls: TLSExtension | None = None,
        root_path: str,
        state: dict[str, Any],
        trusted: TrustedPeers | None,
    ) -> None:
        self._base: dict[str, Any] = {
            "type": "http",
            "asgi": None,
            "http_version": "",
            "server": server,
            "client": client,
            "scheme": scheme,
            "method": "",
            "root_path": root_path,
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "headers": None,
            "extensions": None,
        }
        self._known = self._base
        self.client_name = name_of(client)  # of the last request, for people
        self._fields: RawFields | None = None
        self._root = root_path
        self._root_raw = quote(root_path).encode()
        self._state = state
        self._tls = tls
        # None for a peer whose word doesn't count.
        peer = client[0] if client else ""
        self._trusted = trusted if trusted is not None and trusted.trusts(peer) else None

    def make(self, head: RequestHead) -> Scope:
        method, target, version, fields, _ = head
        if not target.startswith(b"/"):
            target, fields = _origin_form(target, fields)
        if fields is not self._fields:
            self._learn(version, fields)
        if b"#" in target:
            target = target.partition(b"#")[0]
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("ascii")
        if "%" in path:
            path = unquote(path)
        if self._root:
            path, raw_path = self._root + path, self._root_raw + raw_path
        # A copy that has all its keys is made at once; what apps may change is made anew.
        scope = self._known.copy()
        scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}
        scope["method"] = method.decode("ascii")
        scope["path"] = path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        scope["headers"] = fields.copy()
        scope["extensions"] = {"http.response.trailers": {}, DISCARDS_UNREAD_BODY: {}}
        if self._tls is not None:
            scope["extensions"]["tls"] = self._tls.copy()
        scope["state"] = self._state.copy()  # an empty one, too: whoever copies the scope shares it
        return scope

    def _learn(self, version: bytes, fields: RawFields) -> None:
        """What the fields say of the scope; a connection's requests mostly share them."""
        self._fields = fields
        self._known = self._base.copy()
        self._known["http_version"] = "1.1" if version == b"1.1" else "1.0"
        if self._trusted is not None:
            self._heed_peer(self._trusted, fields)

    def _heed_peer(self, trusted: TrustedPeers, fields: RawFields) -> None:
        client, scheme = trusted.origin(fields)
        if scheme is not None:
            self._known["scheme"] = scheme
        if client is not None:
            self._known["client"] = client
        self.client_name = name_of(self._known["client"])


def name_of(client: Address | None) -> str:
    """A client, for people; `-` for one at a Unix socket."""
    if client is None:
        return "-"
    host, port = client
    if not port:  # a proxy didn't tell it
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _origin_form(target: bytes, fields: RawFields) -> tuple[bytes, RawFields]:
    """A target that is a whole URL without its authority, which becomes the Host field."""
    url = absolute_target(target)
    if url is None:
        return target, fields  # "*", or CONNECT's
    authority, rest = url
    others = [field for field in fields if field[0] != b"host"]
    path = rest if rest.startswith(b"/") else b"/" + rest
    return path, [(b"host", authority), *others]
