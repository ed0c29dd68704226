"""What must hold of a world that has ended, whatever happened in it.

Rules of this module:

* Each function is one promise; it looks at the records and says what is wrong.
* It says who may cancel what, and when: whatever nobody cancelled has run to its
  end.  "Cancelled" without a reason is as wrong as "lost".
* Time is virtual, so what is due at a time is due then and not later.  Of what
  happens at the same time either may be first.
* A promise that a plan can't tell the outcome of (a task that times out just as
  the app is cancelled) is checked as far as records tell it.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter

import trio

from trioweb import BackgroundTask, _limits
from trioweb._app.app import lifetime_of
from trioweb._errors import leaves
from trioweb._lifetime.events import (
    DrainBegan,
    RequestAnswered,
    RequestBegan,
    RequestEnded,
    ShutdownReported,
    TaskAdded,
    TaskBegan,
    TaskEnded,
)

from ..common.world import LogLine
from .fates import Fate, fate, may_be_cancelled_at
from .plans import ROUTE_TIMEOUT
from .world import Attempt, RequestRecord, TaskRecord, World

ENDED = ("done", "failed", "timed_out", "cancelled", "abandoned", "skipped")
# What is never tried again, whatever the Retry says.
FINAL = ("exit", "stray", "closed")

EPSILON = 1e-6  # seconds
BACKOFF, JITTER = 1.0, 0.1  # of a Retry, by default
TOLD_IN = 0.1  # seconds that `on_task_error` takes, if it does

_COUNT = re.compile("([0-9]+) (finished|failed|timed out|cancelled|abandoned)")
_REPORTED = {"done": "finished", "timed_out": "timed out"}
_UNREPORTED = ("skipped", "pending", "running")


def check(world: World) -> None:
    """Say of everything that is wrong."""
    world.expect(not world.is_open, "the lifespan didn't close")
    _check_counts(world)
    _check_times(world)
    for request in world.requests:
        for task in request.tasks:
            _check_task(world, task)
            _check_attempts(world, task)
            _check_end(world, request, task)
        _check_response(world, request)
        _check_handler(world, request)
        _check_outcome(world, request)
        _check_starts(world, request)
        _check_left_open(world, request)
    if world.listens:
        _check_events(world)
    _check_failures(world)
    _check_closing_report(world)
    _check_offenders(world)


def _check_events(world: World) -> None:
    """Who listens hears of everything once, in its order, and nothing of a request past its end."""
    kinds = [type(event) for event in world.events]
    for once in (DrainBegan, ShutdownReported):
        count = kinds.count(once)
        # As the report itself: the app may have been cancelled before the server knew of its start.
        world.expect(world.has_started <= count <= 1, f"{count} events {once.__name__}")
    of_tasks: dict[BackgroundTask, list[str]] = {}
    of_requests: dict[object, list[str]] = {}
    for event in world.events:
        name = type(event).__name__
        if isinstance(event, (TaskAdded, TaskBegan, TaskEnded)):
            state = f" {event.state}" if isinstance(event, TaskEnded) else ""
            of_tasks.setdefault(event.task, []).append(name + state)
            of_requests.setdefault(event.task.label, []).append(name)
        elif isinstance(event, (RequestBegan, RequestAnswered, RequestEnded)):
            of_requests.setdefault(event.request, []).append(name)
    for task, heard in of_tasks.items():
        began = ["TaskBegan"] if task.started_at is not None else []
        expected = ["TaskAdded", *began, f"TaskEnded {task.state}"]
        world.expect(heard == expected, f"of {task!r} one heard {heard}")
    for heard in of_requests.values():
        world.expect(heard[0] == "RequestBegan", f"a request began with {heard[0]}")
        world.expect(heard[-1] == "RequestEnded", f"a request ended with {heard[-1]}")
        world.expect(heard.count("RequestEnded") == heard.count("RequestBegan") == 1, f"{heard}")
        world.expect(heard.count("RequestAnswered") <= 1, f"a request was answered twice: {heard}")
    handles = {task.handle for task in world.tasks()}
    world.expect(handles == of_tasks.keys(), "not all tasks were heard of, or others")


def check_nothing_is_left(world: World, tasks: int) -> None:
    """As Trio sees it: no task, no scope with a deadline, no limiter's token."""
    statistics = trio.lowlevel.current_statistics()
    world.expect(statistics.tasks_living == tasks, "a Trio task is left")
    world.expect(statistics.seconds_to_next_deadline == math.inf, "a deadline is left")
    runner = lifetime_of(world.app).runner
    default = trio.to_thread.current_default_thread_limiter()
    tokens = runner.threads.borrowed_tokens + default.borrowed_tokens
    world.expect(tokens == 0, f"{tokens} places of threads are left")
    if runner.places is not None:
        world.expect(runner.places.borrowed_tokens == 0, "a place of max_running_tasks is left")


