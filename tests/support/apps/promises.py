"""The app behind most of tests/promises/test_hypercorn.py.

What happens in it is printed, in one line each: `event KEY WHAT`.  Standard output and error are
one pipe to the tests, so the lines, the log's among them, are in the order of what happened.
A task that shall last waits at its key's gate until the test opens it with a request.
LINGER_TIME is how long an unread body is read away, in seconds, if not as by default.
"""

from __future__ import annotations

import collections
import contextvars
import fcntl
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Annotated, Any

import trio

from trioweb import (
    App,
    BackgroundTasks,
    Depends,
    HTTPException,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Request,
    Response,
    StreamingResponse,
    _limits,
)

MIB = 1024 * 1024

if os.environ.get("LINGER_TIME"):
    _limits.LINGER_TIME = float(os.environ["LINGER_TIME"])

app = App()
user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
gates: dict[str, Gate] = collections.defaultdict(lambda: Gate())
counts: dict[str, int] = collections.Counter()


def record(key: str, what: str) -> None:
    # One call to the system, so that the lines of two threads don't mix.
    os.write(1, f"event {key} {what}\n".encode())


class Gate:
    """Where tasks wait, in threads or not, until it is opened."""

    def __init__(self) -> None:
        self._for_threads = threading.Event()
        self._for_tasks = trio.Event()

    def open(self) -> None:
        self._for_threads.set()
        self._for_tasks.set()

    def wait_in_thread(self) -> None:
        self._for_threads.wait()

    async def wait(self) -> None:
        await self._for_tasks.wait()


# The tasks.


async def wait_at_gate(key: str) -> None:
    record(key, "started")
    await gates[key].wait()
    record(key, "ended")


def wait_at_gate_in_thread(key: str) -> None:
    record(key, "started")
    gates[key].wait_in_thread()
    record(key, "ended")


def last_two_seconds(key: str) -> None:
    record(key, "started")
    time.sleep(2)
    record(key, "ended")


WAITING: dict[str, Callable[..., object]] = {
    "async": wait_at_gate,
    "thread": wait_at_gate_in_thread,
    "two-seconds": last_two_seconds,
}


async def hold_the_server(key: str, path: str) -> None:
    """Block the event loop as long as a test holds the lock on `path`: nothing is sent then."""
    with open(path) as file:  # noqa: ASYNC230  it is to block
        fcntl.flock(file, fcntl.LOCK_EX)
    record(key, "held the server")


async def note(key: str, what: str) -> None:
    record(key, what)


async def step(key: str, number: int) -> None:
    record(key, f"{number} begins")
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    record(key, f"{number} ends")


def step_in_thread(key: str, number: int) -> None:
    record(key, f"{number} begins")
    time.sleep(0.01)  # were the next one not waiting for us, it would begin now
    record(key, f"{number} ends")


async def count(key: str, of: int) -> None:
    counts[key] += 1
    if counts[key] == of:
        record(key, f"counted {of}")


async def note_user(key: str) -> None:
    record(key, f"user is {user.get()}")
    user.set("changed by a task")


def note_user_in_thread(key: str) -> None:
    record(key, f"user is {user.get()}")


class Odd(Exception):
    """Has an exception handler, which tasks must never reach."""


RAISED: dict[str, BaseException] = {
    "Odd": Odd("oh no"),
    "HTTPException": HTTPException(418, "oh no"),
    "SystemExit": SystemExit("oh no"),
    "KeyError": KeyError("oh no"),
}


async def fail(kind: str) -> None:
    raise RAISED[kind]


def fail_in_thread(kind: str) -> None:
    raise RAISED[kind]


# The routes.


@app.get("/mark/{key}/{what}")
async def mark(key: str, what: str) -> None:
    record(key, what)


@app.post("/open/{key}")
async def open_gate(key: str) -> None:
    record(key, "gate opened")
    gates[key].open()


@app.get("/threaded")
def threaded() -> str:
    return "from a thread"


@app.post("/blocking/{kind}/{key}")
async def blocking(kind: str, key: str, path: str, tasks: BackgroundTasks) -> Any:
    own = BackgroundTasks()
    (own if kind == "returned" else tasks).add_task(hold_the_server, key, path)
    if kind == "raised":
        raise Odd("raised by a handler")
    if kind == "streamed":
        return StreamingResponse(iter(["a", "b"]))
    return JSONResponse("ab", background=own)


@app.exception_handler(Odd)
async def odd(request: Request, exc: Odd) -> Response:
    record("odd", f"exception handler saw {exc} of {request.url.path}")
    if "path" in request.query_params:
        key = request.path_params["key"]
        request.tasks.add_task(hold_the_server, key, request.query_params["path"])
    if "key" in request.query_params:
        key = request.query_params["key"]
        request.tasks.add_task(note, key, "exception handler")
    else:
        key = "odd"
    more = BackgroundTasks()
    more.add_task(note, key, "exception handler's response")
    return JSONResponse("odd", 418, background=more)


