"""What a server tells of itself: counts that add up, and events as they happen."""

from __future__ import annotations

import logging
import re
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb._asgi import SERVER_SETTINGS, ServerEvent
from trioweb.server import (
    ConnectionClosed,
    ConnectionOpened,
    LimitReached,
    Server,
    ServerLimits,
    ServerStatistics,
)
from trioweb.server._limits import LIMIT_QUIET_TIME, SWEEP_INTERVAL

from ..support.log_records import messages
from ..support.server_clients import PATIENCE, connected, listening, patient
from ..support.server_driver import GET, Happenings, echo, http_app, respond, serving

UPLOAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
BAD_CHUNK = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"
NOTHING: dict[str, int] = dict.fromkeys(ServerStatistics.__annotations__, 0)


def counts(server: Server) -> dict[str, int]:
    """Those that aren't 0."""
    found = asdict(server.statistics())
    accepted = found["connections_open"] + found["connections_closed"]
    assert found["connections_accepted"] == accepted
    return {name: count for name, count in found.items() if count}


class Gate:
    """Answers when it is opened."""

    def __init__(self) -> None:
        self.opened = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self.opened.wait()
            await respond(send)


# Statistics.


async def test_connections_and_requests_are_counted(autojump_clock: MockClock) -> None:
    async with serving(echo) as running:
        assert counts(running.server) == {}
        first, second = running.connect(), running.connect()
        for client in (first, second, first):
            await client.ask(GET)
        assert counts(running.server) == {
            "connections_accepted": 2,
            "connections_open": 2,
            "requests": 3,
        }
        await first.leave()
        await wait_all_tasks_blocked()
        assert counts(running.server) == {
            "connections_accepted": 2,
            "connections_open": 1,
            "connections_closed": 1,
            "requests": 3,
        }
    assert counts(running.server)["connections_closed"] == 2


