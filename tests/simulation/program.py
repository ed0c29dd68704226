"""The app of a world: handlers, dependencies, streams and tasks that do what their plans say.

Rules of this module:

* It is written as a user would, against the public names only.
* Whatever runs touches the database first and last: the lifespan holds it open.
* Every attempt, entry and step is written down before it can be cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import trio

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    Depends,
    JSONResponse,
    Limits,
    Request,
    Response,
    Retry,
    StreamingResponse,
    task,
)
from trioweb._markers import DependencyScope

from .plans import ROUTE_TIMEOUT, RequestPlan, RouteKind, Swallow, TaskPlan
from .world import (
    Attempt,
    DependencyRecord,
    Handled,
    RequestRecord,
    StreamRecord,
    TaskRecord,
    World,
)

# Simulated threads: a `def` says here for how many seconds it blocks.
Block = Callable[[float], None]


def build_app(world: World, block: Block) -> App:
    """The app that the world's plan needs."""
    plan = world.plan

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        world.is_open = True
        try:
            yield
        finally:
            world.is_open = False

    app = App(
        lifespan=lifespan,
        drain_timeout=plan.drain_timeout,
        cleanup_timeout=plan.cleanup_timeout,
        limits=Limits(
            max_pending_tasks=plan.max_pending_tasks,
            max_running_tasks=plan.max_running_tasks,
            max_task_threads=plan.max_task_threads,
        ),
    )
    world.app = app
    app.state.world = world
    app.state.block = block
    for kind in {request.route: None for request in plan.requests()}:
        timeout = ROUTE_TIMEOUT if kind == "timeout" else None
        path = f"/{kind}/{{number}}"
        app.route(path, methods=["GET", "POST"], timeout=timeout)(_HANDLERS[kind])
    app.exception_handler(Handled)(_handle)
    _add_task_error_handler(app, world)
    return app


class Visit:
    """One request, as its handler sees it."""

    def __init__(self, request: Request, number: int) -> None:
        self.request = request
        self.world: World = request.app.state.world
        self.block: Block = request.app.state.block
        self.record: RequestRecord = self.world.requests[number]
        self.plan: RequestPlan = self.record.plan
        self.name = f"handler {number}"

    async def answer(self, nursery: trio.Nursery | None = None) -> Any:
        self._begin()
        try:
            await self._work(nursery)
        except BaseException as exc:
            self.record.handler_ended = outcome(exc)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.plan.cleanup)
            self.world.touch(self.name)
        self.record.handler_ended = "returned"
        return self._response(nursery)

    def answer_in_thread(self) -> Any:
        self._begin()
        self.add_all(self.request.tasks, self.plan.tasks)
        self.block(self.plan.seconds)
        if self.plan.failure is not None:
            self.record.handler_ended = "raised"
            raise self.world.failure_to_report(self.plan.failure, self.name)
        self.record.handler_ended = "returned"
        return self._response(None)

    def _begin(self) -> None:
        self.world.note(f"{self.name} begins")
        self.world.touch(self.name)
        refused = self.record.was_full or self.record.was_draining
        self.world.expect(not refused, f"{self.name} should have been refused")
        self.record.handler_began = True

    async def _work(self, nursery: trio.Nursery | None) -> None:
        if self.plan.reads_body:
            body = await self.request.body()
            self.world.expect(body == self.record.request_body, f"{self.name} read {body!r}")
        if nursery is not None:
            for i in range(len(self.plan.children)):
                nursery.start_soon(self._child, i)
        self.add_all(self.request.tasks, self.plan.tasks)
        await work(self.plan.seconds, self.plan.swallow)
        if self.plan.failure is not None:
            raise self.world.failure_to_report(self.plan.failure, self.name)

    async def _child(self, index: int) -> None:
        plan = self.plan.children[index]
        try:
            await trio.sleep(plan.seconds)
            if plan.fails:
                raise self.world.failure_to_report("error", f"child {index} of {self.name}")
        finally:
            self.world.touch(f"child {index} of {self.name}")

    def _response(self, nursery: trio.Nursery | None) -> Any:
        brought = BackgroundTasks()
        self.add_all(brought, self.plan.brought)
        if self.plan.response == "json":
            return JSONResponse(self.record.number, background=brought)
        return StreamingResponse(self._content(nursery), background=brought)

    def _content(self, nursery: trio.Nursery | None) -> Any:
        if self.plan.response == "stream":
            return self._stream()
        if self.plan.response == "iterator" or nursery is None:
            return self._iterator()
        send, receive = trio.open_memory_channel[bytes](0)
        self.record.channels.append(receive)
        nursery.start_soon(self._produce, send)
        return receive

    async def _stream(self) -> AsyncIterator[bytes]:
        stream = StreamRecord()
        self.record.streams.append(stream)
        try:
            async for chunk in _Chunks(self):
                yield chunk
        finally:
            stream.closed += 1
            if self.plan.stream.close_seconds:
                await trio.sleep(self.plan.stream.close_seconds)
            self.world.touch(f"the stream of {self.name}")

    async def _produce(self, send: trio.MemorySendChannel[bytes]) -> None:
        with send, suppress(trio.BrokenResourceError):
            async for chunk in _Chunks(self):
                await send.send(chunk)

    def _iterator(self) -> Iterator[bytes]:
        stream = StreamRecord()
        self.record.streams.append(stream)
        try:
            for i in range(self.plan.stream.chunks):
                self.block(self.plan.stream.seconds)
                yield self.record.chunk(i)
            self.end_stream()
        finally:
            stream.closed += 1

    def end_stream(self) -> None:
        if self.plan.stream.fails:
            raise self.world.failure_to_report("error", f"the stream of {self.name}")

    def add_all(self, tasks: BackgroundTasks, plans: tuple[TaskPlan, ...]) -> None:
        for plan in plans:
            self.add(tasks, plan)

    def add(self, tasks: BackgroundTasks, plan: TaskPlan) -> None:
        order = len(self.record.tasks)
        name = f"task {self.record.number}.{order}"
        body = _Body(self, name, plan)
        func = _with_options(plan, name, body, self.world)
        handle = tasks.start_soon(func) if plan.beside else tasks.add_task(func)
        body.record = TaskRecord(name, plan, handle, order)
        self.record.tasks.append(body.record)
        self.world.note(f"{name} is added")