def _check_counts(world: World) -> None:
    world.audit()
    counts = world.app.statistics()
    world.expect(counts.pending == counts.running == 0, f"at the end: {counts}")


def _check_times(world: World) -> None:
    """How long it takes until the user's lifespan closes is bounded."""
    plan = world.plan
    if not world.has_started:
        return
    cancelled = world.cancelled_at + plan.cleanup_timeout
    shut_down = world.shut_down_at + plan.drain_timeout + plan.cleanup_timeout
    bound = max(min(cancelled, shut_down), world.held_until) + 1
    took = f"the end took until {world.lifespan_left_at:g} s of {bound:g}"
    world.expect(world.lifespan_left_at <= bound, took)


# Tasks


def _check_task(world: World, task: TaskRecord) -> None:
    """Its state, and what became of each attempt, are the same story."""
    state, hows, plan = task.handle.state, task.hows, task.plan
    last = hows[-1] if hows else "none"
    ended_at = task.attempts[-1].ended_at if hows else -math.inf
    task_ended_at = -math.inf if task.handle.ended_at is None else task.handle.ended_at
    has_ended, ended_before = ended_at <= task_ended_at, ended_at < task_ended_at - EPSILON
    is_between = last in ("raised", "broken") and len(hows) < plan.attempts
    stories = {
        "done": last == "returned",
        "failed": last in ("raised", "broken"),
        "timed_out": last not in ("none", "running") and plan.timeout is not None,
        "cancelled": (last in ("none", "cancelled") or is_between) and has_ended,
        "abandoned": plan.in_thread and not ended_before,
        "skipped": last == "none" and plan.when != "always",
    }
    is_stray = last == "raised" and plan.failure in ("stray", "closed")
    tells = stories.get(state, False) or (is_stray and state == "cancelled")
    world.expect(state in ENDED, f"{task.name} ended as {state}")
    world.expect(tells, f"{task.name} is {state}, its attempts: {hows}")
    world.expect(len(hows) <= plan.attempts, f"{task.name} had {len(hows)} attempts")
    world.expect("returned" not in hows[:-1], f"{task.name} was tried again after it returned")
    if state == "failed" and plan.failure not in FINAL and last != "broken":
        tried_all = len(hows) == plan.attempts
        world.expect(tried_all, f"{task.name} failed after {hows} of {plan.attempts}")
    is_timed = task.handle.ended_at is not None
    world.expect(is_timed, f"{task.name} is {state} since nobody knows when")
    world.expect(task.waited, f"who waits for {task.name} waits for ever")


