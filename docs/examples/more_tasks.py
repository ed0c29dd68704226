"""Tasks that run beside each other, are tried again, and run for one outcome only.

    $ curl -i -X POST http://127.0.0.1:8000/orders/tea
    HTTP/1.1 200
    content-type: application/json

    {"ordered":"tea"}

The server prints:

    the till is open
    order 1: open_the_till(2) failed: and empty
    thumbnails made
    the shop was called 2 times
    1 failed, 1 skipped

An order that is refused:

    $ curl -i -X POST http://127.0.0.1:8000/orders/coal
    HTTP/1.1 404
    content-type: application/json

    {"detail":"No coal here"}

has another task:

    somebody wanted coal
"""

from contextvars import ContextVar

import trio

from trioweb import App, BackgroundTask, BackgroundTasks, HTTPException, Retry, task

app = App()
calls: list[str] = []
orders: list[str] = []
order_number: ContextVar[int] = ContextVar("order_number")


@task(timeout=5, retry=Retry(attempts=3, backoff=0.1, on=(OSError,)))
async def call_the_shop(item: str) -> None:
    calls.append(item)
    if len(calls) < 2:
        raise OSError("the line is busy")


@task(when="error")
async def note_interest(item: str) -> None:  # a value: what the handler had open is closed
    print(f"somebody wanted {item}")


async def open_the_till(till: int) -> None:
    print("the till is open")
    raise RuntimeError("and empty")


async def make_thumbnails() -> None:
    await trio.sleep(0.05)
    print("thumbnails made")


async def report(call: BackgroundTask) -> None:
    await call.wait()
    print(f"the shop was called {len(calls)} times")
    counts = app.statistics()
    print(f"{counts.failed} failed, {counts.skipped} skipped")


@app.on_task_error
async def tell(failed: BackgroundTask, exc: BaseException) -> None:
    arguments = ", ".join(map(repr, failed.args))
    print(f"order {order_number.get()}: {failed.name}({arguments}) failed: {exc}")


@app.post("/orders/{item}")
async def order(item: str, tasks: BackgroundTasks):
    tasks.add_task(note_interest, item)
    if item == "coal":
        raise HTTPException(404, "No coal here")
    orders.append(item)
    order_number.set(len(orders))  # what is added from here on sees it
    call = tasks.start_soon(call_the_shop, item)
    tasks.add_task(open_the_till, 2)
    tasks.add_task(make_thumbnails)
    tasks.add_task(report, call)
    return {"ordered": item}
