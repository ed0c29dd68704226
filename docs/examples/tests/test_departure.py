"""A client that leaves: the handler of a GET is cancelled, and its tasks are skipped."""

from collections.abc import AsyncIterator
from typing import Annotated

import trio
import trio.testing

from trioweb import App, BackgroundTasks, Depends, task
from trioweb.testing import client

app = App()
events: list[str] = []


async def session() -> AsyncIterator[None]:
    try:
        yield
    except trio.Cancelled:
        events.append("rolled back")
        raise


@task(when="error")
async def note_departure() -> None:
    events.append("departure noted")


async def count_report() -> None:
    events.append("report counted")


@app.get("/report")
@app.post("/report")
async def report(tasks: BackgroundTasks, session: Annotated[None, Depends(session)]):
    tasks.add_task(count_report)
    tasks.add_task(note_departure)
    await trio.sleep(600)


async def test_a_get_ends_with_its_client(autojump_clock):
    events.clear()
    async with client(app) as c:
        with trio.move_on_after(1):
            await c.get("/report")
        # The client has left. The app hears of it, and does what it has to:
        await trio.testing.wait_all_tasks_blocked()
        assert events == ["rolled back", "departure noted"]
        assert trio.current_time() == 1
    assert app.statistics().skipped == 1


async def test_a_post_goes_on(autojump_clock):
    events.clear()
    async with client(app) as c:
        with trio.move_on_after(1):
            await c.post("/report")
        await trio.sleep(600)
        await c.wait_tasks()
        assert events == ["report counted"]
