"""Where and how workers are started, and what follows when none can be."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb._cli import processes
from trioweb._cli.main import main
from trioweb._cli.processes import Worker, typed_folder, worker_command
from trioweb._cli.reloader import Reloader
from trioweb._cli.signals import Order
from trioweb._cli.statuses import EXIT_FAILED, EXIT_USAGE
from trioweb._cli.supervisor import FIRST_PAUSE, LONG_LIFE, LONGEST_PAUSE, Supervisor

from ..support.log_records import messages
from ..support.workers import FakeWorker

# The folder.


def test_a_link_that_was_typed_is_looked_up_for_each_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setenv("PWD", str(tmp_path / "current"))
    assert typed_folder() == str(tmp_path / "current")


@pytest.mark.parametrize("told", ["elsewhere", "missing", "."])
def test_a_folder_that_is_told_wrong_isnt_believed(
    told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who starts a program in another folder often leaves PWD as it was."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PWD", told if told == "." else str(tmp_path / told))
    assert typed_folder() == str(tmp_path / "here")
    monkeypatch.delenv("PWD")
    assert typed_folder() == str(tmp_path / "here")


def test_nothing_in_the_folder_is_taken_for_a_module_of_pythons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert worker_command([]).count("-P") == 1
    # Here the package itself is found only so, where it isn't installed.
    monkeypatch.chdir(Path(processes.__file__).parents[2])
    assert "-P" not in worker_command([])


@pytest.mark.parametrize("command", [["run"], ["run", "--workers", "2"], ["dev"], ["routes"]])
def test_a_folder_that_was_removed_is_told(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A release that was switched while somebody stood in it."""
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    (tmp_path / "release").rmdir()
    assert main(command) == EXIT_USAGE
    assert "this folder has been removed: cd to" in capsys.readouterr().err


# What can't be started.


class Failing:
    """Starts workers, unless `fails` says what happens."""

    def __init__(self) -> None:
        self.workers: list[FakeWorker] = []
        self.fails: Exception | None = None
        self.tried_at: list[float] = []

    async def __call__(self) -> Worker:
        self.tried_at.append(trio.current_time())
        if self.fails is not None:
            raise self.fails
        self.workers.append(FakeWorker(len(self.workers)))
        return self.workers[-1]


async def test_without_a_first_worker_all_is_over(caplog: pytest.LogCaptureFixture) -> None:
    start, closed = Failing(), trio.Event()
    start.fails = BlockingIOError(11, "Resource temporarily unavailable")
    signals = trio.open_memory_channel[int](math.inf)[1]
    assert await Supervisor(start, 2, closed.set).run(signals) == EXIT_FAILED
    assert closed.is_set()
    assert messages(caplog) == [f"a worker can't be started: {start.fails}"]


async def test_workers_that_serve_stay_when_no_more_can_be_started(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither for one that crashes, which is tried again, nor at SIGHUP."""
    start = Failing()
    send, signals = trio.open_memory_channel[int](math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Supervisor(start, 2, lambda: None).run, signals)
        await trio.sleep(LONG_LIFE)
        start.fails = RuntimeError("can't start new thread")
        send.send_nowait(signal.SIGHUP)
        await wait_all_tasks_blocked()
        assert not any(worker.heard for worker in start.workers)
        crash = trio.current_time()
        start.workers[0].end(1)
        await trio.sleep(2 * LONGEST_PAUSE)
        waited = [then - crash for then in start.tried_at if then > crash]
        assert waited[:3] == pytest.approx([FIRST_PAUSE, 3 * FIRST_PAUSE, 7 * FIRST_PAUSE])
        assert len(waited) < 20
        start.fails = None
        await trio.sleep(LONGEST_PAUSE)
        assert len(start.workers) == 3
        send.send_nowait(signal.SIGTERM)
    assert "a worker can't be started: can't start new thread" in messages(caplog)


async def test_an_app_that_cannot_be_started_waits_for_a_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    start = Failing()
    start.fails = FileNotFoundError(2, "No such file or directory", "/gone")
    changes, changed = trio.open_memory_channel[list[str]](math.inf)
    send, signals = trio.open_memory_channel[int](math.inf)

    async def heed() -> AsyncIterator[list[str]]:
        async for files in changed:
            yield files

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Reloader(start).run, signals, heed())
        await wait_all_tasks_blocked()
        [said] = messages(caplog)
        assert said == f"the app can't be started: {start.fails}; waiting for a change"
        start.fails = None
        changes.send_nowait(["main.py"])
        await wait_all_tasks_blocked()
        assert len(start.workers) == 1
        send.send_nowait(signal.SIGTERM)


async def test_a_signal_while_the_app_is_started_drains_it() -> None:
    start, may_start = Failing(), trio.Event()

    async def start_later() -> Worker:
        await may_start.wait()
        return await start()

    send, signals = trio.open_memory_channel[int](math.inf)
    no_changes = trio.open_memory_channel[list[str]](0)[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Reloader(start_later).run, signals, no_changes)
        await wait_all_tasks_blocked()
        send.send_nowait(signal.SIGTERM)
        await wait_all_tasks_blocked()
        may_start.set()
    assert start.workers[0].heard == [Order.DRAIN]


async def test_a_folder_that_is_gone_starts_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setenv("PWD", str(tmp_path / "current"))
    launcher = processes.Launcher(["true"], [])
    os.unlink(tmp_path / "current")
    with pytest.raises(processes.START_FAILURES, match="current"):
        await launcher.start()
    launcher.close()
