"""The supervisor and its workers: in memory, where each decision can be seen, and for real."""

from __future__ import annotations

import contextlib
import functools
import http.client
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb._cli import processes as _processes, supervisor as _workers
from trioweb._cli.options import Settings
from trioweb._cli.processes import MARGIN, Worker, start_worker, worker_command
from trioweb._cli.signals import ECHO_TIME, Order, Times
from trioweb._cli.supervisor import FIRST_PAUSE, LONG_LIFE, LONGEST_PAUSE, Supervisor, supervise
from trioweb.server._limits import HEADWAY

from ..support.trioweb_process import ENDINGS, TriowebProcess, read_answer, trioweb_process
from .test_run import DRAINING_FOR_LONG, PATIENT, on_record

# --- In memory


class FakeWorker(Worker):
    """A worker whose end is the test's to say; told to end it does, unless it is `stubborn`."""

    def __init__(self, pid: int, *, starts: bool = True, stubborn: bool = False) -> None:
        super().__init__(pid)
        self.heard: list[Order | str] = []
        self._ended = trio.Event()
        self._ended_with = 0
        self._stubborn = stubborn
        if starts:
            self._settle(Times(3.0, 2.0))

    def end(self, status: int) -> None:
        self._ended_with = status
        self._ended.set()

    def get_ready(self) -> None:
        self._settle(Times(3.0, 2.0))

    async def _wait(self) -> int:
        await self._ended.wait()
        return self._ended_with

    def _send(self, order: Order) -> None:
        self.heard.append(order)
        if not self._stubborn:
            self.end(0)

    def _kill(self) -> None:
        self.heard.append("kill")
        self.end(128 + signal.SIGKILL)


class Fleet:
    """A supervisor in a task, the workers that it has started, and signals to send to it."""

    def __init__(self, count: int = 2, **behaviour: Any) -> None:
        self.workers: list[FakeWorker] = []
        self.listens = True
        self.status: int | None = None
        self.may_launch = trio.Event()
        self.may_launch.set()
        self.behaviour: dict[str, Any] = behaviour
        self._signals, signals = trio.open_memory_channel[int](math.inf)
        self._run = functools.partial(
            Supervisor(self._start, count, self._stop_listening).run, signals
        )

    async def _start(self) -> Worker:
        await self.may_launch.wait()
        worker = FakeWorker(len(self.workers), **self.behaviour)
        self.workers.append(worker)
        return worker

    def _stop_listening(self) -> None:
        self.listens = False

    async def run(self) -> None:
        self.status = await self._run()

    async def signal(self, number: int) -> None:
        self._signals.send_nowait(number)
        await wait_all_tasks_blocked()

    @property
    def living(self) -> list[FakeWorker]:
        return [worker for worker in self.workers if not worker.over.is_set()]


Script = Callable[[Fleet], Awaitable[None]]


