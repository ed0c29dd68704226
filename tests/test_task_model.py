"""The task list and its limits, against a model that is simple enough to be right.

Rules of this module:

* A script of operations runs on the real list and on the model; after each one,
  when everybody waits, the two must say the same.
* The model says how many tasks run and which ones may; which of several is first
  to get a place is Trio's choice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import wait_all_tasks_blocked

from trioweb import BackgroundTask, BackgroundTasks
from trioweb._background import TaskRunner
from trioweb._grace import Grace

Operation = Literal["add", "start soon", "adopt", "finish", "fail", "cancel"]

ADDING: tuple[Operation, ...] = ("add", "start soon", "adopt")
OPERATIONS: tuple[Operation, ...] = (*ADDING, "finish", "finish", "fail", "cancel")
scripts = st.tuples(
    st.lists(st.sampled_from(ADDING), min_size=1, max_size=5),
    st.lists(st.sampled_from(OPERATIONS), max_size=30),
)


@dataclass(eq=False)
class Job:
    """One task: what the model knows, and the real one's handle."""

    beside: bool
    gate: trio.Event = field(default_factory=trio.Event)
    fails: bool = False
    runs: int = 0
    expected: str = "open"  # "pending" or "running" are the model's to compute
    handle: BackgroundTask = field(init=False)

    async def run(self) -> None:
        self.runs += 1
        await self.gate.wait()
        if self.fails:
            raise LookupError


class Model:
    """Which tasks may run."""

    def __init__(self, max_running: int | None) -> None:
        self.jobs: list[Job] = []
        self._max_running = max_running

    def is_over(self) -> bool:
        return not self._open()

    def _open(self) -> list[Job]:
        return [job for job in self.jobs if job.expected == "open"]

    def may_run(self) -> list[Job]:
        """All beside the list, and of the list the first."""
        in_order = [job for job in self._open() if not job.beside]
        return [job for job in self._open() if job.beside] + in_order[:1]

    def running(self) -> int:
        may_run = len(self.may_run())
        return may_run if self._max_running is None else min(may_run, self._max_running)

    def cancel(self) -> None:
        for job in self._open():
            job.expected = "cancelled"


class Script:
    """One script on its way, on the real list and on the model."""

    def __init__(self, max_running: int | None) -> None:
        self._model = Model(max_running)
        self._tasks = BackgroundTasks()
        self._heard: list[BackgroundTask] = []
        self._runner = TaskRunner(
            max_threads=1,
            max_running=max_running,
            error_handlers=[self._hear],
        )
        self._tasks._queue.ledger = self._runner.ledger
        self._scope = trio.CancelScope()
        self._has_returned = False

    async def play(self, before: list[Operation], after: list[Operation]) -> None:
        async with trio.open_nursery() as nursery:
            for operation in before:
                self._do(operation)
            nursery.start_soon(self._run)
            for operation in after:
                await self._settle()
                self._do(operation)
            while not self._model.is_over():
                await self._settle()
                self._do("finish")
            await self._settle()
        self._check_end()

    async def _run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                await self._runner.run(self._tasks, "GET /", Grace(5), nursery)
        self._tasks._queue.closed = True
        self._has_returned = True

    async def _hear(self, task: BackgroundTask, exc: BaseException) -> None:
        self._heard.append(task)

    async def _settle(self) -> None:
        await wait_all_tasks_blocked()
        self._compare()

    def _do(self, operation: Operation) -> None:
        if operation in ADDING:
            self._add(operation)
        elif operation == "cancel":
            self._model.cancel()
            self._scope.cancel()
        else:
            self._end_one(fails=operation == "fail")

    def _add(self, operation: Operation) -> None:
        job = Job(beside=operation == "start soon")
        if self._has_returned or self._scope.cancel_called:
            with pytest.raises(RuntimeError, match="is over"):
                self._add_to(self._tasks, job)
        elif operation == "adopt":
            brought = BackgroundTasks()
            self._add_to(brought, job)
            self._tasks._adopt(brought)
            self._model.jobs.append(job)
        else:
            self._add_to(self._tasks, job)
            self._model.jobs.append(job)

    def _add_to(self, tasks: BackgroundTasks, job: Job) -> None:
        if job.beside:
            job.handle = tasks.start_soon(job.run)
        else:
            job.handle = tasks.add_task(job.run)

    def _end_one(self, *, fails: bool) -> None:
        """Let the one that runs longest end."""
        for job in self._model.jobs:
            if job.runs and job.expected == "open":
                job.fails = fails
                job.expected = "failed" if fails else "done"
                job.gate.set()
                return

    def _compare(self) -> None:
        model = self._model
        for job in model.jobs:
            if job.expected == "open":
                assert job.handle.state in ("pending", "running")
                assert job.runs == (job.handle.state == "running")
            else:
                assert job.handle.state == job.expected
        running = [job for job in model.jobs if job.handle.state == "running"]
        assert len(running) == model.running()
        assert set(running) <= set(model.may_run())
        assert self._has_returned == model.is_over()
        self._compare_statistics(running)

    def _compare_statistics(self, running: list[Job]) -> None:
        counts = self._runner.ledger.statistics()
        states = Counter(job.handle.state for job in self._model.jobs)
        assert counts.added == len(self._model.jobs)
        for state, count in states.items():
            assert getattr(counts, state) == count
        assert set(self._runner.ledger.running()) == {job.handle for job in running}

    def _check_end(self) -> None:
        jobs = self._model.jobs
        assert all(job.runs <= 1 for job in jobs)
        assert all(job.runs for job in jobs if job.expected != "cancelled")
        failed = [job.handle for job in jobs if job.expected == "failed"]
        assert Counter(self._heard) == Counter(failed)
        assert len(self._tasks) == 0


@settings(max_examples=300, derandomize=True, deadline=None)
@given(script=scripts, max_running=st.sampled_from([None, 1, 2]))
def test_the_list_does_what_the_model_says(
    script: tuple[list[Operation], list[Operation]], max_running: int | None
) -> None:
    async def main() -> None:
        await Script(max_running).play(*script)

    trio.run(main)
