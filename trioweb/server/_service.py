"""What the connections of one server, and their requests, have in common.

Rules of this module:

* It is told, and asked; what follows from it is done by others.
* The log says when a limit begins to hold somebody back, and when it hasn't done so for a while.
* Who listens hears of an event as it happens.  When one fails at it, that is logged, and the others
  hear of it all the same; where nobody listens no event is made.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import msgspec
import trio

from .._asgi import ASGIApp, LimitReached, ServerEvent, ServerListener
from . import _limits
from ._access import AccessLog
from ._config import ServerConfig
from ._errors import split
from ._forwarded import TrustedPeers
from ._heads import HeadReader
from ._limits import ServerLimits, limits_of, overridden
from ._parsers import parser

logger = logging.getLogger("trioweb.server")

# What is said as a limit begins to hold somebody back, and when it has ceased to.
_BEGINS = {
    "max_connections": "max_connections: %d are open, nothing is accepted until one of them ends",
    "max_requests": "max_requests: %d are in flight, others are answered with 503",
}
_ENDS = {
    "max_connections": "max_connections: no longer reached after %.1f s; others waited %d times",
    "max_requests": "max_requests: no longer reached after %.1f s; %d were answered with 503",
}


class _Hold(msgspec.Struct):
    """A limit that holds somebody back: since when, when last, and how many times."""

    since: float
    last: float
    times: int = 0


def takes(func: Any, count: int) -> bool:
    """Whether it can be called with so many arguments; yes where that can't be known."""
    try:
        signature = inspect.signature(func)
    except ValueError:  # of a builtin
        return True
    except TypeError:
        return False
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


class Service:
    """The app that is served, within which limits, and how much of that is going on."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self.app: ASGIApp = app
        own = config.limits or limits_of(app)
        self.limits: ServerLimits = overridden(own, config.limit_overrides)
        self.root_path: str = config.root_path.rstrip("/")
        self.trusted: TrustedPeers = TrustedPeers(
            config.forwarded_allow_ips, config.forwarded_header
        )
        self.access_log: AccessLog | None = AccessLog() if config.access_log else None
        self.state: dict[str, Any] = {}  # what the app's lifespan left for its requests
        self.requests_in_flight: int = 0
        self.refusals: int = 0  # answers of the server's own
        self.stopping: bool = False  # no connection is accepted any more
        self.closing: bool = False  # each answer is its connection's last one
        self.draining: bool = False  # nor is an idle connection waited for
        # Who waits for a connection to come, or for one to go.
        self.changed: trio.Event = trio.Event()
        self._parse = parser(config.http)
        self._hearers: list[ServerListener] = []
        self._reached: set[str] = set()  # limits that hold somebody back
        self._holds: dict[str, _Hold] = {}  # those of them of which the log has said so

    def new_reader(self) -> HeadReader:
        return HeadReader(self._parse, self.limits)

    def notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def listen(self, hear: ServerListener) -> None:
        """Have `hear` called with each event from now on.  Raises TypeError if it can't be."""
        if not takes(hear, 1):
            name = getattr(hear, "__qualname__", repr(hear))
            raise TypeError(
                "a listener is called with an event\n"
                f"    wrong:  server.listen({name})\n"
                "    right:  server.listen(hear), with def hear(event): ..."
            )
        self._hearers.append(hear)

    @property
    def is_listened_to(self) -> bool:
        return bool(self._hearers)

    def tell(self, event: ServerEvent) -> None:
        for hear in self._hearers:
            try:
                hear(event)
            except BaseException as exc:
                _, rest = split(exc)
                if rest is not None:
                    raise
                logger.exception("a listener failed at %r", event)

    def reach_limit(self, limit: str) -> None:
        """This limit holds somebody back; that is told once, until it is left."""
        now = trio.current_time()
        if limit not in self._holds:
            self._holds[limit] = _Hold(now, now)
            logger.warning(_BEGINS[limit], getattr(self.limits, limit))
        hold = self._holds[limit]
        hold.last = now
        hold.times += 1
        if limit not in self._reached:
            self._reached.add(limit)
            self.tell(LimitReached(limit))

    def leave_limit(self, limit: str) -> None:
        """This limit holds nobody back now; to be called again and again, until that lasts."""
        self._reached.discard(limit)
        if limit in self._holds:
            hold, now = self._holds[limit], trio.current_time()
            if now - hold.last >= _limits.LIMIT_QUIET_TIME:
                del self._holds[limit]
                logger.warning(_ENDS[limit], now - hold.since, hold.times)

    @property
    def holds_back(self) -> bool:
        """Whether the log hasn't yet said of every limit that it is left."""
        return bool(self._holds)
