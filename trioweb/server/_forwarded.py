"""For whom a trusted peer asks: X-Forwarded-For and -Proto, or Forwarded (RFC 7239).

Rules of this module:

* Proxies append.  So a list is read from its right end, which the peer itself has written, and
  not past the first client that isn't trusted: what stands left of that may be anybody's invention.
  Nor past MAX_HOPS of them, trusted or not.
* A client that is no address (`unknown`, `_hidden`, garbage) is nobody: then the peer counts, with
  a port of its own.  Nothing else than an address is ever passed on.
* The two kinds are never mixed, nor compared: a proxy that writes one mostly passes on what a
  client has written of the other.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from .._asgi import RawFields
from . import _limits

Address = tuple[str, int | None]

ForwardedHeader = Literal["auto", "x-forwarded", "forwarded"]

_FOR, _PROTO, _FORWARDED = b"x-forwarded-for", b"x-forwarded-proto", b"forwarded"

# With IPv6 in brackets a port may follow, or none; without them it has none.
_NODE = re.compile(
    r"(?:(?P<v4>[0-9.]+)|\[(?P<bracketed>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
    r"|(?P<v6>[0-9A-Fa-f:.]+)"
)
_HIGHEST_PORT = 65_535

# How nginx names a client that came over a Unix socket.
_UNIX = "unix:"

# RFC 7239, 4: `for=192.0.2.43;proto=https`.  A comma within quotes ends a list's item here, too:
# no address has one, and who reads from the right can't know where a client's quotes began.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_PAIR = rf'({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*+)")'
_PAIRS = re.compile(_PAIR)
_ELEMENT = re.compile(rf"(?:{_PAIR})?(?:[ \t]*+;[ \t]*+(?:{_PAIR})?)*+")

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Hop(NamedTuple):
    """What one proxy says of its client; `scheme` is the one by which that client asked."""

    client: str = ""
    scheme: str = ""


class Origin(NamedTuple):
    """Who asked at first, and by which scheme; None for what the peer doesn't say."""

    client: Address | None = None
    scheme: str | None = None


class TrustedPeers:
    """Who may say for whom a request was forwarded: addresses, networks, or `*` for all.

    `header` is what they say it by; "auto" takes X-Forwarded-* where there is any, else Forwarded.

    Raises ValueError for what is no peer.
    """

    def __init__(self, peers: Iterable[str], header: ForwardedHeader = "auto") -> None:
        peers = list(peers)
        self._everyone = "*" in peers
        self._networks = [ipaddress.ip_network(peer) for peer in peers if peer != "*"]
        self._header = header

    def trusts(self, host: str) -> bool:
        """The peer with this address; `""` is one at a Unix socket."""
        if self._everyone:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            # Whoever may open a Unix socket is as near as a proxy on this machine.
            return host == "" and bool(self._networks)
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def origin(self, fields: RawFields) -> Origin:
        """Of a request with these fields, which a trusted peer has sent."""
        found: dict[bytes, list[bytes]] = {_FOR: [], _PROTO: [], _FORWARDED: []}
        for name, value in fields:
            if name in found:
                found[name].append(value)
        has_x = bool(found[_FOR] or found[_PROTO])
        if self._header == "x-forwarded" or (self._header == "auto" and has_x):
            hops = _x_forwarded(found[_FOR], found[_PROTO])
        else:
            hops = [_hop(item) for item in _last_items(found[_FORWARDED])]
        hop = self._first(hops)
        return Origin(_address(hop.client), _SCHEMES.get(hop.scheme.lower()))

    def _first(self, hops: Sequence[Hop]) -> Hop:
        """The hop of the last client that isn't trusted; the first of all if there is none."""
        if not self._everyone:
            for hop in reversed(hops):
                if not self._trusts_client(hop.client):
                    return hop
        return hops[0] if hops else Hop()

    def _trusts_client(self, client: str) -> bool:
        address = _address(client)
        if address is None:
            return client == _UNIX and self.trusts("")
        return self.trusts(address[0])


def _x_forwarded(clients: Iterable[bytes], schemes: Iterable[bytes]) -> list[Hop]:
    """Each proxy appends to both lists, or one of them says the scheme for all."""
    told, told_by = _last_items(clients), _last_items(schemes) or [""]
    if not told:
        return [Hop("", scheme) for scheme in told_by]
    missing = len(told) - len(told_by)
    told_by = [told_by[0]] * missing + told_by if missing > 0 else told_by[-len(told) :]
    return [Hop(client, scheme) for client, scheme in zip(told, told_by, strict=True)]


def _hop(element: str) -> Hop:
    """What an element of Forwarded says; nothing if it is malformed."""
    if not _ELEMENT.fullmatch(element):
        return Hop()
    pairs = [(name.lower(), token or quoted) for name, token, quoted in _PAIRS.findall(element)]
    said = dict(pairs)
    if len(said) < len(pairs):
        return Hop()  # who says two things says nothing
    return Hop(said.get("for", ""), said.get("proto", ""))


def _last_items(lines: Iterable[bytes]) -> list[str]:
    """So many as may count: each costs more to read than to send."""
    return [*_items(lines)][-_limits.MAX_HOPS :]


def _items(lines: Iterable[bytes]) -> Iterator[str]:
    """Those of a list, in one line or several; empty ones don't count (RFC 9110, 5.6.1)."""
    for line in lines:
        for item in line.decode("latin-1").split(","):
            if item := item.strip(" \t"):
                yield item


def _address(node: str) -> Address | None:
    """None if it is none; the port is 0 where none is told."""
    match = _NODE.fullmatch(node)
    if match is None:
        return None
    host, port = match["v4"] or match["bracketed"] or match["v6"], int(match["port"] or 0)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    is_written_right = (match["bracketed"] is None) or address.version == 6
    return (host, port) if is_written_right and port <= _HIGHEST_PORT else None
