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
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncContextDecorator,
    ContextDecorator,
    asynccontextmanager,
)
from typing import Any, Protocol, cast

import trio

from .. import _callables, _errors
from .._asgi import APP_SETTINGS, SERVER_SETTINGS, AppSettings, Receive, Scope, Send, ServerSettings
from .._concurrency.exits import sheltered
from .._errors import RegistrationError
from .._hints import add_hints
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
                state = checked_state(yielded)
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
    add_hints(failure)
    logger.error("the lifespan failed at %s", phase, exc_info=failure)


@asynccontextmanager
async def no_lifespan(app: object) -> AsyncIterator[None]:
    yield


def check_lifespan(lifespan: Any) -> None:
    """Raises RegistrationError for what is known to be none; what it gives is seen at the start."""
    if isinstance(lifespan, (ContextDecorator, AsyncContextDecorator)) or not callable(lifespan):
        raise _not_a_function(lifespan)
    name = _callables.name(lifespan)
    right = f"@asynccontextmanager above async def {name}(app): ... yield"
    if _yields_or_waits(lifespan):
        raise RegistrationError(
            "lifespan needs an async context manager",
            wrong=f"{_written(lifespan)} {name}(app): ...",
            right=right,
        )
    if inspect.isclass(lifespan) and not hasattr(lifespan, "__aenter__"):
        raise RegistrationError(
            f"{name} has no __aenter__: it is no async context manager",
            wrong=f"App(lifespan={name})",
            right=f"App(lifespan=lifespan), with {right.replace(name, 'lifespan')}",
        )
    if not _callables.takes(lifespan, 1):
        raise RegistrationError(
            f"{name} is called with the app",
            wrong=f"{name}{inspect.signature(lifespan)}",
            right=right,
        )


def _not_a_function(lifespan: Any) -> RegistrationError:
    wrong, name = repr(lifespan), "lifespan"
    if isinstance(lifespan, (ContextDecorator, AsyncContextDecorator)):
        func = getattr(lifespan, "func", type(lifespan))  # of one that contextlib has made
        name = _callables.name(func)
        wrong = f"{name}(app)"
    return RegistrationError(
        "lifespan is a function: each time the app starts, it gives an async context manager",
        wrong=f"App(lifespan={wrong})",
        right=f"App(lifespan={name})",
    )


def _yields_or_waits(lifespan: Callable[..., Any]) -> bool:
    """Whether calling it gives no context manager, or one that `@contextmanager` has made."""
    own = _callables.target(lifespan)
    is_wrapped = inspect.isgeneratorfunction(inspect.unwrap(own))
    return is_wrapped or _callables.is_generator(own) or inspect.iscoroutinefunction(own)


def _written(lifespan: Callable[..., Any]) -> str:
    """How its definition begins, of one that yields or waits."""
    own = _callables.target(lifespan)
    if inspect.isasyncgenfunction(own) or inspect.iscoroutinefunction(own):
        return "async def"
    return "def" if inspect.isgeneratorfunction(own) else "@contextmanager above def"


def checked_manager(lifespan: Callable[..., Any], app: object) -> AbstractAsyncContextManager[Any]:
    """What the lifespan gives for this app.  Raises RegistrationError if it can't be entered."""
    manager = lifespan(app)
    if hasattr(manager, "__aenter__") and hasattr(manager, "__aexit__"):
        return cast(AbstractAsyncContextManager[Any], manager)
    name = _callables.name(lifespan)
    if inspect.iscoroutine(manager):
        manager.close()  # or Python warns that it was never awaited
    raise RegistrationError(
        f"the lifespan {name} gave {manager!r}, which is no async context manager",
        wrong=f"def {name}(app): ...",
        right=f"@asynccontextmanager above async def {name}(app): ... yield",
    )


def checked_state(yielded: Any) -> dict[str, Any]:
    """What every request's state begins with.  Raises RegistrationError."""
    if yielded is None:
        return {}
    if not isinstance(yielded, Mapping):
        raise RegistrationError(
            "a lifespan yields a mapping, or nothing: request.state begins with it",
            wrong=f"yield {yielded!r}",
            right='yield {"db": db}  # which is request.state.db',
        )
    for key in yielded:
        if not isinstance(key, str):
            raise RegistrationError(
                "what a lifespan yields are names, which request.state has as attributes",
                wrong=f"yield {{{key!r}: ...}}",
                right='yield {"db": db}  # which is request.state.db',
            )
    return dict(yielded)
