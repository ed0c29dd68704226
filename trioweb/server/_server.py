"""The server: listeners, connections, the app's lifespan, and how they end.

Rules of this module:

* Everything lives in the nursery of `serve`: when it has returned, nothing is left.
* Draining is one event; cancelling is one scope.  The first lets what is in flight end,
  the second, or the end of the drain timeout, doesn't.
* The lifespan closes after the last request.  An app that drains by itself is told of
  the shutdown first, and is waited for (see `_lifespan`).
* Time limits of connections are kept by one sweep over all of them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import Unpack

import trio

from .._asgi import ASGIApp, ServerSettings
from . import _limits
from ._access import AccessLog
from ._config import ServerConfig, ServerOptions, config_of, with_options
from ._connection import Connection, Service
from ._errors import StartupFailed
from ._lifespan import Lifespan
from ._limits import limits_of, limits_of_others, overridden
from ._listeners import Listener, open_listeners
from ._parsers import parser
from ._scope import Address, TrustedPeers
from ._transport import SocketTransport, StreamTransport, Transport

logger = logging.getLogger("trioweb.server")

_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server:
    """A server that runs; `serve` makes it, and gives it to `task_status`.

    `urls`: where it listens.
    """

    def __init__(
        self,
        config: ServerConfig,
        service: Service,
        lifespan: Lifespan,
        listeners: Sequence[Listener],
    ) -> None:
        self.urls: tuple[str, ...] = ()
        self._config = config
        self._service = service
        self._lifespan = lifespan
        self._listeners = listeners
        self._stopping = trio.Event()
        self._ended = trio.Event()
        self._accepting = trio.CancelScope()
        self._accepting_ended = trio.Event()
        self._opening = 0  # connections that were accepted, and aren't served yet
        self._handshakes: set[trio.CancelScope] = set()  # under way

    async def shutdown(self) -> None:
        """Drain: accept nothing more, let requests end, then cancel; returns when it's over.

        Cancellation: stops waiting, the shutdown goes on.
        """
        self._stopping.set()
        await self._ended.wait()

    def cancel(self) -> None:
        """Don't drain, or no longer: cancel what is in flight."""
        self._stopping.set()
        self._connections.cancel_scope.cancel()
        if self._app_drains:
            self._lifespan.cancel()

    async def wait_closed(self) -> None:
        """Returns when the server has ended."""
        await self._ended.wait()

    @property
    def drain_timeout(self) -> float:
        """For how many seconds `shutdown` waits for what is in flight."""
        app = self._lifespan.app_settings
        if app is not None:
            return app.drain_timeout
        seconds = self._config.drain_timeout
        return _limits.DRAIN_TIMEOUT if seconds is None else seconds

    @property
    def cleanup_timeout(self) -> float | None:
        """For how many seconds the app cleans up then; None where it doesn't say."""
        app = self._lifespan.app_settings
        return None if app is None else app.cleanup_timeout

    @property
    def _app_drains(self) -> bool:
        """Whether the app drains by itself, as ours do."""
        return self._lifespan.app_settings is not None

    async def _run(self, task_status: trio.TaskStatus[Server]) -> None:
        failure: StartupFailed | None = None
        try:
            async with trio.open_nursery() as outer:
                # Let through here it would come out in a group.
                try:
                    await self._run_within_lifespan(outer, task_status)
                except StartupFailed as exc:
                    failure = exc
        finally:
            self._ended.set()
        if failure is not None:
            raise failure
        self._lifespan.check()

    async def _run_within_lifespan(
        self, outer: trio.Nursery, task_status: trio.TaskStatus[Server]
    ) -> None:
        try:
            await outer.start(self._lifespan.run)
            self._heed_app()
            await self._run_connections(task_status)
        except BaseException:
            self._lifespan.cancel()
            raise
        self._lifespan.stop()

    def _heed_app(self) -> None:
        """It has started.  Raises StartupFailed for a limit that nobody keeps."""
        app, overrides = self._lifespan.app_settings, self._config.limit_overrides
        self._service.state = self._lifespan.state
        if app is not None:
            self._service.limits = overridden(self._config.limits or limits_of(app), overrides)
        elif unkept := limits_of_others(overrides):
            raise StartupFailed(
                f"only a trioweb.App keeps {', '.join(unkept)}, and this is another kind of app"
            )

    async def _run_connections(self, task_status: trio.TaskStatus[Server]) -> None:
        async with trio.open_nursery() as system:
            async with trio.open_nursery() as self._connections:
                system.start_soon(self._sweep)
                system.start_soon(self._pass_on_cancellation)
                system.start_soon(self._stop_after_lifespan)
                system.start_soon(self._accept)
                self.urls = tuple(listener.url for listener in self._listeners)
                if self.urls:
                    logger.info("listening on %s", ", ".join(self.urls))
                task_status.started(self)
                await self._stopping.wait()
                await self._drain()
            system.cancel_scope.cancel()

    async def _stop_after_lifespan(self) -> None:
        await self._lifespan.ended.wait()
        self._stopping.set()

    async def _pass_on_cancellation(self) -> None:
        """An app that drains by itself is cancelled together with its requests."""
        try:
            await trio.sleep_forever()
        finally:
            if self._app_drains:
                self._lifespan.cancel()

    async def _drain(self) -> None:
        """Let what is in flight end, until the end of the drain timeout."""
        await self._stop_accepting()
        await self._wait_for_heads()
        for scope in self._handshakes:
            scope.cancel()
        self._service.draining = True
        for connection in tuple(self._service.connections):
            if connection.is_idle:
                connection.leave()
        seconds = self.drain_timeout
        if self._app_drains:
            self._lifespan.stop()
            with trio.move_on_after(seconds + (self.cleanup_timeout or 0)) as scope:
                await self._lifespan.ended.wait()
            if scope.cancelled_caught:
                # Who still sends holds up the app.
                for connection in tuple(self._service.connections):
                    connection.expire()
                await self._lifespan.ended.wait()
            seconds = _limits.LANDING_TIME
        self._connections.cancel_scope.deadline = trio.current_time() + seconds

    async def _stop_accepting(self) -> None:
        """Who is connected already hasn't come too late."""
        self._accepting.cancel()
        await self._accepting_ended.wait()
        for listener in self._listeners:
            with contextlib.suppress(OSError):  # no more files: the others have to try again
                self._accept_ready(listener)
            listener.close()

    async def _wait_for_heads(self) -> None:
        """An app that drains by itself refuses what it hasn't seen by then."""
        service = self._service
        service.stopping = True
        with trio.move_on_after(_limits.HEADWAY):
            while self._opening or any(c.is_about_to_ask for c in service.connections):
                await service.changed.wait()

    async def _accept(self) -> None:
        with self._accepting:
            async with trio.open_nursery() as nursery:
                for listener in self._listeners:
                    nursery.start_soon(self._accept_from, listener)
        self._accepting_ended.set()

    async def _accept_from(self, listener: Listener) -> None:
        while True:
            while self._places_left <= 0:
                await self._service.changed.wait()
            if self._accepting.cancel_called:
                return  # and the listener is closed
            await trio.lowlevel.wait_readable(listener.socket)
            try:
                self._accept_ready(listener)
            except OSError as exc:
                logger.error("can't accept connections for a while: %s", exc)
                await trio.sleep(_limits.OUT_OF_FILES_PAUSE)

    @property
    def _places_left(self) -> int:
        taken = len(self._service.connections) + self._opening
        return self._service.limits.max_connections - taken

    def _accept_ready(self, listener: Listener) -> None:
        """Accept all that wait.  Raises OSError when there are no more files."""
        while self._places_left > 0:
            try:
                sock, address = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _OUT_OF_FILES:
                    raise
                continue  # this one has left already
            self._opening += 1
            self._connections.start_soon(self._handle, sock, address, listener)

    async def _handle(self, sock: socket.socket, address: object, listener: Listener) -> None:
        sock.setblocking(False)
        client: Address | None = None
        if isinstance(address, tuple):
            client = (address[0], address[1])
            with contextlib.suppress(OSError):  # a client that has left already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _limits.MAX_UNSENT)
        try:
            transport: Transport = SocketTransport(sock)
            if self._config.ssl_context is not None:
                transport = await self._encrypt(sock, self._config.ssl_context)
        except trio.BrokenResourceError:
            return
        finally:
            self._opening -= 1
            self._service.notify()
        scheme = "http" if self._config.ssl_context is None else "https"
        await self._serve(
            Connection(
                self._service, transport, scheme=scheme, client=client, server=listener.address
            )
        )

    async def _encrypt(self, sock: socket.socket, context: ssl.SSLContext) -> StreamTransport:
        """Raises BrokenResourceError if the handshake fails, or the server ends within it."""
        with trio.CancelScope() as scope:
            self._handshakes.add(scope)
            try:
                return StreamTransport(await _encrypted(sock, context))
            finally:
                self._handshakes.discard(scope)
        raise trio.BrokenResourceError("the server ends")

    def serve_stream(
        self,
        stream: trio.abc.Stream,
        *,
        scheme: str = "http",
        client: Address | None = None,
        server: Address | None = None,
    ) -> None:
        """Take over a connection that was accepted elsewhere; the stream is the server's now.

        `client` and `server` are (host, port), for ASGI's scope.
        """
        transport = StreamTransport(stream)
        connection = Connection(
            self._service, transport, scheme=scheme, client=client, server=server
        )
        self._connections.start_soon(self._serve, connection)

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception:
            logger.critical("a bug in trioweb's server, please report it", exc_info=True)

    async def _sweep(self) -> None:
        """Cancel what has waited for too long, and whatever else nobody does for each request."""
        service = self._service
        while True:
            if service.access_log is not None:
                service.access_log.flush()
            if not service.connections:
                await service.changed.wait()
            now = trio.current_time()
            again = now + _limits.SWEEP_INTERVAL
            for connection in tuple(service.connections):
                again = min(again, connection.sweep(now, self._connections))
            await trio.sleep_until(again)


