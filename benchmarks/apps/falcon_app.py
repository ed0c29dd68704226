"""Falcon (ASGI); it has no dependencies, and leaves validation to pydantic."""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from falcon.asgi import App, Request, Response

from . import work
from .models import Item


class ItemById:
    async def on_get(self, req: Request, resp: Response, item_id: int) -> None:
        resp.media = work.item(item_id)


class Items:
    async def on_post(self, req: Request, resp: Response) -> None:
        item = Item.model_validate_json(await req.stream.read())
        resp.text = item.model_dump_json()


class OneTask:
    async def on_post(self, req: Request, resp: Response) -> None:
        resp.schedule(work.count)
        resp.media = {"added": 1}


class TenTasks:
    async def on_post(self, req: Request, resp: Response) -> None:
        for _ in range(10):
            resp.schedule(work.count)
        resp.media = {"added": 10}


class Ran:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = work.tasks_run()


class Stream:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = "application/octet-stream"
        resp.stream = work.chunks()


app = App()
app.add_route("/items/{item_id:int}", ItemById())
app.add_route("/items", Items())
app.add_route("/one-task", OneTask())
app.add_route("/ten-tasks", TenTasks())
app.add_route("/ran", Ran())
app.add_route("/stream", Stream())
