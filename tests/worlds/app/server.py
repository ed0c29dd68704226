"""A server in memory, and its clients, that behave as Hypercorn does where it matters.

Rules of this module:

* The calls for one connection run one after another on one Trio task, where what
  one leaves in contextvars the next one sees.  `send` never raises because the
  client is gone; `receive` says `http.disconnect` then, and right after the
  response's last byte.
* At most `BUFFERED` messages of a request's body wait unread.  Past that the
  client's next one is stuck, and with it the app's last `send`.
* Shutdown as Hypercorn does it: no new requests, `graceful_timeout` for the calls,
  then they are cancelled; then `lifespan.shutdown`, and waiting for the app.
* A server that is patient says `lifespan.shutdown` while calls are open and
  requests come in, and cancels nothing: the app has to end all calls itself.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import trio

from trioweb import _limits
from trioweb._asgi import Message
from trioweb._errors import is_only

from ..common.steps import CancelTarget
from .plans import ClientPlan, ConnectionPlan
from .world import RequestRecord, World

BUFFERED = 10

# How long after the app's end the calls for its requests may take to return.
RETURN_TIME = 0.1  # seconds


class CallTarget:
    """Cancels one call, and remembers when."""

    def __init__(self, record: RequestRecord, scope: trio.CancelScope) -> None:
        self._record = record
        self._scope = scope

    def cancel(self) -> None:
        self._record.call_cancelled_at = trio.current_time()
        self._scope.cancel()


class ServerTarget:
    """Cancels everything, and remembers when."""

    def __init__(self, world: World, scope: trio.CancelScope) -> None:
        self._world = world
        self._scope = scope

    def cancel(self) -> None:
        self._world.cancelled_at = trio.current_time()
        self._scope.cancel()


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
        record.leave = self.leave

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
        self._world.expect(not record.all_sent, f"request {record.number} sends past its end")
        self._note_last_byte(message)
        record.has_head = record.has_head or message.get("status") == 200
        record.sending += 1
        try:
            await trio.lowlevel.checkpoint()
            with trio.move_on_after(self._client.read_seconds):
                await self._left.wait()
            if not self._left.is_set():
                await self._deliver(message)
            record.all_sent = _is_last(message)
        finally:
            record.sending -= 1

    def _note_last_byte(self, message: Message) -> None:
        """A body that isn't streamed is sent whole at first, and ended when all was read."""
        is_whole = self._record.status != 200 or self._record.plan.response == "json"
        is_body = message["type"] == "http.response.body"
        if _is_last(message) or (is_whole and is_body):
            self._record.last_byte_at = min(self._record.last_byte_at, trio.current_time())

    async def _deliver(self, message: Message) -> None:
        record = self._record
        self._world.note(f"request {record.number} sends {message['type']}")
        if message["type"] == "http.response.start":
            record.status = message["status"]
            record.headers = dict(message["headers"])
        else:
            record.body += message.get("body", b"")
            if _is_last(message):
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
        if not self._record.complete and not self._left.is_set():
            self._world.note(f"the client of request {self._record.number} leaves")
            self._record.left_at = trio.current_time()
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
        self._lifespan_is_over = trio.Event()
        self._lifespan_messages: list[str] = []

    async def run(self) -> None:
        """From start to end, in the way that the plan says."""
        with trio.CancelScope() as scope:
            target = ServerTarget(self._world, scope)
            if self._on_run is not None:
                self._on_run(target)
            async with trio.open_nursery() as killer:
                killer.start_soon(self._lose_patience, target)
                await self._serve()
                killer.cancel_scope.cancel()
        self._check_end(scope)

    async def _lose_patience(self, target: ServerTarget) -> None:
        if self._plan.ending == "cancel":
            await trio.sleep(self._plan.ends_at)
        else:
            await self._shutting_down.wait()
            await trio.sleep(self._plan.patience)
        target.cancel()

    async def _serve(self) -> None:
        async with trio.open_nursery() as lifespan:
            lifespan.start_soon(self._run_lifespan)
            await self._started.wait()
            self._world.has_started = True
            if self._plan.server == "patient":
                await self._serve_patiently()
            else:
                await self._serve_clients()
                self._shut_down()

    async def _serve_clients(self) -> None:
        async with trio.open_nursery() as connections:
            for plan in self._plan.connections:
                connections.start_soon(self._serve_client, plan)
            await trio.sleep(self._plan.ends_at)
            self._is_stopping = True
            began = trio.current_time()
            connections.cancel_scope.deadline = began + self._plan.graceful_timeout
            self._note_cancelled_calls(connections.cancel_scope.deadline)
            self._world.note("the server stops")
        seconds = self._plan.graceful_timeout + self._plan.cleanup_timeout
        self._check_time("the end of the calls", began, seconds)

    def _note_cancelled_calls(self, when: float) -> None:
        for record in self._world.requests:
            record.call_cancelled_at = min(record.call_cancelled_at, when)

    async def _serve_patiently(self) -> None:
        async with trio.open_nursery() as connections:
            for plan in self._plan.connections:
                connections.start_soon(self._serve_client, plan)
            await trio.sleep(self._plan.ends_at)
            self._shut_down()
            await self._lifespan_is_over.wait()
            await trio.sleep(RETURN_TIME)
            self._check_calls()
            self._note_cancelled_calls(trio.current_time())
            connections.cancel_scope.cancel()

    def _check_calls(self) -> None:
        """The app's end was that of the calls for its requests."""
        for record in self._world.requests:
            is_open = record.call_over_at == math.inf and not record.was_draining
            # Where cleaning up takes all the time that there is, none is left for an answer.
            handler = record.handler
            is_late = handler is not None and handler.ended_at >= self._world.cleaned_up_at
            ended = is_late or not is_open
            self._world.expect(ended, f"the call for request {record.number} outlived the app")

    def _shut_down(self) -> None:
        self._world.note("lifespan.shutdown")
        self._world.shut_down_at = trio.current_time()
        self._shutting_down.set()

    def _check_time(self, what: str, began: float, seconds: float) -> None:
        """It took its time, and what the contract adds to it; a shield can hold it up."""
        took = trio.current_time() - began
        bound = max(seconds, self._world.held_until - began) + 1
        self._world.expect(took <= bound, f"{what} took {took:g} s of {bound:g}")

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

        try:
            await self._app({"type": "lifespan", "state": {}}, receive, send)
        finally:
            self._world.note("the lifespan is over")
            self._check_lifespan()
            self._lifespan_is_over.set()

    def _check_lifespan(self) -> None:
        """The user's lifespan closed in time; that itself is bounded where it is cancelled."""
        world = self._world
        took = trio.current_time() - world.lifespan_left_at
        seconds = self._plan.lifespan_seconds
        if world.cancelled_at < math.inf:
            cleanup = max(self._plan.cleanup_timeout, _limits.EXIT_TIME)
            seconds = min(seconds, max(world.cancelled_at - world.lifespan_left_at, 0) + cleanup)
        world.expect(took <= seconds + 0.001, f"the user's lifespan took {took:g} s of {seconds:g}")

    async def _serve_client(self, plan: ConnectionPlan) -> None:
        await trio.sleep(plan.after)
        for request in plan.requests:
            if self._is_stopping:
                return
            record = RequestRecord(len(self._world.requests), request, trio.current_time())
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
            await self._call(record, exchange)
            nursery.cancel_scope.cancel()

    async def _call(self, record: RequestRecord, exchange: Exchange) -> None:
        world = self._world
        counts = self._app.statistics()
        record.was_full = counts.pending >= self._plan.max_pending_tasks
        record.was_draining = self._app.draining.is_set()
        plan = record.plan
        world.note(f"request {record.number} begins: {plan.method} {plan.path}")
        with trio.CancelScope() as scope:
            if self._on_call is not None:
                self._on_call(CallTarget(record, scope))
            try:
                await self._app(_scope(record), exchange.receive, exchange.send)
                self._check_return(record)
            except BaseException as exc:
                only_cancelled = is_only(exc, (trio.Cancelled,))
                world.expect(only_cancelled, f"request {record.number} let {exc!r} escape")
                raise
            finally:
                record.call_over_at = trio.current_time()
                world.note(f"request {record.number}'s call is over")

    def _check_return(self, record: RequestRecord) -> None:
        """Only what is over may return though it is cancelled."""
        is_cancelled = trio.current_effective_deadline() == -math.inf
        is_over = record.all_sent or record.plan.may_break_off
        allowed = is_over or not is_cancelled
        self._world.expect(allowed, f"request {record.number} swallowed its cancellation")


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body", False)


def _scope(record: RequestRecord) -> dict[str, Any]:
    plan = record.plan
    path = f"{plan.path}/{record.number}"
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