@app.route("/hold/{kind}/{key}", methods=["GET", "POST"])
async def hold(kind: str, key: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(WAITING[kind], key)
    return "held"


@app.get("/big/{key}")
async def big(key: str, tasks: BackgroundTasks) -> Response:
    tasks.add_task(wait_at_gate, key)
    return Response(b"x" * (32 * MIB))


@app.get("/steps/{key}")
async def steps(key: str, tasks: BackgroundTasks) -> None:
    for number in range(6):
        tasks.add_task(step_in_thread if number % 2 else step, key, number)


@app.post("/failing/{kind}/{key}")
async def failing(kind: str, key: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(note, key, "before")
    tasks.add_task(fail, kind)
    tasks.add_task(note, key, "between")
    tasks.add_task(fail_in_thread, kind)
    tasks.add_task(note, key, "after")
    return "accepted"


async def connection(key: str) -> AsyncIterator[list[str]]:
    state = ["open"]
    yield state
    await trio.lowlevel.checkpoint()
    state[0] = "closed"
    record(key, "async connection closes")


def connection_in_thread(key: str) -> Iterator[list[str]]:
    state = ["open"]
    yield state
    state[0] = "closed"
    record(key, "sync connection closes")


@app.post("/dependency/{key}")
async def dependency(
    key: str,
    tasks: BackgroundTasks,
    first: Annotated[list[str], Depends(connection)],
    second: Annotated[list[str], Depends(connection_in_thread)],
) -> None:
    async def use() -> None:
        await gates[key].wait()
        record(key, f"used {first[0]} {second[0]}")

    tasks.add_task(use)


def subdependency(key: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(note, key, "subdependency")


async def dependency_with_task(
    key: str, tasks: BackgroundTasks, below: Annotated[None, Depends(subdependency)]
) -> None:
    tasks.add_task(note, key, "dependency")


@app.post("/sources/{key}", dependencies=[Depends(dependency_with_task)])
async def sources(key: str, tasks: BackgroundTasks) -> Response:
    tasks.add_task(note, key, "handler")
    own = BackgroundTasks()
    own.add_task(note, key, "response")
    return JSONResponse("accepted", background=own)


@app.get("/odd")
async def raise_odd() -> None:
    raise Odd("raised by a handler")


@app.post("/unread/{key}")
async def unread(key: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(note, key, "task ran")
    return "not read"


@app.post("/read/{key}")
async def read(key: str, request: Request) -> int:
    return len(await request.body())


@app.post("/many/{number:int}/{key}")
async def many(number: int, key: str, tasks: BackgroundTasks) -> None:
    for _ in range(number):
        tasks.add_task(count, key, number)


@app.post("/user/{key}")
async def set_user(key: str, tasks: BackgroundTasks) -> str:
    before = user.get()
    user.set("ann")
    tasks.add_task(note_user, key)
    user.set("bob")
    tasks.add_task(note_user_in_thread, key)
    tasks.add_task(note_user, key)
    user.set("changed after add_task")
    return before


@app.get("/sized")
async def sized() -> Response:
    return PlainTextResponse("0123456789", headers={"x-own": "1"})


@app.get("/typed/{number}")
async def typed(number: int) -> int:
    return number


@app.get("/broken")
async def broken() -> None:
    raise KeyError("broken on purpose")


async def generate(key: str) -> AsyncIterator[str]:
    record(key, "generator started")
    try:
        yield "first"
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        record(key, "generator closed")


@app.get("/stream/generator/{key}")
async def stream_generator(key: str, tasks: BackgroundTasks) -> Response:
    tasks.add_task(wait_at_gate, key)
    return StreamingResponse(generate(key), media_type="text/plain")


@app.get("/stream/channel/{key}")
async def stream_channel(key: str, nursery: trio.Nursery) -> Response:
    async def produce(numbers: Iterable[int]) -> None:
        try:
            async with sender:
                for number in numbers:
                    await sender.send(f"{number};")
        except trio.BrokenResourceError:
            record(key, "producer heard of it")

    sender, receiver = trio.open_memory_channel[str](0)
    nursery.start_soon(produce, range(3) if key == "finite" else itertools.count())
    return StreamingResponse(receiver)


@app.get("/where")
async def where(request: Request) -> dict[str, str]:
    return {
        "path": request.url.path,
        "url": str(request.url),
        "url_for": request.url_for("where"),
    }


@app.get("/inject/{slot}")
async def inject(slot: str, text: str) -> Response:
    match slot:
        case "value":
            return PlainTextResponse("ok", headers={"x-own": text})
        case "set":
            response = Response("ok")
            response.headers["x-own"] = text
            return response
        case "name":
            return PlainTextResponse("ok", headers={text: "1"})
        case "location":
            return RedirectResponse(text)
        case "cookie":
            response = Response("ok")
            response.set_cookie("c", text)
            return response
        case "path":
            response = Response("ok")
            response.set_cookie("c", "1", path=text)
            return response
        case "media_type":
            return Response("ok", media_type=text)
        case _:
            raise HTTPException(400, "no", {"x-own": text})