async def test_what_waits_for_its_client_is_not_in_flight(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with serving(gate) as running:
        await running.connect().send(GET)
        await wait_all_tasks_blocked()
        assert counts(running.server)["requests_in_flight"] == 1
        gate.opened.set()
        await wait_all_tasks_blocked()
        assert "requests_in_flight" not in counts(running.server)
    async with serving(echo) as running:
        client = running.connect()
        await client.send(UPLOAD)
        await wait_all_tasks_blocked()
        assert "requests_in_flight" not in counts(running.server)
        assert counts(running.server)["requests"] == 1
        await client.leave()


async def test_answers_of_the_servers_own_are_counted(autojump_clock: MockClock) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/fails":
            raise ZeroDivisionError
        await echo(scope, receive, send)

    async with serving(app) as running:
        for data, status, refusals in (
            (GET, 200, 0),
            (b"BAD\r\n\r\n", 400, 1),
            (GET.replace(b"/", b"/fails", 1), 500, 2),
            (
                UPLOAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"x\r\n",
                400,
                3,
            ),
        ):
            client = running.connect()
            assert (await client.ask(data)).status == status
            await client.leave()
            assert counts(running.server).get("refusals", 0) == refusals
        assert counts(running.server)["requests"] == 3  # one was none


def test_statistics_are_a_moment_of_the_past() -> None:
    statistics = ServerStatistics(**NOTHING)
    with pytest.raises(FrozenInstanceError):
        statistics.requests = 1  # type: ignore[misc]


# Events.


async def test_connections_come_and_go(autojump_clock: MockClock) -> None:
    async with serving(echo) as running:
        happenings = Happenings(running.server)
        client = running.connect(client=("192.0.2.1", 5))
        await client.ask(GET)
        await client.ask(GET)
        await client.leave()
        await wait_all_tasks_blocked()
        other = running.connect()
        assert happenings.events == [
            ConnectionOpened("192.0.2.1:5"),
            ConnectionClosed("192.0.2.1:5", 2),
            ConnectionOpened("-"),
        ]
        await other.leave()
    assert happenings.events[3:] == [ConnectionClosed("-", 0)]


async def test_an_app_may_listen_from_its_start_on(autojump_clock: MockClock) -> None:
    heard: list[ServerEvent] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope[SERVER_SETTINGS].listen(heard.append)
        await echo(scope, receive, send)

    async with serving(app) as running:
        await running.connect().ask(GET)
    assert heard == [ConnectionOpened("-"), ConnectionClosed("-", 1)]


async def test_a_listener_that_fails_harms_nobody(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: ServerEvent) -> None:
        raise ZeroDivisionError

    async with serving(echo) as running:
        running.server.listen(fail)
        happenings = Happenings(running.server)
        assert (await running.connect().ask(GET)).status == 200
    assert happenings.events == [ConnectionOpened("-"), ConnectionClosed("-", 1)]
    assert caplog.messages == [f"a listener failed at {event!r}" for event in happenings.events]


def limits_reached(happenings: Happenings) -> list[str]:
    return [event.limit for event in happenings.events if isinstance(event, LimitReached)]


async def test_a_limit_of_requests_is_told_once_each_time_it_is_reached(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    async with serving(gate, limits=ServerLimits(max_requests=1)) as running:
        happenings = Happenings(running.server)
        for times in (1, 2):
            await running.connect().send(GET)
            await wait_all_tasks_blocked()
            for _ in range(3):
                assert limits_reached(happenings)[times:] == []
                assert (await running.connect().ask(GET)).status == 503
                assert limits_reached(happenings) == ["max_requests"] * times
            gate.opened.set()
            await trio.sleep(2 * SWEEP_INTERVAL)
            gate.opened = trio.Event()


async def test_the_log_says_when_a_limit_begins_and_when_it_has_ceased_to_refuse(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    async with serving(gate, limits=ServerLimits(max_requests=1)) as running:
        for _ in range(3):  # on and off is once
            clients = [running.connect()]
            await clients[0].send(GET)
            await wait_all_tasks_blocked()
            clients += [running.connect(), running.connect()]
            for client in clients[1:]:
                assert (await client.ask(GET)).status == 503
            gate.opened.set()
            await trio.sleep(LIMIT_QUIET_TIME / 2)
            gate.opened = trio.Event()
            for client in clients:
                await client.leave()
        begins = "max_requests: 1 are in flight, others are answered with 503"
        assert messages(caplog, level=logging.WARNING) == [begins]
        await trio.sleep(LIMIT_QUIET_TIME)  # nobody is connected
        [_, ends] = messages(caplog, level=logging.WARNING)
        assert re.fullmatch(
            r"max_requests: no longer reached after 1\d\.\d s; 6 were answered with 503", ends
        )
        await trio.sleep(2 * LIMIT_QUIET_TIME)
    assert len(messages(caplog, level=logging.WARNING)) == 2


async def test_the_log_says_when_connections_have_to_wait(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    patient(autojump_clock)
    limits = ServerLimits(max_connections=1, idle_timeout=20)
    async with listening(echo, limits=limits) as server:
        async with connected(server.urls[0]) as one, connected(server.urls[0]) as two:
            await one.ask(GET)
            await trio.sleep(2 * LIMIT_QUIET_TIME)
            begins = "max_connections: 1 are open, nothing is accepted until one of them ends"
            assert messages(caplog, level=logging.WARNING) == [begins]
            await one.leave()
            await two.ask(GET)
        await trio.sleep(2 * LIMIT_QUIET_TIME)
        [_, ends] = messages(caplog, level=logging.WARNING)
        assert re.fullmatch(
            r"max_connections: no longer reached after 1\d\.\d s; others waited 1 times", ends
        )


async def test_the_last_request_of_a_connection_is_told(autojump_clock: MockClock) -> None:
    async with serving(echo, limits=ServerLimits(max_connection_requests=2)) as running:
        happenings = Happenings(running.server)
        client = running.connect()
        for told in ([], ["max_connection_requests"]):
            await client.ask(GET)
            assert limits_reached(happenings) == told


async def test_a_limit_of_connections_is_told_when_somebody_has_to_wait() -> None:
    async with listening(echo, limits=ServerLimits(max_connections=1)) as server:
        happenings = Happenings(server)
        [url] = server.urls
        for times in (1, 2):
            async with connected(url) as first:
                await first.ask(GET)
                assert limits_reached(happenings)[times - 1 :] == []
                async with connected(url) as second, connected(url) as third:
                    with trio.fail_after(PATIENCE):
                        await happenings.next_of(LimitReached)
                    await first.leave()
                    with trio.fail_after(PATIENCE):
                        await second.ask(GET)
                        await second.leave()
                        await third.ask(GET)
            assert limits_reached(happenings) == ["max_connections"] * times
            await trio.sleep(2 * SWEEP_INTERVAL)


@pytest.mark.parametrize("hear", [None, 5, lambda: None, lambda event, more: None])
async def test_a_listener_that_cant_be_called_is_refused(hear: Any) -> None:
    async with serving(echo) as running:
        with pytest.raises(TypeError, match=r"right:  server\.listen\(hear\), with def"):
            running.server.listen(hear)
        for builtin in (print, max):  # the latter doesn't tell what it takes
            running.server.listen(builtin)  # type: ignore[arg-type]
