"""All connections of one server: what is done to each of them, and to all at once.

Rules of this module:

* A connection is one of them from the moment in which it is taken over until its transport is
  closed, whichever of its tasks serves it.
* Time limits of connections are kept by one sweep over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from .._asgi import ConnectionClosed, ConnectionOpened
from . import _limits
from ._connection import Connection
from ._errors import log_bug
from ._forwarded import Address
from ._service import Service
from ._tls_extension import TLSExtension
from ._transport import Transport


@dataclass(frozen=True, kw_only=True)
class ServerStatistics:
    """How much a server has had to do since it began, and has to do now.

    `connections_accepted` are those that are open and those that were closed, by either side; with
    TLS, once they have shaken hands.  `requests`: whose heads were read.  `requests_in_flight`:
    those that the app works on, as `max_requests` counts them; not those that wait for a client.
    `refusals`: answers of the server's own, to what can't be read as a request, comes too slowly or
    past a limit, or is left without an answer by the app.
    """

    connections_accepted: int
    connections_open: int
    connections_closed: int
    requests: int
    requests_in_flight: int
    refusals: int


class Connections:
    """The connections that are open now; they are served in `nursery`."""

    def __init__(self, service: Service, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self._service = service
        self.active = 0  # those that are new, or had requests when `look` last came by
        self._open: set[Connection] = set()
        self._closed = 0
        self._requests_of_closed = 0

    def __len__(self) -> int:
        return len(self._open)

    def take_over(
        self,
        transport: Transport,
        *,
        scheme: str,
        client: Address | None,
        server: Address | None,
        tls: TLSExtension | None = None,
    ) -> None:
        """Serve one more.  Raises RuntimeError once the server has ended."""
        connection = Connection(
            self._service,
            transport,
            scheme=scheme,
            client=client,
            server=server,
            tls=tls,
            on_close=self._forget,
        )
        self.nursery.start_soon(connection.run)
        self._open.add(connection)
        self.active += 1
        self._service.notify()
        if self._service.is_listened_to:
            self._service.tell(ConnectionOpened(connection.client))

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self.active -= connection.is_active
        self._closed += 1
        self._requests_of_closed += connection.requests
        self._service.notify()
        if self._service.is_listened_to:
            self._service.tell(ConnectionClosed(connection.client, connection.requests))

    def statistics(self) -> ServerStatistics:
        return ServerStatistics(
            connections_accepted=len(self._open) + self._closed,
            connections_open=len(self._open),
            connections_closed=self._closed,
            requests=self._requests_of_closed + sum(each.requests for each in self._open),
            requests_in_flight=self._service.requests_in_flight,
            refusals=self._service.refusals,
        )

    def leave_idle(self) -> None:
        """Close those that wait for a request of which nothing has come."""
        for connection in tuple(self._open):
            if connection.is_idle:
                connection.leave()

    def look(self) -> None:
        """See which of them are active."""
        for connection in self._open:
            connection.look()
        self.active = sum(connection.is_active for connection in self._open)

    def let_go(self, count: int) -> None:
        """Have so many of the active ones, and no more, end with their next answer."""
        active = [each for each in self._open if each.is_active]
        staying = [each for each in active if not each.is_let_go]
        for connection in staying[: max(0, count - (len(active) - len(staying)))]:
            connection.let_go()

    @property
    def wait_for_clients(self) -> bool:
        """Whether one of them has no request now."""
        return any(connection.exchange is None for connection in self._open)

    def expire(self) -> None:
        """Let none of them wait for its client any more."""
        for connection in tuple(self._open):
            connection.expire()

    @property
    def are_about_to_ask(self) -> bool:
        """Whether a request may be on its way that nobody has seen."""
        return any(connection.is_about_to_ask for connection in self._open)

    async def sweep(self) -> None:
        """Cancel what has waited for too long, and whatever else nobody does for each request."""
        service = self._service
        while True:
            if service.access_log is not None:
                service.access_log.flush()
            self._look_at_limits()
            if not (self._open or service.holds_back):
                await service.changed.wait()
            now = trio.current_time()
            again = now + _limits.SWEEP_INTERVAL
            for connection in tuple(self._open):
                try:
                    again = min(again, connection.sweep(now, self.nursery))
                except Exception:
                    log_bug()
            await trio.sleep_until(again)

    def _look_at_limits(self) -> None:
        """Here and not as each request ends: one that is reached on and off is told of once."""
        service = self._service
        if service.requests_in_flight < service.limits.max_requests:
            service.leave_limit("max_requests")
        if len(self._open) < service.limits.max_connections:
            service.leave_limit("max_connections")
