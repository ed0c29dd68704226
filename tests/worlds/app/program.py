"""The app of a world: handlers, dependencies, streams and tasks that do what their plans say.

Rules of this module:

* It is written as a user would, against the public names only.
* Whatever runs touches the database first and last: the lifespan holds it open.
  A task touches its request's dependency too, which is open until the last one ended.
* Every attempt, entry and step is written down before it can be cancelled.
* Whatever runs says in a contextvar whose it is, and looks whether another did.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Annotated, Any, Protocol

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
from trioweb._concurrency.exits import DependencyScope
from trioweb._errors import is_only, leaves

from .plans import ROUTE_TIMEOUT, WATCHES, DependencyPlan, RequestPlan, RouteKind, Swallow, TaskPlan
from .world import (
    Attempt,
    DependencyRecord,
    Handled,
    Outcome,
    Planned,
    RequestRecord,
    StreamRecord,
    TaskRecord,
    World,
)

_request_number: ContextVar[int] = ContextVar("_request_number")
_attempted: ContextVar[str] = ContextVar("_attempted")


class Block(Protocol):
    """Simulated threads: a `def` says here for how long it blocks, and what it does then."""

    def __call__(self, seconds: float, then: Callable[[], None] | None = None) -> None: ...


def build_app(world: World, block: Block) -> App:
    """The app that the world's plan needs."""
    plan = world.plan

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        try:
            with world.database():
                yield
        finally:
            world.lifespan_left_at = trio.current_time()
            await trio.sleep(plan.lifespan_seconds)

    app = App(
        lifespan=lifespan,
        drain_timeout=plan.drain_timeout,
        cleanup_timeout=plan.cleanup_timeout,
        limits=Limits(
            max_body_size=plan.max_body_size,
            max_pending_tasks=plan.max_pending_tasks,
            max_running_tasks=plan.max_running_tasks,
            max_task_threads=plan.max_task_threads,
        ),
    )
    world.app = app
    app.state.world = world
    app.state.block = block
    # Compiled once: that takes longer than most worlds do.
    app._matcher = _routes()._matcher
    app.exception_handler(Handled)(_handle)
    _add_task_error_handler(app, world)
    return app


