"""One process that serves: what is settled before it listens, and how it ends."""

from __future__ import annotations

import functools
import logging
import os
import queue
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from trioweb import App
from trioweb._cli import run as _run
from trioweb._cli.run import run, run_worker, times_to_end, times_to_start
from trioweb._cli.settings import Settings
from trioweb._cli.signals import HANG_BYTE, Times
from trioweb.server import ServerConfig, serve_config
from trioweb.server._peers import WorkerTable

from ..support.log_records import on_record


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that knows nothing, lifespans least of all."""
    raise NotImplementedError


async def test_how_long_an_end_may_take_is_the_apps_to_say_or_else_what_was_given() -> None:
    given = ServerConfig(port=0, cleanup_timeout=7.0)
    apps: list[tuple[Any, ServerConfig, Times]] = [
        (bare, given, Times(20.0, 7.0, 10.0)),
        (App(drain_timeout=3.0, cleanup_timeout=2.0), ServerConfig(port=0), Times(3.0, 2.0, 10.0)),
        (App(drain_timeout=3.0, cleanup_timeout=2.0), given, Times(3.0, 7.0, 10.0)),
    ]
    for app, config, expected in apps:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_config, app, config)
            assert times_to_end(server, config) == expected
            server.cancel()
    assert times_to_start(ServerConfig()) == Times(0.0, 5.0)
    assert times_to_start(given) == Times(0.0, 7.0)


@pytest.mark.usefixtures("in_process")
def test_run_returns_when_it_was_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run_in_process.py").write_text("import trioweb\napp = trioweb.App()")
    with on_record("press Ctrl-C", functools.partial(os.kill, os.getpid(), signal.SIGINT)):
        assert run(Settings(app="run_in_process", server=ServerConfig(port=0))) == 0
    assert caplog.records[-1].getMessage() == "stopped"


@pytest.mark.usefixtures("in_process")
def test_run_fails_when_the_app_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing_in_process.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = ServerConfig(sockets=[listener.detach()])
        assert run(Settings(app="failing_in_process:app", server=config)) == 1
    assert caplog.records[-1].getMessage() == "the app failed to start: no database"


@pytest.mark.usefixtures("in_process")
def test_a_worker_says_when_it_is_ready_and_drains_when_its_supervisor_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worker_in_process.py").write_text(
        "import trioweb\napp = trioweb.App(drain_timeout=2.5, cleanup_timeout=1.5)"
    )
    ours, theirs = socket.socketpair()
    told: queue.Queue[bytes] = queue.Queue()
    words: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(_run, "exit_with_words", lambda why: words.put(why()))

    def supervise() -> None:
        with ours:
            told.put(ours.recv(100))
            ours.send(HANG_BYTE)
            told.put(words.get(timeout=20).encode())

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        table = WorkerTable.create(2)
        descriptors = [theirs.detach(), os.dup(table.file.fileno()), listener.detach()]
        settings = Settings(app="worker_in_process", server=ServerConfig(uds="bound"))
        assert run_worker(settings, 1, descriptors) == 0
    supervisor.join()
    assert not (tmp_path / "bound").exists()  # that is for the supervisor
    assert Times.from_bytes(told.get()) == Times(2.5, 1.5, retire_timeout=10.0)
    assert [bool(sign) for sign in table.signs] == [False, True]
    table.file.close()
    assert told.get().startswith(b"the event loop hangs, it stands at\n  File ")
    signal.raise_signal(signal.SIGHUP)  # is for the supervisor
