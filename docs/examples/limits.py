"""Back-pressure: whoever produces tasks faster than they run is told so.

    $ curl -X POST http://127.0.0.1:8000/books/5
    {"pages":5}

Two pages are made at once, three wait, so somebody else has to:

    $ curl -i -X POST http://127.0.0.1:8000/books/1
    HTTP/1.1 503
    retry-after: 1

    {"detail":"Too many background tasks wait"}

Every request is refused, this one too, so a proxy that asks sends the next ones elsewhere:

    $ curl -i http://127.0.0.1:8000/ready
    HTTP/1.1 503
    retry-after: 1

    {"detail":"Too many background tasks wait"}

The server prints:

    page 5 made

And is ready again:

    $ curl http://127.0.0.1:8000/ready
    {"pending":0,"running":0,"done":5}
"""

import trio

from trioweb import App, BackgroundTasks, Limits

app = App(limits=Limits(max_pending_tasks=1, max_running_tasks=2))
made: list[int] = []


async def make_page() -> None:
    await trio.sleep(1)
    made.append(len(made) + 1)
    print(f"page {made[-1]} made")


@app.post("/books/{pages}")
async def make_book(pages: int, tasks: BackgroundTasks):
    for _ in range(pages):
        tasks.start_soon(make_page)
    return {"pages": pages}


@app.get("/ready")
async def ready():
    counts = app.statistics()
    return {"pending": counts.pending, "running": counts.running, "done": counts.done}
