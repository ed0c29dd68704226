"""Thousands of worlds, each from one seed; and proof that the simulation sees what goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio

from trioweb import _background, _exits, _grace, _response

from .simulation import plans
from .simulation.__main__ import main
from .simulation.plans import world_of
from .simulation.runner import run_world

WORLDS = 2_000
BATCHES = 20


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_promise_is_broken_in_any_world(batch: int) -> None:
    size = WORLDS // BATCHES
    broken: list[str] = []
    for seed in range(batch * size, (batch + 1) * size):
        report = run_world(seed)
        broken += [f"{problem}; replay: {report.command}" for problem in report.violations]
    assert not broken, "\n".join(broken)


def test_the_same_seed_gives_the_same_trace() -> None:
    for seed in range(20):
        first = run_world(seed)
        assert first.trace
        for _ in range(2):
            assert run_world(seed).trace == first.trace


def test_seeds_differ() -> None:
    assert len({"\n".join(run_world(seed).trace) for seed in range(30)}) == 30


def test_a_plan_prints_as_it_would_be_written() -> None:
    plan = world_of(3)
    assert eval(repr(plan), vars(plans)) == plan


def test_the_command_says_how_many_and_how_fast(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--worlds", "3", "--start", "5"]) == 0
    assert capsys.readouterr().out.startswith("3 worlds, ")


def test_a_seed_that_fails_prints_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_twice(monkeypatch)
    assert main(["--worlds", "100", "--trace"]) > 0
    assert "replay with: python -m tests.simulation --start " in capsys.readouterr().out


# Teeth: each plants one bug in the core.


def _drop_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second task of a list is never added."""
    enter = _background._Queue._enter

    def forgetful(self: _background._Queue, task: _background.BackgroundTask) -> None:
        if len(self.waiting) != 1:
            enter(self, task)

    monkeypatch.setattr(_background._Queue, "_enter", forgetful)


def _run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    call = _background.TaskRunner._call

    async def twice(self: Any, task: Any, grace: Any) -> None:
        await call(self, task, grace)
        await call(self, task, grace)

    monkeypatch.setattr(_background.TaskRunner, "_call", twice)


def _start_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks start beside the response's last byte."""
    send_last = _response._send_last

    async def early(request: Any, send: Any, body: bytes) -> None:
        if request._has_tasks():
            lifetime = request.app._lifetime
            lifetime._start(lifetime.run_tasks, request, request._grace)
        await send_last(request, send, body)

    monkeypatch.setattr(_response, "_send_last", early)


def _forget_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dependencies are never closed."""

    async def forget(self: Any, *args: Any) -> bool:
        return False

    monkeypatch.setattr(_exits.Exits, "_leave", forget)


def _swallow_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_background, "_log_failure", lambda task: None)


def _report_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    log = _background._log_failure

    def twice(task: Any) -> None:
        log(task)
        log(task)

    monkeypatch.setattr(_background, "_log_failure", twice)


def _clean_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody says when the time for cleanup ends."""
    monkeypatch.setattr(_grace.Grace, "end_at", lambda self, end: None)


def _keep_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_grace._Place, "release_on_behalf_of", lambda self, borrower: None)


def _leave_streams_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: Any) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(_response._Chunks, "_close", forget)


def _last_in_first_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def add(self: _background._Queue, task: _background.BackgroundTask) -> None:
        if self.ledger is not None:
            task._enter(self.ledger)
        self.waiting.appendleft(task)

    monkeypatch.setattr(_background._Queue, "_enter", add)


def _ignore_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_background._Queue, "keep", lambda self, outcomes: None)


def _log_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("trioweb"), "error", lambda *args, **kwargs: None)


# A generator that nobody closes is complained of by Trio, too.
@pytest.mark.parametrize(
    "plant",
    [
        _drop_a_task,
        _run_twice,
        _start_early,
        _forget_to_leave,
        _swallow_failures,
        _report_twice,
        _clean_up_for_ever,
        _keep_a_place,
        _leave_streams_open,
        _last_in_first_out,
        _ignore_outcomes,
        _log_nothing,
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_simulation_sees_a_planted_bug(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert any(run_world(seed).violations for seed in range(200))
