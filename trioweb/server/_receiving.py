"""The way in of one request: ASGI's `receive`, on the ground of its `send`.

Rules of this module:

* Nothing is read of a body before the app asks for it, and 100 Continue is said only then
  (RFC 9110, 10.1.1).
* While a handler waits for its client to leave, it reads ahead a little, and no more.  Nobody reads
  on for it past the end of the response.
* A client that has closed its sending side behind a whole request may have left, or wait for its
  answer.  The app is told which it may be, and may answer.
* What the client does wrong in its body is answered by the server; the app is told that the client
  has left.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, TypeVarTuple, Unpack

import trio

from .._asgi import HALF_CLOSED, Message
from . import _limits
from ._bodies import Body, ChunkedBody, SizedBody
from ._errors import BadRequest, ClientGone
from ._output import Output
from ._sending import Sender
from ._service import Service
from ._strict import RequestHead
from ._transport import Patience, Transport

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LEFT: Final = {"type": "http.disconnect"}
_HALF_CLOSED: Final = {**_LEFT, HALF_CLOSED: True}


def new_exchange(
    service: Service, transport: Transport, buffer: bytearray, head: RequestHead, is_last: bool
) -> Exchange:
    """For the request with this head; `is_last`: no other follows, whatever the client says."""
    framing = head.framing
    body: Body | None = None
    if framing.length is None:
        body = ChunkedBody(service.limits)
    elif framing.length:
        body = SizedBody(framing.length)
    output = Output(head.method != b"HEAD", head.version)
    return Exchange(
        service, transport, buffer, head, output, body, framing.expects_continue, is_last
    )


class Exchange(Sender, eq=False):
    """One request in flight: its `receive`, and by inheritance its `send`.

    It is one object in two modules, since each request makes one.  What our own framework may call
    besides is `_asgi.ServerExchange`.
    """

    landed: trio.Event | None = None  # while a task is within `receive`, until it has left
    _end_was_told: bool = False
    _reading: Patience | None = None

    async def receive(self) -> Message:
        """ASGI's `receive`: the body piece by piece, then `http.disconnect` when it's true.

        Several tasks may wait here.  Cancellation loses nothing.
        """
        if self.landed is not None:
            await self.wait_landed()
        if self.disconnected or self.output.complete:
            return self._departure()
        if self._end_was_told:
            self._look()
            if not self.disconnected and trio.current_effective_deadline() == -math.inf:
                await self._alone(self._glance)
            if not self.disconnected:
                await self._alone(self._wait_disconnected)
            return self._departure()
        if self.body is None:
            self._end_was_told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return await self._receive_piece(self.body)

    def take_body(self, limit: int) -> bytes | None:
        """The whole body, if it is here and not longer than `limit`; None where `receive` has it.

        For whoever knows this server: a body that needn't be waited for takes neither a scope nor
        messages, which are a third of such a request (318 and 205 thousand instructions).
        """
        body = self.body
        if self.disconnected or self._end_was_told or self.output.complete:
            return None
        if body is None:
            content = b""
        elif isinstance(body, SizedBody) and body.left <= min(limit, len(self.buffer)):
            content = body.take(self.buffer)
        else:
            return None
        self._end_was_told = True
        return content

    async def wait_landed(self) -> None:
        """Wait for whoever is within `receive`."""
        while self.landed is not None:
            await self.landed.wait()

    async def skip_body(self) -> bool:
        """Read away what the app left of the body; False where that isn't worth it."""
        budget = _limits.MAX_SKIPPED_BODY
        try:
            while self.body is not None and not self.body.over and budget > 0:
                budget -= len(await self._next_content(self.body))
        except (BadRequest, ClientGone):
            return False
        return not self.has_unread_body

    async def _receive_piece(self, body: Body) -> Message:
        try:
            content = body.take(self.buffer)
            if not content and not body.over:
                content = await self._alone(self._next_content, body)
        except BadRequest as exc:
            self.refusal = str(exc)
            await self.refuse(exc.status, self.refusal)
        except ClientGone:
            self.disconnected = True
        else:
            self._end_was_told = body.over
            return {"type": "http.request", "body": content, "more_body": not body.over}
        return self._departure()

    def _departure(self) -> Message:
        return dict(_HALF_CLOSED if self.half_closed and not self.gone else _LEFT)

    async def _next_content(self, body: Body) -> bytes:
        content = body.take(self.buffer)
        while not content and not body.over:
            await self._receive_more()
            content = body.take(self.buffer)
        return content

    async def _receive_more(self) -> None:
        if self._reading is None:
            self._reading = Patience(self.service.limits.body_timeout)
        if self.expects_continue and not (self.sent or self.is_writing):
            await self.say_continue()
        with self.held_up(), self._reading.scope() as scope:
            data = await self.transport.receive()
        if scope.cancelled_caught:
            raise BadRequest(408, "the body of the request came too slowly")
        if not data:
            raise ClientGone("the client left before the end of its request")
        self._reading.moved(len(data))
        self.buffer += data

    async def _wait_disconnected(self) -> None:
        with trio.CancelScope() as self.listening:
            while not self.disconnected:
                if len(self.buffer) > _limits.READ_AHEAD:
                    await trio.sleep_forever()
                await self._listen()
        self.listening = None

    def _look(self) -> None:
        """Whether the client has left, before a turn of the loop: whoever asks may have no time."""
        if len(self.buffer) <= _limits.READ_AHEAD:
            try:
                data = self.transport.receive_nowait()
            except ClientGone:
                self.disconnected = True
            else:
                if data is not None:
                    self._take(data)

    async def _glance(self) -> None:
        """For who only wants to know whether the client has left, and doesn't wait."""
        with trio.move_on_after(_limits.GLANCE_TIME, shield=True):
            if len(self.buffer) <= _limits.READ_AHEAD:
                await self._listen()

    async def _listen(self) -> None:
        try:
            self._take(await self.transport.receive())
        except ClientGone:
            self.disconnected = True

    def _take(self, data: bytes) -> None:
        """What came while nothing was asked for; nothing means that no more will."""
        self.buffer += data
        self.disconnected = self.half_closed = not data

    async def _alone(self, wait: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """One task at a time waits for the client."""
        landed = self.landed = trio.Event()
        try:
            return await wait(*args)
        finally:
            self.landed = None
            landed.set()
