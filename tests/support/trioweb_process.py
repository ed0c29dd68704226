"""A real `trioweb`; how it is seen, waited for and ended stands in `processes.py`.

The port is the system's choice, and read from the line that says where the server listens.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from .processes import STOP_TIMEOUT, ServerProcess

# An app to write to a file of the folder that is served.
ENDINGS = (Path(__file__).parent / "apps" / "endings.py").read_text("utf-8")

# More of such a file: the last words before a hard exit have time on a busy machine, too.  Only a
# log that is stuck takes all of it.
PATIENT = """
from trioweb._cli import signals
signals.LAST_WORDS_TIME = 10.0
"""

# A drain that outlasts every wait of a test: what ends has been cancelled.
DRAINING_FOR_LONG = ("--drain-timeout", "1000")


class TriowebProcess(ServerProcess):
    """A running `trioweb`; of several processes, the first."""

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
            return read_answer(connection)

    def send_group_signal(self, number: signal.Signals) -> None:
        """Signal all of its processes, as a terminal does at Ctrl-C."""
        os.killpg(self.pid, number)


def read_answer(connection: http.client.HTTPConnection) -> str:
    """The answer's body; AssertionError if it isn't a 200."""
    with connection.getresponse() as response:
        body = response.read().decode()
        assert response.status == 200, body
        return body


@contextmanager
def trioweb_process(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    sockets: Sequence[socket.socket] = (),
    wait: bool = True,
    program: Sequence[str] = ("-m", "trioweb"),
) -> Iterator[TriowebProcess]:
    """Run `trioweb` with these arguments; with `wait`, it knows its port when it is given.

    At the end the caller has ended it, or it is killed.
    """
    server = TriowebProcess((*program, *arguments), cwd=cwd, env=env, sockets=sockets)
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
