"""The server in somebody's program: how it starts, where it listens, and above all how it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse as StarletteResponse
from starlette.routing import Route
from trio.testing import MockClock, wait_all_tasks_blocked

import trioweb
from trioweb import App, BackgroundTasks, Router
from trioweb.server import Server, ServerLimits, StartupFailed, serve

from ..support.log_records import messages
from ..support.server_clients import (
    PATIENCE,
    Load,
    address_of,
    begin_shutdown,
    connected,
    connected_to_file,
    is_refused,
    listening,
    patient,
    request,
    run_under_load,
)
from ..support.server_driver import GET, echo, serving

KIB = 1024
MIB = 1024 * KIB

CONNECTIONS = 200
ROUNDS = 2
# How long a shutdown may wait for a first request that is on its way.
HEADWAY = 0.1  # seconds


class Events:
    """What happened, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.is_open = False
        self._changed = trio.Event()

    def __call__(self, what: str) -> None:
        self.seen.append(what)
        self._changed.set()
        self._changed = trio.Event()

    async def begun(self, count: int) -> None:
        """Returns when so many have begun."""
        while sum(event.endswith(" begins") for event in self.seen) < count:
            await self._changed.wait()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Holds a database open; also while it closes, others have their turns."""
        self.is_open = True
        try:
            yield
        finally:
            self("lifespan closes")
            await trio.lowlevel.checkpoint()
            self.is_open = False
            self("lifespan closed")

    async def query(self) -> None:
        assert self.is_open
        await trio.lowlevel.checkpoint()


@pytest.fixture
def events() -> Events:
    return Events()


def slow_app(events: Events, *, cleanup: float = 0.0) -> Any:
    """A bare app whose requests take as many seconds as their path says."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        events(f"{scope['path']} begins")
        try:
            await trio.sleep(float(scope["path"][1:]))
        except trio.Cancelled:
            events(f"{scope['path']} is cancelled")
            with trio.CancelScope(shield=True):
                await trio.sleep(cleanup)
            events(f"{scope['path']} has cleaned up")
            raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        events(f"{scope['path']} ends")

    return app


async def seconds_of(server: Server) -> float:
    """How long the shutdown takes."""
    began = trio.current_time()
    await server.shutdown()
    return trio.current_time() - began


# In a program.


async def test_start_returns_once_it_listens_and_says_where() -> None:
    async with listening(echo) as server:
        [url] = server.urls
        host, port = address_of(url)
        assert url == f"http://{host}:{port}"
        assert (host, port > 0) == ("127.0.0.1", True)
        async with connected(url) as client:
            answer = await client.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
            assert (answer.status, answer.body) == (200, b"hi")
    assert is_refused(url)


async def test_two_servers_run_beside_each_other_and_one_ends_alone(events: Events) -> None:
    async with listening(slow_app(events)) as one, listening(echo) as other:
        assert one.urls != other.urls
        await one.shutdown()
        assert is_refused(one.urls[0])
        async with connected(other.urls[0]) as client:
            assert (await client.ask(GET)).status == 200


async def test_one_app_is_served_again_after_its_end(events: Events) -> None:
    app = App(lifespan=events.lifespan)

    @app.get("/")
    async def root() -> str:
        await events.query()
        return "here"

    for _ in range(2):
        async with listening(app) as server, connected(server.urls[0]) as client:
            assert (await client.ask(GET)).body == b'"here"'
    assert events.seen == ["lifespan closes", "lifespan closed"] * 2


async def test_an_app_that_is_served_already_is_refused_and_goes_on() -> None:
    app = App()

    @app.get("/")
    async def root() -> str:
        return "here"

    async with listening(app) as server:
        with pytest.raises(StartupFailed, match="this app is being served already"):
            await serve(app, port=0)
        async with connected(server.urls[0]) as client:
            assert (await client.ask(GET)).body == b'"here"'


async def test_signals_are_left_alone(events: Events) -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in signal.valid_signals()]

    before = handlers()
    async with listening(slow_app(events)) as server, connected(server.urls[0]) as client:
        await client.ask(request("/0"))
        assert handlers() == before
    assert handlers() == before


