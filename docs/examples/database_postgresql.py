"""Notes in PostgreSQL by psycopg, in threads: a pool that the app opens and closes.

    $ curl --json '{"text": "buy milk"}' http://127.0.0.1:8000/notes
    {"id":1,"text":"buy milk"}

    $ curl http://127.0.0.1:8000/notes
    [{"id":1,"text":"buy milk"}]

Where the database is, libpq's variables say: PGHOST, PGUSER, PGDATABASE, …
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import trio
from psycopg import Connection
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from trioweb import App, Depends, Request

Pool = ConnectionPool[Connection[dict[str, Any]]]


class Note(msgspec.Struct):
    text: str


def open_pool() -> Pool:
    pool: Pool = ConnectionPool("", kwargs={"row_factory": dict_row}, max_size=10, open=False)
    pool.open(wait=True)
    with pool.connection() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text)")
    return pool


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[dict[str, Pool]]:
    pool = await trio.to_thread.run_sync(open_pool)
    try:
        yield {"pool": pool}
    finally:
        pool.close()  # after the last task


app = App(lifespan=lifespan)


def transaction(request: Request) -> Iterator[Connection[dict[str, Any]]]:
    pool: Pool = request.state.pool
    with pool.connection(timeout=5) as connection:  # commits; rolls back when the handler fails
        yield connection


# scope="function": committed, and back in the pool, before the answer goes out.
Transaction = Annotated[Connection[dict[str, Any]], Depends(transaction, scope="function")]


@app.post("/notes", status_code=201)
def write(note: Note, database: Transaction):  # `def`: in a thread
    added = database.execute("INSERT INTO notes (text) VALUES (%s) RETURNING *", [note.text])
    return added.fetchone()


@app.get("/notes")
def read(database: Transaction):
    return database.execute("SELECT * FROM notes ORDER BY id").fetchall()
