"""Dependencies in threads: who waits in one keeps nobody from running whom it waits for.

Rules of this module:

* The threads are real, and so is the clock; it only ends what would wait for ever.
* There are few places, and many more requests than that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb import App, Depends, StreamingResponse
from trioweb._concurrency.exits import Exits, RequestExits
from trioweb._concurrency.grace import Grace, ThreadAbandoned
from trioweb._concurrency.threads import places_of
from trioweb._inject.calls import run_dependency

from ..support.asgi import Client, running
from ..support.log_records import before_the_report

PLACES = 3
CROWD = 5 * PLACES
PATIENCE = 30.0  # seconds


@pytest.fixture
async def few_places() -> None:
    trio.to_thread.current_default_thread_limiter().total_tokens = PLACES


class Pool:
    """What one request has at a time: a connection, say."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(1)

    def hold(self) -> Iterator[None]:
        self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    def __enter__(self) -> None:
        self._free.acquire()

    def __exit__(self, *exc: object) -> None:
        self._free.release()


async def ask(client: Client, path: str, statuses: list[int]) -> None:
    statuses.append((await client("GET", path)).status)


async def test_those_who_wait_in_a_dependency_keep_no_handler_from_running(
    few_places: None,
) -> None:
    app, pool = App(), Pool()

    @app.get("/", dependencies=[Depends(pool.hold)])
    def root() -> None: ...

    @app.get("/health")
    def health() -> str:
        return "well"

    statuses: list[int] = []
    with trio.fail_after(PATIENCE):
        async with running(app) as client, trio.open_nursery() as crowd:
            with pool:
                for _ in range(CROWD):
                    crowd.start_soon(ask, client, "/", statuses)
                await wait_all_tasks_blocked()
                assert places_of(pool.hold).statistics().tasks_waiting == CROWD - PLACES
                assert (await client("GET", "/health")).json() == "well"
    assert statuses == [200] * CROWD


async def test_what_a_thread_takes_for_a_request_that_is_gone_is_given_back(
    few_places: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has given up stays in the thread, and gets there what nobody wants any more."""
    app, pool = App(cleanup_timeout=0.01), Pool()

    @app.get("/", dependencies=[Depends(pool.hold)])
    def root() -> None: ...

    statuses: list[int] = []
    with trio.fail_after(PATIENCE):
        async with running(app) as client:
            with pool:
                async with trio.open_nursery() as crowd:
                    for _ in range(PLACES):
                        crowd.start_soon(ask, client, "/", statuses)
                    await wait_all_tasks_blocked()
                    crowd.cancel_scope.cancel()
            assert (await client("GET", "/")).status == 200
    assert statuses == []
    assert before_the_report(caplog) == ["GET / failed too late to be answered"] * PLACES


class JustTooLate(Grace):
    """Gives up a thread at the moment at which it ends."""

    async def run_in_thread(self, call: Callable[[], Any], limiter: trio.CapacityLimiter) -> Any:
        await trio.to_thread.run_sync(call)
        raise ThreadAbandoned("just too late")


async def test_what_was_taken_at_the_moment_of_giving_up_is_given_back() -> None:
    seen: list[str] = []

    def hold() -> Iterator[None]:
        try:
            yield
        except ThreadAbandoned as exc:
            seen.append(str(exc))
            raise

    exits = RequestExits(JustTooLate(1.0))
    with pytest.raises(ThreadAbandoned):
        async with Exits(exits, "request"):
            await run_dependency(hold, "request")({}, exits)
    assert seen == ["just too late"]


def settings() -> str:
    return "settings"


def session() -> Iterator[str]:
    yield "session"


def add_routes_that_hold(app: App, pool: Pool) -> None:
    """Each goes on with what it has in another thread."""
    held = [Depends(pool.hold)]

    def pieces() -> Iterator[str]:
        yield "a"
        yield "b"

    @app.get("/handler", dependencies=held)
    def handler() -> None: ...

    @app.get("/dependency", dependencies=[*held, Depends(settings)])
    async def dependency() -> None: ...

    @app.get("/generator", dependencies=[*held, Depends(session)])
    async def generator() -> None: ...

    @app.get("/both", dependencies=[Depends(settings), *held, Depends(session)])
    def both() -> None: ...

    @app.get("/stream", dependencies=held)
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces())


def add_routes_that_take(app: App, pool: Pool) -> None:
    """Each takes of the pool in another place."""

    def holding_pieces() -> Iterator[str]:
        with pool:
            yield "a"

    @app.get("/itself")
    def itself() -> None:
        with pool:
            pass

    @app.get("/itself/session", dependencies=[Depends(session)])
    def itself_with_session() -> None:
        with pool:
            pass

    @app.get("/itself/settings", dependencies=[Depends(settings)])
    def itself_with_settings() -> None:
        with pool:
            pass

    @app.get("/itself/stream")
    async def itself_stream() -> StreamingResponse:
        return StreamingResponse(holding_pieces())


async def test_whoever_holds_what_others_wait_for_gets_its_next_thread(few_places: None) -> None:
    """Whatever they wait in, and whatever it needs the thread for."""
    app, pool = App(), Pool()
    add_routes_that_hold(app, pool)
    add_routes_that_take(app, pool)
    paths = [route.path for route in app.routes]
    statuses: list[int] = []
    with trio.fail_after(PATIENCE):
        async with running(app) as client, trio.open_nursery() as crowd:
            for path in paths * CROWD:
                crowd.start_soon(ask, client, path, statuses)
    assert statuses == [200] * len(paths) * CROWD


@pytest.mark.parametrize("depends", [True, False])
async def test_no_function_has_more_threads_than_places(few_places: None, depends: bool) -> None:
    app = App()
    running_now, most = 0, 0
    lock = threading.Lock()
    full = threading.Barrier(PLACES)

    def work() -> None:
        nonlocal running_now, most
        with lock:
            running_now += 1
            most = max(most, running_now)
        full.wait(PATIENCE)
        with lock:
            running_now -= 1

    def nothing() -> None: ...

    function: Callable[..., Any] = work if depends else nothing

    @app.get("/dependency", dependencies=[Depends(function)])
    async def dependency() -> None: ...

    @app.get("/handler", dependencies=[Depends(nothing)])
    def handler() -> None:
        work()

    statuses: list[int] = []
    path = "/dependency" if depends else "/handler"
    with trio.fail_after(PATIENCE):
        async with running(app) as client, trio.open_nursery() as crowd:
            for _ in range(CROWD):
                crowd.start_soon(ask, client, path, statuses)
    assert statuses == [200] * CROWD
    assert most == PLACES


async def test_a_dependency_that_has_no_hash_has_places_too(few_places: None) -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self) -> None:
            called.append("in a thread")

    app = App()
    called: list[str] = []

    @app.get("/", dependencies=[Depends(Unhashable())])
    async def root() -> None: ...

    async with running(app) as client:
        await client("GET", "/")
    assert called == ["in a thread"]
