"""What is in flight in an app, and how whoever waits for it hears that it has landed.

Rules of this module:

* Whatever takes off lands, on every way out; the one who counts it in counts it out.
"""

from __future__ import annotations

from typing import Any

import trio

from .._http.exchange import Exchange
from .._http.url import RequestLabel
from .events import Events, RequestEnded


class InFlight:
    """The requests and tasks of one app that haven't ended."""

    def __init__(self, events: Events) -> None:
        self._events = events
        # Trio tasks in the app's nursery, and calls of the server that wait for one of them.
        self.ours = 0
        # Requests that run in tasks of their own; they are counted among ours, too.
        self.lives: set[Exchange] = set()
        # Those that are answered in the server's calls.
        self.inline: dict[Exchange, Any] = {}
        # Made while somebody waits for one to land.
        self.landed: trio.Event | None = None

    @property
    def any(self) -> bool:
        return bool(self.ours or self.inline)

    def land(self, request: RequestLabel | None = None) -> None:
        """One of ours has ended, and with it this request, if it was the last of that."""
        if request is not None and self._events.hear is not None:
            self._events.hear(RequestEnded(request))
        self.ours -= 1
        self.tell()

    def tell(self) -> None:
        if self.landed is not None:
            self.landed.set()
            self.landed = None

    async def wait_for_landing(self) -> None:
        if self.landed is None:
            self.landed = trio.Event()
        await self.landed.wait()

    async def wait_until_landed(self) -> None:
        while self.any:
            await self.wait_for_landing()