async def test_other_tasks_of_its_nursery_go_on_after_it() -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(trioweb.serve, echo, port=0))
        assert len(nursery.child_tasks) == 1
        nursery.start_soon(trio.sleep_forever)
        await server.shutdown()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        nursery.cancel_scope.cancel()


# Draining.


async def test_what_is_in_flight_ends_and_nothing_new_is_accepted(
    events: Events, autojump_clock: MockClock
) -> None:
    patient(autojump_clock)
    async with listening(slow_app(events)) as server, connected(server.urls[0]) as client:
        await client.send(request("/0.2"))
        await events.begun(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.shutdown)
            await wait_all_tasks_blocked()
            assert is_refused(server.urls[0])
            assert events.seen == ["/0.2 begins"]
            answer = await client.response()
        assert (answer.status, answer.body) == (200, b"done")
        assert answer[b"connection"] == [b"close"]
        assert await client.rest() == b""


async def test_a_client_that_waits_to_be_accepted_hasnt_come_too_late(events: Events) -> None:
    async with listening(slow_app(events)) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(server.urls[0])) for _ in range(5)]
        for client in clients:
            await client.send(request("/0"))
        await begin_shutdown(server)  # before its tasks had a turn to accept anybody
        for client in clients:
            assert (await client.response()).status == 200
            assert await client.rest() == b""


@pytest.mark.parametrize("clients", [1, 300])
async def test_connections_without_a_request_are_closed_at_once(
    clients: int, autojump_clock: MockClock
) -> None:
    async with serving(echo) as running:
        used = [running.connect() for _ in range(clients)]
        fresh = [running.connect() for _ in range(clients)]
        for client in used:
            await client.ask(GET)
        await trio.sleep(1)
        # Whoever has connected and said nothing yet has a moment to do so.
        assert await seconds_of(running.server) <= HEADWAY
        for client in used + fresh:
            assert await client.rest() == b""


async def test_idle_sockets_are_closed_at_once() -> None:
    async with listening(echo) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(server.urls[0])) for _ in range(50)]
        for client in clients:
            await client.ask(GET)
        await server.shutdown()
        with trio.fail_after(PATIENCE):
            for client in clients:
                assert await client.rest() == b""


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_no_request_whose_head_was_read_is_lost(round_: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            number = int(scope["path"][1:])
            if number % 2:
                await trio.sleep(number % 7 / 1000)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"%d" % number})

    load = await run_under_load(app, connections=CONNECTIONS, requests=2 * CONNECTIONS + round_)
    assert load.answered == load.read
    assert len(load.read) >= 2 * CONNECTIONS


async def test_nor_is_one_of_its_tasks_nor_one_run_after_the_lifespan(events: Events) -> None:
    app = App(lifespan=events.lifespan)
    ran: set[int] = set()

    async def use(number: int) -> None:
        await trio.sleep(number % 5 / 1000)
        await events.query()
        ran.add(number)

    @app.get("/{number}")
    async def number(number: int, tasks: BackgroundTasks) -> int:
        if number % 3:
            await trio.sleep(0.001)
        tasks.add_task(use, number)
        return number

    load: Load = await run_under_load(app, connections=50, requests=200)
    assert load.answered == load.read
    counts = app.statistics()
    assert counts.added == counts.done == len(ran) >= 150
    assert ran <= load.answered
    assert events.seen == ["lifespan closes", "lifespan closed"]


async def test_past_the_drain_timeout_what_is_left_is_cancelled_and_cleans_up(
    events: Events, autojump_clock: MockClock
) -> None:
    async with serving(slow_app(events, cleanup=2), drain_timeout=3) as running:
        client = running.connect()
        await client.send(request("/1000"))
        await events.begun(1)
        assert await seconds_of(running.server) == 3 + 2
        assert events.seen == ["/1000 begins", "/1000 is cancelled", "/1000 has cleaned up"]
        assert await client.rest() == b""


