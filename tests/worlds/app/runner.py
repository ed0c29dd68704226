"""Runs one world: its server, its clients, and threads that are the seed's, too.

Rules of this module:

* A simulated thread is a Trio task outside of the app: it takes as many seconds
  as its function asks for, and nobody can cancel it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import outcome
import trio
import trio.testing

from trioweb._app.app import inner_of

from ..common.runner import Report, run_seeded
from ..common.steps import CancelTarget
from . import invariants
from .plans import WorldPlan, world_of
from .program import build_app
from .server import Server
from .world import World

# Past anything that a world can wait for.
DOOMSDAY = 30_000.0  # seconds


def run_world(
    seed: int,
    plan: WorldPlan | None = None,
    *,
    instruments: Sequence[trio.abc.Instrument] = (),
    on_call: CancelTarget | None = None,
    on_run: CancelTarget | None = None,
) -> Report:
    """The world with this seed, or by this plan, from its beginning to its end."""
    world = World(seed, world_of(seed) if plan is None else plan)
    try:
        run_seeded(world, partial(_run, world, on_call, on_run), instruments)
    except (Exception, BaseExceptionGroup, GeneratorExit) as exc:
        world.violate(f"the world ended with {exc!r}")
    invariants.check(world)
    added = len(list(world.tasks()))
    return Report(violations=world.violations, trace=world.trace, count=added)


async def _run(world: World, on_call: CancelTarget | None, on_run: CancelTarget | None) -> None:
    living = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as threads_nursery:
        threads = Threads(world, threads_nursery)
        app = build_app(world, threads.block)
        inner_of(app).run_sync = threads.run_sync
        if world.listens:
            inner_of(app).events.add(world.events.append)
        with threads.simulated():
            async with trio.open_nursery() as world.watchers:
                world.watchers.start_soon(_audit, world)
                with trio.move_on_after(DOOMSDAY) as doom:
                    await Server(world, on_call=on_call, on_run=on_run).run()
                world.expect(not doom.cancelled_caught, "the world doesn't end by itself")
                await trio.testing.wait_all_tasks_blocked()
                world.watchers.cancel_scope.cancel()
    # Abandoned threads have ended, too.
    threads.forget_abandoned()
    invariants.check_nothing_is_left(world, living)


async def _audit(world: World) -> None:
    for seconds in world.plan.audits:
        await trio.sleep(seconds)
        world.audit()


class Threads:
    """Worker threads, simulated."""

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self._world = world
        self._nursery = nursery
        self._abandoned: list[_Thread] = []
        self._inside = False
        self.seconds = 0.0
        self.then: Callable[[], None] | None = None

    def block(self, seconds: float, then: Callable[[], None] | None = None) -> None:
        """What a thread's function calls last instead of `time.sleep`; `then` is what follows."""
        self.seconds = seconds
        self.then = then

    @contextmanager
    def simulated(self) -> Iterator[None]:
        """`trio.to_thread.run_sync` runs simulated threads within."""
        with (
            mock.patch.object(trio.to_thread, "run_sync", self.run_sync),
            mock.patch.object(trio.lowlevel, "in_trio_run", self._is_outside),
        ):
            yield

    def _is_outside(self) -> bool:
        return not self._inside

    async def run_sync(
        self,
        sync_fn: Callable[..., Any],
        *args: object,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> Any:
        """As `trio.to_thread.run_sync`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        limiter = limiter or trio.to_thread.current_default_thread_limiter()
        thread = _Thread(self, sync_fn, args, limiter)
        await limiter.acquire_on_behalf_of(thread)
        self._nursery.start_soon(thread.run, contextvars.copy_context())
        try:
            with trio.CancelScope(shield=not abandon_on_cancel):
                await thread.ended.wait()
        except trio.Cancelled:
            self._abandoned.append(thread)
            raise
        return thread.result.unwrap()

    def forget_abandoned(self) -> None:
        """Of how an abandoned thread ends nobody can hear."""
        for thread in self._abandoned:
            if isinstance(thread.result, outcome.Error):
                self._world.forget(thread.result.error)

    def call(self, context: contextvars.Context, call: Callable[[], Any]) -> outcome.Outcome[Any]:
        self._inside = True
        self.seconds = 0.0
        self.then = None
        try:
            return context.run(outcome.capture, call)
        finally:
            self._inside = False


class _Thread:
    """One simulated thread."""

    def __init__(
        self,
        threads: Threads,
        sync_fn: Callable[..., Any],
        args: tuple[object, ...],
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._threads = threads
        self._sync_fn = sync_fn
        self._args = args
        self._limiter = limiter
        self.ended = trio.Event()
        self.result: outcome.Outcome[Any]

    async def run(self, context: contextvars.Context) -> None:
        self.result = self._threads.call(context, lambda: self._sync_fn(*self._args))
        then = self._threads.then
        await trio.sleep(self._threads.seconds)
        if then is not None:
            self._threads.call(context, then).unwrap()
        self._limiter.release_on_behalf_of(self)
        self.ended.set()
