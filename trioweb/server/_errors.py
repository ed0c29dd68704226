"""Whose fault it is when a conversation breaks off.

Rules of this module:

* `BadRequest` is the client's fault, and has an answer; `ClientGone` is nobody's;
  `ProtocolMisuse` is the app's.
* Only here are exception groups taken apart: what an app raises is logged, and mustn't
  end the server; cancellation and Ctrl-C go through.
"""

from __future__ import annotations

import logging
import math

import trio

logger = logging.getLogger("trioweb.server")


class BadRequest(Exception):
    """What the client sent can't be served: the answer's status, and why in one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ClientGone(OSError):
    """The client has left, or is so slow that it counts as gone.

    An OSError, as ASGI wants what `send` raises then (HTTP 2.4).
    """


class ProtocolMisuse(RuntimeError):
    """The app broke ASGI: a message out of order, or one that can't be sent as HTTP."""


class LifespanFailed(RuntimeError):
    """The app's lifespan ended before it was told to, or badly; the message is the app's."""


class StartupFailed(LifespanFailed):
    """The app's lifespan didn't start."""


def log_bug() -> None:
    """For an exception that only a fault of ours can raise: it doesn't end the server."""
    logger.critical("a bug in trioweb's server, please report it", exc_info=True)


def split(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What of it is an app's failure, and what has to go on: cancellation, and Ctrl-C."""
    if isinstance(exc, BaseExceptionGroup):
        rest, failure = exc.split((trio.Cancelled, KeyboardInterrupt))
        return failure, rest
    goes_on = isinstance(exc, (trio.Cancelled, KeyboardInterrupt))
    return (None, exc) if goes_on else (exc, None)


def is_stray(rest: BaseException) -> bool:
    """Whether it is a Cancelled although nothing here is being cancelled."""
    if isinstance(rest, BaseExceptionGroup):
        is_interrupt = rest.subgroup(KeyboardInterrupt) is not None
    else:
        is_interrupt = isinstance(rest, KeyboardInterrupt)
    return not is_interrupt and trio.current_effective_deadline() != -math.inf


def is_departure(exc: BaseException | None) -> bool:
    """Whether it was raised because the client had left, all of it."""
    if isinstance(exc, BaseExceptionGroup):
        return all(is_departure(inner) for inner in exc.exceptions)
    while exc is not None:
        if isinstance(exc, ClientGone):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
