"""A real `hypercorn -k trio`, for what must be proven of the program that users run.

* The listening socket is opened here and inherited by Hypercorn (`fd://`): nobody can take the port
  in between, and a client that is early waits in the backlog instead of being refused.
* A thread reads what the server prints as it comes.  Tests wait for a line of it, never for time.
* Every wait has a bound, and at the end nothing of the server's process group is left, whatever
  happened.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Seconds.  Generous: they only end a wait that will never be answered.
LINE_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0

HOST = "127.0.0.1"
READY_LINE = "Running on "


class HypercornProcess:
    """A running server: its `port`, what it prints, and its end."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._process = process
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read_output)
        self._reader.start()

    @property
    def log(self) -> str:
        """What the server has printed so far, standard output and error in one."""
        with self._changed:
            return "".join(self._lines)

    def connect(self, timeout: float = LINE_TIMEOUT) -> http.client.HTTPConnection:
        """A client for one connection; the caller closes it."""
        return http.client.HTTPConnection(HOST, self.port, timeout=timeout)

    def wait_for_line(self, text: str, timeout: float = LINE_TIMEOUT) -> str:
        """Wait until the server has printed a line that holds `text`, and return that line.

        Raises AssertionError, with all that was printed, when the server ends or
        `timeout` passes without it.
        """
        return self.wait_for_lines(text, 1, timeout)[0]

    def wait_for_lines(self, text: str, count: int, timeout: float = LINE_TIMEOUT) -> list[str]:
        """Wait, as `wait_for_line` does, for at least `count` lines that hold `text`."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._find(text)) >= count, timeout)
            lines = self._find(text)
        if len(lines) < count:
            raise AssertionError(
                f"the server printed {len(lines) or 'no'} line with {text!r}, but:\n{self.log}"
            )
        return lines

    def send_signal(self, number: signal.Signals) -> None:
        """Signal Hypercorn's main process, as a terminal or a supervisor does."""
        self._process.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait until the server has ended by itself; return its exit code.

        Raises AssertionError, with all that was printed, when it runs longer than `timeout`.
        """
        # The output ends when the last process that holds it has: an event, where waiting for the
        # exit code with a bound would poll.
        self._reader.join(timeout)
        if self._reader.is_alive():
            raise AssertionError(f"the server still runs after {timeout} s:\n{self.log}")
        return self._process.wait()

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """SIGTERM, then `wait`.  Does no harm to a server that has ended."""
        self.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """End at once whatever is left of the server and its workers."""
        if self._reader.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join()
        self._process.wait()

    def _find(self, text: str) -> list[str]:
        return [line for line in self._lines if text in line]

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._add(line)
        self._add("", ended=True)

    def _add(self, line: str, *, ended: bool = False) -> None:
        with self._changed:
            self._lines.append(line)
            self._ended = ended
            self._changed.notify_all()


@contextmanager
def hypercorn_process(
    app: str,
    *,
    cwd: Path,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    stop_timeout: float = STOP_TIMEOUT,
) -> Iterator[HypercornProcess]:
    """Serve `app` ("module:app" or "path/to/module:app") from the folder `cwd`; ready for requests.

    `options` are added to Hypercorn's command line, `env` to the environment.  At
    the end the server is stopped as a supervisor would, and killed if it
    doesn't stop within `stop_timeout` seconds, which is an AssertionError.
    """
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        server = HypercornProcess(_start(app, listener, cwd, options, env or {}), port)
    try:
        server.wait_for_line(READY_LINE)
        yield server
        server.stop(stop_timeout)
    finally:
        server.kill()


def hypercorn_refusal(
    app: str, *, cwd: Path, options: Sequence[str] = (), timeout: float = STOP_TIMEOUT
) -> str:
    """What Hypercorn prints about an `app` that doesn't start, once it has ended by itself.

    Not its exit code: that of a main process whose only worker failed is 0.
    Raises AssertionError when it still runs after `timeout` seconds.
    """
    with socket.create_server((HOST, 0)) as listener:
        server = HypercornProcess(_start(app, listener, cwd, options, {}), 0)
    try:
        server.wait(timeout)
        return server.log
    finally:
        server.kill()


def _start(
    app: str, listener: socket.socket, cwd: Path, options: Sequence[str], env: Mapping[str, str]
) -> subprocess.Popen[str]:
    bind = f"fd://{listener.fileno()}"
    return subprocess.Popen(
        [sys.executable, "-m", "hypercorn", "-k", "trio", "--bind", bind, *options, app],
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a process group of its own, which `kill` can end as a whole
    )
