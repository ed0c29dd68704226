"""Runs one world: the server on its streams, its clients, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from trioweb.server import Server, ServerConfig
from trioweb.server._server import run_server
from trioweb.server._strict import RequestHead

from ...support.server_driver import heads_noted
from ..common.runner import Report, run_seeded
from ..common.steps import CancelTarget
from . import invariants
from .clients import Client
from .plans import WorldPlan, world_of
from .program import build_app
from .world import World


def run_world(
    seed: int,
    plan: WorldPlan | None = None,
    *,
    instruments: Sequence[trio.abc.Instrument] = (),
    watch: CancelTarget | None = None,
) -> Report:
    """The world with this seed, or by this plan, from its beginning to its end.

    `watch` gets what ends the server in the plan's way, as soon as there is a server.
    """
    world = World(seed, world_of(seed) if plan is None else plan)
    with heads_noted(partial(_note_head, world)):
        run_seeded(world, partial(_run, world, watch), instruments)
    invariants.check(world)
    answered = sum(len(connection.answers) for connection in world.connections)
    return Report(violations=world.violations, trace=world.trace, count=answered)


async def _run(world: World, watch: CancelTarget | None) -> None:
    living = trio.lowlevel.current_statistics().tasks_living
    world.app = build_app(world)
    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as nursery:
            ending = _Ending(world, nursery)
            world.server = await nursery.start(ending.serve)
            if watch is not None:
                watch(ending)
            for connection in world.connections:
                clients.start_soon(Client(world, connection).run)
            with trio.move_on_after(world.plan.ends_at):
                await world.server.wait_closed()
            ending.cancel()
        world.note("the server has ended")
        # What is on its way to the clients has landed by then.
        await trio.sleep(1_000)
        clients.cancel_scope.cancel()
    statistics = trio.lowlevel.current_statistics()
    world.tasks_left = statistics.tasks_living - living
    world.next_deadline = statistics.seconds_to_next_deadline


class _Ending:
    """Serves, and ends it in the way that the plan says."""

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self._world = world
        self._nursery = nursery
        self._outside = trio.CancelScope()

    async def serve(self, *, task_status: trio.TaskStatus[Server]) -> None:
        world = self._world
        config = ServerConfig(http=world.plan.http, forwarded_allow_ips=())
        try:
            with self._outside:
                await run_server(world.app, config, (), task_status=task_status)
        finally:
            world.ended_at = trio.current_time()
        swallowed = self._outside.cancel_called and not self._outside.cancelled_caught
        world.expect(not swallowed, "a cancellation from outside was swallowed")

    def cancel(self) -> None:
        world, ending = self._world, self._world.plan.ending
        if world.is_stopping:
            return
        world.note(f"the server is to end: {ending}")
        if ending.startswith("shutdown"):
            world.shut_down_at = trio.current_time()
            self._nursery.start_soon(world.server.shutdown)
        if ending == "shutdown":
            return
        if ending == "shutdown, then cancel":
            self._nursery.start_soon(self._cancel_later)
        else:
            self._cancel_now()

    async def _cancel_later(self) -> None:
        with trio.move_on_after(self._world.plan.cancel_after) as scope:
            await self._world.server.wait_closed()
        if scope.cancelled_caught:
            self._cancel_now()

    def _cancel_now(self) -> None:
        self._world.cancelled_at = trio.current_time()
        if self._world.plan.ending == "cancelled from outside":
            self._outside.cancel()
        else:
            self._world.server.cancel()


def _note_head(world: World, head: RequestHead) -> None:
    """The server has read it."""
    number = int(head.target.rpartition(b"/")[2])
    request = world.requests[number]
    request.read_at = min(request.read_at, trio.current_time())
    world.note(f"the head of request {number} is read")
