"""The options of a real server: where it listens, what the app finds, and whom it tells."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.processes import LINE_TIMEOUT
from ..support.trioweb_process import trioweb_output, trioweb_process

pytestmark = [pytest.mark.slow, pytest.mark.processes]

APP = """
import logging
import logging.config
import os
from contextlib import asynccontextmanager

from trioweb import App, BackgroundTasks


@asynccontextmanager
async def lifespan(app):
    logging.config.dictConfig({
        "version": 1,
        "handlers": {"h": {"class": "logging.StreamHandler"}},
        "root": {"level": "WARNING", "handlers": ["h"]},
    })
    yield


app = App(lifespan=lifespan)


def fail() -> None:
    raise ValueError("of a task")


@app.get("/")
async def index(tasks: BackgroundTasks) -> str:
    tasks.add_task(fail)
    return os.environ["GREETING"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_text(APP)
    (tmp_path / ".env").write_text("GREETING='good # morning'\n")
    return tmp_path


@pytest.mark.parametrize("workers", [[], ["-w", "2"]])
def test_several_addresses_a_file_of_variables_and_a_manager(
    project: Path, workers: list[str]
) -> None:
    path = project / "app.sock"
    arguments = ["--bind", "127.0.0.1:0", "-b", f"unix:{path}", "--uds-permissions", "600"]
    arguments += ["--app-dir", "src", "--env-file", ".env", *workers]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(project / "notify"))
        manager.settimeout(LINE_TIMEOUT)
        env = {"NOTIFY_SOCKET": str(project / "notify")}
        with trioweb_process("run", *arguments, cwd=project, env=env) as server:
            assert manager.recv(100) == b"READY=1"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert server.ask("GET", "/") == '"good # morning"'
            assert b"good # morning" in ask_over(path)
            # The app has configured logging, and named none of ours.
            server.wait_for_line("ValueError: of a task")
            server.wait_for_line('"GET / HTTP/1.1" 200')
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
            assert manager.recv(100) == b"STOPPING=1"
            manager.setblocking(False)
            with pytest.raises(BlockingIOError):
                manager.recv(100)
    assert not path.exists()


def ask_over(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LINE_TIMEOUT)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(4096), b""))


def test_a_command_line_of_uvicorns_says_what_to_write_instead(project: Path) -> None:
    status, output = trioweb_output("run", "--factory", "main:make", cwd=project)
    assert status == 2
    assert output.splitlines()[-1] == "    right:  trioweb run 'main:make_app()'"
    env = {"TRIOWEB_LIMIT_MAX_REQUESTS": "9"}
    status, output = trioweb_output("run", cwd=project, env=env)
    assert status == 2
    assert "--limit-concurrency" in output


def test_an_encrypted_key_asks_nobody(project: Path) -> None:
    """Not even where there is somebody to ask."""
    pytest.importorskip("cryptography")
    make = """
import trustme, sys
from cryptography.hazmat.primitives import serialization as s
issued = trustme.CA().issue_cert("localhost")
key = s.load_pem_private_key(issued.private_key_pem.bytes(), None)
encrypted = key.private_bytes(
    s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"x"))
open("key.pem", "wb").write(encrypted)
issued.cert_chain_pems[0].write_to_path("cert.pem")
"""
    subprocess.run([sys.executable, "-c", make], cwd=project, check=True)
    files = ("--app-dir", "src", "--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem")
    ours, theirs = os.openpty()
    try:
        command = [sys.executable, "-m", "trioweb", "run", *files]
        ran = subprocess.run(
            command, cwd=project, stdin=theirs, capture_output=True, text=True, timeout=60
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert ran.returncode == 2
    assert "--ssl-keyfile-password" in ran.stderr