def _check_attempts(world: World, task: TaskRecord) -> None:
    """Each took as long as it was to take, and began as long after the one before."""
    plan = task.plan
    planned = plan.seconds + plan.cleanup
    due = world.app_cancelled_at
    for i, attempt in enumerate(task.attempts):
        name, took = f"attempt {i + 1} of {task.name}", attempt.seconds
        in_full = abs(took - planned) < EPSILON or attempt.how not in ("returned", "raised")
        is_cut = plan.swallow != "no" and took < planned
        world.expect(in_full or is_cut, f"{name} took {took:g} s of {planned:g}")
        if plan.timeout is not None:
            most = plan.timeout + plan.cleanup
            world.expect(took <= most + EPSILON, f"{name} took {took:g} s of at most {most:g}")
        if not plan.in_thread:
            last = max(attempt.began_at, due) + plan.cleanup
            world.expect(attempt.ended_at <= last + EPSILON, f"{name} outlasted its cancellation")
    for i, (before, after) in enumerate(zip(task.attempts, task.attempts[1:], strict=False)):
        pause, least = after.began_at - before.ended_at, BACKOFF * 2**i
        most = math.inf if plan.in_thread else least * (1 + JITTER)
        in_time = least - EPSILON <= pause <= most + EPSILON
        world.expect(in_time, f"{task.name} was tried again after {pause:g} s")
    if task.handle.state == "timed_out":
        assert plan.timeout is not None
        took = task.attempts[-1].seconds
        world.expect(took >= plan.timeout - EPSILON, f"{task.name} timed out after {took:g} s")


def _check_end(world: World, request: RequestRecord, task: TaskRecord) -> None:
    """Nobody is cancelled without a cause, nor abandoned without time to end in."""
    handle, cause = task.handle, may_be_cancelled_at(world, request)
    if handle.ended_at is None:
        return
    ended_at = handle.ended_at + EPSILON
    if handle.state == "cancelled" and not (task.hows and task.plan.failure in FINAL):
        why = f"at {ended_at:g}, not before {cause:g}"
        world.expect(ended_at >= cause, f"{task.name} was cancelled {why}")
    if handle.state == "abandoned":
        due = min(cause, request.child_failed_at) + world.plan.cleanup_timeout
        world.expect(ended_at >= due, f"{task.name} was abandoned at {ended_at:g} before {due:g}")


def _check_starts(world: World, request: RequestRecord) -> None:
    """Who has nobody to wait for starts at once: beside the list, or as its next."""
    plan = world.plan
    unhindered = plan.max_running_tasks is None and plan.task_errors != "sync"
    if not unhindered or request.call_over_at >= request.call_cancelled_at:
        return
    free_at = request.call_over_at  # the list, for the next in order
    for task in request.tasks:
        ready_at = max(task.added_at, request.call_over_at if task.plan.beside else free_at)
        _check_start(world, task, ready_at, may_be_cancelled_at(world, request))
        if not task.plan.beside:
            free_at = max(free_at, _told_at(world, task))


def _told_at(world: World, task: TaskRecord) -> float:
    """When the list can go on after this one, whose failure somebody has to be told of."""
    ended_at = task.handle.ended_at or 0.0
    is_told = task.handle.state in ("failed", "timed_out") and world.plan.task_errors != "log"
    return ended_at + (TOLD_IN if is_told else 0.0)


def _check_start(world: World, task: TaskRecord, ready_at: float, cause: float) -> None:
    started_at = task.handle.started_at
    if started_at is not None:
        late = started_at - ready_at
        world.expect(late <= EPSILON, f"{task.name} started {late:g} s after it could")
    elif task.handle.state == "cancelled":
        world.expect(ready_at >= cause - EPSILON, f"{task.name} never started, though it could")


# Requests


def _check_handler(world: World, request: RequestRecord) -> None:
    """It is cancelled for a reason, and at once then."""
    handler, plan = request.handler, request.plan
    if handler is None:
        return
    world.expect(handler.how != "running", f"handler {request.number} never ended")
    if plan.route == "threaded":
        return
    cause = _handler_cancelled_at(world, request)
    last = max(handler.began_at, cause) + plan.cleanup
    late = handler.ended_at - last
    world.expect(late <= EPSILON, f"handler {request.number} ended {late:g} s late")
    if handler.how == "cancelled":
        has_cause = cause <= handler.ended_at + EPSILON
        world.expect(has_cause, f"handler {request.number} was cancelled without a cause")


