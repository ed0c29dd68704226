"""What handlers share: a page to read, a user, a connection that is given back.

    $ curl -H 'X-Token: ada' 'http://127.0.0.1:8000/notes?skip=1'
    {"user":"ada","notes":["second","third"]}

The server prints:

    connection opened
    connection given back

The dependency refuses before the handler runs:

    $ curl -i http://127.0.0.1:8000/notes
    HTTP/1.1 401
    content-type: application/json

    {"detail":"Say who you are, with X-Token"}
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from trioweb import App, Depends, Header, HTTPException

app = App()


@dataclass
class Page:
    skip: int = 0
    limit: int = 10


def get_user(x_token: Annotated[str | None, Header()] = None) -> str:
    if x_token is None:
        raise HTTPException(401, "Say who you are, with X-Token")
    return x_token


async def get_connection() -> AsyncIterator[list[str]]:
    print("connection opened")
    try:
        yield ["first", "second", "third"]
    finally:
        print("connection given back")


@app.get("/notes")
async def read_notes(
    page: Annotated[Page, Depends()],
    user: Annotated[str, Depends(get_user)],
    notes: Annotated[list[str], Depends(get_connection)],
):
    return {"user": user, "notes": notes[page.skip :][: page.limit]}