class _Chunks(AsyncIterator[bytes]):
    """The planned pieces of a body, one after another."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._next = 0

    async def __anext__(self) -> bytes:
        plan = self._visit.plan.stream
        if self._next == plan.chunks:
            self._visit.end_stream()
            raise StopAsyncIteration
        await trio.sleep(plan.seconds)
        self._visit.world.touch(f"the stream of {self._visit.name}")
        self._next += 1
        return self._visit.record.chunk(self._next - 1)


class _Body:
    """What one task does when it is run, as often as it is."""

    record: TaskRecord

    def __init__(self, visit: Visit, name: str, plan: TaskPlan) -> None:
        self._visit = visit
        self._world = visit.world
        self._name = name
        self._plan = plan

    async def run(self) -> None:
        self._begin()
        try:
            await self._work()
        except BaseException as exc:
            await self._end(outcome(exc))
            raise
        await self._end("returned")

    def run_in_thread(self) -> None:
        self._begin()
        self._visit.block(self._plan.seconds)
        self._add_others()
        if len(self.record.attempts) <= self._plan.failures:
            self.record.attempts[-1] = "raised"
            raise self._failure()
        self.record.attempts[-1] = "returned"

    def _begin(self) -> None:
        world, record = self._world, self.record
        world.note(f"{self._name} begins")
        world.touch(self._name)
        request = self._visit.record
        world.expect(not request.sending, f"{self._name} began before the last byte was accepted")
        world.expect("running" not in record.attempts, f"{self._name} runs twice at once")
        if not self._plan.beside:
            self._check_order()
        record.attempts.append("running")
        running = sum("running" in task.attempts for task in world.tasks())
        limit = world.plan.max_running_tasks or running
        world.expect(running <= limit, f"{running} tasks run, with a limit of {limit}")
        world.audit()

    def _check_order(self) -> None:
        """Those added before have ended, those added after haven't begun."""
        for other in self._visit.record.tasks:
            state = other.handle.state
            if other is not self.record and not other.plan.beside and state != "skipped":
                is_before = other.order < self.record.order
                has_ended = state not in ("pending", "running")
                self._world.expect(
                    has_ended == is_before, f"{self._name} began while {other.handle!r}"
                )

    async def _work(self) -> None:
        await work(self._plan.seconds, self._plan.swallow)
        if not self._plan.adds_in_cleanup:
            self._add_others()
        if len(self.record.attempts) <= self._plan.failures:
            raise self._failure()

    async def _end(self, how: Attempt) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(self._plan.cleanup)
        if self._plan.adds_in_cleanup:
            with suppress(RuntimeError):  # the list is over, and says so aloud
                self._add_others()
        self._world.touch(self._name)
        self._world.note(f"{self._name} ends: {how}")
        self.record.attempts[-1] = how

    def _add_others(self) -> None:
        if len(self.record.attempts) == 1:
            self._visit.add_all(self._visit.request.tasks, self._plan.adds)

    def _failure(self) -> BaseException:
        return self._world.failure(self._plan.failure, self._name)


