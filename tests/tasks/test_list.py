"""Task lists, run by themselves: order, states, contexts, threads."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from itertools import pairwise
from types import FunctionType
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import BackgroundTask, BackgroundTasks, Retry, task
from trioweb._concurrency.grace import Grace
from trioweb._concurrency.scopes import Scopes
from trioweb._limits import TASKS_IN_A_TURN, TURN_TIME
from trioweb._tasks.ledger import Ledger
from trioweb._tasks.list import queue_of
from trioweb._tasks.run import TaskRun
from trioweb._tasks.runner import TaskRunner
from trioweb._tasks.task import TaskErrorHandler

from ..support.tasks import DELIVERED, run_list, taken_over

user = contextvars.ContextVar("user", default="nobody")


async def run(
    tasks: BackgroundTasks,
    *,
    grace: Grace | None = None,
    max_threads: int = 20,
    error_handlers: Sequence[TaskErrorHandler] = (),
) -> None:
    runner = TaskRunner(max_threads=max_threads, error_handlers=error_handlers)
    async with trio.open_nursery() as nursery:
        await run_list(runner, tasks, "GET /", grace or Grace(5), nursery)


async def fail(exc: BaseException) -> None:
    raise exc


def records(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "trioweb.tasks"]


async def test_tasks_run_one_after_another_in_the_order_added(autojump_clock: MockClock) -> None:
    events: list[str] = []

    async def task(name: str, *, seconds: float) -> None:
        events.append(f"{name} begins")
        await trio.sleep(seconds)
        events.append(f"{name} ends")

    tasks = BackgroundTasks()
    tasks.add_task(task, "a", seconds=2)
    tasks.add_task(task, "b", seconds=1)
    await run(tasks)
    assert events == ["a begins", "a ends", "b begins", "b ends"]


async def test_a_task_knows_its_state_and_its_times(autojump_clock: MockClock) -> None:
    tasks = BackgroundTasks()
    seen: list[str] = []

    async def task() -> None:
        seen.append(handle.state)
        await trio.sleep(3)

    handle = tasks.add_task(task)
    assert repr(handle) == "<BackgroundTask 'task' pending>"
    assert (handle.name, handle.started_at, handle.ended_at) == ("task", None, None)
    assert (handle.request, handle.exception) == (None, None)
    begin = trio.current_time()
    await run(tasks)
    assert seen == ["running"]
    assert handle.started_at == pytest.approx(begin)
    assert handle.ended_at == pytest.approx(begin + 3)
    assert repr(handle) == "<BackgroundTask 'task' done>"


async def test_a_failure_is_reported_once_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[int] = []
    tasks = BackgroundTasks()
    tasks.add_task(done.append, 1)
    broken = tasks.add_task(fail, LookupError("no such user"))
    tasks.add_task(done.append, 2)
    await run(tasks)
    assert done == [1, 2]
    assert broken.state == "failed"
    assert isinstance(broken.exception, LookupError)
    assert records(caplog) == [("ERROR", "task fail of GET / failed")]
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is broken.exception


@pytest.mark.parametrize("exc", [SystemExit(1), ExceptionGroup("two", [ValueError(), OSError()])])
async def test_what_else_is_a_failure_like_any_other(
    exc: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = BackgroundTasks()
    broken = tasks.add_task(fail, exc)
    last = tasks.add_task(trio.lowlevel.checkpoint)
    await run(tasks)
    assert (broken.state, broken.exception, last.state) == ("failed", exc, "done")
    assert len(records(caplog)) == 1


async def test_ctrl_c_goes_through_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = BackgroundTasks()
    interrupted = tasks.add_task(fail, KeyboardInterrupt())
    rest = tasks.add_task(trio.lowlevel.checkpoint)
    with pytest.raises(BaseExceptionGroup) as raised:
        await run(tasks)
    assert raised.group_contains(KeyboardInterrupt)
    assert (interrupted.state, rest.state) == ("cancelled", "cancelled")


async def test_cancellation_ends_the_running_task_and_counts_the_rest(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = BackgroundTasks()
    done = tasks.add_task(trio.lowlevel.checkpoint)
    running = tasks.add_task(trio.sleep_forever)
    pending = tasks.add_task(trio.sleep_forever)
    with trio.move_on_after(1) as scope:
        await run(tasks)
    assert scope.cancelled_caught
    assert [t.state for t in (done, running, pending)] == ["done", "cancelled", "cancelled"]
    assert running.ended_at == pytest.approx(trio.current_time())
    assert pending.started_at is None
    assert records(caplog) == [("WARNING", "task sleep_forever of GET / was cancelled")] * 2


async def test_a_task_that_fails_while_it_is_cancelled_is_reported_and_cancellation_goes_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("disk full")

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    tasks = BackgroundTasks()
    task = tasks.add_task(parent)
    rest = tasks.add_task(trio.lowlevel.checkpoint)
    with trio.move_on_after(1) as scope:
        await run(tasks)
    assert scope.cancelled_caught
    assert task.state == "failed"
    assert rest.state == "cancelled"
    assert [message for _, message in records(caplog)] == [
        "task parent of GET / failed",
        "task checkpoint of GET / was cancelled",
    ]


async def test_cancelled_before_the_first_step_still_counts() -> None:
    tasks = BackgroundTasks()
    task = tasks.add_task(trio.lowlevel.checkpoint)
    with trio.CancelScope() as scope:
        scope.cancel()
        await run(tasks)
    assert task.state == "cancelled"


async def test_cancel_at_every_checkpoint_leaves_each_task_in_an_end_state() -> None:
    """However far the list is, nothing is pending, running or run twice afterwards."""

    async def scenario(cancel_at: int | None) -> int:
        runs: list[str] = []
        tasks = BackgroundTasks()

        async def step(name: str) -> None:
            runs.append(name)
            await trio.lowlevel.checkpoint()
            if name == "b":
                tasks.add_task(step, "f")
                raise ValueError(name)

        handles = [tasks.add_task(step, name) for name in "abcde"]
        counter = _CancelAt(cancel_at)
        with counter.scope:
            trio.lowlevel.add_instrument(counter)
            try:
                await run(tasks)
            finally:
                trio.lowlevel.remove_instrument(counter)
        assert all(h.state in ("done", "failed", "cancelled") for h in handles)
        assert not len(tasks)
        assert sorted(set(runs)) == sorted(runs)
        return counter.count

    steps = await scenario(None)
    assert steps > 6
    for k in range(1, steps + 1):
        await scenario(k)


class _CancelAt(trio.abc.Instrument):
    """Counts the steps of the current task; cancels `scope` before the k-th."""

    def __init__(self, k: int | None) -> None:
        self.scope = trio.CancelScope()
        self.count = 0
        self._k = k
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self._task

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self.count + 1 == self._k:
            self.scope.cancel()


async def test_tasks_that_are_added_as_others_fail_let_the_rest_run(
    autojump_clock: MockClock,
) -> None:
    turns, times = 0, 20 * TASKS_IN_A_TURN
    tasks, runs = BackgroundTasks(), 0

    async def broken() -> None:
        nonlocal runs
        runs += 1
        raise ValueError

    async def add_again(task: BackgroundTask, exc: BaseException) -> None:
        if runs < times:
            tasks.add_task(broken)

    async def others(scope: trio.CancelScope) -> None:
        nonlocal turns
        with scope:
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

    scope = trio.CancelScope()
    tasks.add_task(broken)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others, scope)
        await run(tasks, error_handlers=[add_again])
        scope.cancel()
    assert runs == times
    # Two of its own turns may come between two of theirs: Trio's batches have no order.
    assert turns >= times // TASKS_IN_A_TURN // 2


async def test_a_wrapper_that_passes_for_a_coroutine_function_is_called_as_it_is() -> None:
    """As those of tracers do: its call gives what is no coroutine."""
    ran: list[str] = []

    async def job() -> None:
        ran.append("job")

    class Span:
        def __init__(self, call: Coroutine[Any, Any, None]) -> None:
            self._call = call

        def __await__(self) -> Generator[Any, Any, None]:
            ran.append("begins")
            yield from self._call.__await__()
            ran.append("ends")

    class Traced:
        __code__ = job.__code__
        __class__ = property(lambda self: FunctionType)

        def __call__(self) -> Span:
            return Span(job())

    tasks = BackgroundTasks()
    added = tasks.add_task(Traced())
    await run(tasks)
    assert (added.state, ran) == ("done", ["begins", "job", "ends"])


@pytest.mark.slow
async def test_what_has_ended_keeps_nothing_alive_while_its_list_waits(
    autojump_clock: MockClock,
) -> None:
    class Argument:
        pass

    async def take(argument: Argument) -> None:
        pass

    arguments = [Argument() for _ in range(4)]
    alive = [weakref.ref(argument) for argument in arguments]
    tasks = BackgroundTasks()
    for argument in arguments:
        tasks.add_task(take, argument)
    tasks.start_soon(trio.sleep_forever)
    del argument, arguments
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, tasks)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert [reference() for reference in alive] == [None] * 4
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seconds", [0.0, TURN_TIME * 2])
async def test_tasks_that_never_wait_let_others_run(
    seconds: float, autojump_clock: MockClock
) -> None:
    """After so many of them, or so long: by the clock, which goes on as if they computed."""
    tasks = BackgroundTasks()
    turns: list[int] = []
    ran = 0

    async def compute() -> None:
        nonlocal ran
        autojump_clock.jump(seconds)
        ran += 1

    async def others() -> None:
        while ran < 100:
            turns.append(ran)
            await trio.lowlevel.checkpoint()

    for _ in range(100):
        tasks.add_task(compute)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await run(tasks)
    longest = max(after - before for before, after in pairwise([0, *turns, 100]))
    # Whoever's turn comes first in a batch of Trio's may come last in the next one.
    assert longest <= 2 * (1 if seconds else TASKS_IN_A_TURN)


async def test_a_task_may_add_to_its_own_list() -> None:
    done: list[str] = []
    tasks = BackgroundTasks()

    async def first() -> None:
        tasks.add_task(done.append, "last")
        done.append("first")

    tasks.add_task(first)
    tasks.add_task(done.append, "second")
    await run(tasks)
    assert done == ["first", "second", "last"]


async def test_each_task_sees_contextvars_as_they_were_when_it_was_added() -> None:
    seen: list[str] = []

    async def read_then_write() -> None:
        seen.append(user.get())
        user.set("somebody else")
        await trio.lowlevel.checkpoint()
        seen.append(user.get())

    tasks = BackgroundTasks()
    user.set("ann")
    tasks.add_task(read_then_write)
    user.set("bob")
    tasks.add_task(read_then_write)
    tasks.add_task(lambda: seen.append(user.get()))  # in a thread
    user.set("eve")
    await run(tasks)
    await trio.lowlevel.checkpoint()
    assert seen == ["ann", "somebody else", "bob", "somebody else", "bob"]
    assert user.get() == "eve"


async def test_a_def_runs_in_a_thread_and_an_async_def_does_not() -> None:
    threads: list[int] = []

    def in_thread() -> None:
        threads.append(threading.get_ident())

    async def in_place() -> None:
        threads.append(threading.get_ident())

    tasks = BackgroundTasks()
    tasks.add_task(in_thread)
    tasks.add_task(in_place)
    await run(tasks)
    assert threads[0] != threading.get_ident()
    assert threads[1] == threading.get_ident()


@pytest.mark.parametrize("where", ["in a thread", "in place"])
async def test_a_task_is_given_all_its_arguments(where: str) -> None:
    given: list[tuple[int, int, int]] = []

    def in_thread(a: int, *, b: int, c: int = 0) -> None:
        given.append((a, b, c))

    async def in_place(a: int, *, b: int, c: int = 0) -> None:
        given.append((a, b, c))

    tasks = BackgroundTasks()
    tasks.add_task(in_thread if where == "in a thread" else in_place, 1, b=2, c=3)
    await run(tasks)
    assert given == [(1, 2, 3)]


class Mailer:
    def __init__(self, sent: list[str]) -> None:
        self._sent = sent

    async def send(self, to: str) -> None:
        self._sent.append(to)

    async def __call__(self, to: str) -> None:
        self._sent.append(to)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda sent: Mailer(sent).send, "Mailer.send"),
        (lambda sent: Mailer(sent), "Mailer"),
        (lambda sent: functools.partial(Mailer(sent).send), "Mailer.send"),
        (lambda sent: functools.partial(functools.partial(Mailer(sent))), "Mailer"),
        (lambda sent: sent.append, "list.append"),
    ],
)
async def test_whatever_is_callable_can_be_a_task(
    make: Callable[[list[str]], Callable[[str], Awaitable[None] | None]], name: str
) -> None:
    sent: list[str] = []
    tasks = BackgroundTasks()
    task = tasks.add_task(make(sent), "ann")
    await run(tasks)
    assert sent == ["ann"]
    assert task.name == name


async def test_a_called_function_is_refused_with_the_right_line() -> None:
    tasks = BackgroundTasks()
    mistake: Any = fail(ValueError())
    with pytest.raises(
        TypeError, match=r"wrong:  add_task\(fail\(…\)\)\n +right:  add_task\(fail,"
    ):
        tasks.add_task(mistake)
    result: Any = None
    with pytest.raises(TypeError, match=r"not None\n +wrong:  add_task\(f\(…\)\)"):
        tasks.add_task(result)
    assert len(tasks) == 0


async def test_a_sync_function_that_returns_a_coroutine_fails_aloud(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = BackgroundTasks()
    task = tasks.add_task(lambda: fail(ValueError()))
    await run(tasks)
    assert task.state == "failed"
    assert "appears to be asynchronous" in str(task.exception)


async def test_nothing_can_be_added_to_a_list_that_is_over() -> None:
    tasks = BackgroundTasks()
    await run(tasks)
    with pytest.raises(RuntimeError, match=r"can't add task .*fail.* is over"):
        tasks.add_task(fail, ValueError())


async def test_a_list_that_joins_another_shares_what_is_added_later() -> None:
    done: list[str] = []
    request, brought = BackgroundTasks(), BackgroundTasks([BackgroundTask(done.append, "b")])
    request.add_task(done.append, "a")
    queue_of(request).adopt(brought)
    queue_of(request).adopt(brought)  # again changes nothing
    queue_of(request).adopt(BackgroundTask(done.append, "c"))
    brought.add_task(done.append, "d")
    await run(request)
    assert done == ["a", "b", "c", "d"]


async def test_the_tasks_threads_are_limited_and_waiting_for_one_can_be_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, running = threading.Event(), trio.Event()

    def hold() -> None:
        trio.from_thread.run_sync(running.set)
        release.wait()

    runner = TaskRunner(max_threads=1)
    holder, waiter = BackgroundTasks(), BackgroundTasks()
    held, waiting = holder.add_task(hold), waiter.add_task(hold)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_list, runner, holder, "GET /1", Grace(5), nursery)
        await running.wait()
        with trio.move_on_after(0.01) as scope:
            await run_list(runner, waiter, "GET /2", Grace(5), nursery)
        assert scope.cancelled_caught
        assert waiting.state == "cancelled"
        release.set()
    assert held.state == "done"
    assert runner.threads.borrowed_tokens == 0


async def test_a_cancelled_thread_has_the_cleanup_time_to_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, running = threading.Event(), trio.Event()

    def hold() -> None:
        trio.from_thread.run_sync(running.set)
        release.wait()

    tasks = BackgroundTasks()
    task = tasks.add_task(hold)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, tasks)
        await running.wait()
        nursery.cancel_scope.cancel()
        release.set()
    assert task.state == "done"


async def test_a_thread_that_takes_longer_is_abandoned_by_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, running = threading.Event(), trio.Event()

    def hold() -> None:
        trio.from_thread.run_sync(running.set)
        release.wait()

    tasks = BackgroundTasks()
    grace = Grace(5)
    task, rest = tasks.add_task(hold), tasks.add_task(hold)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(run, tasks, grace=grace))
        await running.wait()
        nursery.cancel_scope.cancel()
        grace.end_at(trio.current_time())
    release.set()
    assert (task.state, rest.state) == ("abandoned", "cancelled")
    assert [level for level, _ in records(caplog)] == ["ERROR", "WARNING"]
    assert records(caplog)[0][1] == "task hold of GET /: its thread didn't end in time, abandoned"


async def test_ten_thousand_tasks_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    count = 0

    async def one() -> None:
        nonlocal count
        count += 1

    tasks = BackgroundTasks()
    for _ in range(10_000):
        tasks.add_task(one)
    await run(tasks)
    assert count == 10_000


async def uncooperative(seconds: float) -> None:
    """Takes so long behind a shield once it is cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)


