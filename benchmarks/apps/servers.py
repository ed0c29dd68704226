"""The servers, started as their users would start them.

Rules of this module:

* One process each, no access log, and where a server has a faster loop or parser to
  install, it is installed.
* One core for the server, another for the load, where the system lets us choose.
* A server that waits for its turn is stopped (SIGSTOP): it takes nothing from the others.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .endpoints import ENDPOINTS

ROOT = Path(__file__).parent.parent.parent
HOST = "127.0.0.1"
START_TIME = 30.0  # seconds
STOP_TIME = 10.0  # seconds
POLL = 0.05  # seconds

ALL = tuple(ENDPOINTS)
HEADS = ("path", "ids", "stream")
NO_DEPENDENCY = tuple(name for name in ALL if name != "dependency")

UVICORN = (
    *("-m", "uvicorn", "benchmarks.apps.{app}:app", "--port", "{port}", "--no-access-log"),
    *("--log-level", "warning", "--loop", "uvloop", "--http", "httptools"),
)
HYPERCORN = (
    *("-m", "hypercorn", "-k", "trio", "benchmarks.apps.{app}:app"),
    *("--bind", "127.0.0.1:{port}", "--log-level", "warning"),
)
EMBEDDED = ("-m", "benchmarks.apps.embedded", "{app}", "{port}")
SANIC = (
    *("-m", "sanic", "benchmarks.apps.{app}:app", "--port", "{port}"),
    *("--single-process", "--no-access-logs", "--no-motd"),
)

UVICORN_NEEDS = ("uvicorn", "uvloop", "httptools")


@dataclass(frozen=True)
class Server:
    """An app on a server: the arguments that Python is started with, and what must be installed."""

    app: str
    arguments: tuple[str, ...]
    endpoints: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The packages that must be installed first, as pip knows them."""
        return [name for name in self.needs if find_spec(name.replace("-", "_")) is None]

    def command(self, port: int) -> list[str]:
        words = [word.format(app=self.app, port=port) for word in self.arguments]
        return [sys.executable, *words]


# Theirs are the peers: the frameworks that trioweb is compared with.
OURS = {
    "trioweb, httptools": Server("trioweb_app", (*EMBEDDED, "httptools"), ALL, ("httptools",)),
    "trioweb, h11": Server("trioweb_app", (*EMBEDDED, "h11"), ALL, ()),
    "trioweb on Hypercorn": Server("trioweb_app", HYPERCORN, ALL, ()),
}
BARE = {
    "bare ASGI on trioweb's server": Server(
        "bare_app", (*EMBEDDED, "httptools"), HEADS, ("httptools",)
    ),
    "bare ASGI on Hypercorn": Server("bare_app", HYPERCORN, HEADS, ()),
    "bare ASGI on Uvicorn": Server("bare_app", UVICORN, HEADS, UVICORN_NEEDS),
}
THEIRS = {
    "FastAPI on Uvicorn": Server("fastapi_app", UVICORN, ALL, ("fastapi", *UVICORN_NEEDS)),
    "Starlette on Uvicorn": Server(
        "starlette_app", UVICORN, NO_DEPENDENCY, ("starlette", "pydantic", *UVICORN_NEEDS)
    ),
    "Falcon on Uvicorn": Server(
        "falcon_app", UVICORN, NO_DEPENDENCY, ("falcon", "pydantic", *UVICORN_NEEDS)
    ),
    "BlackSheep on Uvicorn": Server(
        "blacksheep_app",
        UVICORN,
        ("path", "ids", "body", "dependency", "stream"),
        ("blacksheep", "pydantic", *UVICORN_NEEDS),
    ),
    "Sanic": Server("sanic_app", SANIC, NO_DEPENDENCY, ("sanic", "pydantic")),
    "Starlette on Hypercorn": Server(
        "starlette_app", HYPERCORN, NO_DEPENDENCY, ("starlette", "pydantic")
    ),
    "Quart-Trio on Hypercorn": Server(
        "quart_trio_app", HYPERCORN, NO_DEPENDENCY, ("quart-trio", "pydantic")
    ),
}
SERVERS = {**OURS, **BARE, **THEIRS}


# The server has the first, the load the last; none where the system doesn't let us choose.
CORES: Sequence[int] = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else ()


def move(pid: int, cores: Sequence[int]) -> None:
    """Keep a process, 0 for this one, and what it will start, to these cores."""
    if sys.platform == "linux":
        os.sched_setaffinity(pid, cores)


def conditions() -> str:
    """How server and load share the machine, and with whom, for the report."""
    load = f"Load average of the machine at the beginning: {os.getloadavg()[0]:.1f}."
    if not CORES:
        return f"This system doesn't let a process choose its core. {load}"
    if len(CORES) == 1:
        return f"One core for server and load together, which flattens ratios. {load}"
    return f"One core for the server, another one for the load. {load}"


class Running:
    """A server by its `port`; its process, and what that starts: Hypercorn's worker is a child."""

    def __init__(self, server: Server) -> None:
        self.port = _free_port()
        self._command = server.command(self.port)
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # Sanic greets; errors go to standard error
            start_new_session=True,  # a process group of its own
        )
        move(self._process.pid, CORES[:1])

    def wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_TIME
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection((HOST, self.port)).close()
            except ConnectionRefusedError:
                time.sleep(POLL)
            else:
                return
        raise SystemExit(f"it doesn't listen: {shlex.join(self._command)}")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let it run meanwhile."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def end(self) -> None:
        self._signal(signal.SIGCONT)
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIME)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(self._process.pid, number)


@contextmanager
def started(server: Server) -> Iterator[Running]:
    """The server's process, ready and paused."""
    running = Running(server)
    try:
        running.wait_until_it_listens()
        running.pause()
        yield running
    finally:
        running.end()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
