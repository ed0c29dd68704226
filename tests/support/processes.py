"""A server in a process of its own, for what must be proven of the program that users run.

Rules of this module:

* A thread reads what the server prints as it comes.  Tests wait for a line of it, never for time.
* Where a listening socket is opened here and inherited, nobody can take the port in between, and a
  client that is early waits in the backlog instead of being refused.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

# How to start a server for an app, as `hypercorn_process` does it.
Start = Callable[..., AbstractContextManager["ServerProcess"]]

# Seconds.  Generous: they only end a wait that will never be answered.
LINE_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0

HOST = "127.0.0.1"


class ServerProcess:
    """A running server, started as `python ARGUMENTS`: its `port`, what it prints, and its end."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        sockets: Sequence[socket.socket] = (),
        port: int = 0,
    ) -> None:
        self.port = port
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            pass_fds=[sock.fileno() for sock in sockets],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a process group of its own, which `kill` can end as a whole
        )
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read_output)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of its main process."""
        return self._process.pid

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
        """Signal its main process, as a terminal or a supervisor does."""
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


def start_with_socket(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None
) -> ServerProcess:
    """Start a server on a socket that it inherits, the `{fd}` of its arguments."""
    with socket.create_server((HOST, 0)) as listener:
        descriptor = str(listener.fileno())
        words = [word.replace("{fd}", descriptor) for word in arguments]
        port: int = listener.getsockname()[1]
        return ServerProcess(words, cwd=cwd, env=env, sockets=[listener], port=port)


@contextmanager
def serving_process(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None,
    ready: str,
    times: int = 1,
    stop_timeout: float,
) -> Iterator[ServerProcess]:
    """What `start_with_socket` starts, ready for requests: it has printed `ready` so many times.

    At the end the server is stopped as a supervisor would, and killed if it
    doesn't stop within `stop_timeout` seconds, which is an AssertionError.
    """
    server = start_with_socket(arguments, cwd=cwd, env=env)
    try:
        server.wait_for_lines(ready, times)
        yield server
        server.stop(stop_timeout)
    finally:
        server.kill()
