"""What one call of an app costs, without a server, in pairs.

Rules of this module:

* Every app answers the same request with the same bytes; that is checked first.
* The apps take turns, in short rounds within one process, and what is compared
  is the ratio inside a round: machines drift, rounds drift together.
* All run on Trio.  Starlette and FastAPI do so too: their calls never reach
  asyncio for these handlers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import trio

import trioweb

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

CALLS_IN_A_ROUND = 1000
EXPECTED = b'{"message":"sent to a@example.com"}'


def trioweb_app() -> ASGIApp:
    app = trioweb.App()

    @app.get("/send/{email}")
    async def send(email: str) -> dict[str, str]:
        return {"message": f"sent to {email}"}

    return app


def starlette_app() -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def send(request: Request) -> JSONResponse:
        return JSONResponse({"message": f"sent to {request.path_params['email']}"})

    return Starlette(routes=[Route("/send/{email}", send)])


def fastapi_app() -> ASGIApp:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/send/{email}")
    async def send(email: str) -> dict[str, str]:
        return {"message": f"sent to {email}"}

    return app


async def bare_app(scope: Any, receive: Any, send: Any) -> None:
    """The least that any app does: no routing, no framework."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(EXPECTED))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": EXPECTED})


APPS: dict[str, Callable[[], ASGIApp]] = {
    "trioweb": trioweb_app,
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "bare ASGI": lambda: bare_app,
}


async def call(app: ASGIApp) -> bytes:
    """One GET; the body of its response."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope(), receive, send)
    return bytes(sent[-1]["body"])


def scope() -> dict[str, Any]:
    """A browser's GET, as Hypercorn would describe it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.1"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/send/a@example.com",
        "raw_path": b"/send/a@example.com",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"accept", b"*/*"), (b"user-agent", b"bench")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "extensions": {},
    }


async def measure(apps: dict[str, ASGIApp], rounds: int) -> dict[str, list[float]]:
    """Microseconds for a call of each app, one figure for each round."""
    for name, app in apps.items():
        if await call(app) != EXPECTED:
            raise SystemExit(f"{name} gives another answer: {await call(app)!r}")
    costs: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(rounds):
        for name, app in apps.items():
            costs[name].append(await _round(app))
    return costs


async def _round(app: ASGIApp) -> float:
    begin = time.perf_counter()
    for _ in range(CALLS_IN_A_ROUND):
        await call(app)
    return (time.perf_counter() - begin) / CALLS_IN_A_ROUND * 1e6


async def served(apps: dict[str, ASGIApp], rounds: int) -> dict[str, list[float]]:
    """As `measure`, with trioweb's lifespan open, as under a server."""
    started, stop = trio.Event(), trio.Event()

    async def receive() -> Message:
        if not started.is_set():
            return {"type": "lifespan.startup"}
        await stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        started.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(apps["trioweb"], {"type": "lifespan", "state": {}}, receive, send)
        await started.wait()
        costs = await measure(apps, rounds)
        stop.set()
    return costs


def installed() -> dict[str, ASGIApp]:
    """The apps whose framework is installed; says which are left out."""
    apps = {}
    for name, make in APPS.items():
        try:
            apps[name] = make()
        except ImportError as exc:
            print(f"left out: {name} ({exc})")
    return apps


def report(costs: dict[str, list[float]]) -> str:
    """A Markdown table: the median cost, and the median of trioweb's ratio to each."""
    lines = ["| app | µs a call, median | min–max | trioweb / it |", "|---|---|---|---|"]
    for name, values in costs.items():
        pairs = zip(costs["trioweb"], values, strict=True)
        ratio = statistics.median(ours / its for ours, its in pairs)
        median = statistics.median(values)
        spread = f"{min(values):.1f}–{max(values):.1f}"
        lines.append(f"| {name} | {median:.1f} | {spread} | {ratio:.2f} |")
    return "\n".join(lines)


def run(rounds: int) -> None:
    print(report(trio.run(served, installed(), rounds)))