def _handler_cancelled_at(world: World, request: RequestRecord) -> float:
    departure = math.inf
    if request.plan.is_watched:
        departure = max(request.left_at, request.began_at + _limits.DEPARTURE_GRACE)
    timeout = ROUTE_TIMEOUT if request.plan.route == "timeout" else math.inf
    return min(
        world.app_cancelled_at,
        request.call_cancelled_at,
        request.child_failed_at,
        departure,
        request.began_at + timeout,
    )


def _check_outcome(world: World, request: RequestRecord) -> None:
    """Which tasks run after what became of the handler."""
    outcome = fate(world, request, _handler_cancelled_at(world, request))
    # Before the last byte somebody looks whether the client is there, if a task asks by then:
    # one that a task adds later has no answer but that, and else takes the client for there.
    # Those of a handler that failed were skipped before anybody looked.
    was_asked = any(
        task.plan.when == "sent"
        and not task.adder
        and not (outcome == "failure" and task.handle.state == "skipped")
        for task in request.tasks
    )
    for task in request.tasks:
        _check_skipped(world, request, task, outcome)
        if task.plan.when == "sent" and task.attempts and was_asked:
            seen = request.left_at >= request.last_byte_at - EPSILON
            world.expect(seen and request.all_sent, f"{task.name} ran, but nothing was sent")


def _check_skipped(world: World, request: RequestRecord, task: TaskRecord, outcome: Fate) -> None:
    when, is_skipped = task.plan.when, task.handle.state == "skipped"
    if outcome == "failure" and task.needs_success:
        world.expect(not task.attempts, f"{task.name} ran after a failure")
    if outcome == "failure" and when in ("error", "always"):
        world.expect(not is_skipped, f"{task.name} was skipped after a failure")
    if outcome == "success" and when in ("success", "always"):
        world.expect(not is_skipped, f"{task.name} was skipped after a success")
    if outcome == "success" and request.complete and not request.plan.may_fail:
        is_for_it = when != "error"
        world.expect(is_for_it or not task.attempts, f"{task.name} is for errors, there was none")
        world.expect(not (is_for_it and is_skipped), f"{task.name} was skipped after a delivery")


def _check_response(world: World, request: RequestRecord) -> None:
    """A client that stays has all of it, one that leaves a beginning."""
    name = f"the response of request {request.number}"
    if request.status is None:
        world.expect(not request.body, f"{name} has no head")
    elif request.status == (204 if request.plan.response == "empty" else 200):
        expected = request.expected_body
        world.expect(expected.startswith(request.body), f"{name} is {request.body!r}")
        whole = request.body == expected and not _breaks_off_itself(request)
        world.expect(whole or not request.complete, f"{name} is complete with {request.body!r}")
    else:
        _check_refusal(world, request, name)
    ended_at = min(request.call_cancelled_at, world.app_cancelled_at)
    undisturbed = not request.left and request.call_over_at < ended_at
    if undisturbed and not request.plan.may_break_off:
        world.expect(request.complete, f"{name} stopped at {request.body!r}")
    _check_length(world, request, name)


def _check_length(world: World, request: RequestRecord, name: str) -> None:
    length = request.headers.get(b"content-length")
    if request.status == 204:
        world.expect(length is None and not request.body, f"{name} has a body")
    elif request.plan.method == "HEAD":
        size = len(request.content)
        is_whole = length is None or request.status != 200 or int(length) == size
        world.expect(is_whole and not request.body, f"{name} to HEAD isn't as to GET")
    elif request.complete and length is not None:
        world.expect(int(length) == len(request.body), f"{name} isn't {length.decode()} long")


