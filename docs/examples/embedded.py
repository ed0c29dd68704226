"""Hypercorn inside a Trio program, which says when it ends.

    $ curl http://127.0.0.1:8000/
    {"message":"Hello from within"}

Start it with `python embedded.py`.  The first SIGINT or SIGTERM drains the app, the
second one cancels what is left; it still has its time to clean up.
"""

import logging
import signal
from collections.abc import AsyncIterator

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from trioweb import App

app = App(drain_timeout=20, cleanup_timeout=5)


@app.get("/")
async def index():
    return {"message": "Hello from within"}


async def obey(signals: AsyncIterator[int], drain: trio.Event, serving: trio.CancelScope) -> None:
    async for _ in signals:
        if drain.is_set():
            serving.cancel()
        drain.set()


async def main() -> None:
    config = Config()
    config.bind = ["127.0.0.1:8000"]
    drain = trio.Event()
    serving = trio.CancelScope()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey, signals, drain, serving)
            with serving:
                await serve(app, config, shutdown_trigger=drain.wait)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    # For the record of the shutdown; Hypercorn has a handler of its own.
    logging.getLogger("trioweb").addHandler(logging.StreamHandler())
    logging.getLogger("trioweb").setLevel(logging.INFO)
    trio.run(main)