async def fails_in_cleanup() -> None:
    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("disk full")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(trio.sleep_forever)


async def test_the_list_waits_for_those_beside_it_though_a_group_ends_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes out of the task is a group: of its own failure and of the cancellation."""
    runner = TaskRunner(max_threads=1)
    tasks = BackgroundTasks()
    beside = tasks.start_soon(uncooperative, 2)
    failed = tasks.add_task(fails_in_cleanup)
    states: list[str] = []
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            try:
                await run_list(runner, tasks, "GET /", Grace(5), nursery)
            finally:
                states.extend([beside.state, failed.state])
    assert states == ["cancelled", "failed"]


async def test_ctrl_c_in_a_list_ends_those_beside_it_first(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    runner = TaskRunner(max_threads=1)
    tasks = BackgroundTasks()
    beside = tasks.start_soon(uncooperative, 2)
    tasks.add_task(trio.sleep, 1)
    tasks.add_task(fail, KeyboardInterrupt())
    begin = trio.current_time()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            try:
                await run_list(runner, tasks, "GET /", Grace(5), nursery)
            finally:
                assert beside.state == "cancelled"

    with pytest.raises(BaseExceptionGroup) as raised:
        await main()
    assert raised.group_contains(KeyboardInterrupt)
    assert trio.current_time() - begin == pytest.approx(3)


async def test_a_task_whose_coroutine_is_closed_is_cancelled_and_nobody_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As the garbage collector closes it, on some other task, after a crash."""
    told: list[BackgroundTask] = []
    handlers: list[TaskErrorHandler] = [lambda task, exc: told.append(task)]
    runner = TaskRunner(max_threads=1, error_handlers=handlers)
    task = BackgroundTask(trio.sleep_forever)
    runner.ledger.enter(task)
    running = runner.run(task, Grace(5), Scopes())
    running.send(None)

    async def close() -> None:
        running.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
    assert (task.state, told) == ("cancelled", [])