async def test_an_app_that_drains_by_itself_has_its_own_times(
    events: Events, autojump_clock: MockClock
) -> None:
    app = App(lifespan=events.lifespan, drain_timeout=3, cleanup_timeout=2)

    async def task() -> None:
        events("task begins")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1.5)
            events(f"task has cleaned up, with an open database: {events.is_open}")

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(task)

    async with serving(app) as running:
        client = running.connect()
        await client.ask(GET)
        await events.begun(1)
        assert await seconds_of(running.server) == 3 + 1.5
    assert events.seen == [
        "task begins",
        "task has cleaned up, with an open database: True",
        "lifespan closes",
        "lifespan closed",
    ]


async def test_the_server_can_be_told_another_drain_timeout(autojump_clock: MockClock) -> None:
    app = App(drain_timeout=3)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(trio.sleep_forever)

    async with serving(app, drain_timeout=7) as running:
        await running.connect().ask(GET)
        assert await seconds_of(running.server) == 7


@pytest.mark.parametrize("ways", [["shutdown"] * 3, ["wait_closed", "shutdown", "wait_closed"]])
async def test_everyone_who_waits_for_the_end_hears_of_it(
    ways: list[str], events: Events, autojump_clock: MockClock
) -> None:
    async with serving(slow_app(events)) as running, trio.open_nursery() as nursery:
        await running.connect().send(request("/2"))
        await events.begun(1)
        for way in ways:
            nursery.start_soon(getattr(running.server, way))
        await running.server.wait_closed()
        assert events.seen == ["/2 begins", "/2 ends"]
    await running.server.shutdown()


async def test_who_stops_waiting_for_a_shutdown_doesnt_stop_it(
    events: Events, autojump_clock: MockClock
) -> None:
    async with serving(slow_app(events)) as running:
        client = running.connect()
        await client.send(request("/2"))
        await events.begun(1)
        with trio.move_on_after(1) as scope:
            await running.server.shutdown()
        assert scope.cancelled_caught
        assert (await client.response()).body == b"done"
        await running.server.wait_closed()


# Cancelling.


async def test_cancel_skips_the_draining(events: Events, autojump_clock: MockClock) -> None:
    async with serving(slow_app(events, cleanup=2)) as running:
        client = running.connect()
        await client.send(request("/1000"))
        await events.begun(1)
        began = trio.current_time()
        running.server.cancel()
        await running.server.wait_closed()
        assert trio.current_time() - began == 2
        assert events.seen[1:] == ["/1000 is cancelled", "/1000 has cleaned up"]
        assert await client.rest() == b""


async def test_cancel_ends_a_draining(events: Events, autojump_clock: MockClock) -> None:
    async with serving(slow_app(events)) as running, trio.open_nursery() as nursery:
        await running.connect().send(request("/1000"))
        await events.begun(1)
        began = trio.current_time()
        nursery.start_soon(running.server.shutdown)
        await trio.sleep(1)
        running.server.cancel()
        await running.server.wait_closed()
        assert trio.current_time() - began == 1


@pytest.mark.parametrize("how", ["cancel", "from outside", "cancel while draining"])
async def test_a_cancelled_app_cleans_up_before_its_lifespan_closes(
    how: str, events: Events, autojump_clock: MockClock
) -> None:
    app = App(lifespan=events.lifespan, cleanup_timeout=2)

    async def use(name: str) -> None:
        events(f"{name} begins")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                await events.query()
            events(f"{name} has cleaned up")

    @app.get("/task")
    async def task(tasks: BackgroundTasks) -> None:
        tasks.add_task(use, "task")

    @app.get("/handler")
    async def handler() -> None:
        await use("handler")

    @app.get("/nursery")
    async def nursery(nursery: trio.Nursery) -> None:
        await use("nursery")

    with trio.CancelScope() as scope:
        async with serving(app) as running, trio.open_nursery() as ours:
            ours.cancel_scope.shield = True
            await running.connect().ask(request("/task"))
            await running.connect().send(request("/handler"))
            await running.connect().send(request("/nursery"))
            await events.begun(3)
            began = trio.current_time()
            if how == "from outside":
                scope.cancel()
            elif how == "cancel":
                running.server.cancel()
            else:
                ours.start_soon(running.server.shutdown)
                await wait_all_tasks_blocked()
                running.server.cancel()
            await running.server.wait_closed()
            assert trio.current_time() - began == 1
    cleaned_up = {"task has cleaned up", "handler has cleaned up", "nursery has cleaned up"}
    assert set(events.seen[3:6]) == cleaned_up
    assert events.seen[6:] == ["lifespan closes", "lifespan closed"]
    counts = app.statistics()
    assert (counts.added, counts.cancelled) == (1, 1)


