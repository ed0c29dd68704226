"""Back-pressure: the log says when too many tasks begin to wait, and when that is over.

Rules of this module:

* One record as requests begin to be refused for it, one when that is over: when some of the tasks
  that waited no longer do.  On and off at the limit itself is once.
* Nothing is looked at while nobody is refused.
"""

from __future__ import annotations

import logging
from typing import Any

import trio

from .._lifetime.events import Event, Events
from .._tasks.ledger import Ledger

logger = logging.getLogger("trioweb")

# With so many of the tasks waiting that may wait, requests are no longer refused.
ENOUGH_ROOM = 0.9


class PendingLimit:
    """What of `max_pending_tasks` is told."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._refused = 0
        self._since = 0.0
        self._ledger: Ledger[Any] | None = None
        self._limit = 0

    def refuse(self, ledger: Ledger[Any], limit: int) -> None:
        """A request is refused, because so many tasks wait."""
        if not self._refused:
            self._since = trio.current_time()
            logger.warning("max_pending_tasks: %d wait, requests are answered with 503", limit)
            self._events.add(self._look)
        self._ledger, self._limit = ledger, limit
        self._refused += 1

    def _look(self, event: Event) -> None:
        """To be called as anything happens."""
        ledger = self._ledger
        if ledger is not None and ledger.added - ledger.left <= self._limit * ENOUGH_ROOM:
            self._events.remove(self._look)
            logger.warning(
                "max_pending_tasks: no longer reached after %.1f s; %d were answered with 503",
                trio.current_time() - self._since,
                self._refused,
            )
            self._ledger, self._refused = None, 0
