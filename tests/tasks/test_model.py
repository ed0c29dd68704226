"""The task list and its limits, against a model that is simple enough to be right.

Rules of this module:

* Hypothesis plays: requests, answers, tasks of every kind, their ends, time, and a
  shutdown.  An app does it for real, behind `trioweb.testing`; the model only
  counts.  After each move, when everybody waits, the two must say the same.
* The model says how many tasks run and which ones may; which of several is first
  to get a place is Trio's choice.
* Time is virtual and passes only by a move.  A thread is one in name only: it takes
  a place, and ends when it is told to.
* `TRIOWEB_MODEL_EXAMPLES=5000 pytest tests/tasks/test_model.py` plays that many
  games, other ones each time, and makes a failing one short; without it they are the
  same few.
"""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import Phase, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    HTTPException,
    JSONResponse,
    Limits,
    Request,
    Retry,
    task,
)
from trioweb._app.app import inner_of
from trioweb._limits import DEPARTURE_LOOKS, DEPARTURE_TIME
from trioweb.testing import Client, client

from ..support.unhurried import unhurried

T = TypeVar("T")

EXAMPLES = os.environ.get("TRIOWEB_MODEL_EXAMPLES")
DRAIN, CLEANUP = 16.0, 8.0  # seconds

kinds = st.fixed_dictionaries(
    {
        "beside": st.booleans(),
        "in_thread": st.sampled_from([False, False, True]),
        "when": st.sampled_from(["success", "success", "sent", "error", "always"]),
        "attempts": st.sampled_from([1, 1, 2, 3]),
    }
)
picks = st.integers(0, 1000)


class Job:
    """One task: what the model knows of it, and the real one's handle."""

    def __init__(self, kind: dict[str, Any]) -> None:
        self.beside: bool = kind["beside"]
        self.in_thread: bool = kind["in_thread"]
        self.when: str = kind["when"]
        self.attempts: int = kind["attempts"]
        self.handle: BackgroundTask
        self.expected = "open"  # or an end state; "pending" or "running" are computed
        self.failures = 0
        self.paused_until = -math.inf  # between two attempts
        # What the real one does.
        self.runs = 0
        self.is_within = False
        self.waiters_woken = 0
        self._fails = False
        self._move: Callable[[], None] | None = None
        self._told = trio.Event()

    def __repr__(self) -> str:  # pragma: no cover - only a failing game shows it
        return f"<Job {self.__dict__}>"

    @property
    def is_open(self) -> bool:
        return self.expected == "open"

    def add_to(self, tasks: BackgroundTasks, games: Game) -> None:
        retry = Retry(attempts=self.attempts, backoff=1.0, jitter=0.0)

        async def run() -> None:
            self.runs += 1
            await self.play()

        def run_in_thread() -> None:
            self.runs += 1
            games.started_thread = self

        mark = task(when=self.when, retry=retry)  # type: ignore[call-overload]
        func = mark(run_in_thread if self.in_thread else run)
        self.handle = tasks.start_soon(func) if self.beside else tasks.add_task(func)

    async def play(self) -> None:
        """Until told to end; on the way it does what it is told."""
        self.is_within = True
        try:
            while True:
                await self._told.wait()
                self._told = trio.Event()
                if self._move is None:
                    break
                self._move()
        finally:
            self.is_within = False
        if self._fails:
            raise LookupError

    def tell(self, move: Callable[[], None]) -> None:
        self._move = move
        self._told.set()

    def end(self, *, fails: bool) -> None:
        self._move, self._fails = None, fails
        self._told.set()


