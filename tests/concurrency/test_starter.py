"""Calls that share a task as long as they don't wait: nobody can tell but by the clock."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb._concurrency.starter import Starter

var = contextvars.ContextVar("var", default="nobody's")


def scopeless(begin: Callable[..., Any]) -> Callable[..., Any]:
    """For what doesn't look at the scopes that it begins in."""
    return lambda scopes, *args: begin(*args)


class Spawned(trio.abc.Instrument):
    """Counts the tasks that Trio is asked for."""

    count = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@asynccontextmanager
async def starter() -> AsyncIterator[tuple[Starter, Spawned]]:
    """One, and the count; both end with all that was started."""
    spawned = Spawned()
    trio.lowlevel.add_instrument(spawned)
    try:
        async with trio.open_nursery() as nursery:
            yield Starter(nursery), spawned
    finally:
        trio.lowlevel.remove_instrument(spawned)


class Log:
    """What happened, in order."""

    def __init__(self) -> None:
        self.said: list[object] = []

    async def say(self, what: object) -> None:
        self.said.append(what)

    async def say_after(self, what: object, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await wait()
        finally:
            self.said.append(what)


async def test_those_that_never_wait_share_a_task_in_the_order_started(
    autojump_clock: MockClock,
) -> None:
    log, count = Log(), 50
    async with starter() as (start, spawned):
        for number in range(count):
            start.start_soon(scopeless(partial(log.say, number)))
        assert log.said == []  # soon isn't now
        await wait_all_tasks_blocked()
    assert log.said == list(range(count))
    assert spawned.count == 1


async def test_who_comes_later_is_started_too(autojump_clock: MockClock) -> None:
    log = Log()
    async with starter() as (start, _):
        for number in range(3):
            start.start_soon(scopeless(partial(log.say, number)))
            await wait_all_tasks_blocked()
            assert log.said == list(range(number + 1))


async def test_one_that_waits_holds_nobody_up(autojump_clock: MockClock) -> None:
    log, gate = Log(), trio.Event()
    async with starter() as (start, spawned):
        start.start_soon(scopeless(partial(log.say, "first")))
        start.start_soon(scopeless(partial(log.say_after, "second", gate.wait)))
        start.start_soon(scopeless(partial(log.say_after, "third", partial(trio.sleep, 1))))
        start.start_soon(scopeless(partial(log.say, "fourth")))
        await wait_all_tasks_blocked()
        assert log.said == ["first", "fourth"]
        await trio.sleep(2)
        gate.set()
        await wait_all_tasks_blocked()
    assert log.said == ["first", "fourth", "third", "second"]
    assert spawned.count == 3


async def test_what_is_done_at_once_leaves_nothing_to_await(autojump_clock: MockClock) -> None:
    log, gate = Log(), trio.Event()
    async with starter() as (start, spawned):
        start.start_soon(scopeless(log.said.append), "first")
        start.start_soon(scopeless(log.say_after), "waits", gate.wait)
        start.start_soon(scopeless(log.said.append), "third")
        await wait_all_tasks_blocked()
        assert log.said == ["first", "third"]
        gate.set()
    assert log.said == ["first", "third", "waits"]
    assert spawned.count == 2


@pytest.mark.parametrize("waiting", [0, 1, 50, 100])
async def test_all_begin_within_two_passes(waiting: int, autojump_clock: MockClock) -> None:
    """However many there are and wait: a backlog would grow for as long as so many come."""
    begun = 0

    async def begin(waits: bool) -> None:
        nonlocal begun
        begun += 1
        if waits:
            await trio.sleep(1)

    async with starter() as (start, spawned):
        for passes in range(1, 20):
            for number in range(100):
                start.start_soon(scopeless(partial(begin, number < waiting)))
            # What is to run in one pass has no order: so many see to it that they had two.
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            assert begun == 100 * passes
    assert spawned.count == 19 * (100 if waiting else 1)


async def test_the_task_that_they_share_keeps_nobodys_context(autojump_clock: MockClock) -> None:
    log = Log()

    async def look() -> None:
        await log.say(trio.lowlevel.current_task().context.copy().run(var.get))

    async with starter() as (start, _):
        var.set("one's")
        start.start_soon(scopeless(look))
    assert log.said == ["nobody's"]


async def test_each_has_the_context_of_whoever_started_it(autojump_clock: MockClock) -> None:
    log = Log()

    async def write() -> None:
        await log.say(var.get())
        var.set("overwritten")

    async with starter() as (start, _):
        for name in ("one's", "two's"):
            var.set(name)
            start.start_soon(scopeless(write))
        var.set("later")
    assert log.said == ["one's", "two's"]
    assert var.get() == "later"


async def test_one_may_start_others(autojump_clock: MockClock) -> None:
    log = Log()
    async with starter() as (start, _):

        async def parent() -> None:
            start.start_soon(scopeless(partial(log.say, "child")))
            await log.say("parent")

        start.start_soon(scopeless(parent))
        start.start_soon(scopeless(partial(log.say, "other")))
    assert log.said == ["parent", "other", "child"]


@pytest.mark.parametrize("waits", [False, True])
async def test_one_that_fails_cancels_the_nursery_and_the_others_are_made(
    waits: bool, autojump_clock: MockClock
) -> None:
    log = Log()

    async def fail() -> None:
        if waits:
            await trio.lowlevel.checkpoint()
        raise LookupError

    with pytest.RaisesGroup(LookupError):
        async with starter() as (start, _):
            start.start_soon(scopeless(fail))
            start.start_soon(scopeless(partial(log.say, "made")))
            start.start_soon(scopeless(partial(log.say_after, "cancelled", trio.sleep_forever)))
            start.start_soon(scopeless(partial(log.say, "made, too")))
    assert sorted(map(str, log.said)) == ["cancelled", "made", "made, too"]


async def test_in_a_cancelled_nursery_each_is_begun_and_cancelled(
    autojump_clock: MockClock,
) -> None:
    log = Log()
    async with trio.open_nursery() as nursery:
        start = Starter(nursery)
        for number in range(3):
            start.start_soon(scopeless(partial(log.say_after, number, trio.lowlevel.checkpoint)))
        nursery.cancel_scope.cancel()
    assert sorted(map(str, log.said)) == ["0", "1", "2"]
    assert nursery.cancel_scope.cancelled_caught


async def test_a_scope_that_is_left_open_is_nobody_elses(autojump_clock: MockClock) -> None:
    log, scope = Log(), trio.CancelScope()

    async def leave_open() -> None:
        scope.__enter__()

    async with starter() as (start, _):
        start.start_soon(scopeless(leave_open))
        start.start_soon(scopeless(partial(log.say_after, "slept", partial(trio.sleep, 1))))
        await wait_all_tasks_blocked()
        scope.cancel()
        await trio.sleep(0.5)
        await log.say("not cancelled")
    assert log.said == ["not cancelled", "slept"]
