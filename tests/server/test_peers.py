"""Workers on the same sockets: who accepts, how many, and how one leaves without harm."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from trioweb.server import Server, ServerConfig, ServerLimits, _limits, serve_config
from trioweb.server._limits import (
    IDLE_LOOKS,
    LET_OTHERS_GO,
    LIFE_SIGN_INTERVAL,
    LIFE_SIGN_LASTS,
    LONGEST_RETIREMENT,
)
from trioweb.server._peers import Load, Peers, WorkerTable

from ..support.server_clients import PATIENCE, connected, patient
from ..support.server_driver import GET, Client, echo, statuses, without_bugs

LIMITS = ServerLimits(idle_timeout=3.0, head_timeout=2.0)


class Shop:
    """Listening sockets, the workers that share them, and their table."""

    def __init__(self, rows: int) -> None:
        self.table = WorkerTable.create(rows)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        host, port = self.listener.getsockname()
        self.url = f"http://{host}:{port}"

    def peers(self, row: int) -> Peers:
        return Peers(self.table, row, trio.current_time)

    def pretend(self, row: int, connections: int) -> Peers:
        """A worker that lives, and never accepts anything more."""
        peers = self.peers(row)
        peers.live(0)
        peers.accept(Load(connections, connections))
        return peers

    @asynccontextmanager
    async def worker(self, row: int, **options: object) -> AsyncIterator[Server]:
        config = ServerConfig(
            sockets=[self.listener.dup()],
            **{"limits": LIMITS, **options},  # type: ignore[arg-type]
        )
        peers = self.peers(row)
        with without_bugs():
            async with trio.open_nursery() as nursery:
                server: Server = await nursery.start(
                    partial(serve_config, echo, config, peers=peers)
                )
                yield server
                await server.shutdown()

    async def clients(self, stack: AsyncExitStack, count: int) -> list[Client]:
        return [await stack.enter_async_context(connected(self.url)) for _ in range(count)]


@asynccontextmanager
async def shop(rows: int = 4) -> AsyncIterator[Shop]:
    made = Shop(rows)
    with made.listener, made.table.file, trio.fail_after(1000):
        yield made


def spread(servers: list[Server]) -> list[int]:
    return sorted(server.statistics().connections_open for server in servers)


# What the table says


def test_least_is_the_fewest_of_others_who_accept_and_live() -> None:
    now = 100.0
    table = WorkerTable.create(4)
    with table.file:
        one, two, three, _ = (Peers(table, row, lambda: now) for row in range(4))
        assert one.least() is None
        for peers in (one, two, three):
            peers.live(0)
        assert one.least() is None
        one.accept(Load(0, 9))
        assert one.least() is None  # itself isn't another one
        two.accept(Load(1, 5))
        three.accept(Load(1, 7))
        assert [peers.least() for peers in (one, two, three)] == [(1, 5), (0, 9), (0, 9)]
        one.withdraw()
        assert [peers.least() for peers in (one, two, three)] == [(1, 5), (1, 7), (1, 5)]
        now += LIFE_SIGN_LASTS + 0.001
        three.live(12)
        assert [peers.least() for peers in (one, two, three)] == [(1, 7), (1, 7), None]
        assert table.requests.tolist() == [0, 0, 12, 0]
        table.clear(2)
        assert one.least() is None
        assert table.requests.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_processes_share_it(has_memory_files: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_memory_files:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    table = WorkerTable.create(3)
    with table.file:
        theirs = WorkerTable.inherited(os.dup(table.file.fileno()))
        Peers(theirs, 2).live(9)
        assert table.requests.tolist() == [0, 0, 9]
        assert table.signs[2] > 0
        assert not os.get_inheritable(table.file.fileno())


# Who accepts


@pytest.mark.parametrize(("count", "each"), [(12, 3), (64, 16)])
async def test_connections_are_spread_evenly(count: int, each: int) -> None:
    async with shop() as place, AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(place.worker(row)) for row in range(4)]
        with trio.fail_after(PATIENCE):
            for client in await place.clients(stack, count):
                assert (await client.ask(GET)).status == 200
        least, *_, most = spread(servers)
        assert least >= each * 0.6, spread(servers)
        assert most <= each * 1.4, spread(servers)


@pytest.mark.parametrize("late", [True, False])
async def test_a_new_worker_gets_its_share_from_one_that_has_too_much_to_do(
    late: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection that is let go has an answer that says so."""
    patient(autojump_clock)
    monkeypatch.setattr(_limits, "LATE", 0.0 if late else 0.005)
    async with shop() as place, AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(place.worker(0))]
        clients = await place.clients(stack, 12)
        for client in clients:
            assert (await client.ask(GET)).status == 200
        await trio.sleep(2 * LIFE_SIGN_INTERVAL)  # alone it lets go of none
        servers += [await stack.enter_async_context(place.worker(row)) for row in (1, 2, 3)]
        clients = [await again(client, place, stack) for client in clients]
        assert spread(servers) == [0, 0, 0, 12]
        for _ in range(8):
            await trio.sleep(2 * LIFE_SIGN_INTERVAL)
            clients = [await again(client, place, stack) for client in clients]
        if late:
            assert min(spread(servers)) >= 2, spread(servers)
        else:
            assert spread(servers) == [0, 0, 0, 12]