@functools.cache
def _routes() -> App:
    """An app with every route that a plan can ask for."""
    app = App()
    for kind, watch in itertools.product(_HANDLERS, WATCHES):
        plan = RequestPlan(route=kind, watch=watch)
        is_watched = {"default": None, "watched": True, "unwatched": False}[watch]
        if kind == "threaded" and is_watched:
            continue
        timeout = ROUTE_TIMEOUT if kind == "timeout" else None
        for add in app.get, app.post:
            path = f"{plan.path}/{{number}}"
            add(path, timeout=timeout, cancel_on_disconnect=is_watched)(_HANDLERS[kind])
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
        attempt = self._begin()
        try:
            await self._work(nursery)
        except BaseException as exc:
            await self._end(attempt, outcome(exc))
            raise
        await self._end(attempt, "returned")
        if self.plan.client.leaves_with_handler:
            self.record.leave()
        return self._response(nursery)

    async def _end(self, attempt: Attempt, how: Outcome) -> None:
        await self.world.clean_up(self.plan.cleanup)
        if self.plan.cleanup <= self.world.plan.cleanup_timeout:
            self.world.touch(self.name)
        attempt.end(how)
        self.world.note(f"{self.name} ends: {how}")

    def answer_in_thread(self) -> Any:
        attempt = self._begin()
        self.add_all(self.request.tasks, self.plan.tasks)
        how: Outcome = "returned" if self.plan.failure is None else "raised"
        self.block(self.plan.seconds, lambda: attempt.end(how))
        if self.plan.failure is not None:
            raise self.world.failure_to_report(self.plan.failure, self.name)
        return self._response(None)

    def _begin(self) -> Attempt:
        self.world.note(f"{self.name} begins")
        self.world.touch(self.name)
        refused = self.record.was_full or self.record.was_draining
        self.world.expect(not refused, f"{self.name} should have been refused")
        self.enter_context(self.name)
        self.record.handler = Attempt(trio.current_time())
        return self.record.handler

    def enter_context(self, who: str) -> None:
        """Nobody sees what another request wrote, nor what the one before left behind."""
        number = self.record.number
        seen = _request_number.get(number)
        self.world.expect(seen == number, f"{who} sees the contextvars of request {seen}")
        _request_number.set(number)

    async def _work(self, nursery: trio.Nursery | None) -> None:
        if self.plan.reads_body:
            body = await self.request.body()
            self.world.expect(body == self.record.request_body, f"{self.name} read {body!r}")
        if nursery is not None:
            for i in range(len(self.plan.children)):
                nursery.start_soon(self._child, i)
        self.add_all(self.request.tasks, self.plan.tasks)
        if self.plan.waits_for_departure:
            await self._wait_for_departure()
        else:
            await work(self.plan.seconds, self.plan.swallow)
        if self.plan.failure is not None:
            raise self.world.failure_to_report(self.plan.failure, self.name)

    async def _wait_for_departure(self) -> None:
        began = trio.current_time()
        with trio.move_on_after(self.plan.seconds) as scope:
            await self.request.wait_disconnected()
        now = trio.current_time()
        in_time = now == max(began, self.record.left_at) or scope.cancelled_caught
        self.world.expect(in_time, f"{self.name} waited for its client to leave")
        if scope.cancelled_caught and self.plan.seconds:
            self.world.expect(
                now <= self.record.left_at, f"{self.name} didn't see its client leave"
            )

    async def _child(self, index: int) -> None:
        plan = self.plan.children[index]
        try:
            await trio.sleep(plan.seconds)
            self.enter_context(f"child {index} of {self.name}")
            if plan.fails:
                self.record.child_failed_at = trio.current_time()
                raise self.world.failure_to_report("error", f"child {index} of {self.name}")
        finally:
            self.world.touch(f"child {index} of {self.name}")

    def _response(self, nursery: trio.Nursery | None) -> Any:
        brought = BackgroundTasks()
        if trio.current_time() < self.world.cleaned_up_at:  # past the end they are refused aloud
            self.add_all(brought, self.plan.brought)
        if self.plan.response == "empty":
            return Response(None, 204, background=brought)
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
            self.record.failed_before_head = not self.record.has_head
            if self.plan.response == "channel":
                self.record.child_failed_at = trio.current_time()
            raise self.world.failure_to_report("error", f"the stream of {self.name}")

    def add_all(
        self, tasks: BackgroundTasks, plans: tuple[TaskPlan, ...], *, after_success: bool = True
    ) -> None:
        for plan in plans:
            self.add(tasks, plan, after_success=after_success)

    def add(self, tasks: BackgroundTasks, plan: TaskPlan, *, after_success: bool) -> None:
        order = len(self.record.tasks)
        name = f"task {self.record.number}.{order}"
        body = _Body(self, name, plan)
        func = _with_options(plan, name, body, self.world)
        handle = tasks.start_soon(func) if plan.beside else tasks.add_task(func)
        needs_success = after_success and plan.when in ("success", "sent")
        now, adder = trio.current_time(), _attempted.get("")
        body.record = TaskRecord(name, plan, handle, order, now, adder, needs_success)
        self.record.tasks.append(body.record)
        self.world.note(f"{name} is added")
        self.world.watchers.start_soon(self.world.watch, body.record)


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
        attempt = self._begin()
        try:
            await self._work()
        except BaseException as exc:
            await self._end(attempt, outcome(exc))
            raise
        fails = self._is_to_fail()
        await self._end(attempt, "raised" if fails else "returned")
        if fails:
            raise await self._failure()

    def run_in_thread(self) -> None:
        attempt = self._begin()
        fails = self._is_to_fail()
        if not self._plan.adds_in_cleanup:
            self._add_others()
        how: Outcome = "raised" if fails else "returned"
        self._visit.block(self._plan.seconds, lambda: self._end_thread(attempt, how))
        if fails:
            raise self._world.failure(self._plan.failure, self._name)

    def _is_to_fail(self) -> bool:
        return len(self.record.attempts) <= self._plan.failures

    def _begin(self) -> Attempt:
        world, record = self._world, self.record
        world.note(f"{self._name} begins")
        self._touch()
        request = self._visit.record
        world.expect(not request.sending, f"{self._name} began before the last byte was accepted")
        world.expect("running" not in record.hows, f"{self._name} runs twice at once")
        if not self._plan.beside:
            self._check_order()
        attempt = Attempt(trio.current_time())
        record.attempts.append(attempt)
        running = sum(task.handle.state == "running" for task in world.tasks())
        limit = world.plan.max_running_tasks or running
        world.expect(running <= limit, f"{running} tasks run, with a limit of {limit}")
        world.audit()
        self._check_context()
        return attempt

    def _touch(self) -> None:
        """Use the database, and what the request has open."""
        self._world.touch(self._name)
        if self.record.needs_success:
            for dependency in self._visit.record.dependencies:
                is_open = dependency.scope != "request" or not dependency.left
                self._world.expect(is_open, f"{self._name} uses a dependency that is closed")

    def _check_context(self) -> None:
        """It is as it was when the task was added, whatever others, and earlier attempts, wrote."""
        self._visit.enter_context(self._name)
        seen = _attempted.get("")
        alone = seen == self.record.adder
        self._world.expect(alone, f"{self._name} sees the contextvars of {seen or 'nobody'}")
        _attempted.set(self._name)

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

    async def _end(self, attempt: Attempt, how: Outcome) -> None:
        await self._world.clean_up(self._plan.cleanup)
        self._end_attempt(attempt, how)

    def _end_thread(self, attempt: Attempt, how: Outcome) -> None:
        if self.record.handle.state == "running":
            self._touch()
        self._end_attempt(attempt, how)

    def _end_attempt(self, attempt: Attempt, how: Outcome) -> None:
        attempt.end(how)
        if self._plan.adds_in_cleanup:
            with suppress(RuntimeError):  # the list is over, and says so aloud
                self._add_others()
        if not self._plan.in_thread:
            self._touch()
        self._world.note(f"{self._name} ends: {how}")

    def _add_others(self) -> None:
        if len(self.record.attempts) == 1:
            tasks = self._visit.request.tasks
            self._visit.add_all(tasks, self._plan.adds, after_success=self.record.needs_success)

    async def _failure(self) -> BaseException:
        if self._plan.failure == "stray":
            return await _stray_cancellation()
        return self._world.failure(self._plan.failure, self._name)


