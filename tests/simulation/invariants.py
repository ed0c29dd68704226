"""What must hold of a world that has ended, whatever happened in it.

Rules of this module:

* Each function is one promise; it looks at the records and says what is wrong.
* A promise that a plan can't tell the outcome of (a task that times out just as
  the app is cancelled) is checked as far as records tell it.
"""

from __future__ import annotations

import math

import trio

from trioweb._errors import leaves

from .world import RequestRecord, TaskRecord, World

ENDED = ("done", "failed", "timed_out", "cancelled", "abandoned", "skipped")


def check(world: World) -> None:
    """Say of everything that is wrong."""
    world.expect(not world.is_open, "the lifespan didn't close")
    _check_counts(world)
    for task in world.tasks():
        _check_task(world, task)
    for request in world.requests:
        _check_response(world, request)
        _check_outcome(world, request)
        _check_left_open(world, request)
    _check_reports(world)


def check_nothing_is_left(world: World, tasks: int) -> None:
    """As Trio sees it: no task, no scope with a deadline, no limiter's token."""
    statistics = trio.lowlevel.current_statistics()
    world.expect(statistics.tasks_living == tasks, "a Trio task is left")
    world.expect(statistics.seconds_to_next_deadline == math.inf, "a deadline is left")
    runner = world.app._lifetime.runner
    default = trio.to_thread.current_default_thread_limiter()
    tokens = runner._threads.borrowed_tokens + default.borrowed_tokens
    world.expect(tokens == 0, f"{tokens} places of threads are left")
    if runner._places is not None:
        world.expect(runner._places.borrowed_tokens == 0, "a place of max_running_tasks is left")


def _check_counts(world: World) -> None:
    world.audit()
    counts = world.app.statistics()
    world.expect(counts.pending == counts.running == 0, f"at the end: {counts}")


def _check_task(world: World, task: TaskRecord) -> None:
    """Its state, and what became of each attempt, are the same story."""
    state, attempts, plan = task.handle.state, task.attempts, task.plan
    last = attempts[-1] if attempts else "none"
    stories = {
        "done": last == "returned",
        "failed": last == "raised",
        "timed_out": last in ("cancelled", "raised", "returned") and plan.timeout is not None,
        "cancelled": last in ("none", "cancelled") or len(attempts) < plan.attempts,
        "abandoned": plan.in_thread,
        "skipped": last == "none" and plan.when != "always",
    }
    world.expect(state in ENDED, f"{task.name} ended as {state}")
    world.expect(stories.get(state, False), f"{task.name} is {state}, its attempts: {attempts}")
    world.expect(len(attempts) <= plan.attempts, f"{task.name} had {len(attempts)} attempts")
    world.expect("returned" not in attempts[:-1], f"{task.name} was tried again after it returned")
    if state == "failed" and plan.failure != "exit":
        tried_all = len(attempts) == plan.attempts
        world.expect(tried_all, f"{task.name} failed after {attempts} of {plan.attempts}")
    is_timed = task.handle.ended_at is not None or state == "skipped"
    world.expect(is_timed, f"{task.name} is {state} since nobody knows when")


def _check_outcome(world: World, request: RequestRecord) -> None:
    """Which tasks may run after what became of the handler."""
    if request.handler_ended == "raised":
        for task in request.tasks[: len(request.plan.tasks)]:
            is_for_it = task.plan.when in ("error", "always")
            world.expect(is_for_it or not task.attempts, f"{task.name} ran after a failure")
            world.expect(
                not is_for_it or task.handle.state != "skipped", f"{task.name} was skipped"
            )
    if request.complete and not request.plan.may_fail and request.status == 200:
        for task in request.tasks:
            ran_or_not = task.plan.when != "error" or not task.attempts
            world.expect(ran_or_not, f"{task.name} is for errors, there was none")
            skipped = task.handle.state == "skipped" and task.plan.when != "error"
            world.expect(not skipped, f"{task.name} was skipped after a success")


def _check_response(world: World, request: RequestRecord) -> None:
    """A client that stays has all of it, one that leaves a beginning."""
    name = f"the response of request {request.number}"
    if request.status is None:
        world.expect(not request.body, f"{name} has no head")
    elif request.status == 200:
        expected = request.expected_body
        world.expect(expected.startswith(request.body), f"{name} is {request.body!r}")
        whole = request.body == expected and not _breaks_off_itself(request)
        world.expect(whole or not request.complete, f"{name} is complete with {request.body!r}")
    else:
        _check_refusal(world, request, name)
    stayed = not request.left and not request.call_cancelled
    if stayed and not _may_break_off(request):
        world.expect(request.complete, f"{name} stopped at {request.body!r}")
    length = request.headers.get(b"content-length")
    if request.complete and length is not None:
        world.expect(int(length) == len(request.body), f"{name} isn't {length.decode()} long")


def _check_refusal(world: World, request: RequestRecord, name: str) -> None:
    refused = request.was_full or request.was_draining
    allowed = {503} if refused else {409, 500, 503} if request.plan.may_fail else set[int]()
    if request.left and request.plan.reads_body:
        allowed.add(400)
    world.expect(request.status in allowed, f"{name} has status {request.status}")
    retry = b"retry-after" in request.headers
    world.expect(retry or not refused, f"{name} doesn't say when to try again")


def _breaks_off_itself(request: RequestRecord) -> bool:
    return request.plan.response != "json" and request.plan.stream.fails


def _may_break_off(request: RequestRecord) -> bool:
    return _breaks_off_itself(request) or any(child.fails for child in request.plan.children)


def _check_left_open(world: World, request: RequestRecord) -> None:
    for dependency in request.dependencies:
        times = f"{dependency.left} times"
        world.expect(
            dependency.left == 1,
            f"the {dependency.scope} dependency of request {request.number} was left {times}",
        )
    for stream in request.streams:
        closed = stream.closed == 1
        world.expect(closed, f"a stream of request {request.number} wasn't closed")
    for channel in request.channels:
        is_closed = channel.statistics().open_receive_channels == 0
        world.expect(is_closed, f"the channel of request {request.number} wasn't closed")


def _check_reports(world: World) -> None:
    """Every failure was heard of exactly once."""
    for task in world.tasks():
        exc = task.handle.exception
        if task.handle.state in ("failed", "timed_out"):
            assert exc is not None
            for leaf in leaves(exc):
                times = world.heard[id(leaf)]
                world.expect(times == 1, f"{leaf!r} of {task.name} was heard of {times} times")
    for failure in world.failures:
        times = world.heard[id(failure)]
        shown = times == 1 or (times == 0 and id(failure) in world.chained)
        world.expect(shown, f"{failure!r} was heard of {times} times")
