"""Worker processes, as whoever supervises them sees them."""

from __future__ import annotations

import signal
import sys

import pytest
import trio

from trioweb._cli import processes
from trioweb._cli.processes import MARGIN, start_worker, worker_command
from trioweb._cli.signals import Order, Times

from ..support.workers import FakeWorker, worker_script


async def test_it_is_killed_only_past_its_own_limit(autojump_clock: object) -> None:
    worker = FakeWorker(1, stubborn=True)
    begin = trio.current_time()
    worker.drain()
    await worker.run()
    assert trio.current_time() - begin == pytest.approx(3.0 + 2.0 + 1.0 + MARGIN)
    assert worker.heard == [Order.DRAIN, "kill"]
    assert worker.describe_end() == "was ended by SIGKILL"


async def test_its_limit_counts_even_if_it_is_heard_later(autojump_clock: object) -> None:
    worker = FakeWorker(1, starts=False, stubborn=True)
    begin = trio.current_time()
    worker.drain()
    worker.get_ready()
    await worker.run()
    assert trio.current_time() - begin == pytest.approx(3.0 + 2.0 + 1.0 + MARGIN)


async def test_a_cancelled_worker_has_less_time(autojump_clock: object) -> None:
    worker = FakeWorker(1, stubborn=True)
    begin = trio.current_time()
    worker.drain()
    worker.cancel()
    worker.drain()
    worker.cancel()
    await worker.run()
    assert trio.current_time() - begin == pytest.approx(2.0 + 1.0 + MARGIN)
    assert worker.heard == [Order.DRAIN, Order.CANCEL, "kill"]


def test_how_ends_are_told() -> None:
    worker = FakeWorker(1)
    worker.status = 3
    assert worker.describe_end() == "ended with status 3"
    worker.status = 255  # no signal has that number
    assert worker.describe_end() == "ended with status 255"


# --- Small real processes


async def test_a_process_says_that_it_is_ready_and_hears_cancel() -> None:
    worker = await start_worker(worker_script("s.send(b'1.5 2.5'); sys.exit(s.recv(9)[0])"), [])
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await worker.settled.wait()
            assert worker.ready
            assert worker.times == Times(1.5, 2.5)
            worker.cancel()
    assert worker.status == ord("c")
    worker.cancel()
    worker.drain()  # it has gone already


@pytest.mark.parametrize("text", ["", "import time; time.sleep(1000)"])
async def test_a_process_that_ends_before_it_is_ready(text: str) -> None:
    worker = await start_worker(worker_script(text), [])
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            if text:
                worker.drain()
            await worker.settled.wait()
            assert not worker.ready
    assert worker.status == (128 + signal.SIGTERM if text else 0)


async def test_a_process_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MARGIN", -1.0)
    text = "import signal; signal.signal(15, signal.SIG_IGN); s.send(b'0 0'); s.recv(1)"
    worker = await start_worker(worker_script(text), [])
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await worker.settled.wait()
            worker.drain()
    assert worker.status == 128 + signal.SIGKILL


async def test_ctrl_c_is_held_back_until_a_worker_is_there_for_it() -> None:
    text = (
        "import signal; print(end=''); sys.exit(len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
    )
    worker = await start_worker(worker_script(text), [])
    await worker.run()
    assert worker.status == 2


def test_the_command_is_what_was_typed() -> None:
    command = worker_command(["run", "main:app"])
    assert command[0] == sys.executable
    assert command[-4:] == ["-m", "trioweb", "run", "main:app"]
