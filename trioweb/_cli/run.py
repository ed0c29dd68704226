"""One process that serves an app until it is told to end: `trioweb run`, and each worker.

Rules of this module:

* Whatever can be wrong with what was asked for is found before it listens.
* How long an end may take is told to the thread that hears signals, and to the supervisor of a
  worker: first for an app that is starting, then as the server says.
* It returns an exit status; what went wrong is in the log.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType

import trio

from .._asgi import ASGIApp
from ..server import Server, ServerConfig
from ..server._peers import Peers, WorkerTable
from .env_files import load_env_file
from .handlers import own, prompt_actions
from .importing import load_app
from .logs import configure_logging
from .notify import notify_ready, notify_stopping
from .serving import open_order_channel, serve_until_told
from .settings import Settings
from .signals import Order, SignalThread, Times, exit_with_words, hard_exit
from .statuses import run_for_status
from .survivors import main_stack, survivors
from .systems import HANG_UP, unblock_signals

logger = logging.getLogger("trioweb.run")

STANDARD_ERROR = 2


def run(settings: Settings) -> int:
    """`trioweb run`; returns the exit status.  Raises CommandError."""
    return _run_process(settings, settings.server)


def run_worker(settings: Settings, row: int, descriptors: Sequence[int]) -> int:
    """The same in a worker, whose row in the table of workers is `row`.

    It inherits the socket to its supervisor, the table, and the sockets to listen on.  Raises
    CommandError.
    """
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # processes that the app starts mustn't hold them
    _leave_to_the_supervisor()
    faulthandler.enable(STANDARD_ERROR)  # a loop that no thread can interrupt is shown by SIGABRT
    control, table, *listening = descriptors
    config = replace(settings.server, uds=None, bind=(), sockets=listening)
    peers = Peers(WorkerTable.inherited(table), row)
    with socket.socket(fileno=control) as supervisor:
        own.keep(supervisor)
        return _run_process(settings, config, supervisor, peers)


def _leave_to_the_supervisor() -> None:
    """Ctrl-C is for the supervisor until this worker serves, and SIGHUP always.

    Both have been blocked since before the worker began, when it had no handlers for them yet.
    """
    numbers = (signal.SIGINT, *HANG_UP)
    for number in numbers:
        own.set(number, _leave)
    unblock_signals(numbers)


def _leave(number: int, frame: FrameType | None) -> None:
    """The handler of a signal that isn't for this process."""


def _run_process(
    settings: Settings,
    config: ServerConfig,
    supervisor: socket.socket | None = None,
    peers: Peers | None = None,
) -> int:
    load_env_file(settings.env_file)
    configure_logging(settings.log_config, settings.log_level, settings.app_dir)
    with prompt_actions():
        app = load_app(settings.app, settings.app_dir)
    return run_for_status(_serve, app, config, supervisor, peers)


async def _serve(
    app: ASGIApp, config: ServerConfig, supervisor: socket.socket | None, peers: Peers | None
) -> int:
    channel = open_order_channel()
    root = trio.lowlevel.current_root_task()
    give_up = functools.partial(hard_exit, functools.partial(survivors, app, root))

    def tell(order: Order) -> None:
        if supervisor is None:
            notify_stopping()
        channel.tell(order)

    with SignalThread(
        tell,
        give_up,
        report_hang=functools.partial(exit_with_words, _how_it_hangs),
        wake_trio=channel.wake_trio,
        supervisor=supervisor,
    ) as signals:
        signals.times = times_to_start(config)

        def announce(server: Server) -> None:
            signals.times = times_to_end(server, config)
            if supervisor is None:
                notify_ready()
                logger.info("press Ctrl-C to drain and stop")
            else:
                with contextlib.suppress(ConnectionError):  # the thread hears that it is gone
                    supervisor.send(signals.times.to_bytes())

        await serve_until_told(app, config, channel.orders, announce, peers)
    logger.info("stopped")
    return 0


def _how_it_hangs() -> str:
    return f"the event loop hangs, it stands at\n{main_stack()}"


def times_to_start(config: ServerConfig) -> Times:
    """How long an end may take while the app starts: nothing is in flight yet."""
    return _times(Times(drain_timeout=0.0), config.cleanup_timeout)


def times_to_end(server: Server, config: ServerConfig) -> Times:
    """How long an end may take when the app has started, and said what it needs."""
    given = _times(Times(), config.cleanup_timeout)
    given = replace(given, retire_timeout=server.retire_timeout)
    return _times(given, server.cleanup_timeout, server.drain_timeout)


def _times(
    times: Times, cleanup_timeout: float | None, drain_timeout: float | None = None
) -> Times:
    """These times, with those that are given in their place."""
    given = {"cleanup_timeout": cleanup_timeout, "drain_timeout": drain_timeout}
    return replace(times, **{name: value for name, value in given.items() if value is not None})
