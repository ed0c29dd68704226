"""The load that `balance` makes; how fast is not for tests to say."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from benchmarks import balance
from benchmarks.apps.endpoints import WrongAnswer

from ..support.closed_loop import BROKEN, ClosedLoop, to_port
from ..support.server_clients import address_of, listening, patient
from ..support.server_driver import echo, http_app, respond


@http_app
async def a_second(scope: Any, receive: Any, send: Any) -> None:
    await trio.sleep(1)
    await respond(send)


@http_app
async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """The server closes a connection after a half of an answer."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


async def test_the_rate_is_that_of_the_time_after_the_warm_up(autojump_clock: MockClock) -> None:
    patient(autojump_clock)
    async with listening(a_second) as server:
        load = ClosedLoop(to_port(address_of(server.urls[0])[1]))
        assert await load.measure(3, warm_up=1.5, seconds=10) == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize(("app", "counted"), [(echo, 200), (nothing, BROKEN)])
async def test_what_comes_is_counted(app: Any, counted: int | str) -> None:
    async with listening(app) as server:
        load = ClosedLoop(to_port(address_of(server.urls[0])[1]), methods=("GET", "POST"))
        load.wanted = 5
        await load.run(2)
        assert load.answers == {counted: 5}
    if counted == 200:
        balance.check(load)
    else:
        with pytest.raises(WrongAnswer, match="'broken': 5"):
            balance.check(load)
