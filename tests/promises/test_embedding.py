"""docs/examples/embedding.py as a program: its services side by side, and their end."""

from __future__ import annotations

import os
import runpy
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import trioweb
from trioweb.testing import client

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "embedding.py"

POST = b"POST /jobs/paint HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def exchange(port: int, data: bytes = b"") -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        if data:
            await stream.send_all(data)
        return b"".join([bytes(piece) async for piece in stream])


def on_any_port(serve: Any, ports: dict[str, int], name: str) -> Any:
    """`serve`, on a port that is free, whose number is noted."""

    async def serve_there(first: Any, *_: Any, task_status: trio.TaskStatus[Any]) -> None:
        class Status:
            def started(self, value: Any) -> None:
                if name == "web":
                    ports[name] = int(value.urls[0].rpartition(":")[2])
                else:
                    ports[name] = value[0].socket.getsockname()[1]
                task_status.started(value)

        await serve(first, port=0, host="127.0.0.1", task_status=Status())

    return serve_there


@pytest.fixture
def raised_again() -> Iterator[list[int]]:
    """The signals that the example left unread: they would have ended it."""
    numbers: list[int] = []
    earlier = {
        number: signal.signal(number, lambda number, _: numbers.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield numbers
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGTERM]],
    ids=["SIGTERM", "SIGINT", "both"],
)
async def test_a_web_front_end_beside_other_services(
    monkeypatch: pytest.MonkeyPatch, numbers: list[signal.Signals], raised_again: list[int]
) -> None:
    ports: dict[str, int] = {}
    example = runpy.run_path(str(EXAMPLE))
    names = example["main"].__globals__
    monkeypatch.setattr(trioweb, "serve", on_any_port(trioweb.serve, ports, "web"))
    monkeypatch.setattr(trio, "serve_tcp", on_any_port(trio.serve_tcp, ports, "progress"))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(example["main"])
            while "web" not in ports:
                await trio.lowlevel.checkpoint()
            answer = await exchange(ports["web"], POST)
            assert answer.startswith(b"HTTP/1.1 202 ")
            assert answer.endswith(b'{"accepted":"paint"}')
            while not names["done"]:
                await trio.lowlevel.checkpoint()
            assert await exchange(ports["progress"]) == b"1 done\n"
            for _ in range(5):
                assert (await exchange(ports["web"], POST)).startswith(b"HTTP/1.1 202 ")
            for each in numbers:
                os.kill(os.getpid(), each)
    assert names["done"] == ["paint"] * 6  # what was accepted is done
    assert raised_again == []
    for port in ports.values():
        with pytest.raises(OSError, match=r"refused|all attempts"):
            await exchange(port)


async def test_jobs_past_the_last_place_are_refused() -> None:
    example = runpy.run_path(str(EXAMPLE))
    async with client(example["app"]) as c:
        statuses = [(await c.post("/jobs/x")).status_code for _ in range(101)]
    assert statuses == [202] * 100 + [503]
