"""A coroutine in a copy of the context: what goes in and out of it."""

from __future__ import annotations

import contextvars
import types
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb._concurrency.context import begin_in, frames_of, in_context

T = TypeVar("T")

var = contextvars.ContextVar("var", default="outside")


def in_own_context(call: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    return in_context(contextvars.copy_context(), call)


@types.coroutine
def trap(what: str) -> Generator[str, str, str]:
    return (yield what)


async def writes() -> str:
    var.set("inside")
    first = await trap("first")
    try:
        second = await trap("second")
    except LookupError:
        second = "an exception"
    return f"{first}, {second}, {var.get()}"


def thrown_into(driven: Coroutine[str, str, str], exc: Exception) -> str:
    """What a coroutine returns that ends at this exception."""
    # In a with block, the tracer of Python 3.11 loses what follows a throw.
    done = pytest.raises(StopIteration, driven.throw, exc)  # noqa: RUF061
    return str(done.value.value)


def test_what_it_waits_for_goes_out_and_what_comes_goes_in() -> None:
    driven = in_own_context(writes())
    assert driven.send(None) == "first"
    assert driven.send("1") == "second"
    with pytest.raises(StopIteration) as done:
        driven.send("2")
    assert done.value.value == "1, 2, inside"
    assert var.get() == "outside"


def test_an_exception_reaches_it_where_it_waits() -> None:
    driven = in_own_context(writes())
    driven.send(None)
    driven.send("1")
    assert thrown_into(driven, LookupError()) == "1, an exception, inside"


def test_closing_it_closes_what_it_drives_in_its_context() -> None:
    closed: list[str] = []

    async def waits() -> None:
        var.set("inside")
        try:
            await trap("for ever")
        finally:
            closed.append(var.get())

    driven = in_own_context(waits())
    driven.send(None)
    driven.close()
    assert closed == ["inside"]


def test_what_it_raises_comes_out() -> None:
    async def fails() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        in_own_context(fails()).send(None)


def test_one_that_never_waits_gives_its_value_at_once() -> None:
    async def writes_only() -> str:
        var.set("inside")
        return var.get()

    with pytest.raises(StopIteration) as done:
        in_own_context(writes_only()).send(None)
    assert (done.value.value, var.get()) == ("inside", "outside")


def test_what_is_over_at_once_leaves_nothing() -> None:
    async def writes_only() -> None:
        var.set("inside")

    context = contextvars.copy_context()
    assert begin_in(context, writes_only()) is None
    assert (context[var], var.get()) == ("inside", "outside")


def test_what_is_left_goes_on_in_its_context() -> None:
    said: list[str] = []

    async def waits() -> None:
        said.append(await writes())

    rest = begin_in(contextvars.copy_context(), waits())
    driven: Any = rest
    assert driven.send(None) == "first"
    assert driven.send("1") == "second"
    with pytest.raises(StopIteration):
        driven.send("2")
    assert (said, var.get()) == (["1, 2, inside"], "outside")


async def test_frames_are_told_of_what_is_stepped_by_hand() -> None:
    """Within each other, and up to an async generator."""
    release = trio.Event()

    async def gives() -> AsyncIterator[None]:
        await release.wait()
        yield

    async def innermost() -> None:
        async for _ in gives():
            pass

    async def outer() -> None:
        await in_context(contextvars.copy_context(), innermost())

    async def outermost() -> None:
        await in_context(contextvars.copy_context(), outer())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outermost)
        await wait_all_tasks_blocked()
        [task] = nursery.child_tasks
        ours = ("outermost", "outer", "innermost", "gives")
        names = [frame.f_code.co_name for frame in frames_of(task)]
        assert [name for name in names if name in ours] == list(ours)
        assert names[-1] == "_real_async_yield"
        release.set()
    assert list(frames_of(task)) == []
