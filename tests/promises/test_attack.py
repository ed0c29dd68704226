"""Attacks on real sockets, small ones: all attackers are gone by their limit, others are served.

How fast the others are served isn't for tests to say: `python -m benchmarks attack`, with as many
attackers as asked.
"""

from __future__ import annotations

import gc
import math
import tracemalloc
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb.server import Server, ServerLimits
from trioweb.server._limits import LINGER_TIME, READ_SIZE
from trioweb.server._receiving import Exchange

from ..support.server_attackers import ATTACKS, LARGE, attack, honest, pipeline
from ..support.server_clients import PATIENCE, connected, listening, patient
from ..support.server_driver import GET, EachParser, Happenings, ParserName

pytestmark = pytest.mark.slow

MIB = 1024 * 1024

ATTACKERS = 30
HONEST = 2
# Seconds of a mock clock.
LIMIT = 4.0  # all of them
BETWEEN_BYTES = 1.0
BETWEEN_REQUESTS = 0.5
# Late is who is only looked at now and then; what never ends is later.
SLACK = 1.0
UNLIMITED = 10**9

MUCH = b"x" * 8 * MIB

PIPELINED = 1_000
IDLE = 200
MOST_FOR_AN_IDLE_CONNECTION = 32 * 1024  # bytes; a tenth of it is likely


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads bodies to their end, and has something to download."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    body = MUCH if scope["path"] == LARGE else b"small"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("name", ATTACKS)
async def test_all_attackers_are_gone_by_their_limit_and_others_are_served(
    name: str, autojump_clock: MockClock
) -> None:
    patient(autojump_clock)
    limits = ServerLimits(
        head_timeout=LIMIT,
        body_timeout=LIMIT,
        write_timeout=LIMIT,
        idle_timeout=PATIENCE,
        max_connection_requests=UNLIMITED,  # the honest ask as often as there is time
    )
    async with listening(app, limits=limits) as server:
        [url] = server.urls
        quick = honest(url, HONEST, pause=BETWEEN_REQUESTS)
        async with quick as others, trio.open_nursery() as attackers:
            attackers.start_soon(attack, url, name, ATTACKERS, BETWEEN_BYTES)
            await arrived(server, HONEST + ATTACKERS)
            began = trio.current_time()
            await gone(server, HONEST)
            took = trio.current_time() - began
            attackers.cancel_scope.cancel()
            served = len(others.seconds)
    assert took <= LIMIT + LINGER_TIME + SLACK
    assert served >= 2 * HONEST


async def arrived(server: Server, count: int) -> None:
    """Returns when so many have connected, whether or not they are still there."""
    happenings = Happenings(server)
    with trio.fail_after(PATIENCE):
        while server.statistics().connections_accepted < count:
            await happenings.wait()


async def gone(server: Server, count: int) -> None:
    """Returns when no more than so many are left."""
    happenings = Happenings(server)
    with trio.fail_after(PATIENCE):
        while server.statistics().connections_open > count:
            await happenings.wait()


@EachParser
async def test_pipelined_requests_are_served_one_at_a_time_in_order(http: ParserName) -> None:
    served: list[str] = []
    buffered: list[int] = []

    async def one_at_a_time(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        served.append(scope["path"])
        exchange: Exchange = receive.__self__
        buffered.append(len(exchange.buffer))
        assert server.statistics().requests_in_flight == 1
        await trio.lowlevel.checkpoint()
        assert served[-1] == scope["path"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    limits = ServerLimits(max_connection_requests=PIPELINED)
    async with listening(one_at_a_time, http=http, limits=limits) as server:
        with trio.fail_after(PATIENCE):
            answers = await pipeline(server.urls[0], PIPELINED)
    assert [answer.body.decode() for answer in answers] == served
    assert served == [f"/{number}" for number in range(PIPELINED)]
    # What isn't served yet waits with the client, but for one read.
    assert max(buffered) <= READ_SIZE


async def test_an_idle_connection_needs_little_memory() -> None:
    limits = ServerLimits(idle_timeout=math.inf)  # none is to go before the last has come
    async with listening(app, limits=limits) as server, AsyncExitStack() as stack:
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(IDLE):
                client = await stack.enter_async_context(connected(server.urls[0]))
                await client.ask(GET)
            gc.collect()
            each = (tracemalloc.get_traced_memory()[0] - before) / IDLE
        finally:
            tracemalloc.stop()
        assert server.statistics().connections_open == IDLE
    assert each < MOST_FOR_AN_IDLE_CONNECTION
