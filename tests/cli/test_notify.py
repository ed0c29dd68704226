"""What a service manager is told."""

from __future__ import annotations

import functools
import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb._cli.notify import VARIABLE, notify_ready, notify_reloading, notify_stopping
from trioweb._cli.processes import Worker
from trioweb._cli.run import run
from trioweb._cli.settings import Settings
from trioweb._cli.supervisor import Supervisor
from trioweb.server import ServerConfig

from ..support.log_records import on_record
from ..support.workers import FakeWorker


class Manager:
    """A manager's socket; `told`: all that was sent there so far."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def told(self) -> list[str]:
        messages: list[str] = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    monkeypatch.setenv(VARIABLE, path)
    manager = Manager(path)
    with manager.socket:
        yield manager


def test_each_word(manager: Manager) -> None:
    before = time.monotonic_ns() // 1000
    notify_ready()
    notify_reloading()
    notify_stopping()
    ready, reloading, stopping = manager.told()
    assert (ready, stopping) == ("READY=1", "STOPPING=1")
    line, _, since = reloading.partition("\n")
    assert line == "RELOADING=1"
    assert before <= int(since.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_an_address_that_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(f"\0trioweb-tests-{os.getpid()}")
    with manager.socket:
        monkeypatch.setenv(VARIABLE, f"@trioweb-tests-{os.getpid()}")
        notify_ready()
        assert manager.told() == ["READY=1"]


def test_without_a_manager_nobody_is_told_and_a_deaf_one_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    notify_ready()
    monkeypatch.setenv(VARIABLE, "")
    notify_ready()
    assert caplog.messages == []
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nobody"))
    notify_ready()
    [message] = caplog.messages
    assert message.startswith("NOTIFY_SOCKET can't be told 'READY=1': ")


async def test_a_supervisor_speaks_for_its_workers(
    manager: Manager, autojump_clock: object
) -> None:
    workers: list[FakeWorker] = []

    async def start() -> Worker:
        await trio.lowlevel.checkpoint()
        workers.append(FakeWorker(len(workers)))
        return workers[-1]

    send, signals = trio.open_memory_channel[int](math.inf)
    supervisor = Supervisor(start, 2, lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run, signals)
        await wait_all_tasks_blocked()
        assert manager.told() == ["READY=1"]
        send.send_nowait(signal.SIGHUP)
        await wait_all_tasks_blocked()
        reloading, ready = manager.told()
        assert (reloading.partition("\n")[0], ready) == ("RELOADING=1", "READY=1")
        assert len(workers) == 4
        send.send_nowait(signal.SIGTERM)
    assert manager.told() == ["STOPPING=1"]


async def test_a_supervisor_that_is_to_stop_is_never_ready(manager: Manager) -> None:
    async def start() -> Worker:
        send.send_nowait(signal.SIGTERM)
        await wait_all_tasks_blocked()
        return FakeWorker(0)

    send, signals = trio.open_memory_channel[int](math.inf)
    await Supervisor(start, 2, lambda: None).run(signals)
    assert manager.told() == ["STOPPING=1"]


@pytest.mark.usefixtures("in_process")
def test_a_process_says_when_it_serves_and_when_it_stops(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notify_in_process.py").write_text("import trioweb\napp = trioweb.App()")
    with on_record("press Ctrl-C", functools.partial(os.kill, os.getpid(), signal.SIGTERM)):
        assert run(Settings(app="notify_in_process", server=ServerConfig(port=0))) == 0
    assert manager.told() == ["READY=1", "STOPPING=1"]
