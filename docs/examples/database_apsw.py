"""Notes in SQLite by apsw, which awaits: the connection has a thread of its own.

    $ curl --json '{"text": "buy milk"}' http://127.0.0.1:8000/notes
    {"id":1,"text":"buy milk"}

    $ curl http://127.0.0.1:8000/notes
    [{"id":1,"text":"buy milk"}]

Who reads waits for who writes: more connections, for more at once.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any

import apsw
import msgspec
import trio

from trioweb import App, Depends, Request


class Note(msgspec.Struct):
    text: str


Connection = Any  # apsw.AsyncConnection is there for type checkers only


class Database:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = trio.Lock()  # a connection has one transaction at a time


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[dict[str, Database]]:
    async with aclosing(await apsw.Connection.as_async("notes.db")) as connection:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)"
        )
        yield {"database": Database(connection)}


app = App(lifespan=lifespan)


async def transaction(request: Request) -> AsyncIterator[Connection]:
    database: Database = request.state.database
    connection = database.connection
    async with database.lock:
        try:
            await connection.execute("BEGIN IMMEDIATE")
            yield connection
            await connection.execute("COMMIT")
        finally:
            # Whether it failed or was cancelled.  `async with connection` wouldn't, when cancelled.
            with trio.move_on_after(5, shield=True):
                if await connection.in_transaction:
                    await connection.execute("ROLLBACK")


# scope="function": committed before the answer goes out.
Transaction = Annotated[Connection, Depends(transaction, scope="function")]


@app.post("/notes", status_code=201)
async def write(note: Note, database: Transaction):
    added = await database.execute("INSERT INTO notes (text) VALUES (?) RETURNING id", [note.text])
    return {"id": await added.get, "text": note.text}


@app.get("/notes")
async def read(database: Transaction):
    rows = await database.execute("SELECT id, text FROM notes ORDER BY id")
    return [{"id": id, "text": text} async for id, text in rows]
