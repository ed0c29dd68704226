"""What fails and is shared by many ends neither them nor the server: a sweep, a log, a listener."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb._asgi import ServerEvent
from trioweb.server import ConnectionClosed, ServerConfig
from trioweb.server._access import AccessLog, Answer
from trioweb.server._connection import Connection
from trioweb.server._server import run_server

from ..support.log_records import messages
from ..support.server_driver import GET, Running, echo, serving


def test_an_answer_that_cant_be_written_ends_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Not those that wait behind it either."""
    caplog.set_level(logging.INFO)
    log = AccessLog()
    bad: Any = "no bytes"
    for method in (bad, b"GET"):
        log.add(Answer("127.0.0.1", method, b"/", b"1.1", 200, 1, 0.0))
    log.flush()
    bug, line = messages(caplog)
    assert bug == "a bug in trioweb's server, please report it"
    assert line.startswith('127.0.0.1 "GET / ')


async def test_a_sweep_that_fails_at_one_connection_goes_on_to_the_others(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[Connection] = []

    def sweep(self: Connection, now: float, nursery: trio.Nursery) -> float:
        swept.append(self)
        raise ValueError("a bug")

    monkeypatch.setattr(Connection, "sweep", sweep)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(run_server, echo, ServerConfig(), ())
        clients = [Running(server).connect() for _ in range(2)]
        await trio.sleep(1)
        for client in clients:
            assert (await client.ask(GET)).status == 200
        await server.shutdown()
    assert len(set(swept)) == 2
    assert set(messages(caplog)) == {"a bug in trioweb's server, please report it"}


@pytest.mark.parametrize("exc", [ValueError, SystemExit, GeneratorExit])
async def test_who_listens_and_fails_ends_nobody(
    exc: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[ServerEvent] = []

    def fail(event: ServerEvent) -> None:
        raise exc

    async with serving(echo) as running:
        running.server.listen(fail)
        running.server.listen(heard.append)
        assert (await running.connect().ask(GET)).status == 200
    assert len(heard) == 2
    assert [text.partition("(")[0] for text in messages(caplog)] == [
        "a listener failed at ConnectionOpened",
        "a listener failed at ConnectionClosed",
    ]


async def test_ctrl_c_in_who_listens_goes_through() -> None:
    def interrupt(event: ServerEvent) -> None:
        if isinstance(event, ConnectionClosed):
            raise KeyboardInterrupt

    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        async with serving(echo) as running:
            running.server.listen(interrupt)
            running.connect()
