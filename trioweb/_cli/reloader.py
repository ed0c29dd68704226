"""The reloader: `trioweb dev`, and `trioweb run --reload`.

Rules of this module:

* It listens, one worker serves.  When a file changes the worker drains, and then a new one is
  started on the same socket: a client that connects in between waits.
* When an app can't start its error is shown, and the reloader waits for the next change.
* Which files count, and how changes are seen, is for `watching` to say.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

import trio

from ..server import ServerConfig
from ..server._listeners import open_listeners
from .logs import configure_logging
from .processes import START_FAILURES, Launcher, Worker, worker_command
from .settings import Settings
from .signals import Order, StopSignals, stop_signals
from .statuses import run_for_status
from .watching import Watcher, WatchRules, watch_rules

logger = logging.getLogger("trioweb.run")

Changes = AsyncIterable[Sequence[str]]


def reload(settings: Settings, arguments: Sequence[str]) -> int:
    """Serve, and start anew at each change; returns the exit status.  Raises CommandError."""
    configure_logging(settings.log_config, settings.log_level, settings.app_dir)
    rules = watch_rules(
        settings.reload_dirs, settings.reload_includes, settings.reload_excludes, settings.app_dir
    )
    return run_for_status(
        _reload, settings.server, worker_command(arguments), rules, Watcher(rules)
    )


async def _reload(
    config: ServerConfig, command: Sequence[str], rules: WatchRules, watcher: Watcher
) -> int:
    launcher = Launcher(command, await open_listeners(config))
    reloader = Reloader(launcher.start)
    with trio.open_signal_receiver(*stop_signals()) as signals:
        logger.info("watching %s; press Ctrl-C to stop", rules.describe())
        try:
            await reloader.run(signals, watcher.changes(reloader.ending))
        finally:
            launcher.close()
    logger.info("stopped")
    return 0


class Reloader:
    """Runs one worker after the other, each made by `start`.

    `ending` is set when the reloader has been told to stop.
    """

    def __init__(self, start: Callable[[], Awaitable[Worker]]) -> None:
        self.ending = trio.Event()
        self._start = start
        self._worker: Worker | None = None
        self._changed = trio.Event()

    async def run(self, signals: AsyncIterable[int], changes: Changes) -> None:
        """Returns when the reloader was told to stop, and its worker has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey, signals)
            nursery.start_soon(self._heed, changes)
            while not self.ending.is_set():
                self._changed = trio.Event()
                await self._run_worker()
                await self._changed.wait()
            nursery.cancel_scope.cancel()

    async def _run_worker(self) -> None:
        try:
            self._worker = worker = await self._start()
        except START_FAILURES as exc:
            logger.error("the app can't be started: %s; waiting for a change", exc)
            return
        if self._changed.is_set():
            worker.drain()
        await worker.run()
        if not self._changed.is_set():
            logger.error("the app %s; waiting for a change", worker.describe_end())

    async def _obey(self, signals: AsyncIterable[int]) -> None:
        stops = StopSignals()
        async for _ in signals:
            order = stops.order(trio.current_time())
            if order is Order.CANCEL and self._worker is not None:
                self._worker.cancel()
            self.ending.set()
            self._begin_anew()

    async def _heed(self, changes: Changes) -> None:
        async for files in changes:
            logger.info("%s changed: starting anew", ", ".join(files))
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._changed.set()
        if self._worker is not None:
            self._worker.drain()
