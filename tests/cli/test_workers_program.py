"""`trioweb run --workers` as a program: its processes, and their ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trioweb._cli.signals import ECHO_TIME
from trioweb.server._limits import HEADWAY

from ..support.trioweb_process import (
    DRAINING_FOR_LONG,
    ENDINGS,
    PATIENT,
    TriowebProcess,
    read_answer,
    trioweb_process,
)

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@contextlib.contextmanager
def workers(
    endings: Path, *options: str, program: Sequence[str] = ("-m", "trioweb")
) -> Iterator[tuple[TriowebProcess, list[int]]]:
    arguments = ("run", "--port", "0", "--workers", "2", *options)
    with trioweb_process(*arguments, cwd=endings, program=program) as server:
        yield server, server.wait_for_workers(2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_drains_all_and_none_cuts_another_off(
    endings: Path, number: signal.Signals, to_all: bool
) -> None:
    with workers(endings) as (server, pids):
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
def test_a_second_signal_cancels_in_all(endings: Path, to_all: bool) -> None:
    with workers(endings, *DRAINING_FOR_LONG) as (server, pids):
        server.ask("POST", "/task/endless")
        server.wait_for_line("event endless began")
        send = server.send_group_signal if to_all else server.send_signal
        send(signal.SIGINT)
        server.wait_for_lines("draining", 3)  # the supervisor too: it counts from its own first
        time.sleep(ECHO_TIME)  # a person takes longer
        send(signal.SIGINT)
        assert server.wait() == 0
        assert "event endless cleaned up" in server.log
        for pid in pids:
            assert f"event lifespan closed {pid}" in server.log
        assert "Traceback" not in server.log


# A supervisor that doesn't kill a worker for being late on a busy machine.
PATIENT_SUPERVISOR = """
from trioweb import __main__
from trioweb._cli import processes
processes.MARGIN = 20.0
__main__.command()
"""


def test_what_does_not_end_in_a_worker_is_named_by_it(endings: Path) -> None:
    (endings / "main.py").write_text(ENDINGS + PATIENT)
    short = ("--drain-timeout", "0.1", "--cleanup-timeout", "0.1")
    with workers(endings, *short, program=("-c", PATIENT_SUPERVISOR)) as (server, _):
        server.ask("POST", "/task/stubborn")
        server.wait_for_line("event stubborn began")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 3
        assert "still runs: task stubborn of POST" in server.log
        assert "killing it" not in server.log


def test_a_crashed_worker_is_replaced(endings: Path) -> None:
    with workers(endings) as (server, pids):
        os.kill(pids[0], signal.SIGKILL)
        line = server.wait_for_line("was ended by SIGKILL")
        assert f"worker {pids[0]} " in line
        *_, new = server.wait_for_workers(3)
        assert new not in pids
        assert server.ask("GET", "/")
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("way", "where", "end"),
    [
        ("block", "in block", "ended with status 3"),
        ("backtrack", "in backtrack", "was ended by SIGABRT"),
        ("stop", "hangs", "was ended by SIG"),  # KILL, or ABRT if it goes on
    ],
)
def test_a_worker_that_hangs_says_where_and_is_replaced(
    endings: Path, way: str, where: str, end: str
) -> None:
    with workers(endings, "--worker-timeout", "3") as (server, pids):
        if way == "stop":
            os.kill(pids[0], signal.SIGSTOP)
        else:
            with contextlib.closing(server.connect()) as connection:
                connection.request("POST", f"/{way}")
                server.wait_for_line("event b")
        line = server.wait_for_line("has given no sign of life for 3.0 s")
        [hung] = [pid for pid in pids if f"worker {pid} " in line]
        assert f"worker {hung} {end}" in server.wait_for_line("replaced in")
        assert where in server.log
        *_, new = server.wait_for_workers(3)
        assert new not in pids
        assert server.ask("GET", "/")
        assert server.stop() == 0


def test_connections_that_stay_open_are_spread_over_all_workers(endings: Path) -> None:
    with trioweb_process("run", "--port", "0", "--workers", "4", cwd=endings) as server:
        server.wait_for_workers(4)
        with contextlib.ExitStack() as stack:
            answers: Counter[str] = Counter()
            for _ in range(12):
                connection = stack.enter_context(contextlib.closing(server.connect()))
                connection.request("GET", "/")
                answers[read_answer(connection)] += 1
            assert len(answers) == 4, answers
            assert min(answers.values()) >= 2, answers
        assert server.stop() == 0


def test_workers_are_recycled_without_losing_an_answer(endings: Path) -> None:
    with workers(endings, "--max-requests", "20") as (server, old):
        with Load(server, threads=2):
            server.wait_for_workers(4)
            for pid in old:
                server.wait_for_line(f"event lifespan closed {pid}")
        assert server.stop() == 0
        assert server.log.count("it has had ") >= 2


def test_workers_whose_supervisor_died_drain(endings: Path) -> None:
    with workers(endings) as (server, pids):
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
    endings: Path, source: str, status: int, line: str
) -> None:
    (endings / "main.py").write_text(source)
    with trioweb_process("run", "--workers", "3", "--port", "0", cwd=endings) as server:
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


def test_sighup_replaces_all_without_refusing_a_connection(endings: Path) -> None:
    with workers(endings, "--no-access-log") as (server, old):
        with Load(server) as load:
            (endings / "main.py").write_text(ENDINGS.replace("VERSION = 1", "VERSION = 2"))
            server.send_signal(signal.SIGHUP)
            new = server.wait_for_workers(4)[2:]
            for pid in old:
                server.wait_for_line(f"event lifespan closed {pid}")
        answers = {f"[{pid},1]" for pid in old} | {f"[{pid},2]" for pid in new}
        assert set(load.answers) <= answers
        assert server.ask("GET", "/") in {f"[{pid},2]" for pid in new}
        assert server.stop() == 0


def test_sighup_with_an_app_that_cannot_start_keeps_the_old_workers(endings: Path) -> None:
    with workers(endings) as (server, old):
        (endings / "main.py").write_text("1 / 0")
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("can't serve; worker ")
        assert server.ask("GET", "/") in {f"[{pid},1]" for pid in old}
        assert server.stop() == 0
