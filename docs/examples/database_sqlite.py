"""Notes in SQLite: a connection and a transaction for each request, in threads.

    $ curl --json '{"text": "buy milk"}' http://127.0.0.1:8000/notes
    {"id":1,"text":"buy milk"}

A second one of the same text is refused, and its transaction rolled back:

    $ curl -i --json '{"text": "buy milk"}' http://127.0.0.1:8000/notes
    HTTP/1.1 409

    {"detail":"there is such a note"}

    $ curl http://127.0.0.1:8000/notes
    [{"id":1,"text":"buy milk"}]
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
import trio

from trioweb import App, Depends, HTTPException

PATH = "notes.db"


class Note(msgspec.Struct):
    text: str


def connect() -> sqlite3.Connection:
    # A request's calls run in one thread after the other, never in two at once.
    return sqlite3.connect(PATH, timeout=5, check_same_thread=False, isolation_level=None)


def transaction() -> Iterator[sqlite3.Connection]:
    connection = connect()
    try:
        connection.execute("BEGIN IMMEDIATE")
        with connection:  # commits; rolls back when the handler fails
            yield connection
    finally:
        connection.close()


# scope="function": committed before the answer goes out.
Transaction = Annotated[sqlite3.Connection, Depends(transaction, scope="function")]


def prepare() -> None:
    connection = connect()
    connection.execute("PRAGMA journal_mode = wal")  # whoever reads doesn't wait for a writer
    connection.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text UNIQUE)")
    connection.close()


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    await trio.to_thread.run_sync(prepare)
    yield


app = App(lifespan=lifespan)


@app.post("/notes", status_code=201)
def write(note: Note, database: Transaction):  # `def`: in a thread
    try:
        added = database.execute("INSERT INTO notes (text) VALUES (?)", [note.text])
    except sqlite3.IntegrityError:
        raise HTTPException(409, "there is such a note") from None
    return {"id": added.lastrowid, "text": note.text}


@app.get("/notes")
def read(database: Transaction):
    rows = database.execute("SELECT id, text FROM notes ORDER BY id")
    return [{"id": id, "text": text} for id, text in rows]
