"""What a service manager is told."""

from __future__ import annotations

import functools
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioweb._cli.notify import VARIABLE, notify_ready, notify_reloading, notify_stopping
from trioweb._cli.run import run
from trioweb._cli.settings import Settings
from trioweb.server import ServerConfig

from ..support.log_records import on_record


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


@pytest.mark.usefixtures("in_process")
def test_a_process_says_when_it_serves_and_when_it_stops(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notify_in_process.py").write_text("import trioweb\napp = trioweb.App()")
    with on_record("press Ctrl-C", functools.partial(os.kill, os.getpid(), signal.SIGTERM)):
        assert run(Settings(app="notify_in_process", server=ServerConfig(port=0))) == 0
    assert sorted(manager.told()) == ["READY=1", "STOPPING=1"]