async def test_an_abandoned_thread_is_not_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, running = threading.Event(), trio.Event()

    @task(retry=Retry(attempts=3, backoff=0))
    def hold() -> None:
        trio.from_thread.run_sync(running.set)
        release.wait()

    tasks = BackgroundTasks()
    grace = Grace(5)
    handle = tasks.add_task(hold)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(run, tasks, grace=grace))
        await running.wait()
        nursery.cancel_scope.cancel()
        grace.end_at(trio.current_time())
    release.set()
    assert handle.state == "abandoned"
    name = handle.name
    assert records(caplog) == [
        ("ERROR", f"task {name} of GET /: its thread didn't end in time, abandoned")
    ]


async def test_those_beside_the_list_run_for_their_outcomes_only() -> None:
    @task(when="error")
    async def note() -> None: ...

    async def add() -> None:
        handles.append(tasks.start_soon(note))
        handles.append(tasks.start_soon(trio.lowlevel.checkpoint))

    tasks = BackgroundTasks()
    handles = [tasks.start_soon(note), tasks.start_soon(add)]
    await run(tasks)
    assert [handle.state for handle in handles] == ["skipped", "done", "skipped", "done"]


# Adding from threads


def close(tasks: BackgroundTasks) -> None:
    """As the end of its request does."""
    queue_of(tasks).end()