async def play(fleet: Fleet, script: Script) -> int | None:
    """Run the script beside the fleet; what is left of it ends at SIGTERM."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.run)
        await wait_all_tasks_blocked()
        await script(fleet)
        await fleet.signal(signal.SIGTERM)
    return fleet.status


async def test_all_drain_at_the_first_signal_and_nobody_listens(autojump_clock: object) -> None:
    fleet = Fleet(3, stubborn=True)

    async def script(fleet: Fleet) -> None:
        assert len(fleet.living) == 3
        await fleet.signal(signal.SIGINT)
        assert not fleet.listens
        assert [worker.heard for worker in fleet.workers] == [[Order.DRAIN]] * 3
        await fleet.signal(signal.SIGINT)  # an echo of the first
        assert [worker.heard for worker in fleet.workers] == [[Order.DRAIN]] * 3
        await trio.sleep(ECHO_TIME)
        await fleet.signal(signal.SIGINT)
        assert [worker.heard for worker in fleet.workers] == [[Order.DRAIN, Order.CANCEL]] * 3
        await fleet.signal(signal.SIGTERM)
        assert [worker.heard for worker in fleet.workers] == [[Order.DRAIN, Order.CANCEL]] * 3
        fleet.workers[0].end(0)
        fleet.workers[1].end(3)
        fleet.workers[2].end(1)

    assert await play(fleet, script) in (1, 3)
    assert len(fleet.workers) == 3


@pytest.mark.parametrize("already", [0, 1])
async def test_a_worker_that_is_launched_as_the_end_comes_drains_at_once(
    already: int, autojump_clock: object
) -> None:
    """Until then the socket stays open: the worker is to inherit it."""
    fleet = Fleet(2)
    if not already:
        fleet.may_launch = trio.Event()

    async def script(fleet: Fleet) -> None:
        if already:
            fleet.may_launch = trio.Event()
            fleet.workers[0].end(128 + signal.SIGSEGV)
            await trio.sleep(FIRST_PAUSE * 1.1)
        launched = len(fleet.workers)
        await fleet.signal(signal.SIGTERM)
        assert fleet.listens
        fleet.may_launch.set()
        await wait_all_tasks_blocked()
        assert not fleet.listens
        [worker] = fleet.workers[launched:]
        assert worker.heard == [Order.DRAIN]

    assert await play(fleet, script) == 0


async def test_a_good_end_has_the_status_0() -> None:
    async def script(fleet: Fleet) -> None: ...

    assert await play(Fleet(), script) == 0


async def test_a_crash_is_replaced_after_a_pause_that_grows(autojump_clock: object) -> None:
    async def script(fleet: Fleet) -> None:
        for crashes in range(12):
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**crashes)
            fleet.workers[-1].end(128 + signal.SIGSEGV)
            await trio.sleep(pause * 0.9)
            assert len(fleet.living) == 1
            await trio.sleep(pause * 0.2)
            assert len(fleet.living) == 2
        await trio.sleep(LONG_LIFE)
        fleet.workers[-1].end(1)
        await trio.sleep(FIRST_PAUSE * 1.1)
        assert len(fleet.living) == 2

    assert await play(Fleet(), script) == 0


async def test_a_signal_ends_the_pause_too(autojump_clock: object) -> None:
    async def script(fleet: Fleet) -> None:
        fleet.workers[0].end(1)
        await wait_all_tasks_blocked()

    fleet = Fleet()
    begin = trio.current_time()
    await play(fleet, script)
    assert trio.current_time() - begin < FIRST_PAUSE
    assert len(fleet.workers) == 2


@pytest.mark.parametrize(("status", "expected"), [(1, 1), (139, 139), (0, 1)])
async def test_an_app_that_cannot_start_ends_it_all(status: int, expected: int) -> None:
    async def script(fleet: Fleet) -> None:
        assert len(fleet.workers) == 1  # the others would only say the same
        fleet.workers[0].end(status)
        await wait_all_tasks_blocked()
        assert not fleet.listens

    fleet = Fleet(4, starts=False)
    assert await play(fleet, script) == expected
    assert len(fleet.workers) == 1


async def test_a_signal_before_the_first_worker_is_ready() -> None:
    async def script(fleet: Fleet) -> None:
        await fleet.signal(signal.SIGTERM)

    assert await play(Fleet(starts=False), script) == 0


async def test_later_it_ends_when_nobody_is_left_who_serves(autojump_clock: object) -> None:
    async def script(fleet: Fleet) -> None:
        fleet.behaviour = {"starts": False}
        fleet.workers[0].end(1)
        await trio.sleep(FIRST_PAUSE)
        await wait_all_tasks_blocked()
        fleet.workers[2].end(1)  # while another serves it is tried again
        await trio.sleep(2 * FIRST_PAUSE)
        await wait_all_tasks_blocked()
        assert len(fleet.workers) == 4
        fleet.workers[1].end(5)
        await wait_all_tasks_blocked()
        fleet.workers[3].end(7)
        await wait_all_tasks_blocked()
        assert not fleet.listens

    assert await play(Fleet(), script) == 7


async def test_sighup_replaces_one_by_one_and_the_new_one_is_ready_before() -> None:
    async def script(fleet: Fleet) -> None:
        fleet.behaviour = {"starts": False}
        await fleet.signal(signal.SIGHUP)
        await fleet.signal(signal.SIGHUP)  # heard, and done after the first
        assert [worker.heard for worker in fleet.workers] == [[], [], []]
        fleet.workers[2].get_ready()
        await wait_all_tasks_blocked()
        assert fleet.workers[0].over.is_set()
        assert [worker.pid for worker in fleet.living] == [1, 2, 3]
        fleet.behaviour = {}
        fleet.workers[3].get_ready()
        await wait_all_tasks_blocked()
        assert [worker.pid for worker in fleet.living] == [4, 5]

    assert await play(Fleet(), script) == 0


async def test_sighup_with_an_app_that_cannot_start_changes_nothing() -> None:
    async def script(fleet: Fleet) -> None:
        fleet.behaviour = {"starts": False}
        await fleet.signal(signal.SIGHUP)
        fleet.workers[2].end(1)
        await wait_all_tasks_blocked()
        assert [worker.pid for worker in fleet.living] == [0, 1]

    assert await play(Fleet(), script) == 0


async def test_a_crash_while_it_is_replaced_is_no_second_worker(autojump_clock: object) -> None:
    async def script(fleet: Fleet) -> None:
        fleet.behaviour = {"starts": False}
        await fleet.signal(signal.SIGHUP)
        fleet.workers[0].end(1)
        await trio.sleep(1)
        fleet.behaviour = {}
        fleet.workers[2].get_ready()
        await wait_all_tasks_blocked()
        assert [worker.pid for worker in fleet.living] == [2, 3]

    assert await play(Fleet(), script) == 0


async def test_a_worker_that_crashes_after_sighup_is_replaced_while_the_old_one_drains(
    autojump_clock: object,
) -> None:
    async def script(fleet: Fleet) -> None:
        await fleet.signal(signal.SIGHUP)
        assert [worker.pid for worker in fleet.living] == [0, 1]
        fleet.workers[1].end(1)
        await trio.sleep(2 * FIRST_PAUSE)
        assert [worker.pid for worker in fleet.living] == [0, 2]
        fleet.workers[0].end(0)

    fleet = Fleet(1, stubborn=True)
    await play(fleet, script)


async def test_a_signal_while_one_is_replaced() -> None:
    async def script(fleet: Fleet) -> None:
        fleet.behaviour = {"starts": False}
        await fleet.signal(signal.SIGHUP)
        await fleet.signal(signal.SIGTERM)
        assert fleet.living == []

    assert await play(Fleet(), script) == 0


async def test_a_signal_while_one_is_started() -> None:
    fleet = Fleet(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.run)
        fleet._signals.send_nowait(signal.SIGTERM)
    assert fleet.status == 0
    assert fleet.living == []


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

READY = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1].split('=')[1]));"


def script(text: str) -> list[str]:
    return [sys.executable, "-c", READY + text]


async def test_a_process_says_that_it_is_ready_and_hears_cancel() -> None:
    worker = await start_worker(script("s.send(b'1.5 2.5'); sys.exit(s.recv(9)[0])"), [])
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await worker.settled.wait()
            assert worker.ready
            assert worker._times == Times(1.5, 2.5)
            worker.cancel()
    assert worker.status == ord("c")
    worker.cancel()
    worker.drain()  # it has gone already


@pytest.mark.parametrize("text", ["", "import time; time.sleep(1000)"])
async def test_a_process_that_ends_before_it_is_ready(text: str) -> None:
    worker = await start_worker(script(text), [])
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            if text:
                worker.drain()
            await worker.settled.wait()
            assert not worker.ready
    assert worker.status == (128 + signal.SIGTERM if text else 0)


async def test_a_process_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes, "MARGIN", -1.0)
    text = "import signal; signal.signal(15, signal.SIG_IGN); s.send(b'0 0'); s.recv(1)"
    worker = await start_worker(script(text), [])
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
    worker = await start_worker(script(text), [])
    await worker.run()
    assert worker.status == 2


def test_the_command_is_what_was_typed() -> None:
    command = worker_command(["run", "main:app"])
    assert command[0] == sys.executable
    assert command[-4:] == ["-m", "trioweb", "run", "main:app"]


@pytest.mark.parametrize("port", [0, None])
def test_supervise(
    port: int | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    text = "s.send(b'0 0'); s.recv(1)"
    monkeypatch.setattr(_workers, "worker_command", lambda arguments: script(text))
    with contextlib.ExitStack() as stack:
        settings = Settings(workers=2, limits={}, port=0)
        if port is None:
            listener = stack.enter_context(_bound())
            settings = Settings(workers=2, limits={}, fd=listener.detach())
        stack.enter_context(
            on_record("2 workers on", functools.partial(os.kill, os.getpid(), signal.SIGTERM))
        )
        assert supervise(settings, ["run"]) == 0
    assert caplog.records[-1].getMessage() == "all workers have stopped"


def _bound() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


# --- The program


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(ENDINGS)
    return tmp_path


@contextlib.contextmanager
def workers(
    folder: Path, *options: str, program: Sequence[str] = ("-m", "trioweb")
) -> Iterator[tuple[TriowebProcess, list[int]]]:
    arguments = ("run", "--port", "0", "--workers", "2", *options)
    with trioweb_process(*arguments, cwd=folder, program=program) as server:
        yield server, server.wait_for_workers(2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_drains_all_and_none_cuts_another_off(
    folder: Path, number: signal.Signals, to_all: bool
) -> None:
    with workers(folder) as (server, pids):
        server.ask("POST", "/task/short")
        server.wait_for_line("event short began")
        if to_all:
            server.send_group_signal(number)
        else:
            server.send_signal(number)
        assert server.wait() == 0
        assert "event short ended" in server.log
        for pid in pids:
            assert f"event lifespan closed {pid}" in server.log
        assert "Traceback" not in server.log
        assert "cancelling" not in server.log


@pytest.mark.parametrize("to_all", [False, True])
def test_a_second_signal_cancels_in_all(folder: Path, to_all: bool) -> None:
    with workers(folder, *DRAINING_FOR_LONG) as (server, _):
        server.ask("POST", "/task/endless")
        server.wait_for_line("event endless began")
        send = server.send_group_signal if to_all else server.send_signal
        send(signal.SIGINT)
        server.wait_for_lines("draining: ", 2)
        time.sleep(ECHO_TIME)  # a person takes longer
        send(signal.SIGINT)
        assert server.wait() == 0
        assert "event endless cleaned up" in server.log
        assert "Traceback" not in server.log


# A supervisor that doesn't kill a worker for being late on a busy machine.
PATIENT_SUPERVISOR = """
from trioweb import __main__
from trioweb._cli import processes as _processes
_processes.MARGIN = 20.0
__main__.command()
"""


def test_what_does_not_end_in_a_worker_is_named_by_it(folder: Path) -> None:
    (folder / "main.py").write_text(ENDINGS + PATIENT)
    short = ("--drain-timeout", "0.1", "--cleanup-timeout", "0.1")
    with workers(folder, *short, program=("-c", PATIENT_SUPERVISOR)) as (server, _):
        server.ask("POST", "/task/stubborn")
        server.wait_for_line("event stubborn began")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 3
        assert "still runs: task stubborn of POST" in server.log
        assert "killing it" not in server.log


def test_a_crashed_worker_is_replaced(folder: Path) -> None:
    with workers(folder) as (server, pids):
        os.kill(pids[0], signal.SIGKILL)
        line = server.wait_for_line("was ended by SIGKILL")
        assert f"worker {pids[0]} " in line
        *_, new = server.wait_for_workers(3)
        assert new not in pids
        assert server.ask("GET", "/")
        assert server.stop() == 0


def test_workers_whose_supervisor_died_drain(folder: Path) -> None:
    with workers(folder) as (server, pids):
        server.ask("POST", "/task/short")
        server.wait_for_line("event short began")
        os.kill(server.pid, signal.SIGKILL)
        server.wait()  # until the last process that holds the output has ended
        assert "event short ended" in server.log
        for pid in pids:
            assert f"event lifespan closed {pid}" in server.log


@pytest.mark.parametrize(
    ("source", "status", "line"),
    [("1 / 0", 2, "ZeroDivisionError"), ("import os; os.abort()", 134, "ended by SIGABRT")],
)
def test_an_app_that_cannot_start_is_told_once(
    folder: Path, source: str, status: int, line: str
) -> None:
    (folder / "main.py").write_text(source)
    with trioweb_process("run", "--workers", "3", "--port", "0", cwd=folder) as server:
        assert server.wait() == status
        assert server.log.count(line) == 1


class Load:
    """Requests from threads, each on a connection of its own, until it is stopped.

    At its end it raises what any of them has raised.  Who connects to a worker that drains, and
    then says nothing for longer than it waits for anybody, may be shown the door.
    """

    def __init__(self, server: TriowebProcess, threads: int = 4) -> None:
        self.answers: Counter[str] = Counter()
        self._server = server
        self._stop = threading.Event()
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Load:
        self._asking = [self._pool.submit(self._ask) for _ in range(self._threads)]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for asking in self._asking:
            asking.result()

    def _ask(self) -> None:
        while not self._stop.is_set():
            with contextlib.closing(self._server.connect()) as connection:
                self._ask_on(connection)

    def _ask_on(self, connection: http.client.HTTPConnection) -> None:
        began = time.monotonic()
        connection.connect()
        try:
            try:
                connection.request("GET", "/")
            finally:
                silence = time.monotonic() - began
            self.answers[read_answer(connection)] += 1
        except ConnectionError:  # pragma: no cover - where the machine is busy
            if silence <= HEADWAY:
                raise


def test_sighup_replaces_all_without_refusing_a_connection(folder: Path) -> None:
    with workers(folder, "--no-access-log") as (server, old):
        with Load(server) as load:
            (folder / "main.py").write_text(ENDINGS.replace("VERSION = 1", "VERSION = 2"))
            server.send_signal(signal.SIGHUP)
            new = server.wait_for_workers(4)[2:]
            for pid in old:
                server.wait_for_line(f"event lifespan closed {pid}")
        answers = {f"[{pid},1]" for pid in old} | {f"[{pid},2]" for pid in new}
        assert set(load.answers) <= answers
        assert server.ask("GET", "/") in {f"[{pid},2]" for pid in new}
        assert server.stop() == 0


def test_sighup_with_an_app_that_cannot_start_keeps_the_old_workers(folder: Path) -> None:
    with workers(folder) as (server, old):
        (folder / "main.py").write_text("1 / 0")
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("can't serve; worker ")
        assert server.ask("GET", "/") in {f"[{pid},1]" for pid in old}
        assert server.stop() == 0
