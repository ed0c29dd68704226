"""A handler as it would stand in a FastAPI program; only the imports have changed.

It uses pydantic, which `pip install pydantic` brings.

    $ curl --json '{"name":"tea","price":"2.50"}' \
        'http://127.0.0.1:8000/items?notify=true'
    {"name":"tea","price":2.5}

The server prints:

    told the shop about tea
"""

from typing import Annotated

from pydantic import BaseModel

from trioweb import App, BackgroundTasks, Depends, HTTPException

app = App()


class Item(BaseModel):
    name: str
    price: float


def tell_the_shop(name: str) -> None:
    print(f"told the shop about {name}")


def get_shop() -> set[str]:
    return {"tea", "coffee"}


@app.post("/items", status_code=201)
async def create_item(
    item: Item,
    background_tasks: BackgroundTasks,
    shop: Annotated[set[str], Depends(get_shop)],
    notify: bool = False,
):
    if item.name not in shop:
        raise HTTPException(status_code=404, detail="Item not found")
    if notify:
        background_tasks.add_task(tell_the_shop, item.name)
    return item