async def _stray_cancellation() -> BaseException:
    """One that belongs to no scope any more, as caches of outcomes raise them."""
    stray: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            stray.append(exc)
            raise
    return stray[0]


async def work(seconds: float, swallow: Swallow) -> None:
    """Sleep; where the plan says so, take a cancellation for something else."""
    try:
        if swallow == "and break":
            await _work_breaking(seconds)
        else:
            await trio.sleep(seconds)
    except trio.Cancelled:
        if swallow == "no":
            raise
        if swallow == "once":
            await trio.sleep(seconds)


async def _work_breaking(seconds: float) -> None:
    """Cancelled, it ends with a group: of that, and of an error in a child's cleanup."""
    is_over = False

    async def child() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if is_over:
                raise
            raise Planned("a cleanup") from None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        await trio.sleep(seconds)
        is_over = True
        nursery.cancel_scope.cancel()


def outcome(exc: BaseException) -> Outcome:
    if is_only(exc, (trio.Cancelled,)):
        return "cancelled"
    return "broken" if any(isinstance(leaf, trio.Cancelled) for leaf in leaves(exc)) else "raised"


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
    visit.add_all(request.tasks, visit.plan.handler_tasks, after_success=False)
    await trio.sleep(0.1)
    if visit.plan.handler_fails:
        raise visit.world.failure_to_report("error", f"exception {visit.name}")
    return JSONResponse(visit.record.number, 409)


