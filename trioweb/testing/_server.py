"""The server's side of ASGI without a server: the app's lifespan, and a call for each request.

Rules of this module:

* Everything runs in the nursery that it is given: when that is over, nothing is left.
* A failure of the lifespan is raised as the exception that it is, where the test starts the app or
  shuts it down; middleware that swallows the lifespan is served without one.
* How long a shutdown waits for calls is what the app says as it starts (`AppSettings`), else what
  it is by default.
"""

from __future__ import annotations

import sys
from typing import Any

import trio

from .. import _limits
from .._asgi import APP_SETTINGS, LIFESPAN_VERSIONS, AppSettings, ASGIApp, Message
from ._conversation import Conversation
from ._requests import PreparedRequest


class InMemoryServer:
    """Calls one app as a server does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._lifespan = _Lifespan(app)
        self._calls: set[trio.CancelScope] = set()

    async def start(self, nursery: trio.Nursery) -> None:
        """Returns when the app has started.  Raises what its lifespan raises."""
        self._nursery = nursery
        await self._lifespan.start(nursery)

    def answer(self, request: PreparedRequest) -> Conversation:
        """Have the app answer a request."""
        conversation = Conversation(request.content)
        request.scope["state"] = dict(self._lifespan.state)
        self._nursery.start_soon(self._call, request, conversation)
        return conversation

    async def shutdown(self) -> None:
        """Returns at the end of the lifespan; raises what it raises.

        Calls that still run when the drain timeout is over are cancelled.
        """
        deadline = trio.current_time() + self._lifespan.drain_timeout
        for call in self._calls:
            call.deadline = min(call.deadline, deadline)
        await self._lifespan.shut_down()

    async def _call(self, request: PreparedRequest, conversation: Conversation) -> None:
        with trio.CancelScope() as call:
            self._calls.add(call)
            try:
                await self._app(request.scope, conversation.receive, conversation.send)
            except Exception as exc:
                conversation.fail(exc)  # middleware's: an `App` answers for its own failures
            finally:
                self._calls.discard(call)
                conversation.close()


class _Lifespan:
    """One run of the app's lifespan, which is told to start and to shut down."""

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        self.drain_timeout: float = _limits.DRAIN_TIMEOUT
        self._app = app
        self._started = trio.Event()
        self._shutting_down = trio.Event()
        self._ended = trio.Event()
        self._failure: BaseException | None = None

    async def start(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._run)
        await self._started.wait()
        self._raise_failure()

    async def shut_down(self) -> None:
        self._shutting_down.set()
        await self._ended.wait()
        self._raise_failure()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": LIFESPAN_VERSIONS.copy(), "state": self.state}
        await self._app(scope, self._receive, self._send)
        self._started.set()  # of an app that returns without a word
        self._ended.set()

    async def _receive(self) -> Message:
        if not self._started.is_set():
            return {"type": "lifespan.startup"}
        await self._shutting_down.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            # The message holds the exception's text only; its sender is handling the exception.
            self._failure = sys.exception() or RuntimeError(message["message"])
        settings: AppSettings | None = message.get(APP_SETTINGS)
        if settings is not None:
            self.drain_timeout = settings.drain_timeout
        self._started.set()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
