"""The process whose instructions are counted: requests over sockets, and the server they go to.

    python -P benchmarks/_counted.py FOLDER HTTP REQUEST:TIMES...

Rules of this module:

* Client and server are one process, so that one count has both, and one loop, so that both always
  do the same in the same order: all connections ask, the server and the tasks do what there is to
  do, the client reads.
* The client is the least that there can be: it writes bytes that are ready, and compares.
* Nothing depends on time or on chance: clocks stand still, and Trio's order is fixed.  So no turn
  ends because of time, no second makes a new Date field, and nothing is swept.
* It imports nothing of the benchmarks, and of trioweb public names only: the trioweb in FOLDER may
  be another checkout's, and older.
* Each REQUEST is answered so many times in a fork: what all have in common, such as imports, is
  counted once where the counter tells forks from each other.
* It is never imported, for it stops the clock of its process.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import socket
import sys
import time
from functools import partial
from typing import Any, NamedTuple

import msgspec
import trio

NOW = 1_700_000_000.0

# Before anybody has taken it by its name; the method of an iterator, because that runs no Python.
time.time = itertools.repeat(NOW).__next__
sys.path.insert(0, sys.argv[1])

import trioweb  # noqa: E402

# As in `trio.testing`, which imports pytest: that would be a third of all that is counted.
wait_all_tasks_blocked: Any = trio._core.wait_all_tasks_blocked  # type: ignore[attr-defined]

CONNECTIONS = 32
WARM_UP = 2  # requests of each connection: what it keeps for the next one, the second has used

# How often the client looks for a response that has not come yet, and how long each time.
MOST_LOOKS = 1_000
LOOK_TIME = 0.01  # seconds
READ_SIZE = 4096  # bytes


class StoppedClock(trio.abc.Clock):
    """Time doesn't go on, however slow the machine is."""

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return NOW

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - NOW


class Item(msgspec.Struct):
    name: str
    price: float
    tags: list[str]


class Request(NamedTuple):
    """What is sent, what comes back, and how many tasks run for it."""

    data: bytes
    body: bytes
    tasks: int = 0


def _asking(line: str, body: bytes = b"") -> bytes:
    fields = "host: 127.0.0.1:8000\r\naccept: */*\r\nuser-agent: bench\r\n"
    if body:
        fields += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{line} HTTP/1.1\r\n{fields}\r\n".encode() + body


ITEM = b'{"name":"lamp","price":12.5,"tags":["a","b"]}'

REQUESTS = {
    "get": Request(_asking("GET /items/42"), b'{"item_id":42,"name":"lamp"}'),
    "body": Request(_asking("POST /items", ITEM), ITEM),
    "one-task": Request(_asking("POST /tasks/1"), b'{"added":1}', 1),
    "ten-tasks": Request(_asking("POST /tasks/10"), b'{"added":10}', 10),
}

# Of the tasks that were added, how many have run.
ran = 0


async def no_op() -> None:
    global ran
    ran += 1


def make_app() -> trioweb.App:
    app = trioweb.App()

    @app.get("/items/{item_id}")
    async def read(item_id: int) -> dict[str, object]:
        return {"item_id": item_id, "name": "lamp"}

    @app.post("/items")
    async def create(item: Item) -> Item:
        return item

    @app.post("/tasks/{count}")
    async def add(count: int, tasks: trioweb.BackgroundTasks) -> dict[str, int]:
        for _ in range(count):
            tasks.add_task(no_op)
        return {"added": count}

    return app


class Client:
    """The clients' ends of all connections."""

    def __init__(self, port: int) -> None:
        self._sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        for sock in self._sockets:
            sock.setblocking(False)

    async def ask(self, request: Request) -> None:
        """Each connection asks, and has its answer; every task has run."""
        before = ran
        for sock in self._sockets:
            sock.send(request.data)
        await wait_all_tasks_blocked()
        for sock in self._sockets:
            await self._read(sock, request.body)
        if ran - before != CONNECTIONS * request.tasks:
            raise RuntimeError(f"{ran - before:,} tasks have run for {request}")

    async def _read(self, sock: socket.socket, expected: bytes) -> None:
        """Until the response is whole.  What the kernel hasn't passed on yet is waited for."""
        response = b""
        for _ in range(MOST_LOOKS):
            try:
                response += sock.recv(READ_SIZE)
            except BlockingIOError:
                await wait_all_tasks_blocked(LOOK_TIME)
            if response.startswith(b"HTTP/1.1 200 ") and response.endswith(expected):
                return
        raise RuntimeError(f"{response!r} is not the answer {expected!r}")

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


async def answer(request: Request, http: Any, times: int) -> None:
    """So many times, and a few more before that."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(trioweb.serve, make_app(), port=0, http=http))
        client = Client(int(server.urls[0].rpartition(":")[2]))
        for _ in range(WARM_UP):
            await client.ask(request)
        gc.collect()  # what is left of the start would else bring a collection forward
        gc.freeze()
        for _ in range(times // CONNECTIONS):
            await client.ask(request)
        client.close()
        await server.shutdown()


def answer_in_fork(work: str, http: str) -> None:
    """Exits the process if that fails."""
    name, _, times = work.partition(":")
    if os.fork():
        _, status = os.wait()
        if status:
            sys.exit(f"{work} failed")
        return
    trio.run(answer, REQUESTS[name], http, int(times), clock=StoppedClock())
    os._exit(0)


def main() -> None:
    _, http, *works = sys.argv[1:]
    run: Any = trio._core._run
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    run._r = random.Random(1)
    for work in works:
        answer_in_fork(work, http)
    print(trioweb.__file__)


if __name__ == "__main__":
    main()
