"""ASGI's connection scope, from a head and where it came from.

Rules of this module:

* The path is the target's, percent-decoded once; what a client wrote is passed on as it
  is, never interpreted.
* A target that is a whole URL speaks for itself: its authority takes the place of the
  Host field (RFC 9112, 3.2.2).
* Forwarded headers count only from peers that are trusted, and of those only what the
  nearest untrusted hop was told (X-Forwarded-For, read from the right).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote

from .._asgi import DISCARDS_UNREAD_BODY, RawFields, Scope
from ._strict import RequestHead, absolute_target
from ._tls import TLSExtension

Address = tuple[str, int | None]


class TrustedPeers:
    """Who may say for whom a request was forwarded: addresses, networks, or `*` for all.

    Raises ValueError for what is neither.
    """

    def __init__(self, peers: Iterable[str]) -> None:
        peers = list(peers)
        self._everyone = "*" in peers
        self._networks = [ipaddress.ip_network(peer) for peer in peers if peer != "*"]

    def trusts(self, host: str) -> bool:
        if self._everyone:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            # A Unix socket's: whoever may open it is as near as a proxy on this machine.
            return host == "" and bool(self._networks)
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def client(self, forwarded: list[str]) -> str | None:
        """The last of the hops that nobody trusted has written; the first if all are trusted."""
        for hop in reversed(forwarded):
            if not self.trusts(hop):
                return hop
        return forwarded[0] if forwarded else None


class ScopeMaker:
    """Makes the scopes of one connection's requests."""

    __slots__ = ("_base", "_fields", "_known", "_root", "_root_raw", "_state", "_tls", "_trusted")

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
            self._apply_forwarded(self._trusted, fields)

    def _apply_forwarded(self, trusted: TrustedPeers, fields: RawFields) -> None:
        hops: list[str] = []
        scheme = ""
        for name, value in fields:
            if name == b"x-forwarded-for":
                hops += [hop.strip() for hop in value.decode("latin-1").split(",")]
            elif name == b"x-forwarded-proto":
                scheme = value.decode("latin-1").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            self._known["scheme"] = scheme
        host = trusted.client(hops)
        if host:
            # The port that the proxy saw isn't told.
            self._known["client"] = (host, 0)


def _origin_form(target: bytes, fields: RawFields) -> tuple[bytes, RawFields]:
    """A target that is a whole URL without its authority, which becomes the Host field."""
    url = absolute_target(target)
    if url is None:
        return target, fields  # "*", or CONNECT's
    authority, rest = url
    others = [field for field in fields if field[0] != b"host"]
    path = rest if rest.startswith(b"/") else b"/" + rest
    return path, [(b"host", authority), *others]
