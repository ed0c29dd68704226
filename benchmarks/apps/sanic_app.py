"""Sanic; it has no dependencies, and leaves validation to pydantic.

Its tasks start at once, not after the response, and no request owns them.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

from sanic import HTTPResponse, Request, Sanic, json, raw

from . import work
from .models import Item

app = Sanic("benchmarks")


@app.get("/items/<item_id:int>")
async def read_item(request: Request, item_id: int) -> HTTPResponse:
    return json(work.item(item_id))


@app.post("/items")
async def create_item(request: Request) -> HTTPResponse:
    item = Item.model_validate_json(request.body)
    return raw(item.model_dump_json(), content_type="application/json")


@app.post("/one-task")
async def one_task(request: Request) -> HTTPResponse:
    request.app.add_task(work.count())
    return json({"added": 1})


@app.post("/ten-tasks")
async def ten_tasks(request: Request) -> HTTPResponse:
    for _ in range(10):
        request.app.add_task(work.count())
    return json({"added": 10})


@app.get("/ran")
async def ran(request: Request) -> HTTPResponse:
    return json(work.tasks_run())


@app.get("/stream")
async def stream(request: Request) -> None:
    response = await request.respond(content_type="application/octet-stream")
    async for chunk in work.chunks():
        await response.send(chunk)
    await response.eof()
