"""Exit statuses: what a process that has served tells the one that started it.

Rules of this module:

* Each status stands here, and so does how an exception becomes one: what went wrong is in the
  log, in one line where people can do something about it.
* A command that can't be carried out as it was typed is for `main` to answer.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .. import _errors
from .._errors import CommandError
from ..server import LifespanFailed, StartupFailed

logger = logging.getLogger("trioweb.run")

EXIT_FAILED = 1
EXIT_USAGE = 2  # argparse has the same
EXIT_HARD = 3  # something didn't end in time
EXIT_INTERRUPTED = 128 + signal.SIGINT

# Exceptions whose text is for whoever runs the server; all others need a traceback.
_EXPLAINED = (OSError, ImportError, ValueError)


def run_for_status(main: Callable[..., Awaitable[int]], *args: Any) -> int:
    """Run `main` in Trio; what it raises is logged, and the status is that of a failure.

    Raises CommandError.
    """
    try:
        return trio.run(main, *args)
    except CommandError:
        raise
    except Exception as exc:
        return report(exc)


def report(exc: Exception) -> int:
    """Log why the process ends; returns its status."""
    for leaf in _errors.leaves(exc):
        if isinstance(leaf, StartupFailed):
            logger.error("the app failed to start: %s", leaf)
        elif isinstance(leaf, LifespanFailed):
            logger.error("the app's lifespan failed: %s", leaf)
        elif isinstance(leaf, _EXPLAINED):
            logger.error("%s", getattr(leaf, "strerror", None) or leaf)
        else:
            logger.critical("serving failed: %s", leaf, exc_info=leaf)
    return EXIT_FAILED
