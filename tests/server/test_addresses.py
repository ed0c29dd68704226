"""Where to listen, as text: each form, several at once, and what is said of wrong ones."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from trioweb.server import ServerConfig, ServerOptions, serve
from trioweb.server._addresses import Bind, Descriptor, HostPort, UnixPath, read_bind
from trioweb.server._listeners import Listener, open_listeners


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:80", HostPort("127.0.0.1", 80)),
        ("localhost", HostPort("localhost", 8000)),
        ("app.example.org:0", HostPort("app.example.org", 0)),
        ("[::1]:80", HostPort("::1", 80)),
        ("[fe80::1%eth0]:80", HostPort("fe80::1%eth0", 80)),
        ("[::]", HostPort("::", 8000)),
        (":80", HostPort(None, 80)),
        ("*:80", HostPort(None, 80)),
        ("unix:/run/app.sock", UnixPath("/run/app.sock")),
        ("unix:app.sock", UnixPath("app.sock")),
        ("fd://3", Descriptor(3)),
    ],
)
def test_each_form(text: str, bind: Bind) -> None:
    assert read_bind(text) == bind


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "an address to listen on"),
        ("::1", r"brackets: \[::1\]:8000"),
        ("http://localhost:80", "an address to listen on"),
        ("/run/app.sock", "an address to listen on"),
        ("::1:80", r"brackets: \[::1\]:80"),
        ("fe80::2:1", r"brackets: \[fe80::2\]:1"),
        ("unix:", "a path behind unix:"),
        ("8000", "a port alone needs a colon: :8000"),
        ("fd://", "a file descriptor"),
        ("fd://stdin", "a file descriptor"),
        ("localhost:", "a port from 0 to 65535"),
        ("localhost:http", "a port from 0 to 65535"),
        ("localhost:65536", "a port from 0 to 65535"),
        ("localhost:\u0661", "a port from 0 to 65535"),
        ("[::1", "an address to listen on"),
        ("[::1]80", "an address to listen on"),
        ("[localhost]:80", "an address to listen on"),
    ],
)
def test_what_is_no_address(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        read_bind(text)


@contextlib.asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[list[Listener]]:
    listeners = await open_listeners(ServerConfig(**options))
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


async def test_several_at_once(tmp_path: Path) -> None:
    file = tmp_path / "app.sock"
    path = str(file)
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        handed_over = os.dup(given.fileno())
        binds = ["127.0.0.1:0", "[::1]:0", f"unix:{path}", f"fd://{handed_over}"]
        async with listening(bind=binds) as listeners:
            hosts = [listener.address[0] for listener in listeners]
            assert hosts == ["127.0.0.1", "::1", path, "127.0.0.1"]
            assert listeners[3].address == given.getsockname()
            assert all(listener.socket.getblocking() is False for listener in listeners)
            for listener in listeners:
                with socket.socket(listener.socket.family) as client:
                    client.connect(listener.socket.getsockname())
    assert not file.exists()


async def test_one_alone_needs_no_list() -> None:
    async with listening(bind="127.0.0.1:0") as listeners:
        assert [listener.address[0] for listener in listeners] == ["127.0.0.1"]


async def test_what_was_opened_is_closed_when_one_of_them_fails(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="somebody listens there already"):
            await open_listeners(ServerConfig(bind=[f"unix:{path}", f"127.0.0.1:{port}"]))
    assert not path.exists()


async def test_a_wrong_one_names_the_option() -> None:
    with pytest.raises(ValueError, match=r"^bind='localhost:http': needs a port"):
        await open_listeners(ServerConfig(bind=["localhost:http"]))


async def test_the_permissions_of_a_unix_socket(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.sock", "b.sock")]
    options = {"bind": [f"unix:{paths[0]}"], "uds": paths[1], "uds_permissions": 0o620}
    async with listening(**options):
        assert [stat.S_IMODE(os.stat(path).st_mode) for path in paths] == [0o620, 0o620]


async def test_the_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(socket.socket, "listen", lambda self, backlog: told.append(backlog))
    async with listening(port=0), listening(port=0, backlog=7):
        assert told == [2048, 7]


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def test_serve_answers_on_each() -> None:
    options: ServerOptions = {"bind": ["127.0.0.1:0", "[::1]:0"]}
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: serve(app, task_status=task_status, **options)
        )
        assert [url.rpartition(":")[0] for url in server.urls] == [
            "http://127.0.0.1",
            "http://[::1]",
        ]
        for url in server.urls:
            host, _, port = url.removeprefix("http://").rpartition(":")
            async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 204")
        await server.shutdown()