class _SlowLedger(Ledger[BackgroundTask]):
    """While a task is entered, another thread does something, as far as it comes."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self.thread = threading.Thread(target=meanwhile)

    def enter(self, task: BackgroundTask) -> None:
        super().enter(task)
        self.thread.start()
        self.thread.join(timeout=0.05)


@pytest.mark.parametrize("how", ["add_task", "start_soon"])
async def test_what_is_added_as_its_list_ends_is_counted(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = BackgroundTasks()
    token = trio.lowlevel.current_trio_token()

    def end() -> None:
        trio.from_thread.run_sync(close, tasks, trio_token=token)

    ledger = _SlowLedger(end)
    taken_over(tasks, ledger)
    handle = await trio.to_thread.run_sync(getattr(tasks, how), trio.sleep_forever)
    await trio.to_thread.run_sync(ledger.thread.join)
    assert handle.state == "cancelled"
    assert ledger.statistics().pending == 0


async def test_a_thread_that_adds_for_ever_loses_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    handles: list[BackgroundTask] = []
    tasks = BackgroundTasks()
    runner = TaskRunner(max_threads=1)
    queue = taken_over(tasks, runner.ledger)
    has_begun = threading.Event()

    def add() -> None:
        with contextlib.suppress(RuntimeError):
            while True:
                handles.append(tasks.add_task(trio.lowlevel.checkpoint))
                handles.append(tasks.start_soon(trio.lowlevel.checkpoint))
                has_begun.set()

    thread = threading.Thread(target=add)
    async with trio.open_nursery() as nursery:
        tasks.add_task(trio.lowlevel.checkpoint)
        thread.start()
        has_begun.wait()
        with trio.move_on_after(0.01):
            await TaskRun(runner, queue, DELIVERED, Scopes()).finish(Grace(5), nursery)
        close(tasks)
        await trio.to_thread.run_sync(thread.join)
    assert {handle.state for handle in handles} <= {"done", "cancelled"}
    assert runner.ledger.statistics().pending == 0
    assert runner.ledger.statistics().added == len(handles) + 1


async def test_what_a_thread_adds_to_a_list_that_became_part_of_another_runs() -> None:
    done: list[str] = []
    brought, own = BackgroundTasks(), BackgroundTasks()
    added_to = queue_of(brought)  # as a thread has it that is just within add_task
    queue_of(own).adopt(brought)
    added_to.add(BackgroundTask(done.append, "late"))
    brought.start_soon(done.append, "beside")
    assert (len(own), len(brought)) == (2, 2)
    await run(own)
    assert sorted(done) == ["beside", "late"]


def test_a_list_whose_request_is_over_takes_over_no_tasks() -> None:
    over, brought, empty = BackgroundTasks(), BackgroundTasks(), BackgroundTasks()
    close(over)
    task = brought.add_task(print)
    with pytest.raises(RuntimeError, match="the request is over"):
        queue_of(over).adopt(brought)
    assert (len(brought), task.state) == (1, "pending")
    queue_of(over).adopt(empty)
    with pytest.raises(RuntimeError, match="the request it is for is over"):
        empty.add_task(print)


async def test_a_thread_may_wait_for_what_it_starts_beside_its_list() -> None:
    tasks = BackgroundTasks()
    states: list[str] = []

    def start_and_wait() -> None:
        handle = tasks.start_soon(trio.lowlevel.checkpoint)
        trio.from_thread.run(handle.wait)
        states.append(handle.state)

    tasks.add_task(start_and_wait)
    with trio.fail_after(30):
        await run(tasks)
    assert states == ["done"]


async def test_what_another_run_of_trio_adds_comes_in_from_outside() -> None:
    done: list[str] = []
    tasks = BackgroundTasks()

    async def add() -> None:
        tasks.start_soon(done.append, "beside")
        tasks.add_task(done.append, "in the list")

    async def in_its_own_run() -> None:
        await trio.to_thread.run_sync(trio.run, add)

    tasks.start_soon(in_its_own_run)
    await run(tasks)
    assert sorted(done) == ["beside", "in the list"]


async def test_one_that_joins_as_its_list_ends_is_cancelled_not_started() -> None:
    """The list was told of it while it ended: what reacts to that comes too late."""
    tasks = BackgroundTasks()
    handles: list[BackgroundTask] = []

    async def add_from_thread() -> None:
        token = trio.lowlevel.current_trio_token()

        def add() -> None:
            handles.append(tasks.start_soon(trio.sleep_forever))
            token.run_sync_soon(scope.cancel)

        await trio.to_thread.run_sync(add)
        await trio.sleep_forever()

    tasks.add_task(add_from_thread)
    with trio.CancelScope() as scope:
        await run(tasks)
    assert [handle.state for handle in handles] == ["cancelled"]
    assert not len(tasks)
