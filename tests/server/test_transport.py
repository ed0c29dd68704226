"""Transports by themselves: what their users meet where a connection ends under them."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb.server import ClientGone
from trioweb.server._transport import SocketTransport


async def test_who_waits_to_send_is_told_that_the_connection_is_closed() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def close() -> None:
        await wait_all_tasks_blocked()
        trio.lowlevel.notify_closing(ours)

    with ours, theirs:
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            with pytest.raises(ClientGone):
                await SocketTransport(ours).wait_writable()
