"""Errors that become answers, and one that nobody expected.

    $ curl -i http://127.0.0.1:8000/items/tea
    HTTP/1.1 404
    content-type: application/json
    x-hint: try /items/coffee

    {"detail":"No item 'tea'"}

An exception of the program's own, by its handler:

    $ curl -i -X POST http://127.0.0.1:8000/items/coffee/buy
    HTTP/1.1 409
    content-type: application/json

    {"detail":"coffee is sold out"}

An error without a handler is a 500:

    $ curl -i http://127.0.0.1:8000/bug
    HTTP/1.1 500
    content-type: application/json

    {"detail":"Internal Server Error"}

and a record in the server's log, with the traceback:

    GET /bug failed
    ZeroDivisionError: division by zero

Of a group, the one exception that has a handler is answered:

    $ curl -i http://127.0.0.1:8000/both
    HTTP/1.1 409
    content-type: application/json

    {"detail":"tea is sold out"}

and the rest is logged:

    GET /both failed
    ValueError: the scale is broken
"""

import trio

from trioweb import App, HTTPException, JSONResponse, Request

app = App()


class SoldOut(Exception):
    def __init__(self, item: str) -> None:
        super().__init__(f"{item} is sold out")


@app.exception_handler(SoldOut)
async def sold_out(request: Request, exc: SoldOut):
    return JSONResponse({"detail": str(exc)}, status_code=409)


@app.get("/items/{name}")
async def read_item(name: str):
    if name != "coffee":
        hint = {"X-Hint": "try /items/coffee"}
        raise HTTPException(404, f"No item {name!r}", headers=hint)
    return {"name": name}


@app.post("/items/{name}/buy")
async def buy(name: str):
    raise SoldOut(name)


@app.get("/bug")
async def bug():
    return 1 / 0


async def weigh() -> None:
    raise ValueError("the scale is broken")


async def reserve() -> None:
    raise SoldOut("tea")


@app.get("/both")
async def both():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(weigh)
        nursery.start_soon(reserve)