def _check_refusal(world: World, request: RequestRecord, name: str) -> None:
    plan, refused = request.plan, request.was_full or request.was_draining
    allowed = {503} if refused else {409, 500, 503} if plan.may_fail else set[int]()
    if request.left and (plan.reads_body or plan.is_watched):
        allowed.add(400)
    if plan.reads_body and len(request.request_body) > world.plan.max_body_size:
        allowed.add(413)
    if request.call_over_at >= world.app_cancelled_at:
        allowed.add(503)
    world.expect(request.status in allowed, f"{name} has status {request.status}")
    retry = b"retry-after" in request.headers
    world.expect(retry or not refused, f"{name} doesn't say when to try again")


def _breaks_off_itself(request: RequestRecord) -> bool:
    return request.plan.stream.fails and request.plan.method != "HEAD"


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


# What the log says


def _check_failures(world: World) -> None:
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


def _check_closing_report(world: World) -> None:
    """One record says what became of whoever ended between the shutdown's begin and itself."""
    reports = [line for line in world.log if line.text.startswith("stopped after")]
    expected = 1 if world.has_started else len(reports[:1])
    world.expect(len(reports) == expected, f"{len(reports)} reports of the shutdown")
    for report in reports:
        _check_report(world, report)


def _check_report(world: World, report: LogLine) -> None:
    begin = min(world.shut_down_at, world.cancelled_at)
    told = {how: int(count) for count, how in _COUNT.findall(report.text.partition("(")[0])}
    within = [task for task in world.tasks() if _ended_between(task, begin, report.at)]
    surely = Counter(_told_as(task) for task in within if _ended_inside(task, begin, report.at))
    at_most = Counter(_told_as(task) for task in within)
    for how in ("finished", "failed", "timed out", "cancelled", "abandoned"):
        count = told.get(how, -1)
        is_right = surely[how] <= count <= at_most[how]
        world.expect(is_right, f"{count} {how} reported of {surely[how]} to {at_most[how]}")
    casualties = [task for task in within if _ended_inside(task, begin, report.at)]
    casualties = [task for task in casualties if task.handle.state != "done"]
    named = sum(f"{task.name} of" in report.text for task in casualties)
    enough = named >= min(len(casualties), _limits.MAX_NAMED_TASKS)
    world.expect(enough, f"who isn't done isn't in the report: {named} of {len(casualties)} are")
    level = logging.WARNING if casualties else report.level
    world.expect(report.level == level, f"the report of {casualties} is no warning")


def _ended_between(task: TaskRecord, begin: float, end: float) -> bool:
    ended_at = task.handle.ended_at
    is_reported = task.handle.state not in _UNREPORTED
    return is_reported and ended_at is not None and begin <= ended_at <= end


def _ended_inside(task: TaskRecord, begin: float, end: float) -> bool:
    ended_at = task.handle.ended_at
    return ended_at is not None and begin < ended_at < end


def _told_as(task: TaskRecord) -> str:
    return _REPORTED.get(task.handle.state, task.handle.state)


def _check_offenders(world: World) -> None:
    """Who is behind a shield past the end of cleanup is named, at once and every so often."""
    due = world.cleaned_up_at + _limits.LANDING_TIME
    for request in world.requests:
        who = f"{request.plan.method} {request.plan.path}/{request.number}"
        if request.plan.route != "threaded" and request.handler is not None:
            _check_named(world, who, request.handler, due)
        for task in request.tasks:
            if not task.plan.in_thread:
                for attempt in task.attempts:
                    _check_named(world, f"task {task.name} of {who}", attempt, due)


def _check_named(world: World, who: str, attempt: Attempt, due: float) -> None:
    if attempt.ended_at <= due + EPSILON:
        return
    lines = [line for line in world.log if who in line.text and "still" in line.text]
    at_once = any(line.at <= due + EPSILON for line in lines)
    world.expect(at_once, f"{who} holds the end up, and isn't named")
    times = math.ceil((attempt.ended_at - due) / _limits.OFFENDER_INTERVAL - EPSILON)
    is_ours = not any("the server still runs" in line.text for line in lines)
    often = len(lines) >= times or not is_ours
    world.expect(often, f"{who} is named {len(lines)} times, not {times}")
