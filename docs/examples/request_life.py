"""The steps of a request, printed by what takes part in them.

    $ curl -X POST http://127.0.0.1:8000/orders
    {"status":"accepted"}

The server prints:

    2 opened: request, response, function
    3 handler
    4 closed: function, the response isn't sent yet
    6 closed: response, the client has its answer
    7 task
    8 closed: request
"""

from collections.abc import AsyncIterator
from typing import Annotated

from trioweb import App, BackgroundTasks, Depends

app = App()


async def for_the_tasks() -> AsyncIterator[None]:
    yield
    print("8 closed: request")


async def for_the_response() -> AsyncIterator[None]:
    yield
    print("6 closed: response, the client has its answer")


async def for_the_handler() -> AsyncIterator[None]:
    print("2 opened: request, response, function")
    yield
    print("4 closed: function, the response isn't sent yet")


async def send_mail() -> None:
    print("7 task")


@app.post("/orders")
async def create_order(
    tasks: BackgroundTasks,
    whole: Annotated[None, Depends(for_the_tasks)],
    answer: Annotated[None, Depends(for_the_response, scope="response")],
    transaction: Annotated[None, Depends(for_the_handler, scope="function")],
):
    print("3 handler")
    tasks.add_task(send_mail)
    return {"status": "accepted"}
