"""Answers whose clients may leave, for real servers; what ran is printed, `event KEY WHAT`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import trio

from trioweb import App, BackgroundTasks, HTTPException, Response, StreamingResponse, task

MIB = 1024 * 1024

app = App()


def record(key: str, what: str) -> None:
    os.write(1, f"event {key} {what}\n".encode())


@task(when="sent")
async def delete(key: str) -> None:
    record(key, "sent")


async def end(key: str) -> None:
    record(key, "over")


@app.get("/whole/{size}/{key}")
async def whole(size: int, key: str, tasks: BackgroundTasks) -> Response:
    tasks.add_task(delete, key)
    tasks.add_task(end, key)
    return Response(b"x" * size)


@app.get("/stream/{size}/{key}")
async def stream(size: int, key: str, tasks: BackgroundTasks) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // MIB):
            yield b"x" * MIB

    tasks.add_task(delete, key)
    tasks.add_task(end, key)
    return StreamingResponse(pieces(), headers={"content-length": str(size)})


@app.get("/forbidden")
async def forbidden() -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        await trio.sleep(0.01)
        raise HTTPException(403)
        yield ""

    return StreamingResponse(pieces())


@app.get("/events")
async def events() -> StreamingResponse:
    """Has none, for as long as its client waits."""

    async def pieces() -> AsyncIterator[str]:
        await trio.sleep_forever()
        yield ""

    return StreamingResponse(pieces(), media_type="text/event-stream")


@app.post("/slow")
async def slow() -> str:
    await trio.sleep(0.5)
    return "slow"
