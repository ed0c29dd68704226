"""A real `hypercorn -k trio`, which inherits its listening socket (`fd://`).

How it is seen, waited for and ended stands in `processes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from .processes import STOP_TIMEOUT, ServerProcess, serving_process, start_with_socket

READY_LINE = "Running on "
_HYPERCORN = ("-m", "hypercorn", "-k", "trio", "--bind", "fd://{fd}")


def hypercorn_process(
    app: str,
    *,
    cwd: Path,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    stop_timeout: float = STOP_TIMEOUT,
) -> AbstractContextManager[ServerProcess]:
    """Serve `app` ("module:app" or "path/to/module:app") from the folder `cwd`.

    `options` are added to Hypercorn's command line, `env` to the environment.  The rest is
    `serving_process`'s.
    """
    return serving_process(
        (*_HYPERCORN, *options, app),
        cwd=cwd,
        env=env,
        ready=READY_LINE,
        stop_timeout=stop_timeout,
    )


def hypercorn_refusal(
    app: str, *, cwd: Path, options: Sequence[str] = (), timeout: float = STOP_TIMEOUT
) -> str:
    """What Hypercorn prints about an `app` that doesn't start, once it has ended by itself.

    Not its exit code: that of a main process whose only worker failed is 0.
    Raises AssertionError when it still runs after `timeout` seconds.
    """
    server = start_with_socket((*_HYPERCORN, *options, app), cwd=cwd)
    try:
        server.wait(timeout)
        return server.log
    finally:
        server.kill()