# Readers that have stopped.


async def sends_much(scope: Any, receive: Any, send: Any) -> None:
    """A response that has no end."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * MIB, "more_body": True})


async def test_stalled_readers_are_left_behind_at_the_deadline(autojump_clock: MockClock) -> None:
    async with serving(sends_much, drain_timeout=3) as running:
        for _ in range(10):
            await running.connect_lockstep().send(GET)
        await trio.sleep(1)
        assert await seconds_of(running.server) == 3


@pytest.mark.parametrize("size", [None, 1000, MIB])
async def test_stalled_readers_dont_hold_an_app_that_drains(
    size: int | None, events: Events, autojump_clock: MockClock
) -> None:
    """Whether they get so many bytes in one piece, or a stream."""
    app = App(lifespan=events.lifespan, drain_timeout=3, cleanup_timeout=2)

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MIB

    @app.get("/")
    async def root() -> trioweb.Response:
        if size is not None:
            return trioweb.Response(b"x" * size)
        return trioweb.StreamingResponse(pieces())

    async with serving(app) as running:
        for _ in range(10):
            await running.connect_lockstep().send(GET)
        await trio.sleep(1)
        assert 3 <= await seconds_of(running.server) <= 3 + 2 + 1
    assert events.seen == ["lifespan closes", "lifespan closed"]


async def test_stalled_sockets_dont_hold_it_either(autojump_clock: MockClock) -> None:
    patient(autojump_clock)
    app = App(drain_timeout=0.2, cleanup_timeout=0.2)

    @app.get("/")
    async def root() -> trioweb.Response:
        return trioweb.Response(b"x" * 16 * MIB)

    async with listening(app) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            client = await stack.enter_async_context(connected(server.urls[0]))
            await client.send(GET)
            await client.stream.receive_some(1)
        assert await seconds_of(server) < 0.2 + 0.2 + 1


# Lifespans.


async def test_a_lifespan_of_others_closes_after_the_last_request(
    events: Events, autojump_clock: MockClock
) -> None:
    async def slow(request: StarletteRequest) -> StarletteResponse:
        events("request begins")
        await trio.sleep(2)
        await events.query()
        events("request ends")
        return StarletteResponse("done")

    app = Starlette(routes=[Route("/", slow)], lifespan=events.lifespan)
    async with serving(app) as running:
        client = running.connect()
        await client.send(GET)
        await events.begun(1)
        assert await seconds_of(running.server) == 2
        assert (await client.response()).body == b"done"
    assert events.seen == ["request begins", "request ends", "lifespan closes", "lifespan closed"]


async def test_what_others_lifespans_yield_is_in_the_state_of_each_request() -> None:
    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[dict[str, str]]:
        yield {"greeting": "hello"}

    async def greet(request: StarletteRequest) -> StarletteResponse:
        return StarletteResponse(request.state.greeting)

    async with serving(Starlette(routes=[Route("/", greet)], lifespan=lifespan)) as running:
        assert (await running.connect().ask(GET)).body == b"hello"


@asynccontextmanager
async def unlucky(app: object) -> AsyncIterator[None]:
    raise ValueError("no database")
    yield


@pytest.mark.parametrize("make", [App, Starlette])
@pytest.mark.parametrize("started", [False, True])
async def test_an_app_that_doesnt_start_is_not_served(
    make: Any, started: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(lifespan=unlucky)
    # Raised as it is, in no group: `except StartupFailed` has it.
    if started:
        async with trio.open_nursery() as nursery:
            with pytest.raises(StartupFailed, match="no database"):
                await nursery.start(partial(serve, app, port=0))
    else:
        with pytest.raises(StartupFailed, match="no database"):
            await serve(app, port=0)


@pytest.mark.parametrize("make", [App, Starlette])
async def test_an_app_that_doesnt_end_well_is_heard_of(make: Any) -> None:
    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        yield
        raise ValueError("disk full")

    async def stop(*, task_status: trio.TaskStatus[Server]) -> None:
        await serve(make(lifespan=lifespan), port=0, task_status=task_status)

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="disk full")):
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(stop)
            await server.shutdown()


@pytest.mark.parametrize("raises", [False, True])
async def test_a_lifespan_that_dies_ends_the_server(
    raises: bool, events: Events, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    slow = slow_app(events)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await trio.sleep(1)
            if raises:
                raise ValueError("lost the database")
        else:
            await slow(scope, receive, send)

    reason = "lost the database" if raises else "ended while it was served"
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match=reason), flatten_subgroups=True):
        async with serving(app) as running:
            client = running.connect()
            await client.send(request("/3"))
            await running.server.wait_closed()
            assert trio.current_time() == 3
            # It was in flight, and ended as in any draining.
            assert (await client.response()).body == b"done"


async def test_an_app_without_a_lifespan_is_served(events: Events) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "no lifespan here"
        await echo(scope, receive, send)

    async with serving(app) as running:
        assert (await running.connect().ask(GET)).status == 200


# Listeners.


async def test_a_unix_socket_is_there_while_it_listens(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with listening(echo, uds=path) as server:
        assert server.urls == (f"unix:{path}",)
        assert stat.S_ISSOCK(path.stat().st_mode)
        async with connected_to_file(str(path)) as client:
            assert (await client.ask(GET)).status == 200
    assert not path.exists()


async def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with listening(echo, uds=path), connected_to_file(str(path)) as client:
        assert (await client.ask(GET)).status == 200
    assert not path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="it isn't a socket"):
        await serve(echo, uds=path)
    assert path.read_text() == "data"


async def test_a_unix_socket_on_which_somebody_listens_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with listening(echo, uds=path):
        with pytest.raises(OSError, match="somebody listens there already"):
            await serve(echo, uds=path)
        async with connected_to_file(str(path)) as client:
            assert (await client.ask(GET)).status == 200


async def test_a_unix_socket_that_took_its_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with listening(echo, uds=path) as old:
        path.unlink()
        async with listening(echo, uds=path):
            await old.shutdown()
            async with connected_to_file(str(path)) as client:
                assert (await client.ask(GET)).status == 200


def bound_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.mark.parametrize("kind", ["socket", "trio", "descriptor"])
async def test_a_socket_that_is_given_is_the_servers(kind: str) -> None:
    sock = bound_socket()
    port = sock.getsockname()[1]
    given: dict[str, Any] = {
        "socket": lambda: sock,
        "trio": lambda: trio.socket.from_stdlib_socket(sock),
        "descriptor": sock.detach,
    }
    async with listening(echo, sockets=[given[kind]()]) as server:
        assert server.urls == (f"http://127.0.0.1:{port}",)
        async with connected(server.urls[0]) as client:
            assert (await client.ask(GET)).status == 200
    assert is_refused(server.urls[0])
    assert sock.fileno() == -1


async def test_it_listens_in_several_places_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    sockets = [bound_socket(), bound_socket()]
    async with listening(echo, sockets=sockets, uds=path) as server:
        *urls, last = server.urls
        assert (len(set(urls)), last) == (2, f"unix:{path}")
        for url in urls:
            async with connected(url) as client:
                assert (await client.ask(GET)).status == 200
        async with connected_to_file(path) as client:
            assert (await client.ask(GET)).status == 200
    for url in urls:
        assert is_refused(url)


async def test_two_servers_share_a_port_if_both_want_to() -> None:
    async with listening(echo, reuse_port=True) as one:
        [url] = one.urls
        port = address_of(url)[1]
        async with listening(echo, reuse_port=True, port=port) as other:
            assert other.urls == one.urls
            for _ in range(10):
                async with connected(url) as client:
                    assert (await client.ask(GET)).status == 200
        async with connected(url) as client:
            assert (await client.ask(GET)).status == 200


async def test_without_a_host_it_listens_on_every_address() -> None:
    async with listening(echo, host=None) as server:
        families = {":" in address_of(url)[0] for url in server.urls}
        assert len(server.urls) == len(families)
        for url in server.urls:
            async with connected(url) as client:
                assert (await client.ask(GET)).status == 200


def is_here(host: str) -> bool:
    """Whether the machine has this address."""
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else -1):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("host", [host for host in ("127.0.0.1", "::1") if is_here(host)])
async def test_a_url_leads_to_its_address_whichever_family_it_has(host: str) -> None:
    async with listening(echo, host=host) as server:
        [url] = server.urls
        assert address_of(url)[0] == host
        async with connected(url) as client:
            assert (await client.ask(GET)).status == 200


async def test_an_address_of_another_machine_is_refused_with_advice() -> None:
    host = "192.0.2.1"  # RFC 5737: nobody's
    assert not is_here(host)
    with pytest.raises(OSError, match=r"can't listen on 192\.0\.2\.1:0: this machine has no such"):
        await serve(echo, host=host, port=0)


async def test_a_busy_port_is_refused_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(OSError, match=rf"can't listen on 127\.0\.0\.1:{port}: .*another port"):
            await serve(echo, port=port)


async def test_what_was_opened_is_closed_when_one_of_several_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    sock = bound_socket()
    with pytest.raises(OSError, match="it isn't a socket"):
        await serve(echo, sockets=[sock], uds=path)
    assert sock.fileno() == -1


class Acceptor(socket.socket):
    """A listening socket whose next calls of `accept` can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.failures: list[int] = []
        self.calls_when_closed = 0

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            code = self.failures.pop()
            raise OSError(code, os.strerror(code))
        self.calls_when_closed += self.fileno() < 0
        assert self.calls_when_closed < 100, "it accepts on and on, from a socket that is closed"
        return super().accept()