async def work(seconds: float, swallow: Swallow) -> None:
    """Sleep; where the plan says so, take a cancellation for something else."""
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        if swallow == "no":
            raise
        if swallow == "once":
            await trio.sleep(seconds)


def outcome(exc: BaseException) -> Attempt:
    return "cancelled" if isinstance(exc, trio.Cancelled) else "raised"


def _with_options(plan: TaskPlan, name: str, body: _Body, world: World) -> Callable[[], Any]:
    retry = None
    if plan.attempts > 1:
        retry = Retry(attempts=plan.attempts, random=world.random.random)

    async def run() -> None:
        await body.run()

    def run_in_thread() -> None:
        body.run_in_thread()

    options = task(timeout=plan.timeout, retry=retry, when=plan.when, name=name)
    return options(run_in_thread) if plan.in_thread else options(run)


def _add_task_error_handler(app: App, world: World) -> None:
    async def hear(task: BackgroundTask, exc: BaseException) -> None:
        await trio.sleep(0.1)
        world.touch("on_task_error")
        world.hear(exc)

    def hear_in_thread(task: BackgroundTask, exc: BaseException) -> None:
        world.touch("on_task_error")
        world.hear(exc)

    async def fail(task: BackgroundTask, exc: BaseException) -> None:
        await trio.sleep(0.1)
        raise world.failure_to_report("error", f"on_task_error for {task.name}")

    handlers: dict[str, Callable[..., Any]] = {
        "async": hear,
        "sync": hear_in_thread,
        "fails": fail,
    }
    if world.plan.task_errors != "log":
        app.on_task_error(handlers[world.plan.task_errors])


async def _handle(request: Request, exc: Handled) -> Response:
    visit = Visit(request, int(request.path_params["number"]))
    visit.world.hear(exc)
    visit.add_all(request.tasks, visit.plan.handler_tasks)
    await trio.sleep(0.1)
    if visit.plan.handler_fails:
        raise visit.world.failure_to_report("error", f"exception {visit.name}")
    return JSONResponse(visit.record.number, 409)


async def _plain(number: int, request: Request) -> Any:
    return await Visit(request, number).answer()


async def _nursery(number: int, request: Request, nursery: trio.Nursery) -> Any:
    return await Visit(request, number).answer(nursery)


def _threaded_dependency(number: int, request: Request) -> Iterator[None]:
    visit = Visit(request, number)
    visit.world.touch(f"a dependency of {visit.name}")
    yield
    visit.world.touch(f"a dependency of {visit.name}")


def _threaded(
    number: int, request: Request, held: Annotated[None, Depends(_threaded_dependency)]
) -> Any:
    return Visit(request, number).answer_in_thread()


def _dependency(scope: DependencyScope) -> Any:
    async def depend(number: int, request: Request) -> AsyncIterator[None]:
        visit = Visit(request, number)
        [plan] = [plan for plan in visit.plan.dependencies if plan.scope == scope]
        name = f"the {scope} dependency of {visit.name}"
        await trio.sleep(plan.enter_seconds)
        if plan.enter_fails:
            raise visit.world.failure_to_report("error", name)
        record = DependencyRecord(scope, trio.lowlevel.current_task())
        visit.record.dependencies.append(record)
        visit.world.note(f"{name} is entered")
        try:
            yield
        finally:
            record.left += 1
            visit.world.note(f"{name} is left")
            same = trio.lowlevel.current_task() is record.task
            visit.world.expect(same, f"{name} is left on another task")
            visit.world.touch(name)
            visit.add_all(request.tasks, plan.adds)
            await trio.sleep(plan.exit_seconds)
            if plan.exit_fails:
                raise visit.world.failure_to_report("error", f"the exit of {name}")

    return Depends(depend, scope=scope)


async def _scoped(
    number: int,
    request: Request,
    request_scope: Annotated[None, _dependency("request")],
    response_scope: Annotated[None, _dependency("response")],
    function_scope: Annotated[None, _dependency("function")],
) -> Any:
    return await Visit(request, number).answer()


_HANDLERS: dict[RouteKind, Callable[..., Any]] = {
    "plain": _plain,
    "timeout": _plain,
    "nursery": _nursery,
    "threaded": _threaded,
    "scoped": _scoped,
}
