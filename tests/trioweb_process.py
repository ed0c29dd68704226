"""A real `trioweb`, for what must be proven of the program that users run.

What `hypercorn_process.py` says of its processes holds for these: lines are waited for, every wait
has a bound, and at the end nothing of the process group is left.  The port is the system's choice,
and read from the line that says where the server listens.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from .hypercorn_process import STOP_TIMEOUT, HypercornProcess


class TriowebProcess(HypercornProcess):
    """A running `trioweb`; of several processes, the first."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(process, 0)
        self.pid = process.pid

    def find_port(self) -> None:
        """Read the port from the line that tells it."""
        line = self.wait_for_line("http://127.0.0.1:")
        match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert match is not None
        self.port = int(match[1])

    def wait_for_workers(self, count: int) -> list[int]:
        """Wait until so many workers in all have begun to listen; returns their process ids."""
        lines = self.wait_for_lines("trioweb.server: listening on ", count)
        return [int(line.partition("[")[2].partition("]")[0]) for line in lines]

    def ask(self, method: str, target: str) -> str:
        """The answer's body, on a connection of its own; AssertionError if it isn't a 200."""
        with closing(self.connect()) as connection:
            connection.request(method, target)
            with connection.getresponse() as response:
                body = response.read().decode()
                assert response.status == 200, body
                return body

    def send_group_signal(self, number: signal.Signals) -> None:
        """Signal all of its processes, as a terminal does at Ctrl-C."""
        os.killpg(self.pid, number)


@contextmanager
def trioweb_process(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    sockets: Sequence[socket.socket] = (),
    wait: bool = True,
) -> Iterator[TriowebProcess]:
    """Run `trioweb` with these arguments; with `wait`, it knows its port when it is given.

    At the end the caller has ended it, or it is killed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "trioweb", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        pass_fds=[sock.fileno() for sock in sockets],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    server = TriowebProcess(process)
    try:
        if wait:
            server.find_port()
        yield server
    finally:
        server.kill()


def trioweb_output(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """The exit status and the output of a `trioweb` that ends by itself."""
    with trioweb_process(*arguments, cwd=cwd, env=env, wait=False) as process:
        return process.wait(STOP_TIMEOUT), process.log
