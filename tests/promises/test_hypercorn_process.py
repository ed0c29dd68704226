"""The helper that runs a real Hypercorn: what it promises to the tests that use it."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..support.hypercorn_process import hypercorn_process

pytestmark = [pytest.mark.slow, pytest.mark.processes]

# The smallest ASGI application with a lifespan; `%s` is what it does at shutdown.
APP = """
import trio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        %s
        await send({"type": "lifespan.shutdown.complete"})
    else:
        print("serving", scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.py").write_text(APP % "print('lifespan over')")
    (tmp_path / "stuck.py").write_text(APP % "await trio.sleep_forever()")
    (tmp_path / "broken.py").write_text("raise RuntimeError('not today')")
    return tmp_path


def test_serves_shows_its_lines_and_stops(folder: Path) -> None:
    with hypercorn_process("good:app", cwd=folder) as server:
        connection = server.connect()
        connection.request("GET", "/here")
        assert connection.getresponse().status == 204
        connection.close()
        assert server.wait_for_line("serving") == "serving /here\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "lifespan over" in server.log
        with pytest.raises(AssertionError, match=r"no line with 'elephant', but:\n(.*\n)*s"):
            server.wait_for_line("elephant")


def test_an_app_that_fails_to_start_shows_why(folder: Path) -> None:
    broken = hypercorn_process("broken:app", cwd=folder, options=["--workers", "1"])
    with ExitStack() as stack, pytest.raises(AssertionError, match="not today"):
        stack.enter_context(broken)


def test_a_server_that_does_not_stop_is_killed(folder: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"still runs after 0\.1 s"),
        hypercorn_process("stuck:app", cwd=folder, stop_timeout=0.1) as server,
    ):
        pass
    assert server.wait() == -signal.SIGKILL
