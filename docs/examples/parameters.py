"""Parameters out of the path, the query, a header and a cookie.

    $ curl 'http://127.0.0.1:8000/items/3?sort=price&tag=new&tag=blue'
    {"id":3,"sort":"price","limit":10,"tags":["new","blue"]}

All that is wrong with a request is said at once:

    $ curl -i 'http://127.0.0.1:8000/items/three?sort=size&limit=0'
    HTTP/1.1 422
    content-type: application/json

    {"detail":[
      {"loc":["path","item_id"],"msg":"Input should be a valid integer","type":"int_parsing"},
      {"loc":["query","sort"],"msg":"Input should be 'name' or 'price'","type":"literal_error"},
      {"loc":["query","limit"],"msg":"Input should be greater than or equal to 1",
       "type":"greater_than_equal"}]}

    $ curl -H 'Accept-Language: de' -H 'Cookie: theme=dark' http://127.0.0.1:8000/settings
    {"language":"de","theme":"dark"}

    $ curl http://127.0.0.1:8000/files/2026/report.pdf
    {"path":"2026/report.pdf"}
"""

from typing import Annotated, Literal

from trioweb import App, Cookie, Header, Query

app = App()


@app.get("/items/{item_id}")
async def read_items(
    item_id: int,
    sort: Literal["name", "price"] = "name",
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    tag: list[str] | None = None,
):
    return {"id": item_id, "sort": sort, "limit": limit, "tags": tag or []}


@app.get("/settings")
async def read_settings(
    accept_language: Annotated[str, Header()] = "en",
    theme: Annotated[str | None, Cookie()] = None,
):
    return {"language": accept_language, "theme": theme}


@app.get("/files/{path:path}")
async def read_file(path: str):
    return {"path": path}
