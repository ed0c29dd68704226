"""Who the client is behind proxies: for the app, and in the access log."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import App, Request
from trioweb.server import ForwardedHeader
from trioweb.server._forwarded import Origin, TrustedPeers
from trioweb.server._limits import MAX_HOPS

from ..support.log_records import messages
from ..support.server_driver import EachParser, ParserName, Recorder, serving

PEER = ("10.0.0.9", 5)  # a proxy that is trusted, as all of its network are
NOBODY = Origin(None, None)

V6 = "2001:db8::1"


def x(*lines: str, proto: str = "") -> list[tuple[bytes, bytes]]:
    fields = [(b"x-forwarded-for", line.encode()) for line in lines]
    return fields + ([(b"x-forwarded-proto", proto.encode())] if proto else [])


def rfc(*lines: str) -> list[tuple[bytes, bytes]]:
    return [(b"forwarded", line.encode()) for line in lines]


def origin_of(fields: list[tuple[bytes, bytes]], header: ForwardedHeader = "auto") -> Origin:
    return TrustedPeers(["10.0.0.0/8", "::1"], header).origin(fields)


ADDRESSES = {
    "203.0.113.7": ("203.0.113.7", 0),
    "203.0.113.7:5123": ("203.0.113.7", 5123),
    "203.0.113.7:0": ("203.0.113.7", 0),
    V6: (V6, 0),
    f"[{V6}]": (V6, 0),
    f"[{V6}]:443": (V6, 443),
    "[::ffff:203.0.113.7]:65535": ("::ffff:203.0.113.7", 65535),
    # Nothing of this is an address, and none of it gets to the app.
    "": None,
    "unknown": None,
    "_hidden": None,
    "unix:": None,
    "unix:/run/nginx.sock": None,
    "proxy.example": None,
    "203.0.113.7:": None,
    "203.0.113.7:http": None,
    "203.0.113.7:65536": None,
    "203.0.113.7:-1": None,
    "203.0.113.7:1:2": None,
    "203.0.113.007": None,
    "203.0.113": None,
    "[203.0.113.7]": None,
    f"[{V6}": None,
    f"{V6}]": None,
    f"[{V6}]443": None,
    f"[{V6}]:http": None,
    "fe80::1%eth0": None,
    'fe80::1%" 200 "': None,
    "203.0.113.7 GET": None,
    "<script>": None,
    "٢٠٣.0.113.7": None,
    "203.0.113.7:٤": None,
}


@pytest.mark.parametrize("node", ADDRESSES)
def test_what_is_no_address_is_nobody(node: str) -> None:
    assert origin_of(x(node)) == Origin(ADDRESSES[node])
    assert origin_of(x(f"6.6.6.6, {node}, 10.0.0.1:80")).client == (
        ("6.6.6.6", 0) if node in ("", "unix:") else ADDRESSES[node]
    )
    assert origin_of(rfc(f'for=6.6.6.6, for="{node}"')).client == (
        ("6.6.6.6", 0) if node == "unix:" else ADDRESSES[node] if '"' not in node else None
    )


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        (x("203.0.113.7:5123, 10.0.0.1:80"), ("203.0.113.7", 5123)),
        (x("6.6.6.6, 203.0.113.7, [::1]:80, ::ffff:10.0.0.1"), ("203.0.113.7", 0)),
        (x("6.6.6.6", "203.0.113.7", "10.0.0.1"), ("203.0.113.7", 0)),
        (x("10.0.0.1, 203.0.113.7"), ("203.0.113.7", 0)),  # a client can write what it likes
        (x("10.0.0.2:1, 10.0.0.1:2"), ("10.0.0.2", 1)),  # all are trusted: the first
        (x("203.0.113.7, , 10.0.0.1,"), ("203.0.113.7", 0)),
        (x("203.0.113.7, unix:"), ("203.0.113.7", 0)),  # nginx, behind a proxy at its Unix socket
        (x("unix:, 10.0.0.1"), None),
        (x(",,"), None),
        (rfc("for=203.0.113.7"), ("203.0.113.7", 0)),
        (rfc(f'For="[{V6}]:4711"; PROTO=https ;by=10.0.0.9;host=a.example'), (V6, 4711)),
        (rfc('for="203.0.113.7:5123", for=10.0.0.1'), ("203.0.113.7", 5123)),
        (rfc("for=6.6.6.6", "for=203.0.113.7", "for=10.0.0.1;by=_proxy"), ("203.0.113.7", 0)),
        (rfc('for=203.0.113.7;ext="a;b \\" c"'), ("203.0.113.7", 0)),
        (rfc(";;for=203.0.113.7;"), ("203.0.113.7", 0)),
        (rfc('for=203.0.113.7, for="unix:"'), ("203.0.113.7", 0)),
        # What a client has left open doesn't take in what its proxy has written.
        (rfc('for="6.6.6.6, for=203.0.113.7'), ("203.0.113.7", 0)),
        (rfc('ext="for=6.6.6.6, for=203.0.113.7', "for=10.0.0.1"), ("203.0.113.7", 0)),
        # Malformed, or without a client.
        (rfc("for=6.6.6.6, 203.0.113.7"), None),
        (rfc("for=6.6.6.6, for=203.0.113.7:5123"), None),  # a colon needs quotes
        (rfc(f"for=6.6.6.6, for=[{V6}]"), None),
        (rfc("for=6.6.6.6, for = 203.0.113.7"), None),
        (rfc("for=6.6.6.6, for=203.0.113.7;for=203.0.113.8"), None),
        (rfc("for=6.6.6.6, for=203.0.113.7 proto=http"), None),
        (rfc('for=6.6.6.6, for="203.0.113.7'), None),
        (rfc('for="6.6.6.6, 203.0.113.7"'), None),
        (rfc("for=6.6.6.6, by=203.0.113.7"), None),
        (rfc("for=6.6.6.6, for=unknown"), None),
        (rfc("for=6.6.6.6, for=_hidden"), None),
        (rfc("for=6.6.6.6, for=203.0.113.7;"), ("203.0.113.7", 0)),
        (rfc("for="), None),
        (rfc(""), None),
        ([], None),
    ],
)
def test_the_client_is_the_last_one_that_no_trusted_peer_is(
    fields: list[tuple[bytes, bytes]], client: Any
) -> None:
    assert origin_of(fields).client == client


@pytest.mark.parametrize(
    ("fields", "scheme"),
    [
        (x(proto="https"), "https"),
        (x(proto="HTTPS"), "https"),
        (x(proto="wss"), "https"),
        (x(proto="ws"), "http"),
        (x(proto="gopher"), None),
        (x(proto="https,gopher"), None),
        # With both lists, a client and its scheme stand in the same place from the right.
        (x("203.0.113.7, 10.0.0.1", proto="https,http"), "https"),
        (x("6.6.6.6, 203.0.113.7, 10.0.0.1", proto="https, http"), "https"),
        (x("203.0.113.7", proto="https,http"), "http"),
        (x("203.0.113.7, 10.0.0.2, 10.0.0.1", proto="https"), "https"),
        (x("203.0.113.7, 10.0.0.2, 10.0.0.1", proto="https,http"), "https"),
        # Of a client that nobody names, only the peer's own word counts.
        (x(proto="https,http"), "http"),
        (x("unknown", proto="https"), "https"),
        (rfc("for=203.0.113.7;proto=https, for=10.0.0.1;proto=http"), "https"),
        (rfc("for=6.6.6.6;proto=https, for=203.0.113.7;proto=http"), "http"),
        (rfc("for=6.6.6.6;proto=https, for=203.0.113.7"), None),
        (rfc('proto="https"'), "https"),
        (rfc("for=unknown;proto=https"), "https"),
        (rfc("for=6.6.6.6;proto=https, garbage"), None),
    ],
)
def test_the_scheme_is_the_one_of_that_client(
    fields: list[tuple[bytes, bytes]], scheme: str | None
) -> None:
    assert origin_of(fields).scheme == scheme


@pytest.mark.parametrize(
    ("header", "fields", "client"),
    [
        # A proxy that writes one passes on the other, as a client has sent it.
        ("auto", x("203.0.113.7") + rfc("for=6.6.6.6"), ("203.0.113.7", 0)),
        ("auto", rfc("for=6.6.6.6") + x("203.0.113.7"), ("203.0.113.7", 0)),
        ("auto", rfc("for=6.6.6.6;proto=https") + x(proto="http"), None),
        ("auto", rfc("for=6.6.6.6") + x(""), None),
        ("auto", rfc("for=6.6.6.6") + x("unknown"), None),
        ("auto", rfc("for=203.0.113.7"), ("203.0.113.7", 0)),
        ("x-forwarded", rfc("for=6.6.6.6"), None),
        ("x-forwarded", rfc("for=6.6.6.6") + x("203.0.113.7"), ("203.0.113.7", 0)),
        ("forwarded", x("6.6.6.6", proto="https"), None),
        ("forwarded", x("6.6.6.6") + rfc("for=203.0.113.7"), ("203.0.113.7", 0)),
    ],
)
def test_the_kinds_are_never_mixed(
    header: ForwardedHeader, fields: list[tuple[bytes, bytes]], client: Any
) -> None:
    origin = origin_of(fields, header)
    assert origin.client == client
    assert origin.scheme != "https"


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        (x("203.0.113.7:1, 6.6.6.6"), Origin(("203.0.113.7", 1))),
        (x("unknown, 203.0.113.7", proto="https"), Origin(None, "https")),
        (x("203.0.113.7, 6.6.6.6", proto="https,http"), Origin(("203.0.113.7", 0), "https")),
        (x(proto="https,http"), Origin(None, "https")),
        (rfc("for=203.0.113.7;proto=https, for=6.6.6.6"), Origin(("203.0.113.7", 0), "https")),
        ([], NOBODY),
    ],
)
def test_where_all_are_trusted_the_first_is_the_client(
    fields: list[tuple[bytes, bytes]], origin: Origin
) -> None:
    assert TrustedPeers(["*"]).origin(fields) == origin


@pytest.mark.parametrize("made", [x, rfc])
def test_more_proxies_than_anybody_has_are_not_asked_for_whom(made: Any) -> None:
    """A head full of trusted ones would hold the loop for as long as a hundred requests."""
    prefix = "" if made is x else "for="
    trusted = [f"{prefix}10.0.0.1"] * (MAX_HOPS - 1)
    nearest = [f"{prefix}203.0.113.7", *trusted]
    farther = [f"{prefix}203.0.113.7", f"{prefix}10.0.0.2", *trusted]
    assert origin_of(made(",".join(nearest))).client == ("203.0.113.7", 0)
    assert origin_of(made(",".join(farther))).client == ("10.0.0.2", 0)


def test_a_unix_socket_is_nobodys_address_where_nobody_is_trusted() -> None:
    assert TrustedPeers([]).origin(x("203.0.113.7, unix:")) == NOBODY


@pytest.mark.parametrize(
    "item", ["10.0.0.1,", 'a="",', ";" * 8, " \t;" * 3, 'a="\\",', "=", '"', "a=b;"]
)
def test_a_head_full_of_it_takes_no_time(item: str) -> None:
    fields = rfc(item * (16_000 // len(item)) + "!!")
    began = time.perf_counter()
    assert origin_of(fields) == NOBODY
    assert time.perf_counter() - began < 0.5  # what grows with its square takes a minute


# As apps and operators see it.


@EachParser
@pytest.mark.parametrize(
    ("fields", "client"),
    [
        (b"X-Forwarded-For: 203.0.113.7:5123, 10.0.0.1:80\r\n", ("203.0.113.7", 5123)),
        (b'Forwarded: for="[2001:db8::1]:4711";proto=https\r\n', (V6, 4711)),
        (b"X-Forwarded-For: unix:\r\n", PEER),
        (b"X-Forwarded-For: unknown\r\n", PEER),
        (b"", PEER),
    ],
)
async def test_the_scope_has_the_client(
    http: ParserName, fields: bytes, client: tuple[str, int], autojump_clock: MockClock
) -> None:
    app = Recorder()
    async with serving(app, http=http, forwarded_allow_ips=["10.0.0.0/8"]) as running:
        connection = running.connect(client=PEER)
        await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % fields)
        await wait_all_tasks_blocked()
    [scope] = app.scopes
    assert scope["client"] == client
    assert scope["scheme"] == ("https" if b"proto=https" in fields else "http")


async def test_the_log_has_the_clients_that_the_app_has(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="trioweb.access")
    app = App()
    seen: list[Any] = []

    @app.get("/")
    async def hello(request: Request) -> str:
        seen.append(request.client)
        return "hello"

    options: Any = {"access_log": True, "forwarded_allow_ips": ["10.0.0.0/8"]}
    async with serving(app, **options) as running:
        for peer in (PEER, None, (V6, 6)):
            connection = running.connect(client=peer)
            for line in (
                "",
                "X-Forwarded-For: 203.0.113.7:5123",
                f"X-Forwarded-For: {V6}",
                f'Forwarded: for="[{V6}]:4711"',
                'X-Forwarded-For: "\x1b[31m',
            ):
                head = (
                    f"GET / HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n"
                    if line
                    else "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
                )
                await connection.send(head.encode())
                await trio.sleep(0.2)
    clients = [line.split(" ")[0] for line in messages(caplog)]
    behind_proxy = ["203.0.113.7:5123", V6, f"[{V6}]:4711"]
    assert clients == [
        *("10.0.0.9:5", *behind_proxy, "10.0.0.9:5"),
        *("-", *behind_proxy, "-"),
        *[f"[{V6}]:6"] * 5,
    ]
