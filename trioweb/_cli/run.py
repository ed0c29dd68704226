"""One process that serves an app until it is told to end: `trioweb run`, and each worker.

Rules of this module:

* What was asked for is settled before it listens: logging, the app, its limits, TLS.
* Orders come from a `Watch`, and are obeyed by one task: drain, then cancel.  Before
  the app has started there is nothing to drain.
* It returns an exit status; what went wrong is in the log.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import trio

from .. import _errors
from .._app.app import App
from .._asgi import ASGIApp
from .._errors import CommandError
from ..server import LifespanFailed, Server, ServerLimits, StartupFailed, serve
from ..server._limits import limits_of
from .importing import load_app
from .logs import configure_logging
from .options import Settings
from .signals import EXIT_FAILED, Order, Times, Watch, hard_exit
from .survivors import survivors

logger = logging.getLogger("trioweb.run")

Announce = Callable[[Server], object]


def run(settings: Settings) -> int:
    """`trioweb run`; returns the exit status.  Raises CommandError."""
    configure_logging(settings.log_config)
    return _run_process(settings, sockets=[] if settings.fd is None else [settings.fd])


def run_worker(settings: Settings, descriptors: Sequence[int]) -> int:
    """The same in a worker; its supervisor's socket comes first, then those to listen on.

    Raises CommandError.
    """
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # what the app starts shall not hold them
    _leave_to_the_supervisor()
    configure_logging(settings.log_config)
    bound = replace(settings, uds=None)
    with socket.socket(fileno=descriptors[0]) as supervisor:
        return _run_process(bound, sockets=descriptors[1:], supervisor=supervisor)


def _leave_to_the_supervisor() -> None:
    """Until a worker serves, Ctrl-C is heard by its supervisor alone, and SIGHUP ever after.

    They are blocked from before it began, so that none finds it without a handler.
    """
    numbers = (signal.SIGINT, signal.SIGHUP)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def _run_process(
    settings: Settings, *, sockets: Sequence[int], supervisor: socket.socket | None = None
) -> int:
    app = load_app(settings.app)
    options = serve_options(app, settings, sockets)
    return status_of(_serve_and_watch, app, options, settings, supervisor)


def status_of(main: Callable[..., Awaitable[int]], *args: Any) -> int:
    """Run it; what it raises is logged, and its status then that of a failure.

    Raises CommandError.
    """
    try:
        return trio.run(main, *args)
    except CommandError:
        raise
    except Exception as exc:
        return report(exc)


async def _serve_and_watch(
    app: ASGIApp,
    options: Mapping[str, Any],
    settings: Settings,
    supervisor: socket.socket | None,
) -> int:
    orders, tell, rouse = _order_channel()
    root = trio.lowlevel.current_root_task()
    give_up = functools.partial(hard_exit, functools.partial(survivors, app, root))
    with Watch(tell, give_up, rouse=rouse, supervisor=supervisor) as watch:
        watch.times = times_to_start(settings)

        def announce(server: Server) -> None:
            watch.times = times_to_end(server, settings)
            if supervisor is None:
                logger.info("press Ctrl-C to drain and stop")
            else:
                with contextlib.suppress(ConnectionError):  # the watch hears that it is gone
                    supervisor.send(watch.times.to_bytes())

        await serve_until_told(app, options, orders, announce)
    logger.info("stopped")
    return 0


def _order_channel() -> tuple[AsyncIterable[Order], Callable[[Order], None], Callable[[], None]]:
    """Orders, for the current run of Trio, and what another thread gives them and wakes it with."""
    send, receive = trio.open_memory_channel[Order](math.inf)
    token = trio.lowlevel.current_trio_token()

    def tell(order: Order) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(send.send_nowait, order)

    def rouse() -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(lambda: None, idempotent=True)

    return receive, tell, rouse


async def serve_until_told(
    app: ASGIApp,
    options: Mapping[str, Any],
    orders: AsyncIterable[Order],
    announce: Announce,
) -> None:
    """Serve, and obey the orders as they come; returns when serving is over.

    `announce` is called with the server once it listens.  Raises what `serve` raises,
    in groups.
    """
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as serving:
            obedience = _Obedience(serving)
            nursery.start_soon(obedience.run, orders)
            obedience.server = await serving.start(functools.partial(serve, app, **options))
            announce(obedience.server)
        nursery.cancel_scope.cancel()


class _Obedience:
    """Passes orders on to the server, or to what is about to become one."""

    def __init__(self, serving: trio.Nursery) -> None:
        self.server: Server | None = None
        self._serving = serving

    async def run(self, orders: AsyncIterable[Order]) -> None:
        async for order in orders:
            self._obey(order)

    def _obey(self, order: Order) -> None:
        if self.server is None:
            logger.info("told to stop before the app has started")
            self._serving.cancel_scope.cancel()
        elif order is Order.DRAIN:
            logger.info("draining: requests and tasks end; a second signal cancels them")
            self._serving.start_soon(self.server.shutdown)
        else:
            logger.warning("cancelling what is still in flight")
            self.server.cancel()


def serve_options(app: ASGIApp, settings: Settings, sockets: Sequence[int]) -> Mapping[str, Any]:
    """What `serve` is called with; an app of ours is adjusted.  Raises CommandError."""
    limits = adjusted_limits(app, settings.limits)
    if isinstance(app, App):
        app.debug = app.debug or settings.debug
        if settings.cleanup_timeout is not None:
            app._cleanup_timeout = settings.cleanup_timeout
    return {
        "host": settings.host,
        "port": settings.port,
        "uds": settings.uds,
        "sockets": sockets,
        "ssl_context": ssl_context(settings),
        "limits": limits,
        "http": settings.http,
        "root_path": settings.root_path,
        "forwarded_allow_ips": settings.forwarded_allow_ips,
        "access_log": settings.access_log,
        "drain_timeout": settings.drain_timeout,
    }


def adjusted_limits(app: ASGIApp, given: Mapping[str, Any]) -> ServerLimits | None:
    """The app's limits with those `given` in their place; None: whatever it says at its start.

    Raises CommandError.
    """
    if isinstance(app, App):
        app.limits = replace(app.limits, **given)
        return app.limits
    for name in given.keys() - {field.name for field in fields(ServerLimits)}:
        raise CommandError(
            f"--limit-{name.replace('_', '-')} is kept by a trioweb.App, and this is another kind"
            f" of app: {app!r}"
        )
    return replace(limits_of(app), **given) if given else None


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """Raises CommandError."""
    if settings.ssl_certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except (OSError, ValueError) as exc:
        raise CommandError(
            f"the certificate or its key can't be used: {exc}",
            wrong=" and ".join(filter(None, [settings.ssl_certfile, settings.ssl_keyfile])),
            right="certificates in PEM format, the server's own first, and the key to that one",
        ) from None
    return context


def times_to_start(settings: Settings) -> Times:
    """How long an end may take while the app starts: nothing is in flight yet."""
    return _times(Times(drain_timeout=0.0), settings.cleanup_timeout)


def times_to_end(server: Server, settings: Settings) -> Times:
    """How long it may take when the app has started, and said what it needs."""
    given = _times(Times(), settings.cleanup_timeout)
    return _times(given, server.cleanup_timeout, server.drain_timeout)


def _times(
    times: Times, cleanup_timeout: float | None, drain_timeout: float | None = None
) -> Times:
    """These times, with those that are given in their place."""
    given = {"cleanup_timeout": cleanup_timeout, "drain_timeout": drain_timeout}
    return replace(times, **{name: value for name, value in given.items() if value is not None})


# What `serve` raises for people to read.
_EXPECTED = (OSError, ImportError, ValueError)


def report(exc: Exception) -> int:
    """Log why the process ends; returns its status."""
    for leaf in _errors.leaves(exc):
        if isinstance(leaf, StartupFailed):
            logger.error("the app failed to start: %s", leaf)
        elif isinstance(leaf, LifespanFailed):
            logger.error("the app's lifespan failed: %s", leaf)
        elif isinstance(leaf, _EXPECTED):
            logger.error("%s", getattr(leaf, "strerror", None) or leaf)
        else:
            logger.critical("serving failed: %s", leaf, exc_info=leaf)
    return EXIT_FAILED
