"""The server: listeners, connections, the app's lifespan, and how they end.

Rules of this module:

* Everything lives in the nursery of `serve`: when it has returned, nothing is left.
* Draining is one event; cancelling is one scope.  The first lets what is in flight end,
  the second, or the end of the drain timeout, doesn't.
* Before it drains, a worker whose sockets others listen on may retire: its idle connections, which
  their clients may be about to use, have one more answer.
* The lifespan closes after the last request.  An app that drains by itself is told of
  the shutdown first, and is waited for (see `_lifespan`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from inspect import isclass
from typing import Unpack

import trio

from .._asgi import ASGIApp, ServerListener, ServerSettings
from . import _limits
from ._accepting import Acceptor
from ._config import ServerConfig, ServerOptions, config_of, with_options
from ._connections import Connections, ServerStatistics
from ._errors import StartupFailed
from ._forwarded import Address
from ._lifespan import Lifespan
from ._limits import limits_of, limits_of_others, overridden
from ._listeners import Listener, open_listeners
from ._peers import Peers
from ._service import Service, takes
from ._transport import StreamTransport

logger = logging.getLogger("trioweb.server")


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
        peers: Peers | None,
    ) -> None:
        self.urls: tuple[str, ...] = ()
        self._config = config
        self._service = service
        self._lifespan = lifespan
        self._listeners = listeners
        self._peers = peers
        self._retiring = trio.Event()
        self._stopping = trio.Event()
        self._ended = trio.Event()

    async def shutdown(self) -> None:
        """Drain: accept nothing more, let requests end, then cancel; returns when it's over.

        Cancellation: stops waiting, the shutdown goes on.
        """
        self._stopping.set()
        await self._ended.wait()

    def retire(self) -> None:
        """Leave what comes to those who share its sockets; drain when no connection is idle."""
        self._retiring.set()

    def cancel(self) -> None:
        """Don't drain, or no longer: cancel what is in flight."""
        self._stopping.set()
        self._connections.nursery.cancel_scope.cancel()
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
    def retire_timeout(self) -> float:
        """For how many seconds `retire` waits at most before the server drains."""
        limits = self._service.limits
        return min(max(limits.idle_timeout, limits.head_timeout), _limits.LONGEST_RETIREMENT)

    @property
    def cleanup_timeout(self) -> float | None:
        """For how many seconds the app cleans up then; None where it doesn't say."""
        app = self._lifespan.app_settings
        return None if app is None else app.cleanup_timeout

    @property
    def _app_drains(self) -> bool:
        """Whether the app drains by itself, as ours do."""
        return self._lifespan.app_settings is not None

    def statistics(self) -> ServerStatistics:
        """How much it has had to do since it began, and has now; the counts add up."""
        return self._connections.statistics()

    def listen(self, hear: ServerListener) -> None:
        """Have `hear` called with each event from now on.

        That is a `ConnectionOpened`, a `ConnectionClosed` or a `LimitReached`.
        """
        self._service.listen(hear)

    async def _run(self, task_status: trio.TaskStatus[Server]) -> None:
        failure: StartupFailed | None = None
        try:
            async with trio.open_nursery() as outer:
                # Raised through the nursery it would come out in a group.
                try:
                    await self._run_within_lifespan(outer, task_status)
                except StartupFailed as exc:
                    failure = exc
        finally:
            self._ended.set()
        if failure is not None:
            raise failure
        self._lifespan.check()
        if self._acceptor.failure is not None:
            raise self._acceptor.failure

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
            async with trio.open_nursery() as nursery:
                service = self._service
                self._connections = connections = Connections(service, nursery)
                self._acceptor = Acceptor(
                    service, connections, self._listeners, self._config.ssl_context, self._peers
                )
                system.start_soon(connections.sweep)
                system.start_soon(self._pass_on_cancellation)
                system.start_soon(self._stop_after, self._lifespan.ended)
                system.start_soon(self._stop_after, self._acceptor.failed)
                system.start_soon(self._stop_after_retirement)
                if self._peers is not None:
                    system.start_soon(self._live_among, self._peers)
                system.start_soon(self._acceptor.run)
                self.urls = tuple(listener.url for listener in self._listeners)
                if self.urls:
                    logger.info("listening on %s", ", ".join(self.urls))
                task_status.started(self)
                await self._stopping.wait()
                await self._drain()
            system.cancel_scope.cancel()

    async def _stop_after(self, event: trio.Event) -> None:
        await event.wait()
        self._stopping.set()

    async def _live_among(self, peers: Peers) -> None:
        """Give signs of life, as long as the event loop goes round; see whether it goes late."""
        while True:
            peers.live(self.statistics().requests)
            next_time = trio.current_time() + _limits.LIFE_SIGN_INTERVAL
            await trio.sleep_until(next_time)
            self._acceptor.look()
            if trio.current_time() - next_time >= _limits.LATE:
                self._acceptor.even_out()

    async def _stop_after_retirement(self) -> None:
        """A connection that is closed while its client sends on it is an error for the client."""
        await self._retiring.wait()
        await self._acceptor.retire()
        self._service.stopping = self._service.closing = True
        with trio.move_on_after(self.retire_timeout):
            while self._acceptor.shakes_hands or self._connections.wait_for_clients:
                await self._service.changed.wait()
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
        connections, lifespan = self._connections, self._lifespan
        await self._acceptor.stop()
        await self._wait_for_heads()
        self._acceptor.end_handshakes()
        self._service.closing = self._service.draining = True
        connections.leave_idle()
        seconds = self.drain_timeout
        if self._app_drains:
            lifespan.stop()
            with trio.move_on_after(seconds + (self.cleanup_timeout or 0)) as scope:
                await lifespan.ended.wait()
            if scope.cancelled_caught:
                connections.expire()  # who still sends holds up the app
                await lifespan.ended.wait()
            seconds = _limits.LANDING_TIME
        connections.nursery.cancel_scope.deadline = trio.current_time() + seconds

    async def _wait_for_heads(self) -> None:
        """An app that drains by itself refuses what it hasn't seen by then."""
        self._service.stopping = True
        with trio.move_on_after(_limits.HEADWAY):
            while self._acceptor.shakes_hands or self._connections.are_about_to_ask:
                await self._service.changed.wait()

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
        self._connections.take_over(
            StreamTransport(stream), scheme=scheme, client=client, server=server
        )


