"""A body in pieces, from a generator and from a channel that a task of the request fills.

    $ curl http://127.0.0.1:8000/rows
    id,square
    0,0
    1,1
    2,4

Server-sent events, made by a task in the request's nursery:

    $ curl -i http://127.0.0.1:8000/ticks
    HTTP/1.1 200
    content-type: text/event-stream; charset=utf-8

    data: 2

    data: 1

    data: 0
"""

from collections.abc import AsyncIterator

import trio

from trioweb import App, StreamingResponse

app = App()


async def rows() -> AsyncIterator[str]:
    yield "id,square\n"
    for number in range(3):
        await trio.sleep(0.01)
        yield f"{number},{number * number}\n"


@app.get("/rows")
async def read_rows():
    return StreamingResponse(rows(), media_type="text/csv")


async def count_down(send: trio.MemorySendChannel[str]) -> None:
    try:
        for number in (2, 1, 0):
            await send.send(f"data: {number}\n\n")
            await trio.sleep(0.01)
    except trio.BrokenResourceError:
        pass  # the client has left: nobody reads any more
    finally:
        send.close()


@app.get("/ticks")
async def read_ticks(nursery: trio.Nursery):
    send, receive = trio.open_memory_channel[str](0)
    nursery.start_soon(count_down, send)
    return StreamingResponse(receive, media_type="text/event-stream")
