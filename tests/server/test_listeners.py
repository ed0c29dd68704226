"""Where a server listens: what is refused and with which advice, and how a listener ends."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trioweb.server import serve
from trioweb.server._config import ServerConfig
from trioweb.server._listeners import open_listeners
from trioweb.server._system import close_in_child

from ..support.forks import ENDED, forked
from ..support.log_records import messages
from ..support.server_clients import (
    address_of,
    begin_shutdown,
    connected,
    connected_to_file,
    is_refused,
    listening,
    request,
)
from ..support.server_driver import GET, echo

# What is refused.

LONG = "x" * 130


def a_connection() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname())


def a_closed_socket() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


def a_datagram_socket() -> socket.socket:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (LONG, rf"/{LONG}: its path has \d+ bytes, .*; choose a shorter one"),
        ("y" * 300, r": its path has \d+ bytes, .*; choose a shorter one"),
        ("missing/app.sock", r"missing/app\.sock: there is no folder .*missing; make it"),
        ("", r"isn't a socket, but a folder; choose a name in it, .*/app\.sock"),
        ("file", r"/file: it isn't a socket; choose another path, or remove it"),
        ("link", r"/link: it isn't a socket; choose another path, or remove it"),
        ("file/app.sock", r"file/app\.sock: .*/file isn't a folder; choose another path"),
        ("datagrams", r"/datagrams: it is a socket of another kind; choose another path"),
        ("full", r"/full: somebody listens there already; choose another path, or end it"),
    ],
)
async def test_a_path_that_cant_be_had_is_refused_with_advice(
    name: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("data")
    (tmp_path / "link").symlink_to("nowhere")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as full,
        socket.socket(socket.AF_UNIX) as one,
    ):
        datagrams.bind(str(tmp_path / "datagrams"))
        full.bind(str(tmp_path / "full"))
        full.listen(0)  # there is room for one, and then a client would wait for ever
        one.connect(str(tmp_path / "full"))
        with pytest.raises(OSError, match=f"can't listen on .*{said}"):
            await serve(echo, uds=tmp_path / name if name else tmp_path)
    assert (tmp_path / "file").read_text() == "data"


@pytest.mark.parametrize("path", ["", "\0abstract", "/run/app/"])
async def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(OSError, match=r"can't listen on unix:'.*: a Unix socket needs a path"):
        await serve(echo, uds=path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT])
async def test_a_path_that_isnt_permitted_isnt_told_of_ports(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOENT: some file systems say so of a folder that is there, /proc for one."""
    monkeypatch.setattr(socket.socket, "bind", failing(code))
    said = f"can't listen on {tmp_path}/app.sock: not permitted; .*, and {tmp_path} isn't"
    with pytest.raises(OSError, match=said):
        await serve(echo, uds=tmp_path / "app.sock")


@pytest.mark.parametrize(
    ("code", "port", "said"),
    [
        (errno.EACCES, 80, r"127\.0\.0\.1:80: not permitted; ports below 1024 are for root"),
        (errno.EACCES, 8000, r"127\.0\.0\.1:8000: not permitted; the system forbids"),
        (errno.ENOBUFS, 8000, rf"127\.0\.0\.1:8000: {os.strerror(errno.ENOBUFS)}"),
    ],
)
async def test_a_port_that_isnt_permitted(
    code: int, port: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "bind", failing(code))
    with pytest.raises(OSError, match=f"can't listen on {said}"):
        await serve(echo, port=port)


def failing(*codes: int) -> Callable[..., None]:
    """What fails with each of these in turn; the last one stays."""
    waiting = list(codes)

    def fail(*args: object) -> None:
        code = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("nosuch.invalid", r"nosuch\.invalid:0: no address is known for that \(.*\); a host is"),
        ("http://x", "http://x:0: .*without a scheme, a port or brackets"),
        ("localhost:80", "localhost:80:0: .*without a scheme, a port or brackets"),
        ("[::1]", r"\[::1\]:0: .*without a scheme, a port or brackets"),
        ("a..b", r"a\.\.b:0: that is no host; a host is a name or an address"),
        ("a\nb", r"'a\\nb':0: "),
        ("192.0.2.1", r"192\.0\.2\.1:0: this machine has no such address; 127"),
    ],
)
async def test_a_host_that_cant_be_had_is_refused_with_advice(
    host: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if host != "192.0.2.1":  # no test asks the network

        async def unknown(name: str, *args: object, **options: object) -> None:
            name.encode("idna")
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(trio.socket, "getaddrinfo", unknown)
    with pytest.raises(OSError, match=f"can't listen on {said}"):
        await serve(echo, host=host, port=0)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("::1", -1)])
