"""A server in memory, and its clients, that behave as Hypercorn does where it matters.

Rules of this module:

* Each call of the app runs in a nursery of its own.  `send` never raises because
  the client is gone; `receive` says `http.disconnect` then, and right after the
  response's last byte.
* At most `BUFFERED` messages of a request's body wait unread.  Past that the
  client's next one is stuck, and with it the app's last `send`.
* Shutdown: no new requests, `graceful_timeout` for the calls, then they are
  cancelled; then `lifespan.shutdown`, and waiting for the app.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from trioweb._errors import is_only
from trioweb._request import Message

from .plans import ClientPlan, ConnectionPlan, RequestPlan
from .world import RequestRecord, World

BUFFERED = 10

# Chooses, for tests that cancel at each step, the scope around the server or a call.
CancelTarget = Callable[[trio.CancelScope], None]


class Exchange:
    """One request and its response on their way."""

    def __init__(self, world: World, record: RequestRecord) -> None:
        self._world = world
        self._record = record
        self._client: ClientPlan = record.plan.client
        self._buffer: deque[Message] = deque()
        self._is_stuck = False
        self._read = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._left = trio.Event()

    async def receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        while not self._buffer:
            if self._left.is_set() or self._record.complete:
                return {"type": "http.disconnect"}
            await self._changed.park()
        self._changed.unpark_all()
        return self._buffer.popleft()

    async def send(self, message: Message) -> None:
        record = self._record
        started = any(task.attempts for task in record.tasks)
        self._world.expect(not started, f"request {record.number} sends after a task began")
        self._world.expect(not record.complete, f"request {record.number} sends past its end")
        record.sending += 1
        try:
            await trio.lowlevel.checkpoint()
            with trio.move_on_after(self._client.read_seconds):
                await self._left.wait()
            if not self._left.is_set():
                await self._deliver(message)
        finally:
            record.sending -= 1

    async def _deliver(self, message: Message) -> None:
        record = self._record
        self._world.note(f"request {record.number} sends {message['type']}")
        if message["type"] == "http.response.start":
            record.status = message["status"]
            record.headers = dict(message["headers"])
        else:
            record.body += message.get("body", b"")
            if not message.get("more_body", False):
                while self._is_stuck and not self._left.is_set():
                    await self._changed.park()  # pragma: no cover - who discards is never stuck
                record.complete = not self._left.is_set()
        self._read += 1
        self._changed.unpark_all()
        if self._read == self._client.leaves_after_reading:
            self.leave()

    async def upload(self) -> None:
        """The client's side: its body, and its departure in the middle of it."""
        client = self._client
        for i in range(client.chunks):
            if i == client.leaves_after_sending:
                break
            await trio.sleep(client.send_seconds)
            while len(self._buffer) >= BUFFERED:
                self._is_stuck = True
                await self._changed.park()
            self._is_stuck = False
            more = i + 1 < client.chunks
            self._buffer.append({"type": "http.request", "body": b"[%d]" % i, "more_body": more})
            self._changed.unpark_all()
        if not client.chunks:
            self._buffer.append({"type": "http.request", "body": b"", "more_body": False})
            self._changed.unpark_all()
        if client.leaves_after_sending is not None:
            self.leave()

    async def depart(self) -> None:
        if self._client.leaves_at is not None:
            await trio.sleep(self._client.leaves_at)
            self.leave()

    def leave(self) -> None:
        if not self._record.complete:
            self._world.note(f"the client of request {self._record.number} leaves")
            self._record.left = True
            self._left.set()
            self._changed.unpark_all()


