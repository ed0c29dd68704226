"""The inside of an app: what its rooms and its test client share, and its users don't see.

Rules of this module:

* What a server was told counts for as long as it serves the app, and changes nothing that is
  the app's own.
"""

from __future__ import annotations

from dataclasses import replace

import trio

from .._asgi import ServerSettings
from .._concurrency.grace import RunSync
from .._lifetime.events import Events
from .limits import Limits


class Inner:
    """What happens in one app, and what counts for it now.

    `events` is what to watch it by; `run_sync` runs plain functions, with the signature of
    `trio.to_thread.run_sync`; `limits` are the app's own, with those that its server was told in
    their place; `told` is all that the server was told, None where none of ours serves the app.
    """

    def __init__(self, limits: Limits, *, debug: bool) -> None:
        self.events = Events()
        self.run_sync: RunSync = trio.to_thread.run_sync
        self.limits = limits
        self.told: ServerSettings | None = None
        self.debug = debug  # as the app says
        self._own_limits = limits

    @property
    def is_debugged(self) -> bool:
        """Whether errors are answered with their traceback."""
        return self.debug or (self.told is not None and self.told.debug)

    def set_limits(self, limits: Limits) -> None:
        """From now on these are the app's own."""
        self._own_limits = limits
        given = {} if self.told is None else self.told.limits
        self.limits = replace(limits, **given) if given else limits

    def obey(self, told: ServerSettings | None) -> None:
        """From now on this counts; None: what the app says itself."""
        self.told = told
        self.set_limits(self._own_limits)
