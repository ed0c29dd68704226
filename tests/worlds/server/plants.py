"""Bugs to plant in the server, each with what the invariants say of it.

Rules of this module:

* Each breaks one promise, as a plausible mistake would.
* Most are seen in one of a few random worlds.  What shows only in a rare moment has a plan.
* They reach for private names, and fail aloud when those are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from trioweb.server import _bodies, _connection, _connections, _receiving, _server, _transport

from .plans import ConnectionPlan, RequestPlan, WorldPlan

Plant = Callable[[pytest.MonkeyPatch], None]


def send_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent is taken for a byte less."""
    send_some = _transport.StreamTransport.send_some

    async def forgetful(self: Any, data: memoryview) -> int:
        count = await send_some(self, data)
        return count - 1 if count > 1 else count

    monkeypatch.setattr(_transport.StreamTransport, "send_some", forgetful)


def lose_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is sent the last byte is dropped, if it is much."""
    send_some = _transport.StreamTransport.send_some

    async def careless(self: Any, data: memoryview) -> int:
        dropped = len(data) > 2_000
        return await send_some(self, data[:-1] if dropped else data) + dropped

    monkeypatch.setattr(_transport.StreamTransport, "send_some", careless)


def change_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    take = _bodies.SizedBody.take

    def take_and_change(self: Any, buffer: bytearray) -> bytes:
        return take(self, buffer).replace(b">", b"<")

    monkeypatch.setattr(_bodies.SizedBody, "take", take_and_change)


def never_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(self: Any) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(_connections.Connections, "sweep", sleep)


def wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's patience has an end."""
    monkeypatch.setattr(_transport.Patience, "scope", lambda self: trio.CancelScope())
    monkeypatch.setattr(_transport.Patience, "moved", lambda self, count: None)


def leave_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: Any) -> None:
        self._on_close(self)

    monkeypatch.setattr(_connection.Connection, "_close", forget)


def serve_on_after_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was answered, the connection goes on."""

    async def go_on(self: Any, exchange: Any) -> bool:
        return True

    monkeypatch.setattr(_connection.Connection, "_finish", go_on)


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shutdown that doesn't drain."""
    drain = _server.Server._drain

    async def cancel(self: Any, *args: Any) -> None:
        self._connections.nursery.cancel_scope.cancel()
        await drain(self, *args)

    monkeypatch.setattr(_server.Server, "_drain", cancel)


def close_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is connected counts as idle when the shutdown begins."""
    monkeypatch.setattr(_connection.Connection, "is_idle", True)


def never_tell_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lifespan isn't told to end before it is cancelled, long after its time."""

    async def wait(self: Any, *args: Any) -> None:
        await trio.sleep(self.drain_timeout + self.cleanup_timeout + 2)
        self.cancel()

    monkeypatch.setattr(_server.Server, "_drain", wait)


def hand_over_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a response is on its way, another task serves the connection on."""
    outlived = property(lambda self: self.output.complete and not self.returned)
    monkeypatch.setattr(_receiving.Exchange, "outlived", outlived)


def break_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stumble(self: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(_connection.Connection, "_linger", stumble)


def forget_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something outside of the server's nursery goes on after it."""
    run = _connection.Connection.run

    async def run_and_forget(self: Any, exchange: Any = None) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep, 10_000)
        await run(self, exchange)

    monkeypatch.setattr(_connection.Connection, "run", run_and_forget)


def _world(*requests: RequestPlan, **options: Any) -> WorldPlan:
    connection = ConnectionPlan(requests=requests, **options)
    return WorldPlan(connections=(connection,), ends_at=60.0)


# What the invariants are to say, in a part of a sentence, and by what plan if not by the seeds'.
PLANTS: dict[Plant, tuple[str, WorldPlan | None]] = {
    send_twice: ("bytes, and an end", None),
    lose_a_byte: ("is lost", None),
    change_a_body: ("came in other words", None),
    never_sweep: (
        "s too long",
        _world(RequestPlan(), fault="stalls while sending", at_byte=9),
    ),
    wait_for_ever: (
        "s too long",
        _world(RequestPlan(method="POST", body=500), fault="stalls while sending", at_byte=99),
    ),
    leave_open: ("was left open", None),
    serve_on_after_the_last: ("something follows the answer", None),
    cut_off: ("is lost", None),
    close_too_early: ("is lost", None),
    never_tell_the_app: ("after its time", None),
    hand_over_early: (
        "is lost",
        _world(RequestPlan(size=60_000), RequestPlan(), ahead=1, capacity=5_000, read_seconds=0.1),
    ),
    break_at_the_end: ("the log says: a bug in trioweb's server", None),
    forget_a_deadline: ("Trio tasks are left", None),
}
