"""The embedded server as a real process, in the place of Hypercorn's.

Rules of this module:

* What starts is seen, waited for and ended as `hypercorn_process` does it: the scenarios of
  `shutdown_proof` can't tell.
* There are two programs: `apps/embedded.py`, which calls `trioweb.serve` and has its signals, and
  `trioweb run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from .processes import STOP_TIMEOUT, ServerProcess, Start, serving_process

# What each program prints when it serves.
READY = "listening on "


def starts(*command: str, workers: int = 1) -> Start:
    """How to start `python COMMAND`; `{fd}` in it is a listening socket.  `workers` say ready."""

    def start(
        app: str,
        *,
        cwd: Path,
        options: Sequence[str] = (),  # Hypercorn's
        env: Mapping[str, str] | None = None,
        stop_timeout: float = STOP_TIMEOUT,
    ) -> AbstractContextManager[ServerProcess]:
        return serving_process(
            (*command, app),
            cwd=cwd,
            env=env,
            ready=READY,
            times=workers,
            stop_timeout=stop_timeout,
        )

    return start


_RUN = ("-m", "trioweb", "run", "--fd", "{fd}", "--log-config", "log.json")

embedded = starts("embedded.py", "{fd}")
command_line = starts(*_RUN)
two_workers = starts(*_RUN, "--workers", "2", workers=2)
