"""Hypercorn inside a Trio program, which says when it ends.

    $ curl http://127.0.0.1:8000/
    {"message":"Hello from within"}

Start it with `python embedded.py`: SIGINT and SIGTERM then drain the app.
"""

import signal

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from trioweb import App

app = App()


@app.get("/")
async def index():
    return {"message": "Hello from within"}


async def wait_for_signal() -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return


async def main() -> None:
    config = Config()
    config.bind = ["127.0.0.1:8000"]
    await serve(app, config, shutdown_trigger=wait_for_signal)


if __name__ == "__main__":
    trio.run(main)
