"""The way out of one request: ASGI's `send`, from its messages to the client.

Rules of this module:

* `send` returns when the transport has taken the last byte: a response that fits the kernel's
  buffer costs no checkpoint.  A piece of a stream can be cancelled, and lets others run when it was
  long since they could.
* Nothing is sent of a message that was refused; a response that breaks off ends its connection.
* Whether the connection goes on after the response is decided here, by one function, as the head is
  sent.
* A request that waits for its client works on nothing, and takes nobody's place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Iterator, Sequence
from time import perf_counter

import msgspec
import trio

from .._asgi import Message
from . import _limits
from ._bodies import Body, SizedBody
from ._errors import ClientGone, ProtocolMisuse
from ._output import CONTINUE, BodyEnd, Output, error_response
from ._service import Service
from ._strict import RequestHead
from ._transport import Patience, Transport, send_rest


class Sender(msgspec.Struct, eq=False):
    """The half of an exchange that sends the response; `Exchange` has the other one.

    `buffer` has what was received after the head, and keeps what isn't this request's.  `body` is
    None for a request that has none.
    """

    service: Service
    transport: Transport
    buffer: bytearray
    head: RequestHead
    output: Output
    body: Body | None
    expects_continue: bool  # the client waits for 100 Continue, which wasn't said yet
    is_last: bool  # no other request follows, whatever the client says

    status: int = 0  # of the response, once there is one
    sent: int = 0  # bytes of the response
    keep_alive: bool = False  # the head says that the connection goes on
    gone: bool = False  # nothing can be sent any more
    broken: bool = False  # a response has begun that can't be ended
    refused: bool = False  # the server has answered in the app's place
    refusal: str = ""  # what the client did wrong in its body
    disconnected: bool = False  # the client has left, or was sent away
    half_closed: bool = False  # so it seems; but it may only have closed its sending side
    works: bool = False  # the app's call is under way, and the connection stands by it
    waits: int = 0  # how many of the call's tasks wait for the client
    returned: bool = False  # the app's call is over
    is_writing: bool = False  # a task is within `send`, and waits for the client
    # Of the task that waits for the client to leave, which it does until the response is complete.
    listening: trio.CancelScope | None = None
    _writing: Patience | None = None
    _continued: trio.Event | None = None  # while 100 Continue is on its way
    _turn_began: float = 0.0  # when others had a turn, while a stream went on and on

    # For our own framework, which may call what `_asgi.ServerExchange` has besides.
    is_of_trioweb = True

    @property
    def has_unread_body(self) -> bool:
        return self.body is not None and not self.body.over

    @property
    def client_left(self) -> bool:
        """Whether the client has left, or was sent away, before the response was complete."""
        return self.disconnected and not self.output.complete

    @property
    def outlived(self) -> bool:
        """Whether the app's call goes on after its whole response."""
        return self.output.complete and not (self.is_writing or self.returned)

    @property
    def is_at_work(self) -> bool:
        """Whether the request is counted as one in flight."""
        return self.works and not self.waits

    async def send(self, message: Message) -> None:
        """ASGI's `send`.  Raises ClientGone once the client has left, ProtocolMisuse for what
        can't be sent, before any of it was.

        Cancellation: the response can't be ended any more, so its connection is closed.
        """
        kind = message["type"]
        if self.gone:
            raise ClientGone("the client has left")
        if self._continued is not None:
            await self._continued.wait()
        if self.is_writing:
            raise ProtocolMisuse("another task is within send; messages have an order")
        if kind == "http.response.start":
            self.output.start(message)
            self.status = message["status"]
        elif kind == "http.response.body":
            more = message.get("more_body", False)
            head, content = self.output.body(message.get("body", b""), more=more)
            await self._write(self.join(head, content) if head else content, more=more)
            if self.half_closed and not more:
                await self._settle()
        elif kind == "http.response.trailers":
            more = message.get("more_trailers", False)
            await self._write(self.output.trailers(message["headers"], more=more), more=more)
        else:
            raise ProtocolMisuse(f"an HTTP response has no message {kind!r}")

    def send_whole(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> Awaitable[None] | None:
        """What sends a whole response, as two messages would; None where those have to be sent.

        For whoever knows this server: 18 thousand instructions, where two messages take 31.
        """
        if self.gone or self.output.started or self.is_writing or self._continued is not None:
            return None
        if self.has_unread_body:
            return None
        head, content = self.output.whole(status, fields, body)
        self.status = status
        return self._write(self.join(head, content), more=False)

    async def refuse(self, status: int, reason: str, *fields: tuple[bytes, bytes]) -> None:
        """Answer in the app's place, unless it has begun to; nothing can follow."""
        if self.refused:
            return
        if not (self.sent or self.gone or self.is_writing):
            self.status = status
            self.service.refusals += 1
            await self._write(error_response(status, reason, fields), more=False)
            self.refused = True
        else:
            self.broken = True
        self.gone = self.disconnected = True

    async def say_continue(self) -> None:
        """Say 100 Continue; a response that the app sends meanwhile waits until it is said.

        Cancellation: breaks the response too, for nobody may hold up a shutdown by not reading.
        """
        self.expects_continue = False
        rest = memoryview(CONTINUE)[self.transport.send_nowait(CONTINUE) :]
        if not rest:
            return
        self._continued = trio.Event()
        try:
            await self._write_rest(rest)
        except BaseException:
            self._break()
            raise
        finally:
            self._continued.set()
            self._continued = None

    def join(self, head: bytes, content: bytes) -> bytes:
        """Head and content, and between them what ends the head: whether the connection goes on."""
        self.keep_alive = self._keeps_alive()
        if not self.keep_alive:
            return b"%bconnection: close\r\n\r\n%b" % (head, content)
        if self.head.version == b"1.1":
            return b"%b\r\n%b" % (head, content)
        return b"%bconnection: keep-alive\r\n\r\n%b" % (head, content)

    def _keeps_alive(self) -> bool:
        """Whether the connection goes on after this response (RFC 9112, 9.3)."""
        return not (
            not self.head.framing.keep_alive  # by the client's wish
            or self.output.closes  # by the app's
            or self.output.body_end is BodyEnd.CLOSE
            or self.is_last
            or self.service.closing
            # Who waits for 100 Continue may send the body all the same, or the next request.
            or (self.expects_continue and self.has_unread_body)
            or (self.body is not None and self._leaves_too_much(self.body))
        )

    def _leaves_too_much(self, body: Body) -> bool:
        """Whether the app has begun to answer without a look at a body that is too long to skip.

        Who isn't told that the connection ends may send its next request into the end of it.
        """
        length = self.head.framing.length or 0  # None of one in chunks
        is_untouched = isinstance(body, SizedBody) and body.left == length
        return is_untouched and length > _limits.MAX_SKIPPED_BODY

    async def _write(self, data: bytes, *, more: bool) -> None:
        try:
            taken = self.transport.send_nowait(data) if data else 0
            if taken < len(data):
                await self._write_rest(memoryview(data)[taken:])
            elif more:
                await self._let_others_run()
        except BaseException:
            self._break()
            raise
        self.sent += len(data)
        if self.listening is not None and self.output.complete:
            self.listening.cancel()

    async def _write_rest(self, rest: memoryview) -> None:
        if self._writing is None:
            self._writing = Patience(self.service.limits.write_timeout)
        self.is_writing = True
        try:
            with self.held_up():
                await send_rest(self.transport, rest, self._writing)
        finally:
            self.is_writing = False
        self._turn_began = perf_counter()

    async def _let_others_run(self) -> None:
        """A turn for each piece would cost more than most pieces do."""
        if perf_counter() - self._turn_began < _limits.TURN:
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        await trio.lowlevel.checkpoint()
        self._turn_began = perf_counter()

    async def _settle(self) -> None:
        """Whether a client that has closed its sending side takes the end, or refuses it.

        Nothing tells when the kernel knows: it has to be asked now and then.
        """
        for _ in range(_limits.SETTLING_LOOKS):
            if self.transport.is_refused():
                self._break()
                raise ClientGone("the client has left")
            if not self.transport.backlog():
                return
            await trio.sleep(_limits.SETTLING_TIME / _limits.SETTLING_LOOKS)

    @contextlib.contextmanager
    def held_up(self) -> Iterator[None]:
        """While a task of the app waits for the client."""
        self.service.requests_in_flight -= self.is_at_work
        self.waits += 1
        try:
            yield
        finally:
            self.waits -= 1
            self.service.requests_in_flight += self.is_at_work

    def _break(self) -> None:
        """The response can't be ended any more."""
        self.gone = self.broken = self.disconnected = True
