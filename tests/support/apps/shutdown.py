"""The app that tests/promises/test_hypercorn.py stops: what becomes of tasks after SIGTERM.

Prints `event WHAT`, a line each, as things happen.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import trio

from trioweb import App, BackgroundTasks, Depends

NEVER = threading.Event()


def record(what: str) -> None:
    os.write(1, f"event {what}\n".encode())


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    record("lifespan opened")
    yield
    await trio.lowlevel.checkpoint()
    record("lifespan closed")


async def five_seconds() -> None:
    record("five seconds started")
    await trio.sleep(5)
    record("five seconds finished")


async def five_seconds_of_plain() -> None:
    record("plain started")
    await trio.sleep(5)
    record("plain finished")


async def endless() -> None:
    record("endless started")
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.1)
        record("endless cleaned up")


def endless_thread() -> None:
    record("thread started")
    NEVER.wait()


async def connection() -> AsyncIterator[None]:
    try:
        yield
    finally:
        await trio.lowlevel.checkpoint()
        record("connection closed")


TASKS = {"five": five_seconds, "endless": endless, "thread": endless_thread}

# With default settings, and with settings that a test can wait for.
app = App(lifespan=lifespan)
hasty = App(lifespan=lifespan, drain_timeout=0.5, cleanup_timeout=0.5)


@hasty.post("/{task}")
@app.post("/{task}")
async def start(
    task: str, tasks: BackgroundTasks, opened: Annotated[None, Depends(connection)]
) -> None:
    tasks.add_task(TASKS[task])
    if task == "endless":
        tasks.add_task(five_seconds)


@app.post("/plain")
async def start_plain(tasks: BackgroundTasks) -> None:
    tasks.add_task(five_seconds_of_plain)
