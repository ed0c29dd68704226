"""trioweb with tasks that don't end, as many as there were requests for them."""

from __future__ import annotations

import time

import trio

from trioweb import App, BackgroundTasks

from . import work

WAIT = 0.01  # seconds

app = App()


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, object]:
    return work.item(item_id)


@app.post("/sleep")
async def sleep(tasks: BackgroundTasks) -> dict[str, int]:
    tasks.add_task(trio.sleep, 24 * 60 * 60)
    return {"added": 1}


@app.post("/thread")
async def thread(tasks: BackgroundTasks) -> dict[str, int]:
    tasks.add_task(wait_again_and_again)
    return {"added": 1}


def wait_again_and_again() -> None:
    """As a thread does that writes to a disk: it comes back, takes the GIL, and waits again."""
    while True:
        time.sleep(WAIT)


@app.get("/running")
async def running() -> dict[str, int]:
    return {"running": app.statistics().running}
