"""Serving until told to end: orders from the thread that hears signals, obeyed by one task.

Rules of this module:

* Retire, drain, cancel.  Before the app has started there is nothing to drain.
* Orders cross from thread to task here, and nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass

import trio

from .._asgi import ASGIApp
from ..server import Server, ServerConfig, serve_config
from ..server._peers import Peers
from .signals import Order

logger = logging.getLogger("trioweb.run")


@dataclass(frozen=True, slots=True)
class OrderChannel:
    """Orders to a task.  Another thread calls `tell` to give one, and `wake_trio` to wake the loop.

    When the run of Trio is over, both do nothing.
    """

    orders: AsyncIterable[Order]
    tell: Callable[[Order], None]
    wake_trio: Callable[[], None]


def open_order_channel() -> OrderChannel:
    """A channel to the current run of Trio."""
    send, receive = trio.open_memory_channel[Order](math.inf)
    token = trio.lowlevel.current_trio_token()

    def tell(order: Order) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(send.send_nowait, order)

    def wake_trio() -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(lambda: None, idempotent=True)

    return OrderChannel(receive, tell, wake_trio)


async def serve_until_told(
    app: ASGIApp,
    config: ServerConfig,
    orders: AsyncIterable[Order],
    announce: Callable[[Server], object],
    peers: Peers | None = None,
) -> None:
    """Serve, and obey the orders as they come; returns when serving is over.

    `announce` is called with the server once it listens; `peers` listen on the same sockets.
    Raises what `serve` raises, in groups.
    """
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as serving:
            obedience = _Obedience(serving)
            nursery.start_soon(obedience.run, orders)
            serve = functools.partial(serve_config, app, config, peers=peers)
            obedience.server = await serving.start(serve)
            announce(obedience.server)
        nursery.cancel_scope.cancel()


class _Obedience:
    """Passes orders on to the server, or to the nursery in which it is about to start."""

    def __init__(self, serving: trio.Nursery) -> None:
        self.server: Server | None = None
        self._serving = serving

    async def run(self, orders: AsyncIterable[Order]) -> None:
        async for order in orders:
            self._obey(order)

    def _obey(self, order: Order) -> None:
        if self.server is None:
            logger.info("told to stop before the app has started")
            self._serving.cancel_scope.cancel()
        elif order is Order.RETIRE:
            logger.info("replaced: requests, tasks and idle connections end")
            self.server.retire()
        elif order is Order.DRAIN:
            logger.info("draining: requests and tasks end; a second signal cancels them")
            self._serving.start_soon(self.server.shutdown)
        else:
            logger.warning("cancelling what is still in flight")
            self.server.cancel()