async def test_no_more_are_let_go_than_are_too_many(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even while those that are let go take their time; and none that is idle."""
    patient(autojump_clock)
    monkeypatch.setattr(_limits, "LATE", 0.0)
    patience = ServerLimits(idle_timeout=1000)
    async with shop() as place, AsyncExitStack() as stack, place.worker(0, limits=patience):
        clients = await place.clients(stack, 16)
        for client in clients:
            assert (await client.ask(GET)).status == 200
        await trio.sleep((IDLE_LOOKS + 2) * LIFE_SIGN_INTERVAL)
        place.pretend(1, 2)
        for client in clients[:12]:
            assert (await client.ask(GET)).status == 200
        await trio.sleep((IDLE_LOOKS - 3) * LIFE_SIGN_INTERVAL)
        answers = [await client.ask(GET) for client in clients]
        assert [bool(answer[b"connection"]) for answer in answers[:12]].count(True) == 5
        assert not any(answer[b"connection"] for answer in answers[12:])


async def again(client: Client, place: Shop, stack: AsyncExitStack) -> Client:
    """The client after one more answer: another one, if the server has let go of it."""
    response = await client.ask(GET)
    assert response.status == 200
    if response[b"connection"] != [b"close"]:
        return client
    await client.leave()
    [other] = await place.clients(stack, 1)
    return other


async def test_a_thousand_at_once_are_accepted_in_few_turns(
    autojump_clock: MockClock,
) -> None:
    """Even beside a worker that lives and takes nothing; each turn lets that one go first."""
    patient(autojump_clock)
    async with shop() as place, AsyncExitStack() as stack:
        clients = await place.clients(stack, 300)
        place.pretend(3, 0)
        begin = trio.current_time()
        async with place.worker(0, limits=ServerLimits(head_timeout=100)):
            for client in clients:
                assert (await client.ask(GET)).status == 200
            turns = (trio.current_time() - begin) / LET_OTHERS_GO
            assert 10 < turns < 30


async def test_who_has_more_waits_once_and_who_has_not_does_not_wait(
    autojump_clock: MockClock,
) -> None:
    patient(autojump_clock)
    async with shop() as place, place.worker(0), AsyncExitStack() as stack:
        other = place.pretend(1, 0)
        for own, theirs in ((0, 0), (1, 0), (2, 2), (3, 2), (4, 9), (5, 0)):
            other.live(0)
            other.accept(Load(theirs, theirs))
            begin = trio.current_time()
            [client] = await place.clients(stack, 1)
            assert (await client.ask(GET)).status == 200
            waited = trio.current_time() - begin
            assert waited == pytest.approx(LET_OTHERS_GO if own > theirs else 0), own


async def test_nobody_waits_for_one_that_is_dead_or_has_left(autojump_clock: MockClock) -> None:
    patient(autojump_clock)
    async with shop() as place, AsyncExitStack() as stack, place.worker(0):
        other = place.pretend(1, 0)
        await trio.sleep(LIFE_SIGN_LASTS + 0.1)
        for client in await place.clients(stack, 5):
            begin = trio.current_time()
            assert (await client.ask(GET)).status == 200
            assert trio.current_time() == begin
            other.live(0)
            other.withdraw()


async def test_one_that_is_alone_accepts_all_at_once(autojump_clock: MockClock) -> None:
    patient(autojump_clock)
    async with shop() as place, AsyncExitStack() as stack:
        clients = await place.clients(stack, 50)
        begin = trio.current_time()
        async with place.worker(0) as server:
            await clients[0].ask(GET)
            assert spread([server]) == [50]
            assert trio.current_time() == begin


async def test_max_connections_holds(autojump_clock: MockClock) -> None:
    patient(autojump_clock)
    async with shop() as place, AsyncExitStack() as stack:
        clients = await place.clients(stack, 5)
        options = {"limits": ServerLimits(max_connections=2, idle_timeout=1000)}
        servers = [await stack.enter_async_context(place.worker(n, **options)) for n in range(2)]
        await trio.sleep(1)
        assert spread(servers) == [2, 2]
        least = place.peers(2).least()
        assert least is not None
        assert least.open == 2
        await clients[0].leave()
        assert (await clients[4].ask(GET)).status == 200


# Who leaves


async def test_one_that_retires_gives_each_connection_one_more_answer(
    autojump_clock: MockClock,
) -> None:
    patient(autojump_clock)
    async with shop() as place, place.worker(0) as server, AsyncExitStack() as stack:
        idle, new, silent = await place.clients(stack, 3)
        assert b"connection" not in dict((await idle.ask(GET)).fields)
        server.retire()
        server.retire()  # again does nothing
        await trio.sleep(0.5)
        assert place.table.taken[0] == 0
        [waiting] = await place.clients(stack, 1)  # in the queue, for others
        for client in (idle, new):
            response = await client.ask(GET)
            assert (response.status, response[b"connection"]) == (200, [b"close"])
            assert await client.rest() == b""
        begin = trio.current_time()
        await waiting.send(GET)
        assert statuses(await silent.rest()) == []  # it had its time
        await server.wait_closed()
        assert 1 < trio.current_time() - begin < LIMITS.idle_timeout
        async with place.worker(1):
            assert (await waiting.response()).status == 200


async def test_one_that_retires_without_idle_connections_drains_at_once(
    autojump_clock: MockClock,
) -> None:
    patient(autojump_clock)
    async with shop() as place, place.worker(0) as server:
        begin = trio.current_time()
        server.retire()
        await server.wait_closed()
        assert trio.current_time() == begin


async def test_a_shutdown_ends_the_retirement(autojump_clock: MockClock) -> None:
    patient(autojump_clock)
    async with shop() as place, place.worker(0) as server, AsyncExitStack() as stack:
        [client] = await place.clients(stack, 1)
        await client.ask(GET)
        server.retire()
        await trio.sleep(0.5)
        begin = trio.current_time()
        await server.shutdown()
        assert trio.current_time() - begin < 0.1
        assert await client.rest() == b""


@pytest.mark.parametrize(
    ("idle", "head", "most"), [(3, 2, 3), (3, 9, 9), (float("inf"), 9, LONGEST_RETIREMENT)]
)
async def test_how_long_a_retirement_takes(idle: float, head: float, most: float) -> None:
    limits = ServerLimits(idle_timeout=idle, head_timeout=head)
    async with shop() as place, place.worker(0, limits=limits) as server:
        assert server.retire_timeout == most
