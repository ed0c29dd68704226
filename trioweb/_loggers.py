"""Our loggers: a logging configuration that doesn't name them doesn't switch them off.

Rules of this module:

* `logging.config` disables every logger that exists already and that a configuration doesn't name,
  unless it is told not to: what Alembic runs in a lifespan does that to the server that runs it.
  Then a task that fails would be reported to nobody.  So ours don't heed it.
* All else counts: levels, filters, handlers, `propagate`, and `disabled` where it is set by hand.
"""

from __future__ import annotations

import logging
import sys

NAMES = ("trioweb", "trioweb.access", "trioweb.run", "trioweb.server", "trioweb.tasks")


class _LastingLogger(logging.getLoggerClass()):  # type: ignore[misc]  # whichever is in use
    @property
    def disabled(self) -> bool:
        return bool(self.__dict__["disabled"])

    @disabled.setter
    def disabled(self, value: bool) -> None:
        caller = sys._getframe(1).f_globals.get("__name__")
        if not value or caller != "logging.config":
            self.__dict__["disabled"] = value


def keep_enabled() -> None:
    """Have ours outlive each configuration from now on."""
    for name in NAMES:
        logging.getLogger(name).__class__ = _LastingLogger
