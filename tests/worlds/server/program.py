"""The app of a world: handlers and tasks that do what their plans say.

Rules of this module:

* It is written as a user would, against the public names only.
* Whatever runs touches the database first and last: the lifespan holds it open.
* Whatever runs says in a contextvar whose it is, and looks whether another did.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import trio

from trioweb import App, BackgroundTasks, Request, Response, StreamingResponse

from .plans import TaskPlan
from .world import Planned, RequestRecord, TaskRecord, World

_number: ContextVar[int] = ContextVar("_number")


def build_app(world: World) -> App:
    """The app that the world's plan needs."""
    plan = world.plan

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        try:
            with world.database():
                yield
        finally:
            await world.clean_up(plan.lifespan_seconds)

    app = App(
        lifespan=lifespan,
        limits=plan.limits,
        drain_timeout=plan.drain_timeout,
        cleanup_timeout=plan.cleanup_timeout,
    )
    app.state.world = world
    for add in app.get, app.post:
        add("/plain/{number}")(_plain)
        add("/nursery/{number}")(_nursery)
    return app


async def _plain(number: int, request: Request, tasks: BackgroundTasks) -> Response:
    return await _Visit(request, number).answer(tasks)


async def _nursery(
    number: int, request: Request, tasks: BackgroundTasks, nursery: trio.Nursery
) -> Response:
    return await _Visit(request, number).answer(tasks)


class _Visit:
    """One request, as its handler sees it."""

    def __init__(self, request: Request, number: int) -> None:
        self.request = request
        self.world: World = request.app.state.world
        self.record: RequestRecord = self.world.requests[number]
        self.plan = self.record.plan
        self.name = f"handler {number}"

    def enter_context(self, who: str, *, is_new: bool) -> None:
        """Nobody sees what another request wrote."""
        seen = _number.get(-1)
        expected = -1 if is_new else self.record.number
        self.world.expect(seen == expected, f"{who} sees the contextvars of request {seen}")
        _number.set(self.record.number)

    async def answer(self, tasks: BackgroundTasks) -> Response:
        world, record, plan = self.world, self.record, self.plan
        world.note(f"{self.name} begins")
        world.touch(self.name)
        self.enter_context(self.name, is_new=True)
        record.calls += 1
        record.called_at = trio.current_time()
        try:
            if plan.reads_body:
                record.received = await self.request.body()
            for task in plan.tasks:
                self.add(tasks, task)
            await trio.sleep(plan.seconds)
        finally:
            await world.clean_up(plan.cleanup)
            world.touch(self.name)
        if plan.fails == "before":
            record.failed = True
            raise Planned(self.name)
        world.note(f"{self.name} returns")
        record.returned_at = trio.current_time()
        headers = {"x-number": str(record.number)}
        if plan.pieces:
            return StreamingResponse(self._pieces(), headers=headers)
        return Response(record.content, headers=headers)

    async def _pieces(self) -> AsyncIterator[bytes]:
        record, plan = self.record, self.plan
        size = plan.size // plan.pieces + 1
        for start in range(0, size * plan.pieces, size):
            await trio.sleep(plan.piece_seconds)
            self.world.touch(f"the stream of {self.name}")
            yield record.content[start : start + size]
            if plan.fails == "within":
                record.failed = True
                raise Planned(f"the stream of {self.name}")
        record.streamed_at = trio.current_time()

    def add(self, tasks: BackgroundTasks, plan: TaskPlan) -> None:
        name = f"task {self.record.number}.{len(self.record.tasks)}"
        handle = (tasks.start_soon if plan.beside else tasks.add_task)(self._run, name, plan)
        self.record.tasks.append(TaskRecord(plan, handle))

    async def _run(self, name: str, plan: TaskPlan) -> None:
        world = self.world
        [task] = [task for task in self.record.tasks if task.plan is plan and not task.runs][:1]
        world.note(f"{name} begins")
        world.touch(name)
        self.enter_context(name, is_new=False)
        task.runs.append("running")
        try:
            await trio.sleep(plan.seconds)
        except trio.Cancelled:
            task.runs[-1] = "cancelled"
            raise
        else:
            task.runs[-1] = "raised" if plan.fails else "returned"
        finally:
            await world.clean_up(plan.cleanup)
            world.touch(name)
            world.note(f"{name} ends: {task.runs[-1]}")
        if plan.fails:
            raise Planned(name)
