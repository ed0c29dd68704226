"""A request's way through the house is short: few moves from one module to another.

To see it: `python -m tests.house.test_moves`.
"""

from __future__ import annotations

import inspect
from types import FrameType, SimpleNamespace
from typing import cast

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trioweb
from trioweb import App, BackgroundTasks

from ..support.moves import PACKAGE, Follower, followed
from ..support.server_clients import address_of

MOST_OF_A_GET = 24  # from the socket to the last byte
MOST_OF_A_POST = 55  # with a body and a task, until both are over

BACK_TO_WAITING = (
    "server/_server._handle",
    "server/_connection.run",
    "server/_transport.receive",
)
LAST_BYTE = "server/_transport.send_nowait"

GET = b"GET /send/ada HTTP/1.1\r\nHost: x\r\n\r\n"
POST = (
    b"POST /send/ada HTTP/1.1\r\nHost: x\r\n"
    b'Content-Type: application/json\r\nContent-Length: 11\r\n\r\n{"count":1}'
)


class Order(msgspec.Struct):
    count: int


async def no_op() -> None: ...


def make_app() -> App:
    app = App()

    @app.get("/send/{email}")
    async def look(email: str) -> dict[str, str]:
        return {"email": email}

    @app.post("/send/{email}")
    async def send(email: str, order: Order, background_tasks: BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(no_op)
        return {"email": email}

    return app


async def way_of(request: bytes) -> list[str]:
    """The moves of a request that isn't the first one of its connection.

    The shortest of several: the sweep may come by, and of two Trio tasks either may be first.
    """
    async with trio.open_nursery() as nursery:
        server = await nursery.start(trioweb.serve, make_app())
        async with await trio.open_tcp_stream(*address_of(server.urls[0])) as client:
            ways = []
            for _ in range(8):
                with followed() as moves:
                    await ask(client, request)
                ways.append(moves)
        nursery.cancel_scope.cancel()
    return min(ways, key=len)


async def ask(client: trio.SocketStream, request: bytes) -> None:
    await client.send_all(request)
    answer = await client.receive_some(4096)
    assert answer.endswith(b'{"email":"ada"}')
    await wait_all_tasks_blocked()


def until_last_byte(moves: list[str]) -> list[str]:
    return moves[: moves.index(LAST_BYTE) + 1]


def until_it_waits(moves: list[str]) -> list[str]:
    """Without the way back to where the connection waits."""
    own = list(moves)
    while own[-1] in BACK_TO_WAITING:
        own.pop()
    return own


async def test_a_get_makes_few_moves() -> None:
    moves = until_last_byte(await way_of(GET))
    assert len(moves) <= MOST_OF_A_GET, "\n".join(moves)


async def test_a_post_with_a_body_and_a_task_makes_few_moves() -> None:
    moves = await way_of(POST)
    assert "_tasks/ledger.end" in moves
    assert len(until_it_waits(moves)) <= MOST_OF_A_POST, "\n".join(moves)


@pytest.mark.parametrize("request_of", [GET, POST])
async def test_the_way_leads_through_the_house(request_of: bytes) -> None:
    """What is counted isn't nothing: the rooms that a request can't do without are in it."""
    moves = await way_of(request_of)
    rooms = {move.partition("/")[0] for move in moves}
    assert {"server", "_app", "_routing", "_http", "_lifetime", "_inject"} <= rooms


def test_only_what_is_entered_elsewhere_is_a_move() -> None:
    follower = Follower()

    def look() -> None:
        follower.enter(cast(FrameType, inspect.currentframe()), "call", None)

    def look_as(file: str, event: str = "call") -> None:
        frame = SimpleNamespace(f_code=SimpleNamespace(co_filename=file, co_name="f"))
        follower.enter(cast(FrameType, frame), event, None)

    look()  # isn't the package's
    for file in ("a.py", "a.py", "room/b.py", "a.py"):
        look_as(PACKAGE + file)
        look_as(PACKAGE + "c.py", "return")
    assert follower.moves == ["a.f", "room/b.f", "a.f"]


def test_the_way_can_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("GET: ")
    assert "  _app/app.__call__" in "\n".join(printed)


def main() -> None:
    for request in (GET, POST):
        moves = until_it_waits(trio.run(way_of, request))
        method, to_last_byte = request.split()[0].decode(), len(until_last_byte(moves))
        print(f"{method}: {to_last_byte} moves to the last byte, {len(moves)} in all")
        print("\n".join(f"  {number:2}  {move}" for number, move in enumerate(moves, 1)))


if __name__ == "__main__":  # pragma: no cover - a test calls main
    main()
