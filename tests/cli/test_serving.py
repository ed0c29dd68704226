"""Orders are obeyed: drain, then cancel."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb import App
from trioweb._cli.serving import OrderChannel, open_order_channel, serve_until_told
from trioweb._cli.signals import Order
from trioweb.server import Server, ServerConfig

from ..support.log_records import messages
from ..support.server_clients import address_of

# Seconds.  Only ends a wait that will never be answered.
TIMEOUT = 20.0


class Served:
    """`serve_until_told` in a task: `server` once it listens, `orders` to send."""

    def __init__(self, app: Any) -> None:
        self.orders, self._orders = trio.open_memory_channel[Order](math.inf)
        self.announced = trio.Event()
        self.server: Server | None = None
        self._app = app

    async def run(self) -> None:
        await serve_until_told(self._app, ServerConfig(port=0), self._orders, self._announce)

    def _announce(self, server: Server) -> None:
        self.server = server
        self.announced.set()


async def test_drain_then_cancel(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = App(cleanup_timeout=1.0)
    began, ended = trio.Event(), trio.Event()

    @app.get("/")
    async def slow() -> None:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    served = Served(app)
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.run)
            await served.announced.wait()
            assert served.server is not None
            stream = await trio.open_tcp_stream(*address_of(served.server.urls[0]))
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await began.wait()
            await served.orders.send(Order.DRAIN)
            await app.draining.wait()
            await wait_all_tasks_blocked()
            assert not ended.is_set()
            await served.orders.send(Order.CANCEL)
            await ended.wait()
        await stream.aclose()
    said = messages(caplog)
    assert any(message.startswith("draining: ") for message in said)
    assert "cancelling what is still in flight" in said


async def test_one_that_is_replaced_retires_then_drains(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    served = Served(App())
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.run)
            await served.announced.wait()
            assert served.server is not None
            stream = await trio.open_tcp_stream(*address_of(served.server.urls[0]))
            ask = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
            await stream.send_all(ask)
            assert b"connection" not in await stream.receive_some()
            await served.orders.send(Order.RETIRE)
            await wait_all_tasks_blocked()
            await stream.send_all(ask)
            assert b"connection: close" in await stream.receive_some()
            await stream.aclose()
    assert any(message.startswith("replaced: ") for message in messages(caplog))


async def test_before_the_app_has_started_there_is_nothing_to_drain() -> None:
    starting, closed = trio.Event(), trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        starting.set()
        try:
            await trio.sleep_forever()
        finally:
            closed.set()

    served = Served(app)
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.run)
            await starting.wait()
            await served.orders.send(Order.DRAIN)
    assert closed.is_set()
    assert not served.announced.is_set()


def test_orders_after_the_end_are_nobodys() -> None:
    async def get() -> OrderChannel:
        return open_order_channel()

    channel = trio.run(get)
    channel.tell(Order.DRAIN)
    channel.wake_trio()
