"""One process that serves: what is settled before it listens, and how it ends."""

from __future__ import annotations

import functools
import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from trioweb import App, Limits
from trioweb._cli import run as run_module
from trioweb._cli.options import Settings
from trioweb._cli.run import (
    adjusted_limits,
    run,
    run_worker,
    serve_options,
    times_to_end,
    times_to_start,
)
from trioweb._cli.signals import Times
from trioweb._errors import CommandError
from trioweb.server import ServerLimits, serve

from ..support.log_records import on_record

pytestmark = pytest.mark.usefixtures("in_a_terminal")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process isn't ended, and modules that a test imports are forgotten afterwards."""
    # The thread that hears signals keeps the limit beyond the end of what was served.
    monkeypatch.setattr(run_module, "hard_exit", lambda survivors: None)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def settings(**given: Any) -> Settings:
    return Settings(**{"limits": {}, **given})


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that knows nothing, lifespans least of all."""
    raise NotImplementedError


def test_limits_that_are_given_go_before_the_apps() -> None:
    app = App(limits=Limits(max_body_size=7, max_requests=8))
    limits = adjusted_limits(app, {"max_body_size": 9})
    assert limits == app.limits == Limits(max_body_size=9, max_requests=8)


def test_limits_of_other_apps() -> None:
    assert adjusted_limits(bare, {"max_requests": 9}) == ServerLimits(max_requests=9)

    class Wrapper:
        limits = ServerLimits(max_fields=5)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    assert adjusted_limits(Wrapper(), {"max_requests": 9}) == ServerLimits(
        max_requests=9, max_fields=5
    )
    with pytest.raises(CommandError, match=r"^--limit-max-body-size is kept by a trioweb\.App"):
        adjusted_limits(bare, {"max_body_size": 9})


def test_what_isnt_given_is_for_the_app_to_say() -> None:
    assert adjusted_limits(bare, {}) is None


def test_an_app_of_ours_is_adjusted() -> None:
    app = App()
    serve_options(app, settings(debug=True, cleanup_timeout=7.0), [])
    assert app.debug
    assert app._cleanup_timeout == 7.0
    kept = App(debug=True, cleanup_timeout=3.0)
    serve_options(kept, settings(), [])
    assert kept.debug
    assert kept._cleanup_timeout == 3.0


async def test_how_long_an_end_may_take_is_the_apps_to_say_or_else_what_was_given() -> None:
    apps: list[tuple[Any, Times]] = [
        (bare, Times(20.0, 7.0)),
        (App(drain_timeout=3.0, cleanup_timeout=2.0), Times(3.0, 2.0)),
    ]
    for app, expected in apps:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(functools.partial(serve, app, port=0))
            assert times_to_end(server, settings(cleanup_timeout=7.0)) == expected
            server.cancel()
    assert times_to_start(settings()) == Times(0.0, 5.0)
    assert times_to_start(settings(cleanup_timeout=7.0)) == Times(0.0, 7.0)


@pytest.mark.usefixtures("in_process")
def test_run_returns_when_it_was_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run_in_process.py").write_text("import trioweb\napp = trioweb.App()")
    with on_record("press Ctrl-C", functools.partial(os.kill, os.getpid(), signal.SIGINT)):
        assert run(settings(app="run_in_process", port=0)) == 0
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
        fd = listener.detach()
        assert run(settings(app="failing_in_process:app", fd=fd)) == 1
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

    def supervise() -> None:
        with ours:
            told.put(ours.recv(100))

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptors = [theirs.detach(), listener.detach()]
        assert run_worker(settings(app="worker_in_process", uds="bound"), descriptors) == 0
    supervisor.join()
    assert not (tmp_path / "bound").exists()  # that is for the supervisor
    assert Times.from_bytes(told.get()) == Times(2.5, 1.5)
    signal.raise_signal(signal.SIGHUP)  # is for the supervisor
