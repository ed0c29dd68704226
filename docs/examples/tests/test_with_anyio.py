"""The same under anyio's pytest plugin: time is virtual where the backend's clock is."""

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, BackgroundTasks
from trioweb.testing import client

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": MockClock(autojump_threshold=0)}


app = App()


@app.post("/")
async def start(tasks: BackgroundTasks):
    tasks.add_task(trio.sleep, 3600)


@pytest.fixture
async def c():
    async with client(app, headers={"x-api-key": "secret"}) as c:
        yield c


async def test_an_hour_in_milliseconds(c):
    await c.post("/")
    await c.wait_tasks()
    assert trio.current_time() == 3600
    assert app.statistics().done == 1
