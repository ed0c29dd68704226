"""Quart-Trio; it has no dependencies, and leaves validation to pydantic."""

from __future__ import annotations

from quart import Response, request
from quart_trio import QuartTrio

from . import work
from .models import Item

app = QuartTrio(__name__)


@app.get("/items/<int:item_id>")
async def read_item(item_id: int) -> dict[str, object]:
    return work.item(item_id)


@app.post("/items")
async def create_item() -> Response:
    item = Item.model_validate_json(await request.get_data())
    return Response(item.model_dump_json(), content_type="application/json")


@app.post("/one-task")
async def one_task() -> dict[str, int]:
    app.add_background_task(work.count)
    return {"added": 1}


@app.post("/ten-tasks")
async def ten_tasks() -> dict[str, int]:
    for _ in range(10):
        app.add_background_task(work.count)
    return {"added": 10}


@app.get("/ran")
async def ran() -> dict[str, int]:
    return work.tasks_run()


@app.get("/stream")
async def stream() -> Response:
    return Response(work.chunks(), content_type="application/octet-stream")
