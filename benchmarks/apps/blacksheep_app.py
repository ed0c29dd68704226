"""BlackSheep; it has no background tasks."""

# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

from blacksheep import Application, FromJSON, Response, StreamedContent, json
from rodi import Container

from . import work
from .models import Item


class Greeter:
    """A service: BlackSheep's way to a dependency.  It is made for each request."""

    def greet(self, name: str) -> dict[str, str]:
        return {"hello": name.title()}


services = Container()
services.add_scoped(Greeter)
app = Application(services=services)


@app.router.get("/items/{item_id}")
async def read_item(item_id: int) -> Response:
    return json(work.item(item_id))


@app.router.post("/items")
async def create_item(item: FromJSON[Item]) -> Response:
    return json(item.value)


@app.router.get("/hello")
async def hello(name: str, greeter: Greeter) -> Response:
    return json(greeter.greet(name))


@app.router.get("/stream")
async def stream() -> Response:
    return Response(200, content=StreamedContent(b"application/octet-stream", work.chunks))
