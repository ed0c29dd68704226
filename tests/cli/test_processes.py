"""Worker processes, as whoever supervises them sees them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from trioweb._cli import processes
from trioweb._cli.processes import (
    LOOK_INTERVAL,
    MARGIN,
    WORDS_TIME,
    Launcher,
    WorkerProcess,
    worker_command,
)
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


async def test_how_ends_are_told() -> None:
    worker = FakeWorker(1)
    worker.status = 3
    assert worker.describe_end() == "ended with status 3"
    worker.status = 255  # no signal has that number
    assert worker.describe_end() == "ended with status 255"


async def test_one_that_is_replaced_retires_if_it_serves(autojump_clock: object) -> None:
    worker = FakeWorker(1, stubborn=True)
    worker.times = Times(3.0, 2.0, 4.0)
    begin = trio.current_time()
    worker.retire()
    assert not worker.serves
    await worker.run()
    assert trio.current_time() - begin == pytest.approx(4.0 + 3.0 + 2.0 + 1.0 + MARGIN)
    assert worker.heard == [Order.RETIRE, "kill"]
    starting = FakeWorker(2, starts=False)
    starting.retire()
    assert starting.heard == [Order.DRAIN]


async def test_silence_is_counted_in_looks() -> None:
    worker = FakeWorker(1)
    assert worker.serves
    seen = []
    for sign in (1, 1, 1, 2, 2):
        worker.signs = sign
        worker.look()
        seen.append(worker.silence)
    assert seen == [0, LOOK_INTERVAL, 2 * LOOK_INTERVAL, 0, LOOK_INTERVAL]
    worker.forgive()
    assert worker.silence == 0


async def test_one_that_hangs_is_asked_where_then_aborted_then_killed(
    autojump_clock: object,
) -> None:
    worker = FakeWorker(1)
    begin = trio.current_time()
    worker.give_up()
    assert not worker.serves
    worker.drain()  # as all end: that gives it no more time
    await worker.run()
    assert worker.heard == ["where", Order.DRAIN]
    worker = FakeWorker(1, stubborn=True)
    worker.give_up()
    worker.drain()
    await worker.run()
    assert worker.heard == ["where", Order.DRAIN, "abort", "kill"]
    assert trio.current_time() - begin == pytest.approx(2 * WORDS_TIME)


# --- Small real processes


@contextmanager
def launching(text: str) -> Iterator[Launcher]:
    launcher = Launcher(worker_script(text), [], rows=2)
    yield launcher
    launcher.close()
    launcher.close()  # again does no harm


async def start_worker(text: str) -> WorkerProcess:
    with launching(text) as launcher:
        return await launcher.start()


async def test_each_has_a_row_that_is_its_own_until_it_ends() -> None:
    with launching("s.recv(1)") as launcher, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            workers = [await launcher.start() for _ in range(3)]
            assert [worker.row for worker in workers] == [0, 1, 0]  # more than there is room for
            for worker in workers:
                nursery.start_soon(worker.run)
            workers[1].cancel()
            await workers[1].over.wait()
            workers.append(await launcher.start())
            nursery.start_soon(workers[3].run)
            assert workers[3].row == 1
            for worker in workers:
                worker.cancel()


async def test_what_a_process_says_in_the_table() -> None:
    text = (
        "from trioweb.server._peers import Peers, WorkerTable;"
        "row, _, file = sys.argv[1].partition('=')[2].split(',')[:3];"
        "peers = Peers(WorkerTable.inherited(int(file)), int(row));"
        "peers.live(7); s.send(b'0 0'); s.recv(1)"
    )
    worker = await start_worker(text)
    assert (worker.last_sign(), worker.requests()) == (0, 0)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await worker.settled.wait()
            assert worker.last_sign() > 0
            assert worker.requests() == 7
            worker.cancel()
    assert (worker.last_sign(), worker.requests()) == (0, 0)


@pytest.mark.parametrize(
    ("tracer", "traced"), [(b"0", False), (b"17", True), (None, False)], ids=str
)
async def test_a_debugger_is_seen(
    tracer: bytes | None, traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> bytes:
        if tracer is None:
            raise FileNotFoundError
        return b"Name:\tpython\nTracerPid:\t%b\nUid:\t0\n" % tracer

    worker = await start_worker("s.recv(1)")
    monkeypatch.setattr(Path, "read_bytes", read)
    assert worker.is_traced() is traced
    worker.kill()
    await worker.run()


async def test_a_process_that_hangs_says_so_or_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WORDS_TIME", 20.0)
    worker = await start_worker("s.send(b'0 0'); sys.exit(s.recv(9)[0])")
    with trio.fail_after(20):
        worker.give_up()
        await worker.run()
    assert worker.status == ord("h")
    worker = await start_worker("s.recv(1); s.recv(1)")
    monkeypatch.setattr(processes, "WORDS_TIME", 0.1)
    with trio.fail_after(20):
        worker.give_up()
        monkeypatch.setattr(processes, "WORDS_TIME", 20.0)
        await worker.run()
    assert worker.status == 128 + signal.SIGABRT


async def test_a_process_says_that_it_is_ready_and_hears_what_it_is_to_do() -> None:
    worker = await start_worker("s.send(b'1.5 2.5 3.5'); sys.exit(s.recv(9)[0])")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await worker.settled.wait()
            assert worker.ready
            assert worker.times == Times(1.5, 2.5, 3.5)
            worker.retire()
            worker.cancel()
    assert worker.status == ord("r")
    worker.cancel()
    worker.drain()  # it has gone already


@pytest.mark.parametrize("text", ["", "import time; time.sleep(1000)"])
async def test_a_process_that_ends_before_it_is_ready(text: str) -> None:
    worker = await start_worker(text)
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
    worker = await start_worker(text)
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
    worker = await start_worker(text)
    await worker.run()
    assert worker.status == 2


def test_the_command_is_what_was_typed() -> None:
    command = worker_command(["run", "main:app"])
    assert command[0] == sys.executable
    assert command[-4:] == ["-m", "trioweb", "run", "main:app"]