async def test_a_port_is_a_number_of_16_bits(host: str, port: int) -> None:
    """The system takes 70000 for 4464."""
    with pytest.raises(ValueError, match=rf"{host}\]?:{port}: a port is a number from 0 to 65535"):
        await serve(echo, host=host, port=port)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_datagram_socket, "it is a socket of another kind"),
        (socket.socket, "it isn't bound to an address; bind it first"),
        (lambda: socket.socketpair()[0], "it isn't bound to an address; bind it first"),
        (a_connection, r"http://127.0.0.1:\d+: it is a connection; .*systemd: Accept=no"),
        (a_closed_socket, "it is closed; give a socket that is bound"),
        (lambda: 9999, "descriptor 9999: nothing is open there"),
        (lambda: -1, "descriptor -1: nothing is open there"),
        (lambda: os.open(os.devnull, os.O_RDONLY), r"descriptor \d+: it is open, but no socket"),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the other end of a pair
async def test_what_nobody_can_listen_on_is_refused(make: Callable[[], Any], said: str) -> None:
    given = make()
    with pytest.raises(OSError, match=f"can't listen on .*{said}"):
        await serve(echo, sockets=[given])
    if isinstance(given, socket.socket):
        assert given.fileno() == -1
    elif said.endswith("socket"):
        os.close(given)


async def test_what_somebody_else_began_to_listen_on_first_is_refused() -> None:
    with socket.socket() as ours, socket.socket() as theirs:
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind(("127.0.0.1", 0))
        theirs.bind(ours.getsockname())
        theirs.listen()
        with pytest.raises(OSError, match=r"http://127\.0\.0\.1:\d+: somebody listens there al"):
            await serve(echo, sockets=[ours])


async def test_an_abstract_socket_may_be_given() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0trioweb-{os.getpid()}")
        async with listening(echo, sockets=[sock]) as server:
            assert server.urls == (f"unix:@trioweb-{os.getpid()}",)


async def test_programs_that_the_app_starts_dont_hold_a_socket_that_was_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.set_inheritable(True)
        async with listening(echo, sockets=[sock]):
            assert not sock.get_inheritable()


# All addresses of a host.

V4, V6 = (socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0, 0, 0))


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any host has two addresses, and one of them twice."""

    async def found(host: str, port: int, **options: object) -> list[Any]:
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in (V4, V6, V4)]

    monkeypatch.setattr(trio.socket, "getaddrinfo", found)


class Binding:
    """Makes `bind` fail with the next of `codes`, in turn; None lets it through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.codes: list[int | None] = []
        self.ports: list[int] = []
        real = socket.socket.bind

        def bind(sock: socket.socket, address: Any) -> None:
            code = self.codes.pop(0) if self.codes else None
            self.ports.append(address[1])
            if code is not None:
                raise OSError(code, os.strerror(code))
            real(sock, address)

        monkeypatch.setattr(socket.socket, "bind", bind)


@pytest.fixture
def binding(monkeypatch: pytest.MonkeyPatch) -> Binding:
    return Binding(monkeypatch)


@pytest.mark.parametrize("host", ["*", None, ""])
async def test_every_address_has_the_same_port(host: str | None) -> None:
    async with listening(echo, host=host) as server:
        assert len({address_of(url)[1] for url in server.urls}) == 1
        for url in server.urls:
            async with connected(url) as client:
                assert (await client.ask(GET)).status == 200


@pytest.mark.usefixtures("two_addresses")
async def test_a_port_that_is_taken_at_another_address_isnt_chosen(binding: Binding) -> None:
    binding.codes = [None, errno.EADDRINUSE, None, errno.EADDRINUSE]
    async with listening(echo, host="both") as server:
        assert len(server.urls) == 2
        assert len({address_of(url)[1] for url in server.urls}) == 1
    first, _, second, _, third, last = binding.ports
    assert (first, second, third) == (0, 0, 0)
    assert last == address_of(server.urls[0])[1]


@pytest.mark.usefixtures("two_addresses")
async def test_a_port_that_is_taken_everywhere_is_refused(binding: Binding) -> None:
    binding.codes = [errno.EADDRINUSE] * 100
    with pytest.raises(OSError, match=r"both:0 \(127\.0\.0\.1\): somebody listens there"):
        await serve(echo, host="both", port=0)
    assert len(binding.ports) == 10


