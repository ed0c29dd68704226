"""A server for attackers: `python attacked.py LIMITS`, as JSON; limits are small, or nobody waits.

It says where it listens, and answers how many are connected, how many requests it has served at
once, and how much memory it has: `GET /state`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import trio

from trioweb.server import Server, ServerLimits, serve

PIECE = b"x" * 64 * 1024
PIECES = 64
PAGE = os.sysconf("SC_PAGE_SIZE")

server: Server
in_flight = most = 0


def state() -> dict[str, int]:
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    connections = server.statistics().connections_open
    return {"connections": connections, "most": most, "memory": pages * PAGE}


async def app(scope: Any, receive: Any, send: Any) -> None:
    global in_flight, most
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    in_flight += 1
    most = max(most, in_flight)
    path = scope["path"]
    await trio.lowlevel.checkpoint()
    in_flight -= 1
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path == "/large":
        for _ in range(PIECES):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    body = json.dumps(state()) if path == "/state" else path
    await send({"type": "http.response.body", "body": body.encode()})


async def main(limits: dict[str, Any]) -> None:
    global server
    async with trio.open_nursery() as nursery:

        async def start(*, task_status: trio.TaskStatus[Server]) -> None:
            await serve(app, port=0, limits=ServerLimits(**limits), task_status=task_status)

        server = await nursery.start(start)
        print(*server.urls, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)  # until whoever started us goes
        server.cancel()


trio.run(main, json.loads(sys.argv[1]))