class Visit:
    """One request: its list, and what the model knows of that."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.brought: list[Job] = []  # by the response
        self.is_answered = False
        self.has_left = False
        self.wanted: set[str] = set()  # by their `when`
        self.status: int | None = None
        self.fails = False
        self.answer = trio.Event()
        self.tasks: BackgroundTasks
        self.client = trio.CancelScope()

    @property
    def is_over(self) -> bool:
        return self.is_answered and not any(job.is_open for job in self.jobs)

    def may_run(self) -> list[Job]:
        """All beside the list, and of the list the first."""
        if not self.is_answered:
            return []
        in_order = [job for job in self.jobs if job.is_open and not job.beside]
        return [job for job in self.jobs if job.is_open and job.beside] + in_order[:1]

    def answered(self, *, fails: bool) -> None:
        """What then waits runs or is skipped; what joins later is for either outcome."""
        if fails:
            for job in self.jobs:
                if job.when not in ("error", "always"):
                    job.expected = "skipped"
        else:
            self.jobs += self.brought
        self.is_answered = True
        self.wanted = {"success", "always"}
        self.wanted |= {"error"} if fails else set()
        self.wanted |= set() if self.has_left else {"sent"}
        self.skip()

    def skip(self) -> None:
        """Whose turn it is, if it isn't for this outcome, is skipped."""
        while unwanted := [job for job in self.may_run() if job.when not in self.wanted]:
            for job in unwanted:
                job.expected = "skipped"

    def cancel(self) -> None:
        """What is left; a thread goes on for a while, and a list behind it waits for that."""
        threads = [job for job in self.jobs if job.is_open and job.in_thread and job.is_within]
        waits = any(not job.beside for job in threads)
        for job in self.jobs:
            is_held = job in threads or (waits and not job.beside)
            if job.is_open and not is_held:
                job.expected = "cancelled"


class Game:
    """A real app, run by Trio in a thread: each move is made there, to its end."""

    def __init__(self, limits: Limits) -> None:
        self.app = App(limits=limits, drain_timeout=DRAIN, cleanup_timeout=CLEANUP)
        inner_of(self.app).run_sync = self._run_sync
        self.app.post("/inline")(self._answer)
        self.app.post("/beside")(self._answer_with_nursery)
        self.app.on_task_error(self._hear)
        self.heard: list[BackgroundTask] = []
        self.is_shut_down = False
        self.started_thread: Job
        self.client: Client
        self._opened: Visit
        self._clock = MockClock()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        trio.run(self._main, clock=self._clock)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._over = trio.Event()
        async with (
            trio.open_nursery() as self.nursery,
            client(self.app, threads=True) as self.client,
        ):
            self._ready.set()
            await self._over.wait()

    def move(self, move: Callable[[], T]) -> T:
        """Make a move on Trio's thread; returns when everybody waits."""

        async def make() -> T:
            result = move()
            await wait_all_tasks_blocked()
            return result

        return self._do(make)

    def advance(self, seconds: float) -> None:
        async def jump() -> None:
            self._clock.jump(seconds)
            await wait_all_tasks_blocked()

        self._do(jump)

    def _do(self, call: Callable[[], Awaitable[T]]) -> T:
        return trio.from_thread.run(call, trio_token=self._token)

    @property
    def now(self) -> float:
        return self._clock.current_time()

    def open(self, visit: Visit, path: str) -> None:
        self._opened = visit
        self.nursery.start_soon(self._visit, visit, path)

    async def _visit(self, visit: Visit, path: str) -> None:
        with visit.client:
            response = await self.client.post(path)
            visit.status = response.status_code

    async def _answer(self, request: Request) -> Any:
        visit = self._opened
        visit.tasks = request.tasks
        await visit.answer.wait()
        if visit.fails:
            raise HTTPException(409)
        brought = BackgroundTasks()
        for job in visit.brought:
            self.add(job, brought)
        return JSONResponse(None, background=brought)

    async def _answer_with_nursery(self, request: Request, nursery: trio.Nursery) -> Any:
        return await self._answer(request)

    def add(self, job: Job, tasks: BackgroundTasks) -> None:
        job.add_to(tasks, self)
        self.nursery.start_soon(self._wait_for, job)

    async def _wait_for(self, job: Job) -> None:
        await job.handle.wait()
        job.waiters_woken += 1

    async def _run_sync(self, call: Callable[[], Any], *, limiter: Any, **options: Any) -> Any:
        """In place of `trio.to_thread.run_sync`."""
        await limiter.acquire_on_behalf_of(call)
        call()
        try:
            await self.started_thread.play()
        finally:
            limiter.release_on_behalf_of(call)

    async def _hear(self, task: BackgroundTask, exc: BaseException) -> None:
        self.heard.append(task)

    def shut_down(self) -> None:
        self.nursery.start_soon(self._shut_down)

    async def _shut_down(self) -> None:
        await self.client.shutdown()
        self.is_shut_down = True

    def close(self) -> None:
        """However far it is: time flies from here on."""
        trio.from_thread.run_sync(self._end, trio_token=self._token)
        self._thread.join()

    def _end(self) -> None:
        self._clock.autojump_threshold = 0
        self._over.set()
        self.nursery.cancel_scope.cancel()


