"""The app's lifespan, seen from the server (ASGI, Lifespan 2.0).

Rules of this module:

* An app that doesn't know lifespans is served without; one that says its startup
  failed isn't served at all.
* The lifespan ends last, when nobody uses any more what it holds, and in order: who cancels the
  server tells the app to end, and cancels the lifespan only if that takes too long.
* A cancellation from outside that comes while it starts ends the start, as soon as that can be
  cancelled.
* The scope tells the app what the server was told of it (`ServerSettings`), and an app may say of
  itself as it has started how long it drains, and what limits it has (`AppSettings`): so neither is
  hidden by middleware.  One that says so drains by itself: it is told of the shutdown while its
  requests are still in flight.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import trio

from .._asgi import (
    APP_SETTINGS,
    LIFESPAN_VERSIONS,
    SERVER_SETTINGS,
    AppSettings,
    ASGIApp,
    Message,
    Scope,
    ServerSettings,
)
from . import _limits
from ._errors import LifespanFailed, StartupFailed, split

logger = logging.getLogger("trioweb.server")


class Lifespan:
    """One run of an app's lifespan."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self.state: dict[str, Any] = {}
        self.app_settings: AppSettings | None = None  # of an app that drains by itself
        self.ended: trio.Event = trio.Event()
        self.failure: str | None = None  # why it ended before it was told to, or badly
        self._app = app
        self._settings = settings
        self._scope = trio.CancelScope()
        self._started = False
        self._asked = False
        self._stopping = trio.Event()
        self._task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Returns when the lifespan is over; "started" is when requests may be served.

        Raises StartupFailed.
        """
        self._task_status = task_status
        try:
            with self._scope:
                await self._call()
        finally:
            self.ended.set()
        if not self._started:
            self.check()

    def check(self) -> None:
        """Raises StartupFailed, or LifespanFailed, if it didn't go as it should."""
        if self.failure is not None:
            raise LifespanFailed(self.failure) if self._started else StartupFailed(self.failure)

    def stop(self) -> None:
        """Tell the app to end."""
        self._stopping.set()

    def cancel(self) -> None:
        """Make it end now, in order; one that hasn't started, or takes too long, is cancelled.

        An app that drains by itself cancels what is in flight, and takes care of its cleanup time.
        """
        if not self._started:
            self._scope.cancel()
            return
        self.stop()
        seconds = _limits.CLEANUP_TIMEOUT
        if self.app_settings is not None:
            self.app_settings.cancel()
            seconds = self.app_settings.cleanup_timeout + _limits.CLOSING_TIME
        elif self._settings.cleanup_timeout is not None:
            seconds = self._settings.cleanup_timeout
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)

    async def _call(self) -> None:
        scope: Scope = {
            "type": "lifespan",
            "asgi": LIFESPAN_VERSIONS.copy(),
            "state": self.state,
            SERVER_SETTINGS: self._settings,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as exc:
            failure, rest = split(exc)
            if rest is not None:
                raise
            self._heed_failure(failure)
        if not self._started and self.failure is None:
            # The app returned, or raised, without a word: it knows no lifespans.
            await self._start()
            await self._stopping.wait()
        elif not self._stopping.is_set():
            self.failure = self.failure or "the app's lifespan ended while it was served"

    def _heed_failure(self, failure: BaseException | None) -> None:
        if self._started or trio.current_effective_deadline() == -math.inf:
            logger.error("the app's lifespan failed", exc_info=failure)
            self.failure = self.failure or f"the app's lifespan failed: {failure!r}"
        elif self._asked and self.failure is None:
            # So ASGI wants it, although what the app had meant to do at its start is missing.
            logger.warning("the app has no lifespan, it is served without", exc_info=failure)

    async def _start(self) -> None:
        """Raises Cancelled if it has been cancelled where it couldn't be: in a thread, or a shield.

        Past this point it would never hear of that.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._started = True
        self._scope.shield = True
        self._task_status.started()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete" and not self._started:
            await self._start()
            self.app_settings = message.get(APP_SETTINGS)
        elif kind in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self.failure = message.get("message") or f"the app says {kind}"
