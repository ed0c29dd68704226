"""A resource that lives as long as the app, and the tasks that may use it to the end.

The server prints, before the first request:

    store opened

    $ curl -X PUT http://127.0.0.1:8000/notes/today
    {"saved":"today"}

    $ curl http://127.0.0.1:8000/notes
    {"notes":["today"]}

When it is stopped, the store closes after the last task.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trioweb import App, Request


class Store:
    def __init__(self) -> None:
        self.notes: list[str] = []


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[dict[str, Store]]:
    print("store opened")
    try:
        yield {"store": Store()}
    finally:
        print("store closed")


app = App(lifespan=lifespan, drain_timeout=20, cleanup_timeout=5)


@app.put("/notes/{name}")
async def save(name: str, request: Request):
    store: Store = request.state.store
    store.notes.append(name)
    return {"saved": name}


@app.get("/notes")
async def read(request: Request):
    store: Store = request.state.store
    return {"notes": store.notes}
