"""Workers behind nginx, with the recipe of the deployment page, while they are replaced."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from ..support import nginx as _nginx
from ..support.closed_loop import ClosedLoop, to_file
from ..support.nginx import nginx
from ..support.server_driver import Client
from ..support.trioweb_process import TriowebProcess, trioweb_process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.skipif(not _nginx.is_installed(), reason=_nginx.MISSING),
]

APP = """
import os
import trio
from trioweb import App, StreamingResponse

app = App()

@app.get("/")
@app.post("/")
async def index() -> None:
    await trio.sleep(0.001)

@app.get("/stream")
async def stream() -> StreamingResponse:
    async def pieces():
        os.write(1, b"an answer has begun\\n")  # in one piece: there are two workers
        for number in range(20):
            yield b"%d;" % number
            await trio.sleep(0.1)
    return StreamingResponse(pieces())
"""

WHOLE = b"".join(b"%d;" % number for number in range(20))
TIMEOUT = 120.0  # seconds


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TriowebProcess]:
    (tmp_path / "main.py").write_text(APP)
    arguments = ("--uds", str(tmp_path / "web.sock"), "--limit-idle-timeout", "75")
    with trioweb_process(
        "run", "--workers", "2", "--no-access-log", *arguments, cwd=tmp_path, wait=False
    ) as process:
        process.wait_for_workers(2)
        yield process
        process.stop()


async def test_workers_are_replaced_and_nobody_gets_a_bad_gateway(
    server: TriowebProcess, tmp_path: Path
) -> None:
    with nginx(tmp_path, tmp_path / "web.sock") as front, trio.fail_after(TIMEOUT):
        # Of a POST nginx doesn't try a second time: a connection that is closed as it is used again
        # would be an error of its client.
        load = ClosedLoop(to_file(front), methods=("POST", "GET"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run, 16)
            for times in (2, 3):
                server.send_signal(signal.SIGHUP)
                await trio.to_thread.run_sync(server.wait_for_workers, 2 * times)
            load.wanted = 200
        assert list(load.answers) == [200]
        assert load.answers.total() > 200


async def test_an_answer_that_has_begun_is_given_whole(
    server: TriowebProcess, tmp_path: Path
) -> None:
    with nginx(tmp_path, tmp_path / "web.sock") as front, trio.fail_after(TIMEOUT):
        bodies: list[bytes] = []

        async def ask() -> None:
            stream = await trio.open_unix_socket(front)
            async with stream:
                response = await Client(stream).ask(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
                bodies.append(response.body)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask)
            await trio.to_thread.run_sync(server.wait_for_lines, "an answer has begun", 8)
            server.send_signal(signal.SIGHUP)
        assert bodies == [WHOLE] * 8
