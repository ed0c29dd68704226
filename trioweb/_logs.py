"""Our loggers: whatever a handler or a filter of theirs raises stays with it.

Rules of this module:

* A record that can't be written ends nobody: the logging module shows the failure on standard
  error, as it does where a handler of its own fails.  Ctrl-C and cancellation go through.
* A logger stays the one that `logging.getLogger` gives to everybody, whoever asked for it first.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import trio

# All of ours: "trioweb" is that of the framework.
NAMES = ("trioweb", "trioweb.tasks", "trioweb.server", "trioweb.access", "trioweb.run")

_shows_failures = logging.NullHandler()


def contain(logger: logging.Logger) -> None:
    """Let nothing out of this logger that writing a record raises."""
    handle: Callable[[logging.LogRecord], None] = logger.handle

    def contained(record: logging.LogRecord) -> None:
        try:
            handle(record)
        except (KeyboardInterrupt, trio.Cancelled):
            raise
        except BaseException:
            with contextlib.suppress(Exception):  # standard error may be closed
                _shows_failures.handleError(record)

    # Not by a class of its own: it would hold only for who asks for the logger first.
    logger.handle = contained  # type: ignore[method-assign]


for _name in NAMES:
    contain(logging.getLogger(_name))