async def _encrypted(
    sock: socket.socket, context: ssl.SSLContext
) -> trio.SSLStream[trio.SocketStream]:
    """The stream after its handshake.  Raises BrokenResourceError if that fails."""
    stream = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(sock)),
        context,
        server_side=True,
        https_compatible=True,
    )
    with trio.move_on_after(_limits.HANDSHAKE_TIME):
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream
    await trio.aclose_forcefully(stream)
    raise trio.BrokenResourceError("the TLS handshake took too long")


async def serve(
    app: ASGIApp,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerOptions],
) -> None:
    """Serve an ASGI 3 app that runs on Trio, until `Server.shutdown` or cancellation.

    `await nursery.start(serve, app)` returns the `Server` once it listens.  The options:

    {options}

    Error handling: raises OSError if it can't listen, LifespanFailed if the app's lifespan
    fails; what a request raises is logged by `trioweb.server`.

    Cancellation: skips to cancelling what is in flight.  The lifespan closes last.
    """
    await serve_config(app, config_of(options), task_status=task_status)


serve.__doc__ = with_options(serve.__doc__)


async def serve_config(
    app: ASGIApp,
    config: ServerConfig,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """`serve`, with its options in one object."""
    listeners = await open_listeners(config)
    try:
        await run_server(app, config, listeners, task_status=task_status)
    finally:
        for listener in listeners:
            listener.close()


async def run_server(
    app: ASGIApp,
    config: ServerConfig,
    listeners: Sequence[Listener],
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """`serve` with listeners that are open already, or with none."""
    service = Service(
        app,
        limits=overridden(config.limits or limits_of(app), config.limit_overrides),
        parse=parser(config.http),
        root_path=config.root_path.rstrip("/"),
        trusted=TrustedPeers(config.forwarded_allow_ips),
        access_log=AccessLog() if config.access_log else None,
    )
    settings = ServerSettings(
        drain_timeout=config.drain_timeout,
        cleanup_timeout=config.cleanup_timeout,
        limits=config.limit_overrides,
        debug=config.debug,
        listen=service.listen,
    )
    try:
        server = Server(config, service, Lifespan(app, settings), listeners)
        await server._run(task_status)
    finally:
        if service.access_log is not None:
            service.access_log.flush()
