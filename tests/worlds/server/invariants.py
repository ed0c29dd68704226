"""What must hold of a world that has ended, whatever happened in it.

Rules of this module:

* Each function is one promise; it looks at the records and says what is wrong.
* What happens at the same moment may have happened in either order.
"""

from __future__ import annotations

import logging
import math
from collections import Counter

from trioweb._errors import ClientDisconnect
from trioweb._tasks.ledger import TaskState
from trioweb.server._limits import LINGER_TIME, MIN_RATE, SWEEP_INTERVAL

from ..common.world import LogLine
from .clients import SENT_IN_PIECES
from .plans import ConnectionPlan
from .world import Answer, ConnectionRecord, Planned, RequestRecord, World

ENDED: tuple[TaskState, ...] = (
    *("done", "failed", "timed_out"),
    *("cancelled", "abandoned", "skipped"),
)
# What the server may say in the app's place.
REFUSALS = {400, 408, 503}
SLACK = 0.001  # seconds, for sums of tenths


def check(world: World) -> None:
    """Say of everything that is wrong."""
    world.expect(not world.is_open, "the lifespan didn't close")
    world.expect(world.tasks_left == 0, f"{world.tasks_left} Trio tasks are left")
    world.expect(world.next_deadline == math.inf, "a deadline is left")
    _check_end(world)
    _check_log(world)
    _check_tasks(world)
    for connection in world.connections:
        _check_order(world, connection)
        _check_calls(world, connection)
        _check_nothing_is_lost(world, connection)
        _check_time(world, connection)


def _check_end(world: World) -> None:
    """The server is over in time."""
    plan = world.plan
    bound = min(
        world.shut_down_at + plan.drain_timeout + plan.cleanup_timeout,
        world.cancelled_at + plan.cleanup_timeout,
    )
    late = world.ended_at - bound - plan.lifespan_seconds
    world.expect(late <= 1 + SLACK, f"the end of the server came {late:g} s after its time")


def _check_log(world: World) -> None:
    """Bugs are none, and each failure was planned."""
    for line in world.log:
        world.expect(line.level < logging.CRITICAL, f"the log says: {line.text}")
        if line.level == logging.ERROR:
            is_due = _was_planned(world, line.exc) or _has_no_end(world, line)
            world.expect(is_due, f"the log says: {line.text} ({line.exc!r})")


def _was_planned(world: World, exc: BaseException | None) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(_was_planned(world, inner) for inner in exc.exceptions)
    # Who leaves as the app is cancelled is heard of, too.
    is_departure = isinstance(exc, ClientDisconnect) and world.app_cancelled_at < math.inf
    return isinstance(exc, Planned) or is_departure


def _has_no_end(world: World, line: LogLine) -> bool:
    """A response that the app doesn't end, as it failed or was cancelled on its way."""
    if not line.text.endswith("the app returned before the end of its response"):
        return False
    number = int(line.text.partition(":")[0].rpartition("/")[2])
    return world.requests[number].failed or line.at >= world.app_cancelled_at


def _check_tasks(world: World) -> None:
    """Each task of the app is in exactly one end state, and that is the truth."""
    counts = world.app.statistics()
    states = Counter(task.handle.state for task in world.tasks())
    for state in ENDED:
        told = getattr(counts, state)
        world.expect(told == states[state], f"{states[state]} tasks are {state}, told were {told}")
    world.expect(counts.added == sum(1 for _ in world.tasks()), f"not all were added: {counts}")
    for task in world.tasks():
        state, runs = task.handle.state, task.runs
        story = {
            "done": runs == ["returned"],
            "failed": runs == ["raised"],
            "cancelled": runs in ([], ["cancelled"], ["returned"], ["raised"]),
            "skipped": runs == [],
        }
        world.expect(story.get(state, False), f"{task.handle!r} is {state}, its runs: {runs}")


def _answers(connection: ConnectionRecord) -> list[tuple[RequestRecord | None, Answer]]:
    requests = [*connection.requests, *[None] * len(connection.answers)]
    return list(zip(requests, connection.answers, strict=False))


def _check_order(world: World, connection: ConnectionRecord) -> None:
    """Each answer is that to its request, once, in order, byte for byte; or a refusal, the last."""
    is_at_fault = connection.fault_at < math.inf
    ended_early = world.app_cancelled_at < math.inf
    for request, answer in _answers(connection):
        if request is None:
            name = f"what came after the answers to request {connection.requests[-1].number}"
            world.expect(answer.status in REFUSALS, f"{name} has status {answer.status}")
            world.expect(answer is connection.answers[-1], f"{name} isn't the last")
            continue
        name = f"the answer to request {request.number}"
        if answer.status == 200:
            _check_good_answer(world, request, answer, name)
        elif answer.status == 500:
            # Where it came of a cancellation there is nobody who would say 503.
            was_cut_off = answer.began_at >= world.app_cancelled_at
            is_due = request.failed or was_cut_off or is_at_fault
            world.expect(is_due, f"{name} has status 500")
        else:
            world.expect(answer.status in REFUSALS, f"{name} has status {answer.status}")
        if answer.headers.get(b"connection") == b"close":
            world.expect(answer is connection.answers[-1], f"something follows {name}, the last")
        if not answer.is_complete:
            broke = request.failed or is_at_fault or ended_early
            world.expect(broke or _is_slow(connection), f"{name} broke off")
            world.expect(answer is connection.answers[-1], f"{name} broke off, more followed")
    if connection.problem is not None:
        broke = any(request.failed for request in connection.requests)
        is_ours = broke or ended_early or is_at_fault or _is_slow(connection)
        world.expect(is_ours, f"a client got what is no HTTP: {connection.problem}")


