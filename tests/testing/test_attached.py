"""The tasks of the app, and the thread that its plain functions run in."""

from __future__ import annotations

import contextvars
import logging
import threading
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    HTTPException,
    Retry,
    Router,
    task,
    testing,
)

from ..support.client_apps import client

# --- Tasks.


async def test_a_response_comes_while_its_tasks_go_on() -> None:
    app = App()
    release, done = trio.Event(), trio.Event()

    async def work() -> None:
        await release.wait()
        done.set()

    @app.post("/")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(work)

    async with client(app) as c:
        await c.post("/")
        assert not done.is_set()
        release.set()
        await c.wait_tasks()
        assert done.is_set()
        await c.wait_tasks()
        await c.post("/")
        await c.wait_tasks()
        assert app.statistics().done == 2


async def test_waiting_for_tasks_can_be_cancelled(autojump_clock: MockClock) -> None:
    app = App()
    ran = trio.Event()

    @app.get("/")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(trio.sleep, 10)
        tasks.add_task(ran.set)

    async with client(app) as c:
        await c.get("/")
        with trio.move_on_after(1) as scope:
            await c.wait_tasks()
        assert scope.cancelled_caught
        await c.wait_tasks()
        assert ran.is_set()


async def test_task_errors(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    heard: list[str] = []

    @task(timeout=600, retry=Retry(attempts=3))
    async def slow() -> None:
        await trio.sleep_forever()

    def fail() -> None:
        raise LookupError("task")

    @app.get("/")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(slow)
        tasks.add_task(fail)

    async with client(app) as c:
        await c.get("/")
        await c.wait_tasks()
        (first, timed_out), (second, failed) = c.task_errors
        assert (first.name.rpartition(".")[2], first.state) == ("slow", "timed_out")
        assert isinstance(timed_out, trio.TooSlowError)
        assert (second.state, repr(failed)) == ("failed", "LookupError('task')")
        assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 2

        @app.on_task_error
        def hear(task: BackgroundTask, exc: BaseException) -> None:
            heard.append(task.name)

        await c.get("/")
        await c.wait_tasks()
        assert len(c.task_errors) == 4
    assert len(heard) == 2
    async with client(app) as again:
        assert again.task_errors == []
    assert len(c.task_errors) == 4


# --- Threads.

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


def thread_app() -> tuple[App, list[threading.Thread]]:
    app = App()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())

    @app.get("/")
    def handler(tasks: BackgroundTasks) -> str:
        threads.append(threading.current_thread())
        variable.set("inside")
        tasks.add_task(work)
        return "done"

    @app.get("/error")
    def fail() -> str:
        raise HTTPException(418)

    return app, threads


async def test_plain_functions_run_in_place() -> None:
    app, threads = thread_app()
    async with client(app) as c:
        assert (await c.get("/")).json() == "done"
        assert (await c.get("/error")).status_code == 418
        await c.wait_tasks()
        assert variable.get() == "outside"
    assert threads == [threading.current_thread()] * 2
    async with client(app, threads=True) as c:  # the app is as it was
        await c.get("/")
    assert threading.current_thread() not in threads[2:]
    assert len(threads) == 4


async def test_plain_functions_run_in_threads_where_they_are_to() -> None:
    app, threads = thread_app()
    async with client(app, threads=True) as c:
        assert (await c.get("/")).json() == "done"
        await c.wait_tasks()
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_plain_functions_keep_virtual_time(autojump_clock: MockClock) -> None:
    app, _ = thread_app()
    begin = trio.current_time()
    async with client(app) as c:
        await c.get("/")
        await c.wait_tasks()
    assert trio.current_time() == begin


# --- What a client is for.


async def middleware(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(
    ("given", "wrong", "right"),
    [
        (middleware, "client(middleware)", "client(app, asgi=middleware)"),
        (partial(middleware), "client(functools.partial(", "client(app, asgi=middleware)"),
        (Router(), "client(<trioweb.Router object", "client(app), with app = App()"),
        (App, "client(App)", "client(app), with app = App()"),
    ],
)
@pytest.mark.parametrize("make", [testing.client, testing.connect])
def test_a_client_is_for_an_app(make: Any, given: Any, wrong: str, right: str) -> None:
    with pytest.raises(TypeError) as refused:
        make(given)
    said = str(refused.value).split("\n")
    assert said[1].startswith(f"    wrong:  {wrong}")
    assert said[2] == f"    right:  {right}"