class TaskModel(RuleBasedStateMachine):
    """The model, and the moves."""

    @initialize(
        max_running=st.sampled_from([None, 1, 2]),
        max_pending=st.sampled_from([2, 4, 1000]),
        max_threads=st.sampled_from([1, 2]),
    )
    def begin(self, max_running: int | None, max_pending: int, max_threads: int) -> None:
        self.max_running = max_running
        self.max_pending = max_pending
        self.max_threads = max_threads
        self.visits: list[Visit] = []
        self.cancelled_at = math.inf
        self.game = Game(
            Limits(
                max_running_tasks=max_running,
                max_pending_tasks=max_pending,
                max_task_threads=max_threads,
            )
        )

    # What the model computes

    def jobs(self) -> list[Job]:
        return [job for visit in self.visits for job in visit.jobs]

    def may_run(self) -> list[Job]:
        return [job for visit in self.visits for job in visit.may_run()]

    def running(self) -> list[Job]:
        return [job for job in self.jobs() if job.is_open and job.handle.state == "running"]

    def within(self) -> list[Job]:
        return [job for job in self.running() if job.is_within]

    def pending(self) -> int:
        return sum(job.is_open for job in self.jobs()) - len(self.running())

    def _visit_of(self, job: Job) -> Visit:
        return next(visit for visit in self.visits if job in visit.jobs)

    def is_refused(self) -> bool:
        return self.cancelled_at < math.inf or self.pending() >= self.max_pending

    # Moves

    @rule(path=st.sampled_from(["/inline", "/beside"]))
    def open_request(self, path: str) -> None:
        visit, is_refused = Visit(), self.is_refused()
        self.game.move(lambda: self.game.open(visit, path))
        assert visit.status == (503 if is_refused else None)
        if not is_refused:
            self.visits.append(visit)

    @precondition(lambda self: self.visits)
    @rule(pick=picks, kind=kinds)
    def add(self, pick: int, kind: dict[str, Any]) -> None:
        self._add(_one_of(self.visits, pick), Job(kind), self.game.move)

    @precondition(lambda self: self.within())
    @rule(pick=picks, kind=kinds)
    def add_from_a_task(self, pick: int, kind: dict[str, Any]) -> None:
        adder = _one_of(self.within(), pick)
        self._add(
            self._visit_of(adder), Job(kind), lambda add: self.game.move(lambda: adder.tell(add))
        )

    def _add(self, visit: Visit, job: Job, move: Callable[[Callable[[], None]], None]) -> None:
        if visit.is_over or self.game.now >= self.cancelled_at:
            with pytest.raises(RuntimeError, match="is over"):
                job.add_to(visit.tasks, self.game)
        else:
            visit.jobs.append(job)
            move(lambda: self.game.add(job, visit.tasks))
            visit.skip()

    @precondition(lambda self: self._unanswered())
    @rule(pick=picks, kind=kinds)
    def bring(self, pick: int, kind: dict[str, Any]) -> None:
        _one_of(self._unanswered(), pick).brought.append(Job(kind))

    @precondition(lambda self: self._unanswered())
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        visit = _one_of(self._unanswered(), pick)
        visit.has_left = True
        self.game.move(visit.client.cancel)

    @precondition(lambda self: self._unanswered())
    @rule(pick=picks, fails=st.sampled_from([False, False, True]))
    def answer(self, pick: int, fails: bool) -> None:
        visit = _one_of(self._unanswered(), pick)
        visit.fails = fails
        self.game.move(visit.answer.set)
        for _ in range(DEPARTURE_LOOKS):  # it may look whether its client is there
            self.game.advance(DEPARTURE_TIME)
        visit.answered(fails=fails)
        expected = 409 if fails else 200
        assert visit.status == (None if visit.has_left else expected)

    def _unanswered(self) -> list[Visit]:
        return [visit for visit in self.visits if not visit.is_answered]

    @precondition(lambda self: self.within())
    @rule(pick=picks, fails=st.booleans())
    def end(self, pick: int, fails: bool) -> None:
        job = _one_of(self.within(), pick)
        self.game.move(lambda: job.end(fails=fails))
        job.failures += fails
        if not fails:
            job.expected = "done"
        elif job.failures == job.attempts:
            job.expected = "failed"
        else:
            job.paused_until = self.game.now + 2.0 ** (job.failures - 1)
        self._go_on()

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def pass_time(self, seconds: float) -> None:
        threads = [job for job in self.within() if job.in_thread]
        self.game.advance(seconds)
        if self.game.now >= self.cancelled_at + CLEANUP:
            for job in threads:
                job.expected = "abandoned"
        self._go_on()

    def _go_on(self) -> None:
        for visit in self.visits:
            visit.skip()
            if self.game.now >= self.cancelled_at:
                visit.cancel()

    @precondition(lambda self: self.cancelled_at == math.inf and not self._unanswered())
    @rule()
    def shut_down(self) -> None:
        self.cancelled_at = self.game.now + DRAIN
        self.game.move(self.game.shut_down)

    # What must hold

    @invariant()
    def the_states_are_those_of_the_model(self) -> None:
        for job in self.jobs():
            states = ("pending", "running") if job.is_open else (job.expected,)
            assert job.handle.state in states
            assert job.waiters_woken == (not job.is_open)

    @invariant()
    def as_many_run_as_may(self) -> None:
        running, may_run = self.running(), self.may_run()
        assert set(running) <= set(may_run)
        assert len(running) == min(len(may_run), self.max_running or len(may_run))

    @invariant()
    def each_attempt_is_made_once_and_in_time(self) -> None:
        for job in self.jobs():
            assert job.runs <= job.failures + 1
        awake = [job for job in self.running() if job.paused_until <= self.game.now]
        threads = [job for job in awake if job.in_thread]
        assert sum(job.is_within for job in threads) == min(len(threads), self.max_threads)
        assert all(job.is_within for job in awake if not job.in_thread)
        assert len(self.within()) <= len(awake)

    @invariant()
    def the_counts_add_up(self) -> None:
        counts = self.game.app.statistics()
        states = Counter(job.handle.state for job in self.jobs())
        assert counts.added == len(self.jobs())
        assert {state: getattr(counts, state) for state in states} == states
        assert set(self.game.app.tasks()) == {job.handle for job in self.running()}

    @invariant()
    def each_failure_is_heard_of_once(self) -> None:
        failed = [job.handle for job in self.jobs() if job.expected == "failed"]
        assert Counter(self.game.heard) == Counter(failed)
        assert Counter(task for task, _ in self.game.client.task_errors) == Counter(failed)

    @invariant()
    def the_shutdown_is_over_when_the_tasks_are(self) -> None:
        has_begun = self.cancelled_at < math.inf
        is_over = not any(job.is_open for job in self.jobs())
        assert self.game.is_shut_down == (has_begun and is_over)

    def teardown(self) -> None:
        try:
            self._finish()
        finally:
            self.game.close()

    def _finish(self) -> None:
        while self._unanswered():
            self.answer(pick=0, fails=False)
        if self.cancelled_at == math.inf:
            self.shut_down()
        for _ in range(int(DRAIN + CLEANUP) + 1):
            self.pass_time(1.0)
        self.the_states_are_those_of_the_model()
        self.the_counts_add_up()
        assert self.game.is_shut_down


