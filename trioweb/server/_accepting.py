"""Accepting: from listeners to connections, as many as there are places for.

Rules of this module:

* What waits in the kernel is accepted all at once, and costs no task before it is served; for TLS
  it costs one, which has so long for the handshake.
* Of several workers on the same sockets each takes a few at a time, and who has more than another
  lets that one go first, once and for a moment (see `_peers`).  Who has too much to do, and many
  more than another, as after a start, lets go of some: their clients come again.
* A machine that has no more files is waited for, and so is what we don't know.  Nothing here goes
  on and on without a pause.
* A listener that its giver has shut down or closed ends the server, in order.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import logging
import math
import os
import socket
import ssl
from collections.abc import Sequence

import trio

from . import _limits
from ._connections import Connections
from ._errors import ClientGone
from ._forwarded import Address
from ._listeners import Listener
from ._peers import Load, Peers
from ._scope import name_of
from ._service import Service
from ._system import prepare_connection
from ._tls import TLSTransport
from ._tls_extension import tls_extension
from ._transport import SocketTransport

logger = logging.getLogger("trioweb.server")

# What Python looks for in files when it is needed for the first time, which may be when there are
# no more of them, and never again: for a line of the access log, and for a name to connect to.
_CODECS = ("unicode_escape", "idna")

# A client that waited, but has left or can't be reached any more (`man 2 accept`).
_LEFT = (
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
)

# Nobody can be accepted there any more.
_BROKEN = (errno.EINVAL, errno.EBADF, errno.ENOTSOCK, errno.EOPNOTSUPP)


class Acceptor:
    """Accepts connections for one server; they are the handshakes', then the connections'."""

    def __init__(
        self,
        service: Service,
        connections: Connections,
        listeners: Sequence[Listener],
        ssl_context: ssl.SSLContext | None,
        peers: Peers | None,
    ) -> None:
        self._service = service
        self._connections = connections
        self._listeners = listeners
        self._ssl_context = ssl_context
        self._peers = peers
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        for codec in _CODECS:
            codecs.lookup(codec)
        self._handshakes: set[trio.CancelScope] = set()  # of connections that are accepted
        self.failed: trio.Event = trio.Event()
        self.failure: OSError | None = None  # of a listener that can't be used any more

    @property
    def shakes_hands(self) -> bool:
        """Whether somebody is between being accepted and being served."""
        return bool(self._handshakes)

    async def run(self) -> None:
        """Accept, until `stop` or `retire`."""
        if self._peers is not None:
            self._service.listen(lambda event: self._tell_peers())
            self._tell_peers()
        with self._scope:
            async with trio.open_nursery() as nursery:
                for listener in self._listeners:
                    nursery.start_soon(self._accept_from, listener)
        self._ended.set()

    async def stop(self) -> None:
        """Accept nobody any more, but who is connected already: that isn't too late."""
        for listener in await self._end():
            with contextlib.suppress(OSError):  # no more files: the others have to try again
                self._accept_ready(listener, math.inf)
            listener.close()

    async def retire(self) -> None:
        """Accept nobody any more: who waits is left to the peers."""
        for listener in await self._end():
            listener.close()

    async def _end(self) -> Sequence[Listener]:
        """Accept no more; returns the listeners, which are the caller's to close."""
        self._scope.cancel()
        await self._ended.wait()
        if self._peers is not None:
            self._peers.withdraw()
        listeners, self._listeners = self._listeners, ()
        return listeners

    def end_handshakes(self) -> None:
        for scope in self._handshakes:
            scope.cancel()

    async def _accept_from(self, listener: Listener) -> None:
        try:
            await self._accept_on_and_on(listener)
        except OSError as exc:
            self.failure = OSError(
                exc.errno,
                f"connections can't be accepted on {listener.url} any more: {exc.strerror};"
                " whoever gave the socket has shut it down, or closed it",
            )
            logger.error("%s", self.failure.strerror)
            self.failed.set()

    async def _accept_on_and_on(self, listener: Listener) -> None:
        """Raises OSError when that can't be done any more."""
        pauses = 0
        while True:
            if listener.socket.fileno() < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            await trio.lowlevel.wait_readable(listener.socket)
            await self._wait_for_place()
            if self._scope.cancel_called:
                return  # the listener is about to be closed
            most = await self._wait_for_turn()
            try:
                self._accept_ready(listener, most)
            except OSError as exc:
                if exc.errno in _BROKEN:
                    raise
                if not pauses:
                    logger.error("can't accept connections for a while: %s", exc)
                pauses += 1
                await trio.sleep(_limits.OUT_OF_FILES_PAUSE)
            else:
                if pauses:
                    logger.warning("connections are accepted again on %s", listener.url)
                pauses = 0

    async def _wait_for_place(self) -> None:
        """For somebody who waits to be accepted."""
        if self._places_left <= 0:
            self._service.reach_limit("max_connections")
            while self._places_left <= 0:
                await self._service.changed.wait()

    async def _wait_for_turn(self) -> float:
        """Let peers that have less go first; returns how many to accept then."""
        least = None if self._peers is None else self._peers.least()
        if least is None:
            return math.inf
        if self._load > least:
            await trio.sleep(_limits.LET_OTHERS_GO)
        return 1 + self._taken // _limits.CONNECTIONS_FOR_ONE_MORE

    def look(self) -> None:
        """See which connections are active, and say so."""
        self._connections.look()
        self._tell_peers()

    def even_out(self) -> None:
        """Let go of some, if many more are active here than with another, who may be new."""
        least = None if self._peers is None else self._peers.least()
        if least is not None and not self._scope.cancel_called:
            excess = self._connections.active - least.active
            if excess > 1 + least.active // _limits.CONNECTIONS_FOR_ONE_MORE:
                self._connections.let_go(excess // 2)

    @property
    def _taken(self) -> int:
        return len(self._connections) + len(self._handshakes)

    @property
    def _places_left(self) -> int:
        return self._service.limits.max_connections - self._taken

    @property
    def _load(self) -> Load:
        return Load(self._connections.active + len(self._handshakes), self._taken)

    def _tell_peers(self) -> None:
        """To be called as a connection comes or goes."""
        if self._peers is not None and not self._scope.cancel_called:
            self._peers.accept(self._load)

    def _accept_ready(self, listener: Listener, most: float) -> None:
        """Accept those that wait, but so many at most.

        Raises OSError when it has to wait, or can't any more.
        """
        while most > 0 and self._places_left > 0:
            most -= 1
            try:
                sock, address = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _LEFT:
                    continue
                raise
            self._begin(sock, address, listener)

    def _begin(self, sock: socket.socket, address: object, listener: Listener) -> None:
        sock.setblocking(False)
        client: Address | None = None
        if isinstance(address, tuple):
            client = (address[0], address[1])
            prepare_connection(sock)
        transport = SocketTransport(sock)
        if self._ssl_context is None:
            self._connections.take_over(
                transport, scheme="http", client=client, server=listener.address
            )
            return
        scope = trio.CancelScope()
        self._handshakes.add(scope)
        self._tell_peers()
        self._connections.nursery.start_soon(
            self._shake_hands, scope, transport, self._ssl_context, client, listener.address
        )

    async def _shake_hands(
        self,
        scope: trio.CancelScope,
        transport: SocketTransport,
        context: ssl.SSLContext,
        client: Address | None,
        server: Address,
    ) -> None:
        try:
            with scope:
                encrypted = await _encrypted(transport, context)
                self._connections.take_over(
                    encrypted,
                    scheme="https",
                    client=client,
                    server=server,
                    tls=tls_extension(encrypted.session),
                )
        except ClientGone as exc:
            logger.debug("%s: %s (%s)", name_of(client), exc, exc.__cause__ or "nothing came")
        finally:
            self._handshakes.discard(scope)
            self._tell_peers()
            self._service.notify()


async def _encrypted(transport: SocketTransport, context: ssl.SSLContext) -> TLSTransport:
    """After its handshake.  Raises ClientGone if that fails."""
    encrypted = TLSTransport(transport, context)
    with trio.move_on_after(_limits.HANDSHAKE_TIME):
        try:
            await encrypted.shake_hands()
        except BaseException:
            await transport.close()
            raise
        return encrypted
    raise ClientGone("the TLS handshake took too long")
