"""Work that outlives the process: a row in a database, marked when it is done.

    $ curl -X POST http://127.0.0.1:8000/orders/tea
    {"order":1}

The server prints:

    shipped tea

A row that isn't marked, because its task failed, was cancelled or died with the process, is
worked on after the next start.
"""

import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trioweb import App, BackgroundTasks, Request

logger = logging.getLogger("outbox")


class Outbox:
    """Rows that are to be worked on.  SQLite blocks, but not for long."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, item TEXT, done INTEGER)"
        )

    def add(self, item: str) -> int:
        added = self._database.execute("INSERT INTO outbox (item, done) VALUES (?, 0)", [item])
        return added.lastrowid or 0

    def mark(self, row: int) -> None:
        self._database.execute("UPDATE outbox SET done = 1 WHERE id = ?", [row])

    def left(self) -> list[tuple[int, str]]:
        return self._database.execute("SELECT id, item FROM outbox WHERE done = 0").fetchall()

    def close(self) -> None:
        self._database.close()


async def send_parcel(item: str) -> None:
    await trio.sleep(0.1)
    print(f"shipped {item}")


async def ship(outbox: Outbox, row: int, item: str) -> None:
    await send_parcel(item)
    outbox.mark(row)  # not reached: it is sent again, so sending has to bear that


async def catch_up(outbox: Outbox, rows: list[tuple[int, str]]) -> None:
    for row, item in rows:
        try:
            await ship(outbox, row, item)
        except Exception:  # past here it would end the server
            logger.exception("order %d isn't shipped, the next start tries again", row)


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[dict[str, Outbox]]:
    outbox = Outbox("outbox.db")
    left = outbox.left()  # before the first request adds more
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(catch_up, outbox, left)
            try:
                yield {"outbox": outbox}
            finally:
                nursery.cancel_scope.cancel()
    finally:
        outbox.close()


app = App(lifespan=lifespan)


@app.post("/orders/{item}", status_code=202)
async def order(item: str, request: Request, tasks: BackgroundTasks):
    outbox: Outbox = request.state.outbox
    row = outbox.add(item)  # in the transaction that has the order itself
    tasks.add_task(ship, outbox, row, item)
    return {"order": row}
