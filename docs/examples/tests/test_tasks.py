"""A task with a ten-minute timeout and three attempts, tested in milliseconds."""

import trio

from trioweb import App, BackgroundTasks, Retry, TaskTimeout, task
from trioweb.testing import client

app = App()


class Warehouse:
    """Stands for whatever the task calls; answers when it is told to."""

    def __init__(self) -> None:
        self.attempts = 0
        self.answers_at = 1  # attempt

    async def ship(self, order: int) -> None:
        self.attempts += 1
        if self.attempts < self.answers_at:
            await trio.sleep_forever()


warehouse = Warehouse()


@task(timeout=600, retry=Retry(attempts=3))
async def ship(order: int) -> None:
    await warehouse.ship(order)


@app.post("/orders/{order}", status_code=202)
async def accept(order: int, tasks: BackgroundTasks):
    tasks.add_task(ship, order)
    return {"order": order}


async def test_ships_at_the_third_attempt(autojump_clock):
    warehouse.attempts, warehouse.answers_at = 0, 3
    async with client(app) as c:
        response = await c.post("/orders/7")
        assert response.status_code == 202  # the task hasn't ended, it may not have begun
        await c.wait_tasks()
        assert app.statistics().done == 1
        assert c.task_errors == []
    assert warehouse.attempts == 3
    assert trio.current_time() > 1200  # twice ten minutes of virtual time, and the pauses


async def test_gives_up_after_three_attempts(autojump_clock):
    warehouse.attempts, warehouse.answers_at = 0, 4
    async with client(app) as c:
        await c.post("/orders/7")
        await c.wait_tasks()
        [(failed, exc)] = c.task_errors
    assert (failed.name, failed.state) == ("ship", "timed_out")
    assert isinstance(exc, TaskTimeout)
    assert warehouse.attempts == 3
