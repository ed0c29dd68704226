"""Our loggers: nobody switches them off in passing, and what writing a record raises stays there.

Rules of this module:

* `logging.config` disables every logger that exists already and that a configuration doesn't name,
  unless it is told not to: what Alembic runs in a lifespan does that to the server that runs it.
  Then a task that fails would be reported to nobody.  So ours don't heed it.
* All else counts: levels, filters, handlers, `propagate`, and `disabled` where it is set by hand.
* A record that can't be written ends nobody: the logging module shows the failure on standard
  error, as it does where a handler of its own fails.  Ctrl-C and cancellation go through.
* A logger stays the one that `logging.getLogger` gives to everybody, whoever asked for it first.
"""

from __future__ import annotations

import contextlib
import logging
import sys

import trio

# All of ours: "trioweb" is that of the framework.
NAMES = ("trioweb", "trioweb.access", "trioweb.run", "trioweb.server", "trioweb.tasks")

_shows_failures = logging.NullHandler()


class _Lasting(logging.Logger):
    @property
    def disabled(self) -> bool:
        return bool(self.__dict__["disabled"])

    @disabled.setter
    def disabled(self, value: bool) -> None:
        caller = sys._getframe(1).f_globals.get("__name__")
        if not value or caller != "logging.config":
            self.__dict__["disabled"] = value

    def handle(self, record: logging.LogRecord) -> None:
        try:
            super().handle(record)
        except (KeyboardInterrupt, trio.Cancelled):
            raise
        except BaseException:
            with contextlib.suppress(Exception):  # standard error may be closed
                _shows_failures.handleError(record)


def make_lasting(logger: logging.Logger) -> None:
    """From now on."""
    # Not by logging.setLoggerClass: somebody may have asked for the logger already, and may have
    # loggers of a class of their own.
    logger.__class__ = type("LastingLogger", (_Lasting, type(logger)), {})


for _name in NAMES:
    make_lasting(logging.getLogger(_name))