def _one_of(choices: list[T], pick: int) -> T:
    return choices[pick % len(choices)]


TaskModel.TestCase.settings = unhurried(
    max_examples=int(EXAMPLES or 100),
    stateful_step_count=40,
    derandomize=EXAMPLES is None,
    # To make a failing game short takes minutes: for people.
    phases=[Phase.generate] if EXAMPLES is None else tuple(Phase),
)
TestTaskModel = pytest.mark.slow(TaskModel.TestCase)


def test_a_game_by_hand() -> None:
    """What random ones seldom come to."""
    game = TaskModel()
    game.begin(max_running=None, max_pending=1000, max_threads=1)
    for _ in range(2):
        game.open_request("/inline")
        game.add(-1, _kind(in_thread=True, attempts=2))
        game.add(-1, _kind(when="error"))
    game.answer(0, fails=False)
    game.answer(0, fails=True)
    game.open_request("/beside")
    game.bring(0, _kind())
    game.leave(0)
    game.answer(0, fails=False)
    game.end(0, fails=True)
    game.pass_time(1.0)
    game.end(0, fails=True)
    game.pass_time(1.0)
    game.shut_down()
    game.pass_time(DRAIN)
    game.teardown()


def _kind(**options: Any) -> dict[str, Any]:
    return {"beside": False, "in_thread": False, "when": "success", "attempts": 1, **options}
