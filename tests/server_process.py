"""The embedded server as a real process, in the place of Hypercorn's.

Rules of this module:

* What starts is seen, waited for and ended as `hypercorn_process` does it: the scenarios of
  `shutdown_proof` can't tell.
* There are two programs: tests/apps/embedded.py, which calls `trioweb.serve` and has its signals,
  and `trioweb run`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from .hypercorn_process import HOST, STOP_TIMEOUT, HypercornProcess

Start = Callable[..., AbstractContextManager[HypercornProcess]]

# What each program prints when it serves.
READY = "listening on "


def starts(*command: str, workers: int = 1) -> Start:
    """How to start `python COMMAND`; `{fd}` in it is a listening socket.  `workers` say ready."""

    @contextmanager
    def start(
        app: str,
        *,
        cwd: Path,
        options: Sequence[str] = (),  # Hypercorn's
        env: Mapping[str, str] | None = None,
        stop_timeout: float = STOP_TIMEOUT,
    ) -> Iterator[HypercornProcess]:
        with socket.create_server((HOST, 0)) as listener:
            words = [word.format(fd=listener.fileno()) for word in command]
            process = subprocess.Popen(
                [sys.executable, *words, app],
                cwd=cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            server = HypercornProcess(process, listener.getsockname()[1])
        try:
            server.wait_for_lines(READY, workers)
            yield server
            server.stop(stop_timeout)
        finally:
            server.kill()

    return start


_RUN = ("-m", "trioweb", "run", "--fd", "{fd}", "--log-config", "log.json")

embedded = starts("embedded.py", "{fd}")
command_line = starts(*_RUN)
two_workers = starts(*_RUN, "--workers", "2", workers=2)
