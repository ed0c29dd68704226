"""A cancel scope that a task leaves open is that task's alone, whatever it cancels later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import App, BackgroundTask, BackgroundTasks, task
from trioweb._concurrency.scopes import Scopes

from ..support.asgi import running
from ..support.inline import Beside

How = pytest.mark.parametrize("how", ["add_task", "start_soon"])


async def leave_a_scope_open() -> None:
    """As a loop does that is left, over a generator with a timeout in it."""
    trio.CancelScope(deadline=trio.current_time() + 1).__enter__()


async def leave_a_scope_open_and_wait() -> None:
    await leave_a_scope_open()
    await trio.sleep(5)


async def wait_and_leave_a_scope_open() -> None:
    await trio.sleep(0.5)
    await leave_a_scope_open()


async def in_app(app: App) -> None:
    async with running(app) as client:
        assert (await client("GET", "/other")).status == 200
        assert (await client("GET", "/")).status == 200
        await trio.sleep(2)
        assert (await client("GET", "/other")).status == 200
        await trio.sleep(10)


@How
@Beside
async def test_a_task_that_is_cancelled_by_its_own_has_failed_and_the_app_goes_on(
    how: str, beside: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app, added = App(), list[BackgroundTask]()

    async def root(tasks: BackgroundTasks) -> None:
        added.append(getattr(tasks, how)(leave_a_scope_open_and_wait))
        added.append(tasks.add_task(trio.sleep, 3))

    async def root_beside(tasks: BackgroundTasks, nursery: trio.Nursery) -> None:
        await root(tasks)

    @app.get("/other")
    async def other(tasks: BackgroundTasks) -> None:
        added.append(tasks.add_task(trio.sleep, 3))

    app.get("/")(root_beside if beside else root)
    await in_app(app)
    assert [task.state for task in added] == ["done", "failed", "done", "done"]
    assert "raised where nothing is cancelled" in str(added[1].exception)


@How
async def test_who_hears_of_it_is_not_cancelled(how: str, autojump_clock: MockClock) -> None:
    app, told = App(), list[str]()

    @app.on_task_error
    async def tell(task: BackgroundTask, exc: BaseException) -> None:
        await trio.sleep(1)
        told.append(task.state)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        getattr(tasks, how)(leave_a_scope_open_and_wait)

    app.get("/other")(leave_nothing)
    await in_app(app)
    assert told == ["failed"]


@pytest.mark.parametrize("func", [leave_a_scope_open, wait_and_leave_a_scope_open])
@Beside
async def test_those_that_follow_in_its_list_are_not_cancelled(
    func: Callable[[], Awaitable[None]], beside: bool, autojump_clock: MockClock
) -> None:
    app, added = App(), list[BackgroundTask]()

    @task(when="always")
    async def more(tasks: BackgroundTasks) -> None:
        await trio.sleep(3)
        added.append(tasks.add_task(trio.sleep, 3))

    async def root(tasks: BackgroundTasks) -> None:
        for add in (func, func):
            added.append(tasks.add_task(add))
        added.append(tasks.start_soon(more, tasks))

    async def root_beside(tasks: BackgroundTasks, nursery: trio.Nursery) -> None:
        await root(tasks)

    app.get("/")(root_beside if beside else root)
    app.get("/other")(leave_nothing)
    await in_app(app)
    assert [task.state for task in added] == ["done", "done", "done", "done"]


async def leave_nothing() -> None:
    pass


@How
async def test_a_shutdown_cancels_it_all_the_same(how: str, autojump_clock: MockClock) -> None:
    app, added = App(drain_timeout=0.25), list[BackgroundTask]()

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        added.append(getattr(tasks, how)(leave_a_scope_open_and_wait))
        added.append(tasks.add_task(trio.sleep, 3))

    async with running(app) as client:
        await client("GET", "/")
        await wait_all_tasks_blocked()
    assert [task.state for task in added] == ["cancelled", "cancelled"]


async def test_scopes_know_what_is_theirs() -> None:
    scopes = Scopes()
    assert scopes.are_all()
    left = trio.CancelScope()
    left.__enter__()
    left.cancel()
    assert not scopes.are_all()
    assert not scopes.are_cancelled()
    with pytest.raises(trio.Cancelled):
        await trio.lowlevel.checkpoint()
    assert not scopes.keep_to()
    assert scopes.are_all()
    await trio.lowlevel.checkpoint()
    with trio.CancelScope() as scope:
        scope.cancel()
        inner = Scopes()
        assert inner.are_cancelled()
        assert inner.keep_to()
        with pytest.raises(trio.Cancelled):
            await trio.lowlevel.checkpoint()


async def test_a_scope_that_is_not_cancelled_may_be_closed_in_order() -> None:
    scopes = Scopes()
    with trio.CancelScope():
        await trio.lowlevel.checkpoint()
        assert not scopes.keep_to()
        assert not scopes.are_all()
        later = Scopes()
    assert not later.are_cancelled()  # what it knew is closed
    assert later.are_all()
    trio.CancelScope().__enter__()
    scopes.return_to()
    assert scopes.are_all()


@Beside
async def test_tasks_of_a_list_may_share_a_generator_with_a_scope_in_it(
    beside: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And with the handler, where that is in the same task."""
    app, added = App(drain_timeout=1), list[BackgroundTask]()

    async def numbers() -> AsyncIterator[int]:
        with trio.fail_after(100):
            yield 1
            yield 2

    async def take_rest(generator: AsyncIterator[int]) -> None:
        assert [number async for number in generator]

    async def take_one(generator: AsyncIterator[int]) -> None:
        await anext(generator)
        await trio.sleep(0.1)

    async def inline(tasks: BackgroundTasks) -> None:
        generator = numbers()
        added.append(tasks.add_task(take_one, generator))
        added.append(tasks.add_task(take_rest, generator))
        added.append(tasks.add_task(trio.sleep_forever))

    async def root_beside(tasks: BackgroundTasks, nursery: trio.Nursery) -> None:
        generator = numbers()
        await anext(generator)
        added.append(tasks.add_task(take_rest, generator))
        added.append(tasks.add_task(trio.sleep, 0.1))
        added.append(tasks.add_task(trio.sleep_forever))

    app.get("/")(root_beside if beside else inline)
    begin = trio.current_time()
    async with running(app) as client:
        await client("GET", "/")
    assert trio.current_time() - begin == pytest.approx(1)
    assert [task.state for task in added] == ["done", "done", "cancelled"]
