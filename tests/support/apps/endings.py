"""The app that tests of `trioweb run` end: whatever runs says when it begins and when it ends.

Tests copy it to the folder that is served, some with other values of the constants.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trioweb import App, BackgroundTasks

VERSION = 1
STARTS = True


def record(what: str) -> None:
    """A line in one piece: other workers print, too."""
    os.write(1, f"event {what}\n".encode())


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    if not STARTS:
        record("starting")
        await trio.sleep_forever()
    yield
    await trio.sleep(0.01)  # plain code, as most people write it: a cancellation would end it here
    record(f"lifespan closed {os.getpid()}")


app = App(lifespan=lifespan, drain_timeout=10, cleanup_timeout=5)


@app.get("/")
async def index() -> list[int]:
    return [os.getpid(), VERSION]


async def short() -> None:
    record("short began")
    await trio.sleep(0.4)
    record("short ended")


async def endless() -> None:
    record("endless began")
    try:
        await trio.sleep_forever()
    finally:
        record("endless cleaned up")


async def stubborn() -> None:
    record("stubborn began")
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


TASKS = {"endless": endless, "stubborn": stubborn, "short": short}


@app.post("/task/{name}")
async def add(name: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(TASKS[name])


@app.post("/block")
async def block() -> None:
    record("blocked")
    time.sleep(1000)  # noqa: ASYNC251  as a handler that computes does


@app.post("/backtrack")
async def backtrack() -> bool:
    record("backtracks")
    return re.match(r"(a+)+$", "a" * 60 + "b") is None  # years, and no other thread runs


@app.post("/thread")
async def thread() -> None:
    threading.Thread(target=time.sleep, args=(1000,), name="forgotten").start()
