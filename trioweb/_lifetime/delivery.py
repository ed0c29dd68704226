"""Delivery: a response on its way, and failures that come too late for one.

Rules of this module:

* What fails before the head is on its way can still be answered: it goes on.
* A failure past that can't be answered any more: it is logged, once, and tasks for that run.
* Cancellation and Ctrl-C go through.
"""

from __future__ import annotations

import functools
import logging

from .. import _errors
from .._hints import add_hints
from .._http.exchange import Exchange
from .._http.response import Response
from .events import Events, RequestAnswered

logger = logging.getLogger("trioweb")


async def deliver(response: Response, exchange: Exchange, events: Events) -> None:
    """Send the last that there is of an answer.

    Raises what it fails with, if that can still be answered; else nothing but cancellation and
    Ctrl-C.
    """
    try:
        is_delivered = await response.send(exchange)
        # Nothing is left after this that might ask for a list first.
        if is_delivered and exchange.queue is not None:
            exchange.add_outcome("sent")
        if events.hear is not None:
            events.hear(RequestAnswered(exchange.label, response.status_code, is_delivered))
    except BaseException as exc:
        if not exchange.is_answered:
            raise
        _errors.raise_rest(exc, functools.partial(fail_late, exchange))


async def deliver_last(response: Response, exchange: Exchange, events: Events) -> None:
    """As `deliver`, of the answer to a failure: when that fails too, nobody is asked again."""
    try:
        await deliver(response, exchange, events)
    except BaseException as exc:
        _errors.raise_rest(exc, functools.partial(fail_late, exchange))


def fail_late(exchange: Exchange, failure: BaseException) -> None:
    exchange.add_outcome("error")
    exchange.end_body()
    log_late_failure(exchange, failure)


def log_late_failure(exchange: Exchange, failure: BaseException) -> None:
    add_hints(failure)
    logger.error("%s failed too late to be answered", exchange.label, exc_info=failure)
