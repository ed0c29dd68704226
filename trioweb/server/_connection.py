"""One connection: requests in, one after the other, answers out in order.

Rules of this module:

* A request is served on the connection's own task.  When the app's call goes on after
  its response, the connection is handed to a fresh task, and the call left behind.
* One request is in flight at a time; what is pipelined waits in the buffer, and each
  costs a checkpoint, so that nobody is starved.
* No task, timer or scope is made for a request.  The connection says until when it may
  wait in `deadline`; the server's sweep cancels what is past it.
* Contextvars that a request has set are gone before the next one.
* A connection that nobody can take for whole is closed: after a bad request, after a
  response that broke off, with a body that wasn't read.  What the client still sends is
  read away first, for a while: a reset would take the answer with it.
"""

from __future__ import annotations

import contextvars
import logging
import math
from collections.abc import Callable

import trio

from .._asgi import LimitReached, Scope
from . import _limits
from ._access import AccessLog, Answer, escaped
from ._errors import BadRequest, ClientGone, is_departure, is_stray, log_bug, split
from ._forwarded import Address
from ._limits import ServerLimits
from ._output import error_response
from ._receiving import Exchange, new_exchange
from ._scope import ScopeMaker, name_of
from ._service import Service
from ._strict import RequestHead
from ._tls_extension import TLSExtension
from ._transport import Patience, Transport, send_all

logger = logging.getLogger("trioweb.server")


