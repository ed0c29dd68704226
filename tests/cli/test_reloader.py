"""`trioweb dev`: a change starts the app anew, a mistake is shown and waited out."""

from __future__ import annotations

import functools
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb._cli import reloader
from trioweb._cli.processes import Worker
from trioweb._cli.reloader import Reloader, reload
from trioweb._cli.settings import Settings
from trioweb._cli.signals import ECHO_TIME, Order
from trioweb._errors import CommandError
from trioweb.server import ServerConfig

from ..support.log_records import on_record
from ..support.processes import LINE_TIMEOUT
from ..support.trioweb_process import TriowebProcess, trioweb_process
from ..support.workers import FakeWorker, worker_script

# --- In memory


class Dev:
    """A reloader in a task, the workers that it has started, and changes and signals to send."""

    def __init__(self, **behaviour: Any) -> None:
        self.workers: list[FakeWorker] = []
        self.behaviour: dict[str, Any] = behaviour
        self.signals, signals = trio.open_memory_channel[int](math.inf)
        self._changes, changes = trio.open_memory_channel[Sequence[str]](math.inf)
        self.run = functools.partial(Reloader(self._start).run, signals, changes)

    async def _start(self) -> Worker:
        await trio.lowlevel.checkpoint()
        worker = FakeWorker(len(self.workers), **self.behaviour)
        self.workers.append(worker)
        return worker

    async def change(self, *files: str) -> None:
        self._changes.send_nowait(files)
        await wait_all_tasks_blocked()

    async def signal(self, number: int) -> None:
        self.signals.send_nowait(number)
        await wait_all_tasks_blocked()


async def test_a_change_drains_then_starts_anew(
    caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    caplog.set_level(logging.INFO)
    dev = Dev(stubborn=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dev.run)
        await wait_all_tasks_blocked()
        await dev.change("main.py", "models.py")
        assert dev.workers[0].heard == [Order.DRAIN]
        await dev.change("main.py")
        assert len(dev.workers) == 1
        dev.workers[0].end(0)
        await wait_all_tasks_blocked()
        assert len(dev.workers) == 2
        await dev.signal(signal.SIGINT)
        await dev.signal(signal.SIGTERM)  # an echo of the first
        assert dev.workers[1].heard == [Order.DRAIN]
        await trio.sleep(ECHO_TIME)
        await dev.signal(signal.SIGINT)
        assert dev.workers[1].heard == [Order.DRAIN, Order.CANCEL]
        dev.workers[1].end(0)
    assert len(dev.workers) == 2
    assert "main.py, models.py changed: starting anew" in caplog.text


async def test_an_app_that_ends_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    dev = Dev(starts=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dev.run)
        await wait_all_tasks_blocked()
        dev.workers[0].end(2)
        await wait_all_tasks_blocked()
        assert len(dev.workers) == 1
        assert "the app ended with status 2; waiting for a change" in caplog.text
        await dev.change("main.py")
        assert len(dev.workers) == 2
        await dev.signal(signal.SIGTERM)


async def test_a_signal_while_it_waits_for_a_change() -> None:
    dev = Dev()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dev.run)
        await wait_all_tasks_blocked()
        dev.workers[0].end(2)
        await wait_all_tasks_blocked()
        await dev.signal(signal.SIGTERM)
    assert len(dev.workers) == 1


async def test_signals_before_there_is_a_worker() -> None:
    dev = Dev()
    dev.signals.send_nowait(signal.SIGTERM)
    dev.signals.send_nowait(signal.SIGTERM)
    await dev.run()
    assert all(worker.over.is_set() for worker in dev.workers)


def test_watchfiles_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(CommandError, match="pip install watchfiles,"):
        reload(Settings(server=ServerConfig()), ["dev"])


def test_reload_returns_when_it_was_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reloader, "worker_command", lambda arguments: worker_script("s.recv(1)"))
    with on_record("watching", functools.partial(os.kill, os.getpid(), signal.SIGTERM)):
        assert reload(Settings(server=ServerConfig(port=0)), ["dev"]) == 0
    assert caplog.records[-1].getMessage() == "stopped"


# --- The program

APP = """
from trioweb import App
app = App()

@app.get("/")
async def index():
    return VERSION

@app.get("/fail")
async def fail():
    return 1 / 0

"""


def dev(folder: Path, *options: str) -> Any:
    return trioweb_process("dev", "--port", "0", *options, cwd=folder)


def change(server: TriowebProcess, main: Path, version: int) -> None:
    """Write that version of the app, and wait until it is served."""
    give_up = time.monotonic() + LINE_TIMEOUT
    while server.ask("GET", "/") != str(version):
        assert time.monotonic() < give_up, server.log
        # Again and again: the watch begins at a time of its own.
        main.write_text(APP + f"VERSION = {version}")
        time.sleep(0.5)


def ask_debug_page(server: TriowebProcess) -> str:
    connection = server.connect()
    connection.request("GET", "/fail", headers={"accept": "text/html"})
    with connection.getresponse() as response:
        assert response.status == 500
        page = response.read().decode()
    connection.close()
    return page


@pytest.mark.slow
@pytest.mark.processes
def test_dev_starts_anew_shows_errors_and_waits_out_mistakes(tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text(APP + "VERSION = 1")
    with dev(tmp_path) as server:
        server.wait_for_workers(1)
        assert server.ask("GET", "/") == "1"
        assert "debug=True" in ask_debug_page(server)
        change(server, main, 2)
        main.write_text("def (")
        server.wait_for_line("SyntaxError: invalid syntax")
        server.wait_for_line("waiting for a change")
        assert "_cli" not in server.log
        main.write_text(APP + "VERSION = 3")
        assert server.ask("GET", "/") == "3"
        server.send_group_signal(signal.SIGINT)
        assert server.wait() == 0
        assert "KeyboardInterrupt" not in server.log


@pytest.mark.slow
@pytest.mark.processes
def test_dev_without_reload(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP + "VERSION = 1")
    with dev(tmp_path, "--no-reload") as server:
        assert "debug=True" in ask_debug_page(server)
        assert server.stop() == 0
