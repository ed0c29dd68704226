"""A shutdown, tested without a process: what is cancelled cleans up, the lifespan closes last."""

from contextlib import asynccontextmanager

import trio

from trioweb import App, BackgroundTasks
from trioweb.testing import client

events: list[str] = []


@asynccontextmanager
async def lifespan(app: App):
    yield {"database": "open"}
    events.append("database closed")


app = App(lifespan=lifespan, drain_timeout=20)


async def export(seconds: float) -> None:
    try:
        await trio.sleep(seconds)
        events.append("export complete")
    except trio.Cancelled:
        with trio.move_on_after(2, shield=True):
            await trio.sleep(1)
            events.append("export undone")
        raise


@app.post("/export")
async def start(seconds: float, tasks: BackgroundTasks):
    tasks.add_task(export, seconds)


async def test_a_short_export_is_waited_for(autojump_clock):
    events.clear()
    async with client(app) as c:
        await c.post("/export", params={"seconds": 15})
    assert events == ["export complete", "database closed"]
    assert trio.current_time() == 15


async def test_a_long_export_is_cancelled_and_cleans_up(autojump_clock):
    events.clear()
    async with client(app) as c:
        await c.post("/export", params={"seconds": 3600})
    assert events == ["export undone", "database closed"]
    assert trio.current_time() == 20 + 1
    assert app.statistics().cancelled == 1


async def test_new_requests_are_refused_meanwhile(autojump_clock):
    async with client(app) as c, trio.open_nursery() as nursery:
        await c.post("/export", params={"seconds": 15})
        nursery.start_soon(c.shutdown)
        await app.draining.wait()
        response = await c.post("/export", params={"seconds": 1})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