async def serve(
    app: ASGIApp,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerOptions],
) -> None:
    """Serve an ASGI 3 app that runs on Trio, until `Server.shutdown` or cancellation.

    `await nursery.start(serve, app)` returns the `Server` once it listens.

    The options are the fields of `ServerConfig`.

    Error handling: raises TypeError for what is no app, OSError if it can't listen, or no longer,
    LifespanFailed if the app's lifespan fails; what a request raises is logged by `trioweb.server`.

    Cancellation: skips to cancelling what is in flight.  The lifespan closes last.
    """
    await serve_config(app, config_of(options), task_status=task_status)


serve.__doc__ = with_options(serve.__doc__)


def _check_app(app: object) -> None:
    """Raises TypeError for what can't be called as one: each request would be a 500."""
    if isclass(app) or not takes(app, 3):
        shown = getattr(app, "__name__", None) or repr(app)
        raise TypeError(
            f"serve takes an ASGI app, which is called with scope, receive and send\n"
            f"    wrong:  serve({shown})\n    right:  serve(app), with app = App()"
        )


async def serve_config(
    app: ASGIApp,
    config: ServerConfig,
    *,
    peers: Peers | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """`serve`, with its options in one object; `peers` listen on the same sockets."""
    _check_app(app)
    listeners = await open_listeners(config)
    try:
        await run_server(app, config, listeners, peers, task_status=task_status)
    finally:
        for listener in listeners:
            listener.close()


async def run_server(
    app: ASGIApp,
    config: ServerConfig,
    listeners: Sequence[Listener],
    peers: Peers | None = None,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """`serve` with listeners that are open already, or with none."""
    service = Service(app, config)
    settings = ServerSettings(
        drain_timeout=config.drain_timeout,
        cleanup_timeout=config.cleanup_timeout,
        limits=config.limit_overrides,
        debug=config.debug,
        listen=service.listen,
    )
    try:
        server = Server(config, service, Lifespan(app, settings), listeners, peers)
        await server._run(task_status)
    finally:
        if service.access_log is not None:
            service.access_log.flush()
