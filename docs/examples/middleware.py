"""Middleware is an ASGI app around the app.

It sees every request first, and every message of the answer:

    $ curl -i http://127.0.0.1:8000/
    HTTP/1.1 200
    x-served-by: trioweb

    {"message":"Hello"}
"""

from typing import Any

from trioweb import App

routes = App()


@routes.get("/")
async def index():
    return {"message": "Hello"}


class ServedBy:
    def __init__(self, app: App, name: str) -> None:
        self.app = app
        self.field = (b"x-served-by", name.encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_field(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append(self.field)
            await send(message)

        await self.app(scope, receive, send_with_field)


app = ServedBy(routes, "trioweb")