def connect_at_once(url: str) -> socket.socket:
    """A client for which nobody else has had a turn."""
    return socket.create_connection(address_of(url))


@pytest.mark.parametrize("round_", range(10))
async def test_clients_that_connect_as_the_shutdown_begins_hold_nothing_up(round_: int) -> None:
    acceptor = Acceptor()
    async with listening(echo, sockets=[acceptor]) as server:
        # Who wakes up first, the one who accepts or the one who closes, is Trio's lot.
        with connect_at_once(server.urls[0]) as client:
            client.sendall(GET)
            await server.shutdown()
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert acceptor.calls_when_closed == 0


@pytest.mark.parametrize("round_", range(10))
async def test_a_place_that_is_given_back_as_the_shutdown_begins_harms_nobody(round_: int) -> None:
    """Somebody waits for it, and hasn't come too late."""
    limits = ServerLimits(max_connections=1)
    async with listening(echo, limits=limits) as server, connected(server.urls[0]) as client:
        await client.ask(GET)
        waiting = connect_at_once(server.urls[0])
        await wait_all_tasks_blocked()
    with waiting:
        assert waiting.recv(1) == b""


async def test_a_client_that_leaves_before_it_is_accepted_harms_nobody() -> None:
    acceptor = Acceptor()
    async with listening(echo, sockets=[acceptor]) as server:
        acceptor.failures = [errno.ECONNABORTED]
        async with connected(server.urls[0]) as client:
            assert (await client.ask(GET)).status == 200
        assert not acceptor.failures