async def _plain(number: int, request: Request) -> Any:
    return await Visit(request, number).answer()


async def _nursery(number: int, request: Request, nursery: trio.Nursery) -> Any:
    return await Visit(request, number).answer(nursery)


def _threaded_dependency(number: int, request: Request) -> Iterator[None]:
    entry = _Entry(Visit(request, number), DependencyPlan(scope="request"))
    try:
        yield
    finally:
        entry.leave()


def _threaded(
    number: int, request: Request, held: Annotated[None, Depends(_threaded_dependency)]
) -> Any:
    return Visit(request, number).answer_in_thread()


class _Entry:
    """One entry of a dependency, on its way in, and on its way out."""

    def __init__(self, visit: Visit, plan: DependencyPlan) -> None:
        self._visit = visit
        self._world = visit.world
        self._plan = plan
        self._name = f"the {plan.scope} dependency of {visit.name}"
        self._world.touch(self._name)
        if plan.enter_fails:
            raise self._world.failure_to_report("error", self._name)
        visit.enter_context(self._name)
        self._record = DependencyRecord(plan.scope)
        visit.record.dependencies.append(self._record)
        self._world.note(f"{self._name} is entered")

    def leave(self) -> None:
        if _is_thrown_away():
            return
        self._record.left += 1
        self._world.note(f"{self._name} is left")
        self._world.touch(self._name)
        self._visit.add_all(self._visit.request.tasks, self._plan.adds)

    def end(self) -> None:
        if self._plan.exit_fails and not _is_thrown_away():
            raise self._world.failure_to_report("error", f"the exit of {self._name}")


def _is_thrown_away() -> bool:
    """Whether nobody leaves the generator that asks: the garbage collector closes it."""
    return isinstance(sys.exception(), GeneratorExit)


def _plan_for(visit: Visit, scope: DependencyScope) -> DependencyPlan:
    [plan] = [plan for plan in visit.plan.dependencies if plan.scope == scope]
    return plan


def _dependency(scope: DependencyScope) -> Any:
    async def depend(number: int, request: Request) -> AsyncIterator[None]:
        visit = Visit(request, number)
        plan = _plan_for(visit, scope)
        await trio.sleep(plan.enter_seconds)
        entry, task = _Entry(visit, plan), trio.lowlevel.current_task()
        try:
            yield
        finally:
            same = trio.lowlevel.current_task() is task
            visit.world.expect(same, f"a dependency of {visit.name} is left on another task")
            entry.leave()
            await trio.sleep(plan.exit_seconds)
            entry.end()

    return Depends(depend, scope=scope)


def _blocking_dependency(scope: DependencyScope) -> Any:
    def depend(number: int, request: Request) -> Iterator[None]:
        visit = Visit(request, number)
        plan = _plan_for(visit, scope)
        entry = _Entry(visit, plan)
        try:
            yield
        finally:
            entry.leave()
            visit.block(plan.exit_seconds)
            entry.end()

    return Depends(depend, scope=scope)


async def _scoped(
    number: int,
    request: Request,
    request_scope: Annotated[None, _dependency("request")],
    response_scope: Annotated[None, _dependency("response")],
    function_scope: Annotated[None, _dependency("function")],
) -> Any:
    return await Visit(request, number).answer()


async def _blocking(
    number: int,
    request: Request,
    request_scope: Annotated[None, _blocking_dependency("request")],
    response_scope: Annotated[None, _blocking_dependency("response")],
    function_scope: Annotated[None, _blocking_dependency("function")],
) -> Any:
    return await Visit(request, number).answer()


_HANDLERS: dict[RouteKind, Callable[..., Any]] = {
    "plain": _plain,
    "timeout": _plain,
    "nursery": _nursery,
    "threaded": _threaded,
    "scoped": _scoped,
    "blocking": _blocking,
}
