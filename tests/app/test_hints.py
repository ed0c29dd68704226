"""A failure that comes of a habit from elsewhere is logged with what to write instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from trioweb import App, BackgroundTasks, StreamingResponse
from trioweb._hints import add_hints
from trioweb.testing import IncompleteResponse, client

ON_TRIO = "This runs on Trio, where asyncio has no event loop. Write trio.sleep()"


def theirs(package: str, name: str, *bases: type) -> type[Any]:
    return type(name, bases, {"__module__": package})


async def test_what_is_left_of_asyncio_is_told_wherever_it_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()
    queue: asyncio.Queue[int] = asyncio.Queue()

    @app.get("/sleep")
    async def sleep() -> None:
        await asyncio.sleep(1)

    @app.get("/loop")
    async def loop() -> None:
        asyncio.get_running_loop()

    @app.get("/queue")
    async def wait() -> None:
        await queue.get()

    @app.get("/late")
    async def late() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            await asyncio.sleep(1)

        return StreamingResponse(pieces())

    @app.get("/task")
    async def task(tasks: BackgroundTasks) -> None:
        tasks.add_task(asyncio.sleep, 1)

    async with client(app) as c:
        for path in ("/sleep", "/loop", "/queue", "/task"):
            caplog.clear()
            await c.get(path)
            await c.wait_tasks()
            assert caplog.text.count(ON_TRIO) == 1, path
        caplog.clear()
        async with c.stream("GET", "/late") as response:
            with pytest.raises(IncompleteResponse):
                [_ async for _ in response]
        assert caplog.text.count(ON_TRIO) == 1


async def test_a_lifespan_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    class Lifespan:
        def __init__(self, app: App) -> None: ...

        async def __aenter__(self) -> None:
            await asyncio.sleep(1)

        async def __aexit__(self, *exc: object) -> None: ...

    with pytest.raises(RuntimeError, match="no running event loop"):
        await client(App(lifespan=Lifespan)).__aenter__()
    assert caplog.text.count(ON_TRIO) == 1


@pytest.mark.parametrize("name", ["HTTPException", "RequestValidationError"])
async def test_an_exception_of_fastapis_is_told(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.get("/")
    async def handler() -> None:
        raise theirs("fastapi.exceptions", name, Exception)()

    async with client(app) as c:
        assert (await c.get("/")).status_code == 500
    assert f"fastapi's {name}, for which trioweb has no handler: from trioweb import" in caplog.text


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("JSONResponse", "from trioweb import JSONResponse"),
        ("FileResponse", "StreamingResponse(pieces(path))"),
    ],
)
async def test_a_response_of_starlettes_is_told(
    name: str, right: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.get("/")
    async def handler() -> Any:
        return theirs("starlette.responses", name)()

    async with client(app) as c:
        assert (await c.get("/")).status_code == 500
    assert f"{name} is Starlette's, and nothing to encode: {right}" in caplog.text


def test_what_has_another_cause_has_no_note() -> None:
    failures: list[BaseException] = [
        RuntimeError("busy"),
        TimeoutError(),
        theirs("fastapi.exceptions", "FastAPIError", Exception)(),
        theirs("shop", "HTTPException", Exception)(),
    ]
    for failure in failures:
        add_hints(failure)
        assert not hasattr(failure, "__notes__")


def test_what_a_loop_of_ones_own_raises_has_no_note() -> None:
    async def fail() -> None:
        await asyncio.wait_for(asyncio.sleep(1), 0)

    with pytest.raises(TimeoutError) as raised:
        asyncio.run(fail())
    add_hints(raised.value)
    assert not hasattr(raised.value, "__notes__")


def test_each_of_a_group_is_told_once() -> None:
    exc = ConnectionError("no running event loop")
    for _ in range(2):
        add_hints(ExceptionGroup("both", [exc, ValueError()]))
    assert len(exc.__notes__) == 1