class Server:
    """Runs the world's app and its clients."""

    def __init__(
        self,
        world: World,
        *,
        on_call: CancelTarget | None = None,
        on_run: CancelTarget | None = None,
    ) -> None:
        self._world = world
        self._plan = world.plan
        self._app = world.app
        self._on_call = on_call
        self._on_run = on_run
        self._started = trio.Event()
        self._shutting_down = trio.Event()
        self._is_stopping = False
        self._lifespan_messages: list[str] = []

    async def run(self) -> None:
        """From start to end, in the way that the plan says."""
        with trio.CancelScope() as scope:
            if self._on_run is not None:
                self._on_run(scope)
            if self._plan.ending == "cancel":
                scope.deadline = trio.current_time() + self._plan.ends_at
            await self._serve()
        self._check_end(scope)
        if scope.cancelled_caught and self._plan.ending == "cancel":
            self._check_time("a cancelled server", scope.deadline, self._plan.cleanup_timeout)

    async def _serve(self) -> None:
        async with trio.open_nursery() as lifespan:
            lifespan.start_soon(self._run_lifespan)
            await self._started.wait()
            await self._serve_clients()
            self._world.note("lifespan.shutdown")
            began = trio.current_time()
            self._shutting_down.set()
        seconds = self._plan.drain_timeout + self._plan.cleanup_timeout
        self._check_time("the shutdown", began, seconds)

    async def _serve_clients(self) -> None:
        async with trio.open_nursery() as connections:
            for plan in self._plan.connections:
                connections.start_soon(self._serve_client, plan)
            await trio.sleep(self._plan.ends_at)
            self._is_stopping = True
            began = trio.current_time()
            connections.cancel_scope.deadline = began + self._plan.graceful_timeout
            self._world.note("the server stops")
        seconds = self._plan.graceful_timeout + self._plan.cleanup_timeout
        self._check_time("the end of the calls", began, seconds)

    def _check_time(self, what: str, began: float, seconds: float) -> None:
        """It took its time, and what the contract adds to it."""
        took = trio.current_time() - began
        self._world.expect(took <= seconds + 1, f"{what} took {took:g} s of {seconds:g} + 1")

    def _check_end(self, scope: trio.CancelScope) -> None:
        messages = self._lifespan_messages
        finished = messages[-1:] == ["lifespan.shutdown.complete"]
        if scope.cancel_called:
            self._world.expect(scope.cancelled_caught or finished, "the server's end was swallowed")
        else:
            self._world.expect(finished, f"the lifespan said {messages}")

    async def _run_lifespan(self) -> None:
        async def receive() -> Message:
            if not self._started.is_set():
                await trio.lowlevel.checkpoint()
                return {"type": "lifespan.startup"}
            await self._shutting_down.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            self._lifespan_messages.append(message["type"])
            self._started.set()

        await self._app({"type": "lifespan", "state": {}}, receive, send)
        self._world.note("the lifespan is over")

    async def _serve_client(self, plan: ConnectionPlan) -> None:
        await trio.sleep(plan.after)
        for request in plan.requests:
            if self._is_stopping:
                return
            record = RequestRecord(len(self._world.requests), request)
            self._world.requests.append(record)
            await self._exchange(record)
            if not record.complete:
                return
            await trio.sleep(request.client.pause)

    async def _exchange(self, record: RequestRecord) -> None:
        exchange = Exchange(self._world, record)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.upload)
            nursery.start_soon(exchange.depart)
            async with trio.open_nursery() as call:
                call.start_soon(self._call, record, exchange)
            nursery.cancel_scope.cancel()

    async def _call(self, record: RequestRecord, exchange: Exchange) -> None:
        world = self._world
        counts = self._app.statistics()
        record.was_full = counts.pending >= self._plan.max_pending_tasks
        record.was_draining = self._app.draining.is_set()
        world.note(f"request {record.number} begins: {record.plan.method} {record.plan.route}")
        with trio.CancelScope() as scope:
            if self._on_call is not None:
                self._on_call(scope)
            try:
                await self._app(_scope(record.number, record.plan), exchange.receive, exchange.send)
            except BaseException as exc:
                only_cancelled = is_only(exc, (trio.Cancelled,))
                world.expect(only_cancelled, f"request {record.number} let {exc!r} escape")
                record.call_cancelled = True
                raise
        if scope.cancel_called and not scope.cancelled_caught:
            is_over = record.complete or record.left or record.plan.may_fail
            world.expect(is_over, f"request {record.number} swallowed its cancellation")
        world.note(f"request {record.number}'s call is over")


def _scope(number: int, plan: RequestPlan) -> dict[str, Any]:
    path = f"/{plan.route}/{number}"
    fields = [(b"transfer-encoding", b"chunked")] if plan.client.chunks else []
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.1"},
        "http_version": "1.1",
        "method": plan.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": fields,
    }
