"""What is in flight in an app, and how whoever waits for it hears that it has landed.

Rules of this module:

* Whatever takes off lands, on every way out; the one who counts it in counts it out.
"""

from __future__ import annotations

from typing import Any

import trio

from .._http.exchange import Exchange


class InFlight:
    """The requests and tasks of one app that haven't ended."""

    def __init__(self) -> None:
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

    def land(self) -> None:
        """One of ours has ended."""
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
