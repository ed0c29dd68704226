"""Shelters and threads end when the cleanup time does."""

from __future__ import annotations

import threading

import pytest
import trio
from trio.testing import MockClock

from trioweb._concurrency.grace import Grace, ThreadAbandoned


async def hold(grace: Grace, *, seconds: float = float("inf")) -> bool:
    """Whether a shelter of `grace` ended before the time was over."""
    with trio.CancelScope() as scope, grace.shelter(scope, grace.end):
        await trio.sleep(seconds)
    return scope.cancelled_caught


async def test_a_shelter_holds_off_cancellation_until_the_end(autojump_clock: MockClock) -> None:
    grace = Grace(3)
    begin = trio.current_time()
    with trio.CancelScope() as scope:
        scope.cancel()
        grace.begin()
        await hold(grace)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(begin + 3)


async def test_what_left_its_shelter_is_left_alone(autojump_clock: MockClock) -> None:
    grace = Grace(3)
    with trio.CancelScope() as scope:
        with grace.shelter(scope, grace.end):
            pass
        grace.begin()
        await trio.sleep(60)
    assert not scope.cancelled_caught


async def test_an_end_reaches_open_shelters_and_those_of_parts(autojump_clock: MockClock) -> None:
    whole = Grace(5)
    part = whole.part()
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, whole)
        nursery.start_soon(hold, part)
        await trio.sleep(1)
        whole.begin()
    assert trio.current_time() == pytest.approx(begin + 6)


async def test_the_earlier_end_stays(autojump_clock: MockClock) -> None:
    whole = Grace(5)
    begin = trio.current_time()
    whole.end_at(begin + 2)
    part = whole.part()  # made later, it ends no later
    part.begin()
    assert await hold(part)
    assert trio.current_time() == pytest.approx(begin + 2)


async def test_the_end_of_a_part_leaves_the_whole_alone(autojump_clock: MockClock) -> None:
    whole = Grace(5)
    whole.part().end_at(trio.current_time())
    assert not await hold(whole, seconds=60)


async def test_a_thread_past_the_end_is_abandoned_and_gives_its_place_back_when_it_ends() -> None:
    limiter, grace = trio.CapacityLimiter(1), Grace(5)
    release, running = threading.Event(), trio.Event()

    def hold() -> None:
        trio.from_thread.run_sync(running.set)
        release.wait()

    async with trio.open_nursery() as nursery:

        async def abandon() -> None:
            with pytest.raises(ThreadAbandoned):
                await grace.run_in_thread(hold, limiter)

        nursery.start_soon(abandon)
        await running.wait()
        grace.end_at(trio.current_time())
    assert limiter.borrowed_tokens == 1
    release.set()
    async with limiter:
        pass  # comes free


async def test_a_thread_that_never_starts_gives_its_place_back() -> None:
    limiter, grace = trio.CapacityLimiter(1), Grace(5)
    grace.end_at(trio.current_time())
    with pytest.raises(ThreadAbandoned):
        await grace.run_in_thread(threading.get_ident, limiter)
    assert limiter.borrowed_tokens == 0


async def test_what_a_thread_returns_and_raises_comes_out() -> None:
    limiter, grace = trio.CapacityLimiter(1), Grace(5)
    assert await grace.run_in_thread(lambda: 42, limiter) == 42
    with pytest.raises(ZeroDivisionError):
        await grace.run_in_thread(lambda: 1 / 0, limiter)
    assert limiter.borrowed_tokens == 0
