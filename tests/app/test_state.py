"""What a request's state begins with, and who sees what was set there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, BackgroundTasks, Request
from trioweb._asgi import ASGIApp

from ..support.asgi import Client, running
from ..support.server_driver import serving


def app_named(name: str, **more: Any) -> App:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[Mapping[str, Any]]:
        yield MappingProxyType({"db": name, **more})

    app = App(lifespan=lifespan)

    @app.get("/{path:path}")
    async def show(path: str, request: Request) -> dict[str, Any]:
        seen = {**vars(request.state), "scope": dict(request.scope["state"])}
        request.state.user = path
        return seen

    return app


def dispatcher(apps: Mapping[str, App]) -> ASGIApp:
    """As Hypercorn's: a lifespan for each app, with the server's scope; requests by their path."""

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await both_lifespans(apps, scope, receive, send)
            return
        [prefix] = [prefix for prefix in apps if scope["path"].startswith(prefix)]
        await apps[prefix]({**scope, "root_path": prefix}, receive, send)

    return dispatch


async def both_lifespans(apps: Mapping[str, App], scope: Any, receive: Any, send: Any) -> None:
    await receive()
    stopping = trio.Event()

    async def run(app: App, *, task_status: trio.TaskStatus[None]) -> None:
        asked = iter(["lifespan.startup"])

        async def receive_one() -> Any:
            for kind in asked:
                return {"type": kind}
            await stopping.wait()
            return {"type": "lifespan.shutdown"}

        async def send_one(message: Any) -> None:
            if message["type"] == "lifespan.startup.complete":
                task_status.started()

        await app(scope, receive_one, send_one)

    async with trio.open_nursery() as nursery:
        for app in apps.values():
            await nursery.start(run, app)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        stopping.set()
    await send({"type": "lifespan.shutdown.complete"})


async def test_each_of_two_apps_sees_what_its_own_lifespan_yielded() -> None:
    apps = {"/a": app_named("a", only="a"), "/b": app_named("b")}
    async with serving(dispatcher(apps)) as server:
        for name in "abab":
            head = f"GET /{name}/x HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            answer = await server.connect().ask(head)
            assert f'"db":"{name}"'.encode() in answer.body
            assert f'"scope":{{"db":"{name}"'.encode() in answer.body
            assert b"user" not in answer.body  # of the request before


async def test_what_the_scope_has_besides_stays() -> None:
    async with running(app_named("ours")) as client:
        outer = {"db": "theirs", "trace": 7}
        answer = await client("GET", "/x", state=outer)
        assert answer.json() == {"db": "ours", "trace": 7, "scope": {"db": "ours", "trace": 7}}


@pytest.mark.parametrize("is_yielding", [False, True])
async def test_a_server_that_copies_nothing_gets_no_requests_state(is_yielding: bool) -> None:
    app = app_named("a") if is_yielding else App()
    users: list[str] = []

    @app.post("/{name}")
    async def enter(name: str, request: Request) -> None:
        users.append(getattr(request.state, "user", "nobody"))
        request.state.user = name

    shared: dict[str, Any] = {}
    started, stop = trio.Event(), trio.Event()

    async def receive() -> Any:
        if started.is_set():
            await stop.wait()
        return {"type": "lifespan"}

    async def send(message: Any) -> None:
        started.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, {"type": "lifespan", "state": shared}, receive, send)
        await started.wait()
        for name in ("ann", "bob"):
            await Client(app)("POST", f"/{name}", state=shared)
        stop.set()
    assert users == ["nobody", "nobody"]
    assert "user" not in shared


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("server_has_state", [False, True])
async def test_middleware_outside_sees_what_a_handler_has_set(
    copies: bool, server_has_state: bool
) -> None:
    app = app_named("a") if server_has_state else App()
    seen: list[Any] = []

    @app.post("/")
    async def login(request: Request, tasks: BackgroundTasks) -> str:
        assert request.state.trace == 7
        request.state.user = "ann"
        request.scope["state"]["role"] = "admin"
        return str(request.state.role)

    async def outside(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["state"]["trace"] = 7
        await app(dict(scope) if copies else scope, receive, send)
        if scope["type"] == "http":
            seen.append(scope["state"])

    async with serving(outside) as server:
        head = b"POST / HTTP/1.1\r\nHost: x\r\ncontent-length: 0\r\n\r\n"
        assert (await server.connect().ask(head)).body == b'"admin"'
    [state] = seen
    assert (state["trace"], state["user"], state["role"]) == (7, "ann", "admin")


@pytest.mark.parametrize(
    "given", [{}, {"state": None}, {"state": MappingProxyType({"a": 1})}], ids=["no", "None", "odd"]
)
async def test_a_server_without_state_gets_the_handlers(given: dict[str, Any]) -> None:
    app = App()
    scope: dict[str, Any] = {}

    @app.get("/")
    async def root(request: Request) -> str:
        request.state.user = "ann"
        return repr(request.state)

    async def outside(received: Any, receive: Any, send: Any) -> None:
        scope.update(received)
        await app(scope, receive, send)

    answer = await Client(outside)("GET", "/", **given)
    assert "'user': 'ann'" in answer.json()
    assert scope["state"]["user"] == "ann"


# The event of the drain


async def test_one_event_says_that_the_app_drains_whenever_it_is_asked_for(
    autojump_clock: MockClock,
) -> None:
    heard: list[str] = []

    async def hear(event: Any, name: str) -> None:
        await event.wait()
        heard.append(name)

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        assert not app.draining.is_set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, app.draining, "in the lifespan")
            yield

    app = App(lifespan=lifespan)

    @app.get("/")
    async def root() -> None: ...

    draining = app.draining
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear, draining, "before it is served")
        for _ in range(2):  # as each test of a suite serves the same app
            async with running(app) as client:
                assert app.draining is draining
                assert not draining.is_set()
                assert (await client("GET", "/")).status == 200
            assert draining.is_set()
    assert sorted(heard) == ["before it is served", "in the lifespan", "in the lifespan"]
