"""Starlette; it has no dependencies, and leaves validation to pydantic."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from . import work
from .models import Item


async def read_item(request: Request) -> Response:
    return JSONResponse(work.item(request.path_params["item_id"]))


async def create_item(request: Request) -> Response:
    item = Item.model_validate_json(await request.body())
    return Response(item.model_dump_json(), media_type="application/json")


async def one_task(request: Request) -> Response:
    return JSONResponse({"added": 1}, background=BackgroundTask(work.count))


async def ten_tasks(request: Request) -> Response:
    tasks = BackgroundTasks()
    for _ in range(10):
        tasks.add_task(work.count)
    return JSONResponse({"added": 10}, background=tasks)


async def ran(request: Request) -> Response:
    return JSONResponse(work.tasks_run())


async def stream(request: Request) -> Response:
    return StreamingResponse(work.chunks(), media_type="application/octet-stream")


app = Starlette(
    routes=[
        Route("/items/{item_id:int}", read_item),
        Route("/items", create_item, methods=["POST"]),
        Route("/one-task", one_task, methods=["POST"]),
        Route("/ten-tasks", ten_tasks, methods=["POST"]),
        Route("/ran", ran),
        Route("/stream", stream),
    ]
)
