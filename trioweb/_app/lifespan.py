"""The app's lifespan, as a server asks for it: its own context manager, and its nursery within.

Rules of this module:

* The user's lifespan closes after the last task, whatever ended the serving, and in order: who
  cancels the serving cancels requests and tasks, and the lifespan only if it takes too long.
* A failure is told to the server in one line, and logged; cancellation and Ctrl-C go through.
* Source for the messages: the ASGI specification, Lifespan 2.0.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, Protocol

import trio

from .. import _errors
from .._asgi import APP_SETTINGS, SERVER_SETTINGS, AppSettings, Receive, Scope, Send, ServerSettings
from .._concurrency.exits import sheltered
from .._errors import RegistrationError
from .._lifetime.app import AppLifetime
from .inner import Inner

logger = logging.getLogger("trioweb")

# What an app's lifespan gives: what every request's state begins with.
Yielded = Mapping[str, Any] | None


class Host(Protocol):
    """The app, as its lifespan needs it."""

    inner: Inner

    def enter(self) -> AbstractAsyncContextManager[Yielded]:
        """The user's own lifespan."""
        ...

    def next_lifetime(self, told: ServerSettings | None) -> AbstractContextManager[AppLifetime]: ...

    def keep(self, yielded: Mapping[str, Any], scope: Scope) -> None:
        """What each request's state begins with, and the lifespan's scope."""
        ...


async def run_lifespan(host: Host, scope: Scope, receive: Receive, send: Send) -> None:
    """One run of it, from `lifespan.startup` to the answer to `lifespan.shutdown`."""
    await receive()  # lifespan.startup
    phase = "startup"
    try:
        with host.next_lifetime(scope.get(SERVER_SETTINGS)) as lifetime:
            manager, seconds = host.enter(), lifetime.grace.seconds
            outside = trio.CancelScope()
            async with sheltered(manager, "the lifespan", seconds, outside) as yielded:
                state = dict(yielded or {})
                host.keep(state, scope)
                scope.get("state", {}).update(state)
                async with lifetime.open():
                    says = AppSettings(
                        drain_timeout=lifetime.drain_timeout,
                        cleanup_timeout=seconds,
                        limits=host.inner.limits,
                        cancel=outside.cancel,
                    )
                    await send({"type": "lifespan.startup.complete", APP_SETTINGS: says})
                    phase = "shutdown"
                    await receive()  # lifespan.shutdown
    except BaseException as exc:
        _errors.raise_rest(exc, functools.partial(_log_failure, phase))
        await send({"type": f"lifespan.{phase}.failed", "message": _errors.describe(exc)})
        return
    await send({"type": "lifespan.shutdown.complete"})


def _log_failure(phase: str, failure: BaseException) -> None:
    logger.error("the lifespan failed at %s", phase, exc_info=failure)


@asynccontextmanager
async def no_lifespan(app: object) -> AsyncIterator[None]:
    yield


def check_lifespan(lifespan: Callable[..., Any]) -> None:
    if inspect.isasyncgenfunction(lifespan) or inspect.iscoroutinefunction(lifespan):
        raise RegistrationError(
            "lifespan needs an async context manager",
            wrong=f"async def {lifespan.__name__}(app): ...",
            right=f"@asynccontextmanager above async def {lifespan.__name__}(app): ... yield",
        )