async def test_without_files_for_connections_it_says_so_and_tries_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    acceptor = Acceptor()
    async with listening(echo, sockets=[acceptor]) as server:
        acceptor.failures = [errno.EMFILE, errno.ENFILE]
        async with connected(server.urls[0]) as client:
            assert (await client.ask(GET)).status == 200
    began, ended = messages(caplog)
    assert began.startswith("can't accept connections for a while: ")
    assert ended == f"connections are accepted again on {server.urls[0]}"


async def test_a_shutdown_without_files_for_connections_drains_all_the_same(
    events: Events,
) -> None:
    acceptor = Acceptor()
    app = slow_app(events)
    async with (
        listening(app, sockets=[acceptor]) as server,
        connected(server.urls[0]) as client,
    ):
        await client.send(request("/0.1"))
        await events.begun(1)
        acceptor.failures = [errno.EMFILE]
        await server.shutdown()
        assert (await client.response()).body == b"done"


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


class EncryptedClient:
    """A client that speaks TLS; its stream has no half to close."""

    def __init__(self, stream: trio.SSLStream[trio.abc.HalfCloseableStream]) -> None:
        self.stream = stream

    async def get(self) -> bytes:
        """All of the answer to one request, after which the server closes."""
        await self.stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        parts = [bytes(part) async for part in self.stream]
        await self.stream.aclose()
        return b"".join(parts)


