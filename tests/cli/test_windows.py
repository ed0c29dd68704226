"""What there is on Windows: the package is imported, one process serves, the rest is refused."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from trioweb._cli import main as command, systems
from trioweb._cli.main import main
from trioweb.server import _binding, _system
from trioweb.server._transport import SocketTransport

from ..support.windows import ATTRIBUTES, MODULES

APP = """
from trioweb import App

app = App()


@app.get("/")
async def hello() -> str:
    return "hello"


@app.get("/large")
async def large() -> str:
    return "x" * 5_000_000
"""

PROGRAM = [sys.executable, "-m", "tests.support.windows"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


def environment() -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.processes
def test_one_process_serves(folder: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "run", "--port", "0"],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "listening on http://" in line)
            port = int(line.rpartition(":")[2])
            for path, size in (("/", 7), ("/large", 5_000_002)):
                with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                    sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                    answer = b"".join(iter(lambda: sock.recv(65536), b""))
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert len(answer.partition(b"\r\n\r\n")[2]) == size
            process.terminate()
            log = process.stderr.read()
        finally:
            process.kill()
    assert process.returncode == 0
    assert "draining" in log
    assert "stopped" in log


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--workers", "2"], "right:  --workers 1"),
        (["dev"], "right:  --no-reload"),
        (["run", "--uds", "app.sock"], "no Unix sockets for Python; give a port"),
    ],
)
def test_what_isnt_there_is_refused(arguments: list[str], said: str, folder: Path) -> None:
    ended = subprocess.run(
        [*PROGRAM, *arguments], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert ended.returncode in (1, 2)
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.processes
def test_every_module_can_be_imported() -> None:
    program = """
from tests.support.windows import become
become()
import importlib, pkgutil, trioweb
for module in pkgutil.walk_packages(trioweb.__path__, "trioweb."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# The same in this process, piece by piece.


def as_on_windows(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that was imported there; the one that all others use stays as it is."""
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    for place, names in ATTRIBUTES.items():
        for name in names:
            monkeypatch.delattr(place, name, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert module.__file__ is not None
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_there", module.__file__)
    assert spec is not None
    assert spec.loader is not None
    there = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(there)
    return there


def test_signals_that_arent_there_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    there = as_on_windows(systems, monkeypatch)
    assert (there.HANG_UP, there.HAS_WORKERS) == ((), False)
    assert there.block_signals([signal.SIGINT]) == ()
    there.unblock_signals([signal.SIGINT])
    there.set_blocked_signals(())
    there.register_at_fork(before=print)


def test_sockets_do_without_what_isnt_there(monkeypatch: pytest.MonkeyPatch) -> None:
    there = as_on_windows(_system, monkeypatch)
    with socket.socket() as sock:
        assert there.unsent(sock) is None
        assert not there.SHUTDOWN_ENDS_WAITING
        there.prepare_connection(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with pytest.raises(OSError, match="can't share a port") as caught:
            there.prepare_listener(sock, reuse_port=True)
        assert caught.value.errno == errno.EOPNOTSUPP


def test_a_unix_socket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_binding, "UNIX", None)
    with pytest.raises(OSError, match="no Unix sockets"):
        _binding.bound_to_file("app.sock", None)


@pytest.mark.parametrize(
    ("arguments", "right"),
    [(["run", "--workers", "2"], "--workers 1"), (["dev"], "--no-reload")],
)
def test_processes_that_share_a_socket_are_refused(
    arguments: list[str],
    right: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "HAS_WORKERS", False)
    assert main(arguments, {}) == 2
    assert f"right:  {right}" in capsys.readouterr().err


async def test_where_shutting_down_ends_no_waiting_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trioweb.server._transport.SHUTDOWN_ENDS_WAITING", False)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not SocketTransport(ours).end_receiving()