class Connection:
    """One client's connection, over any transport."""

    def __init__(
        self,
        service: Service,
        transport: Transport,
        *,
        scheme: str = "http",
        client: Address | None = None,
        server: Address | None = None,
        tls: TLSExtension | None = None,
        on_close: Callable[[Connection], object],
    ) -> None:
        self.client = name_of(client)
        self.deadline = math.inf  # until when it may wait for the client
        self.exchange: Exchange | None = None  # while a request is in flight
        self.requests = 0  # how many heads were read
        self.is_active = True  # whether it has had a request within the last few looks
        self._last_request = service.limits.max_connection_requests
        self._seen_requests = 0
        self._idle_looks = 0
        self._service = service
        self._transport = transport
        self._on_close = on_close
        self._scopes = ScopeMaker(
            scheme=scheme,
            client=client,
            server=server,
            tls=tls,
            root_path=service.root_path,
            state=service.state,
            trusted=service.trusted,
        )
        self._heads = service.new_reader()
        self._buffer = bytearray()
        self._now = trio.lowlevel.current_clock().current_time
        self._opened_at = self._now()
        self._late: RequestHead | None = None  # a head that came as the waiting ended
        self._seen: Exchange | None = None  # the one in flight when the sweep last came by
        self._waiting = trio.CancelScope()
        self._context = contextvars.copy_context()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request of which nothing has come."""
        return self.exchange is None and not self._buffer and not self._transport.has_data()

    @property
    def is_about_to_ask(self) -> bool:
        """Whether a request may be on its way that nobody has seen."""
        if self.exchange is not None:
            return False
        age = self._now() - self._opened_at
        return (self.requests == 0 and age < _limits.HEADWAY) or not self.is_idle

    def look(self) -> None:
        has_work = self.exchange is not None or self.requests > self._seen_requests
        self._idle_looks = 0 if has_work else self._idle_looks + 1
        self.is_active = self._idle_looks < _limits.IDLE_LOOKS
        self._seen_requests = self.requests

    @property
    def is_let_go(self) -> bool:
        return not self._last_request

    def let_go(self) -> None:
        """End it with the next answer that begins."""
        self._last_request = 0

    def expire(self) -> None:
        """Let it wait for its client no longer."""
        self._expired = True  # to ask the scope would cost each request a look at the clock
        self._waiting.cancel()

    def leave(self) -> None:
        """The server ends, and it is idle: an end to find costs less than a cancellation."""
        if not self._transport.end_receiving():
            self.expire()

    async def run(self, exchange: Exchange | None = None) -> None:
        """Serve requests until the connection ends.

        `exchange` is one that has its response, while the app's call goes on elsewhere.

        Cancellation: what is in flight is cancelled, and the connection closed.
        """
        try:
            await self._run(exchange)
        except Exception:
            log_bug()

    async def _run(self, exchange: Exchange | None) -> None:
        mine = self._waiting = trio.CancelScope()
        self._expired = False
        self._task = trio.lowlevel.current_task()
        try:
            await self._converse(mine, exchange)
        except ClientGone:
            pass
        finally:
            if self._waiting is mine:  # else another task serves the connection on
                await self._close()

    async def _close(self) -> None:
        self._on_close(self)
        exchange = self.exchange
        await self._transport.close(abort=exchange is not None and exchange.broken)

    async def _converse(self, scope: trio.CancelScope, exchange: Exchange | None) -> None:
        """Serve until `scope` ends the waiting; a bad request ends it too, with an answer."""
        try:
            with scope:
                await self._serve(exchange)
            if scope.cancelled_caught and self._waiting is scope:
                await self._serve_late()
        except BadRequest as exc:
            await self._refuse(exc.status, str(exc))

    async def _serve(self, exchange: Exchange | None) -> None:
        if exchange is not None and not await self._finish(exchange):
            return
        while (head := await self._next_head()) is not None:
            if self._expired:
                # The head came in the moment in which the waiting ended.
                self._late = head
                await trio.lowlevel.checkpoint()
            exchange = await self._answer(head)
            if self.exchange is not exchange:
                return  # another task serves the connection on
            if not (_ended_well(exchange) or await self._finish(exchange)):
                return

    async def _serve_late(self) -> None:
        """Serve what had come when the waiting ended, outside of the scope that ended it."""
        head, self._late = self._late, None
        if head is not None:
            exchange = await self._answer(head, is_last=True)
            if self.exchange is exchange:
                await self._finish(exchange)
        elif self._buffer and self.exchange is None:
            raise BadRequest(408, "the head of the request came too slowly")

    async def _next_head(self) -> RequestHead | None:
        """None when the client is done, or was told so."""
        self.exchange = None
        self._task.context = self._context.copy()
        if self._buffer:
            await trio.lowlevel.checkpoint()
        elif self._service.draining and not self._transport.has_data():
            return None
        limits = self._service.limits
        seconds = limits.idle_timeout if self.requests else limits.head_timeout
        self.deadline = self._now() + seconds
        try:
            return await self._read_head(limits)
        finally:
            self.deadline = math.inf

    async def _read_head(self, limits: ServerLimits) -> RequestHead | None:
        buffer, heads = self._buffer, self._heads
        has_begun = False
        while True:
            if buffer:
                head = heads.take(buffer)
                if head is not None:
                    return head
                if buffer and not has_begun:
                    has_begun = True
                    self.deadline = self._now() + limits.head_timeout
            data = await self._transport.receive(_limits.HEAD_READ_SIZE)
            if not buffer and (head := heads.recall(data)) is not None:
                return head
            if not data:
                return None
            buffer += data

    async def _answer(self, head: RequestHead, *, is_last: bool = False) -> Exchange:
        """Have the app answer; `is_last`: no other request follows, whatever the client says."""
        service = self._service
        self.requests += 1
        if service.stopping:
            service.notify()
        if self.requests >= self._last_request:
            is_last = True
            if not self.is_let_go:
                service.tell(LimitReached("max_connection_requests"))
        scope = self._scopes.make(head)
        if service.access_log is None:
            return await self._call_app(scope, head, is_last)
        since, client = self._now(), self._scopes.client_name
        exchange = await self._call_app(scope, head, is_last)
        self._log(service.access_log, client, exchange, since)
        return exchange

    async def _call_app(self, scope: Scope, head: RequestHead, is_last: bool) -> Exchange:
        """Returns when the app's call is over, and it is clear what became of it."""
        service = self._service
        exchange = new_exchange(service, self._transport, self._buffer, head, is_last)
        self.exchange = exchange
        if head.framing.is_websocket:
            await self._refuse_websocket(exchange)
            return exchange
        if service.requests_in_flight >= service.limits.max_requests:
            service.reach_limit("max_requests")
            await exchange.refuse(503, "The server is busy", (b"retry-after", b"1"))
            return exchange
        exchange.works = True
        service.requests_in_flight += 1
        failure: BaseException | None = None
        try:
            await service.app(scope, exchange.receive, exchange.send)
        except BaseException as exc:
            failure = _failure(exc)
        finally:
            exchange.returned = True
            self._end_work(exchange)
        if failure is not None or not exchange.output.complete:
            await self._account_for(exchange, failure)
        return exchange

    async def _refuse_websocket(self, exchange: Exchange) -> None:
        """Where others that can't serve one would answer as if it were any GET."""
        reason = "WebSockets aren't served here, and this request asks for one"
        self._log_refusal(f"{_describe(exchange.head)} of {self._scopes.client_name}", reason)
        await exchange.refuse(403, reason)

    def _end_work(self, exchange: Exchange) -> None:
        """The app has returned, or the connection goes on without its call."""
        # As `is_at_work` says, without a call for each request.
        self._service.requests_in_flight -= exchange.works and not exchange.waits
        exchange.works = False

    async def _account_for(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Say what became of the app's call, to the log and, if it can be, to the client."""
        request = _describe(exchange.head)
        if exchange.refusal:
            self._log_refusal(f"{request} of {self._scopes.client_name}", exchange.refusal)
        left = exchange.client_left if failure is None else is_departure(failure)
        if failure is not None and not left:
            logger.error("%s failed", request, exc_info=failure)
        elif left:
            logger.debug("%s: the client left before the end of the response", request)
        else:
            logger.error("%s: the app returned before the end of its response", request)
        if left:
            exchange.gone = True
            exchange.broken = exchange.broken or (exchange.sent > 0 and not exchange.refused)
        elif not exchange.output.complete:
            await exchange.refuse(500, "Internal Server Error")

    def sweep(self, now: float, nursery: trio.Nursery) -> float:
        """Look whether something takes long; until when there is nothing to look at again."""
        if self.deadline <= now:
            self.deadline = math.inf
            self.expire()
        elif self.exchange is not None and self.exchange is self._seen:
            self._hand_over(nursery)
        self._seen = self.exchange
        return self.deadline

    def _hand_over(self, nursery: trio.Nursery) -> None:
        """Serve on in a task of its own, if the app's call outlives its response."""
        exchange = self.exchange
        if exchange is not None and exchange.outlived:
            self.exchange = None
            self._waiting = trio.CancelScope()
            self._end_work(exchange)
            nursery.start_soon(self.run, exchange)

    async def _finish(self, exchange: Exchange) -> bool:
        """Whether the connection can go on after this exchange."""
        await exchange.wait_landed()
        if _ended_well(exchange):
            return True
        if exchange.broken:
            return False
        if exchange.output.complete and exchange.keep_alive:
            with trio.move_on_after(_limits.LINGER_TIME):
                if await exchange.skip_body():
                    return True
        unread = exchange.has_unread_body or self._buffer or self._transport.has_data()
        if unread or not exchange.output.complete:
            await self._linger()
        return False

    async def _refuse(self, status: int, reason: str) -> None:
        """Answer what can't be read as a request, and be done."""
        self._service.refusals += 1
        self._log_refusal(self.client, reason)
        answer = error_response(status, reason)
        await send_all(self._transport, answer, Patience(self._service.limits.write_timeout))
        if self._service.access_log is not None:
            self._service.access_log.add(
                Answer(self.client, b"-", b"-", b"-", status, len(answer), 0.0)
            )
        await self._linger()

    async def _linger(self) -> None:
        """Say that nothing more is coming, and read away what the client still sends."""
        with trio.move_on_after(_limits.LINGER_TIME):
            await self._transport.send_eof()
            budget = _limits.LINGER_SIZE
            while budget > 0 and (data := await self._transport.receive()):
                budget -= len(data)

    def _log_refusal(self, who: str, reason: str) -> None:
        """At most once for each connection, as a refusal ends it."""
        logger.info("refused %s: %s", who, escaped(reason.encode())[: _limits.MAX_REASON])

    def _log(self, log: AccessLog, client: str, exchange: Exchange, since: float) -> None:
        seconds = self._now() - since
        head, status, size = exchange.head, exchange.status, exchange.sent
        log.add(Answer(client, head.method, head.target, head.version, status, size, seconds))


def _ended_well(exchange: Exchange) -> bool:
    """Whether nothing of the exchange is left to do, or in the way of the next request."""
    return (
        exchange.output.complete
        and exchange.keep_alive
        and (exchange.body is None or exchange.body.over)
        and exchange.landed is None
        and not exchange.broken
    )


def _describe(head: RequestHead) -> str:
    """The request, for people to read; the strict layer leaves only visible ASCII in it."""
    return f"{head.method.decode('ascii')} {head.target.decode('ascii')}"


def _failure(exc: BaseException) -> BaseException:
    """What the app raised; cancellation and Ctrl-C go on, and what came with them is logged."""
    failure, rest = split(exc)
    if rest is None or is_stray(rest):
        return exc
    if failure is not None:
        logger.error("failed while it was cancelled", exc_info=failure)
    raise rest
