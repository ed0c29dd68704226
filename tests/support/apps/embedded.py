"""A Trio program that serves an app of this folder: `python embedded.py DESCRIPTOR MODULE:APP`.

The server is a task of its nursery, and the signals are its own: the first SIGTERM drains, the
second cancels.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial

import trio

import trioweb
from trioweb.server import Server


async def main(descriptor: int, name: str) -> None:
    module, _, attribute = name.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(trioweb.serve, app, sockets=[descriptor]))
            print("listening on", *server.urls, flush=True)
            nursery.start_soon(obey, signals, server, nursery)
            await server.wait_closed()
            nursery.cancel_scope.cancel()


async def obey(signals: AsyncIterator[int], server: Server, nursery: trio.Nursery) -> None:
    await anext(signals)
    nursery.start_soon(server.shutdown)
    await anext(signals)
    server.cancel()


trio.run(main, int(sys.argv[1]), sys.argv[2])