def _check_good_answer(world: World, request: RequestRecord, answer: Answer, name: str) -> None:
    number = answer.headers.get(b"x-number")
    world.expect(number == b"%d" % request.number, f"{name} is that to request {number!r}")
    expected = b"" if request.plan.method == "HEAD" else request.content
    world.expect(expected.startswith(answer.body), f"{name} is {answer.body[:50]!r}…")
    if answer.is_complete:
        world.expect(answer.body == expected, f"{name} has {len(answer.body)} bytes, and an end")


def _check_calls(world: World, connection: ConnectionRecord) -> None:
    """One call for each request, one after the other, with all of its body."""
    before = -math.inf
    for request in connection.requests:
        name = f"request {request.number}"
        world.expect(request.calls <= 1, f"{name} was served {request.calls} times")
        if request.calls:
            world.expect(request.called_at >= before, f"{name} was served before its turn")
            # Until it has returned, the next one waits.
            before = request.returned_at if request.returned_at < math.inf else request.called_at
        if request.received is not None:
            world.expect(request.received == request.body, f"{name} came in other words")


def _is_slow(connection: ConnectionRecord) -> bool:
    """Whether it may be taken for gone: near the rate, or with gaps as long as a limit."""
    plan = connection.plan
    reads_slowly = plan.read_size < 4 * MIN_RATE * plan.read_seconds
    return reads_slowly or plan.send_seconds > 0.1 or _dribbles(plan)


def _dribbles(plan: ConnectionPlan) -> bool:
    return plan.send_seconds > 0 and min(plan.send_sizes, default=SENT_IN_PIECES) < 100


def _reading_time(request: RequestRecord, plan: ConnectionPlan) -> float:
    """For how long its client reads the answer, at most."""
    pieces = request.plan.size / min(plan.read_size, plan.capacity) + request.plan.pieces + 3
    return pieces * plan.read_seconds


def _check_nothing_is_lost(world: World, connection: ConnectionRecord) -> None:
    """Whose head was read is answered, if the client stays and there is time enough."""
    if connection.fault_at < math.inf or _is_slow(connection):
        return
    for position, request in enumerate(connection.requests):
        if max(request.read_at, request.sent_at) >= world.app_cancelled_at:
            continue
        if request.failed:
            continue
        seconds = _reading_time(request, connection.plan)
        if request.calls and request.made_at + seconds >= world.app_cancelled_at:
            continue
        if connection.was_reset and (connection.plan.ahead or connection.plan.ends_with_junk):
            # What it had sent already met a connection that closes; it has no promise.
            continue
        lost = f"request {request.number} was read, and its answer is lost"
        answer = connection.answers[position] if position < len(connection.answers) else None
        if answer is None or not answer.is_complete:
            world.violate(lost)
        elif request.calls:
            world.expect(answer.status == 200, f"{lost}: {answer.status} is there instead")


def _check_time(world: World, connection: ConnectionRecord) -> None:
    """The server has closed its end, and no later than the limits say."""
    if connection.theirs is None:
        return
    closed_at = connection.theirs.closed_at
    number = connection.requests[0].number
    if closed_at is None:
        world.violate(f"the connection of request {number} was left open")
        return
    plan = world.plan
    busy = [
        max(request.made_at if request.made_at < math.inf else request.called_at, 0)
        + request.plan.seconds
        + request.plan.cleanup
        + request.plan.pieces * request.plan.piece_seconds
        + _reading_time(request, connection.plan)
        for request in connection.requests
        if request.calls
    ]
    stopped = [connection.stopped_at] if connection.stopped_at < math.inf else []
    since = max([connection.began_at, *busy, *stopped])
    limit = max(plan.head_timeout, plan.body_timeout, plan.write_timeout, plan.idle_timeout)
    bytes_bought = sum(map(_size, connection.requests)) / MIN_RATE
    bound = since + limit + min(bytes_bought, limit) + 2 * LINGER_TIME + 2 * SWEEP_INTERVAL
    late = closed_at - bound
    world.expect(late <= SLACK, f"the connection of request {number} was open {late:g} s too long")


def _size(request: RequestRecord) -> int:
    return request.plan.body + request.plan.size
