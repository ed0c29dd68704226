"""The supervisor, with workers in memory: each of its decisions can be seen there."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb._cli import supervisor
from trioweb._cli.processes import LOOK_INTERVAL, Worker
from trioweb._cli.settings import Settings
from trioweb._cli.signals import ECHO_TIME, Order
from trioweb._cli.supervisor import (
    FIRST_PAUSE,
    LONG_LIFE,
    LONG_START,
    LONGEST_PAUSE,
    Supervisor,
    supervise,
)
from trioweb.server import ServerConfig

from ..support.log_records import messages, on_record
from ..support.workers import FakeWorker, worker_script


class Fleet:
    """A supervisor in a task, the workers that it has started, and signals to send to it."""

    def __init__(
        self,
        count: int = 2,
        *,
        upkeep: Mapping[str, float] = MappingProxyType({}),
        **behaviour: Any,
    ) -> None:
        self.workers: list[FakeWorker] = []
        self.listens = True
        self.status: int | None = None
        self.may_launch = trio.Event()
        self.may_launch.set()
        self.behaviour: dict[str, Any] = behaviour
        self._signals, signals = trio.open_memory_channel[int](math.inf)
        self._run = functools.partial(
            Supervisor(self._start, count, self._stop_listening, **upkeep).run, signals
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


async def test_a_start_that_hangs_is_told_of_and_given_up_at_the_next_sighup(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """What hangs may be what has been mended meanwhile: nobody should have to start all anew."""

    async def script(fleet: Fleet) -> None:
        fleet.behaviour["starts"] = False
        await fleet.signal(signal.SIGHUP)
        [*_, hanging] = fleet.workers
        await trio.sleep(LONG_START / 2)
        assert not messages(caplog, "trioweb.run", level=logging.WARNING)
        await trio.sleep(LONG_START)
        told = messages(caplog, "trioweb.run", level=logging.WARNING)
        assert told == ["worker 2 has been starting for 10 s, and doesn't serve yet"]
        assert not hanging.over.is_set()
        fleet.behaviour["starts"] = True
        await fleet.signal(signal.SIGHUP)
        await trio.sleep(LONG_START)
        assert hanging.heard == [Order.DRAIN]
        assert [worker.pid for worker in fleet.living] == [3, 4]

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


# --- Workers that hang, and workers that have done enough

HANGS = "has given no sign of life for 3.0 s: "


async def test_one_that_is_silent_for_too_long_is_ended_and_replaced(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(fleet: Fleet) -> None:
        for _ in range(20):
            await trio.sleep(LOOK_INTERVAL)
            fleet.workers[1].signs += 1
        assert fleet.workers[0].heard == ["where", "abort", "kill"]
        assert fleet.workers[1].heard == []
        assert [worker.pid for worker in fleet.living] == [1, 2]

    fleet = Fleet(upkeep={"worker_timeout": 3.0})
    begin = trio.current_time()
    await play(fleet, script)
    assert trio.current_time() - begin < 11
    told = messages(caplog, level=logging.ERROR)
    assert told[0] == f"worker 0 {HANGS}its event loop hangs, it is ended and replaced"
    assert told[2].startswith("worker 0 was ended by SIGKILL after 7.")


async def test_one_that_a_debugger_holds_stays(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(fleet: Fleet) -> None:
        fleet.workers[0].traced = True
        await trio.sleep(7.5)
        assert fleet.workers[0].heard == []

    await play(Fleet(1, upkeep={"worker_timeout": 3.0}), script)
    stays = f"worker 0 {HANGS}it stays, because a debugger holds it"
    assert messages(caplog, level=logging.WARNING) == [stays, stays]


async def test_neither_one_that_starts_nor_one_that_drains_hangs(autojump_clock: object) -> None:
    async def script(fleet: Fleet) -> None:
        await trio.sleep(60)
        assert fleet.workers[0].heard == []
        fleet.workers[0].get_ready()
        await wait_all_tasks_blocked()
        await fleet.signal(signal.SIGTERM)
        await trio.sleep(3.5)
        assert fleet.workers[0].heard == [Order.DRAIN]
        fleet.workers[0].end(0)

    fleet = Fleet(1, starts=False, stubborn=True, upkeep={"worker_timeout": 3.0})
    assert await play(fleet, script) == 0


async def test_one_that_has_had_enough_requests_is_replaced_and_the_new_one_is_ready_before(
    autojump_clock: object,
) -> None:
    async def script(fleet: Fleet) -> None:
        fleet.behaviour = {"starts": False}
        fleet.workers[0].served = 99
        fleet.workers[1].served = 111  # a tenth more than was set, at most
        await trio.sleep(LOOK_INTERVAL * 1.5)
        assert fleet.workers[0].heard == fleet.workers[1].heard == []
        fleet.workers[2].get_ready()
        await trio.sleep(LOOK_INTERVAL)
        assert fleet.workers[1].heard == [Order.RETIRE]
        assert [worker.pid for worker in fleet.living] == [0, 2]

    assert await play(Fleet(upkeep={"max_requests": 100}), script) == 0


async def test_those_that_have_lived_for_long_enough_are_replaced_one_by_one(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(fleet: Fleet) -> None:
        await trio.sleep(99)
        assert [worker.pid for worker in fleet.living] == [0, 1, 2]
        fleet.behaviour = {"starts": False}
        await trio.sleep(20)
        assert [worker.pid for worker in fleet.living] == [0, 1, 2, 3]
        for number in (3, 4, 5):
            fleet.workers[number].get_ready()
            await trio.sleep(1)
        assert [worker.pid for worker in fleet.living] == [3, 4, 5]

    assert await play(Fleet(3, upkeep={"workers_lifetime": 100}), script) == 0


async def test_a_new_one_that_cannot_serve_is_tried_again_after_a_pause(
    autojump_clock: object,
) -> None:
    async def script(fleet: Fleet) -> None:
        fleet.behaviour = {"starts": False}
        fleet.workers[0].served = 111
        for number in (1, 2):
            await trio.sleep(LONGEST_PAUSE + 2 * LOOK_INTERVAL)
            fleet.workers[number].end(1)
            await wait_all_tasks_blocked()
            assert len(fleet.workers) == number + 1
        assert [worker.pid for worker in fleet.living] == [0]

    assert await play(Fleet(1, upkeep={"max_requests": 100}), script) == 0


async def test_chance_keeps_them_from_ending_together(autojump_clock: object) -> None:
    async def script(fleet: Fleet) -> None:
        for worker in fleet.workers:
            worker.served = 105
        await trio.sleep(LOOK_INTERVAL * 1.5)
        assert len([worker for worker in fleet.workers[:50] if worker.heard]) not in (0, 50)

    await play(Fleet(50, upkeep={"max_requests": 100}), script)


@pytest.mark.parametrize("port", [0, None])
def test_supervise(
    port: int | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    text = "s.send(b'0 0'); s.recv(1)"
    monkeypatch.setattr(supervisor, "worker_command", lambda arguments: worker_script(text))
    with contextlib.ExitStack() as stack:
        settings = Settings(workers=2, server=ServerConfig(port=0))
        if port is None:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            settings = Settings(workers=2, server=ServerConfig(sockets=[listener.detach()]))
        stack.enter_context(
            on_record("2 workers on", functools.partial(os.kill, os.getpid(), signal.SIGTERM))
        )
        assert supervise(settings, ["run"]) == 0
    assert caplog.records[-1].getMessage() == "all workers have stopped"
