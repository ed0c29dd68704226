"""FastAPI."""

from __future__ import annotations

from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse

from . import work
from .models import Item

app = FastAPI()


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, object]:
    return work.item(item_id)


@app.post("/items")
async def create_item(item: Item) -> Item:
    return item


async def user(name: str) -> str:
    return name.title()


@app.get("/hello")
async def hello(user: Annotated[str, Depends(user)]) -> dict[str, str]:
    return {"hello": user}


@app.post("/one-task")
async def one_task(tasks: BackgroundTasks) -> dict[str, int]:
    tasks.add_task(work.count)
    return {"added": 1}


@app.post("/ten-tasks")
async def ten_tasks(tasks: BackgroundTasks) -> dict[str, int]:
    for _ in range(10):
        tasks.add_task(work.count)
    return {"added": 10}


@app.get("/ran")
async def ran() -> dict[str, int]:
    return work.tasks_run()


@app.get("/stream")
async def stream() -> StreamingResponse:
    return StreamingResponse(work.chunks(), media_type="application/octet-stream")