@asynccontextmanager
async def encrypted(url: str, context: ssl.SSLContext) -> AsyncIterator[EncryptedClient]:
    async with connected(url) as client:
        yield EncryptedClient(
            trio.SSLStream(
                client.stream, context, server_hostname="127.0.0.1", https_compatible=True
            )
        )


async def tells_scheme(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["scheme"].encode()})


async def test_tls_is_served(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with listening(tells_scheme, ssl_context=server_context) as server:
        assert server.urls[0].startswith("https://127.0.0.1:")
        async with encrypted(server.urls[0], client_context) as client:
            answer = await client.get()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\nhttps")


async def test_a_client_that_distrusts_the_certificate_harms_nobody_else(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with listening(tells_scheme, ssl_context=server_context) as server:
        async with encrypted(server.urls[0], ssl.create_default_context()) as client:
            with pytest.raises(trio.BrokenResourceError):
                await client.stream.do_handshake()
        async with encrypted(server.urls[0], client_context) as client:
            assert (await client.get()).endswith(b"https")


@pytest.mark.parametrize("data", [GET, b"\x16\x03\x01", b"\x00" * 64])
async def test_what_isnt_tls_is_shown_the_door(
    data: bytes, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    limits = ServerLimits(max_connections=1)  # it gives its place back, or nobody came after it
    async with listening(tells_scheme, ssl_context=server_context, limits=limits) as server:
        with trio.fail_after(PATIENCE):
            async with connected(server.urls[0]) as client:
                await client.send(data)
                await client.stream.send_eof()
                with contextlib.suppress(trio.BrokenResourceError):
                    assert b"HTTP" not in await client.rest()
            async with encrypted(server.urls[0], client_context) as client:
                assert (await client.get()).endswith(b"https")


async def test_a_handshake_that_stalls_has_ten_seconds(
    server_context: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    patient(autojump_clock)
    async with listening(tells_scheme, ssl_context=server_context) as server:
        async with connected(server.urls[0]) as client:
            await client.send(b"\x16\x03\x01")
            with contextlib.suppress(trio.BrokenResourceError):
                assert await client.rest() == b""
        assert trio.current_time() == pytest.approx(10, abs=0.5)


async def test_handshakes_that_stall_dont_hold_a_shutdown_past_its_deadline(
    server_context: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    patient(autojump_clock)
    app = App(drain_timeout=3, cleanup_timeout=2)
    async with (
        listening(app, ssl_context=server_context) as server,
        connected(server.urls[0]) as client,
    ):
        await client.send(b"\x16\x03\x01")
        await trio.sleep(1)
        assert await seconds_of(server) <= 3 + 2 + 1


async def test_handshakes_that_stall_are_waited_for_no_longer_than_heads_are(
    server_context: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """No request is at stake."""
    patient(autojump_clock)
    async with (
        listening(tells_scheme, ssl_context=server_context) as server,
        connected(server.urls[0]) as client,
    ):
        await client.send(b"\x16\x03\x01")
        await trio.sleep(1)
        assert await seconds_of(server) < 1


async def test_a_stalled_reader_behind_tls_doesnt_either(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    patient(autojump_clock)
    app = App(drain_timeout=3, cleanup_timeout=2)

    @app.get("/")
    async def root() -> trioweb.Response:
        return trioweb.Response(b"x" * 64 * MIB)

    async with (
        listening(app, ssl_context=server_context) as server,
        encrypted(server.urls[0], client_context) as client,
    ):
        await client.stream.send_all(GET)
        await client.stream.receive_some(1)
        assert 3 <= await seconds_of(server) <= 3 + 2 + 1


@pytest.mark.parametrize("app", [App, Router(), lambda: None, None, "main:app"])
async def test_what_is_no_app_is_not_served(app: Any) -> None:
    with pytest.raises(TypeError, match=r"right:  serve\(app\), with app = App\(\)"):
        await serve(app, port=0)