@pytest.mark.usefixtures("two_addresses")
async def test_an_address_that_the_machine_doesnt_have_is_left_out(
    binding: Binding, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a hosts file has ::1, and the kernel no IPv6."""
    caplog.set_level(logging.INFO)
    binding.codes = [None, errno.EADDRNOTAVAIL]
    async with listening(echo, host="both") as server:
        assert len(server.urls) == 1
        said = messages(caplog)[0]
        assert said.startswith("an address is left out: can't listen on both:0 (::1): this mach")
    binding.codes = [errno.EADDRNOTAVAIL] * 2
    with pytest.raises(OSError, match=r"both:0 \(::1\): this machine has no such address"):
        await serve(echo, host="both", port=0)


async def test_a_kind_of_address_that_the_machine_doesnt_have_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "socket", failing(errno.EAFNOSUPPORT))
    with pytest.raises(OSError, match="this machine has no such kind of address"):
        await open_listeners(ServerConfig(host="127.0.0.1", port=0))


# The end of a listener.


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
async def test_a_file_that_cant_be_removed_holds_up_no_drain(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "app.sock"
    may_end = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await may_end.wait()
            await echo(scope, receive, send)

    async with listening(app, uds=path) as server, connected_to_file(str(path)) as client:
        await client.send(GET)
        await begin_shutdown(server)
        monkeypatch.setattr(os, "unlink", failing(code))
        await trio.testing.wait_all_tasks_blocked()
        may_end.set()
        assert (await client.response()).status == 200
    said = [text for text in messages(caplog) if "can't" in text]
    assert said == [f"{path} can't be removed, and stays as a stale socket: {os.strerror(code)}"]
    assert is_refused_at(path)


def is_refused_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == errno.ECONNREFUSED


async def test_a_socket_that_cant_be_closed_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Unclosable(socket.socket):
        def close(self) -> None:
            super().close()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    sock = Unclosable()
    sock.bind(("127.0.0.1", 0))
    async with listening(echo, sockets=[sock]) as server:
        pass
    assert messages(caplog) == [f"{server.urls[0]} can't be closed: {os.strerror(errno.EIO)}"]


async def test_a_listener_that_is_shut_down_ends_the_server_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody spins: that would take the loop from all others."""
    began, may_end = trio.Event(), trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            began.set()
            await may_end.wait()
            await echo(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as sock, socket.create_server(("", 0)) as other:
        giver = sock.dup()
        with (
            pytest.RaisesGroup(
                pytest.RaisesExc(OSError, match=r"can't be accepted on http://127\.0\.0\.1:\d+ any")
            ),
            giver,
        ):
            async with (
                listening(app, sockets=[sock, other]) as server,
                connected(server.urls[0]) as client,
            ):
                await client.send(request("/"))
                await began.wait()
                giver.shutdown(socket.SHUT_RDWR)
                while not caplog.records:
                    await trio.testing.wait_all_tasks_blocked()
                may_end.set()
                assert (await client.response()).status == 200
                await server.wait_closed()
    assert is_refused(server.urls[1])
    assert messages(caplog)[0].endswith("whoever gave the socket has shut it down, or closed it")


async def test_a_listener_that_is_closed_ends_the_server_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.RaisesGroup(OSError):
        async with listening(echo, sockets=[sock]) as server:
            with sock.dup():  # or the loop isn't told: it has nothing to look at any more
                sock.close()
                with socket.create_connection(address_of(server.urls[0])):
                    await server.wait_closed()


# A process that is forked.


async def test_a_forked_process_doesnt_hold_the_port_when_the_server_has_ended() -> None:
    with forked() as child:
        pass
    async with listening(echo) as server:
        with forked() as later:
            async with connected(server.urls[0]) as client:
                assert (await client.ask(GET)).status == 200
            await server.shutdown()
            assert is_refused(server.urls[0])
    assert (child.wait(), later.wait()) == (ENDED, ENDED)


async def test_what_a_forked_process_forgets_its_parent_listens_on() -> None:
    [listener] = await open_listeners(ServerConfig(port=0))
    with socket.socket(fileno=os.dup(listener.socket.fileno())) as parents:
        close_in_child()
        assert listener.socket.fileno() == -1
        with socket.create_connection(parents.getsockname()):
            pass
    listener.close()
