"""The reloader: `trioweb dev`, and `trioweb run --reload`.

Rules of this module:

* It listens, one worker serves.  When a file changes the worker drains, and then a new one is
  started on the same socket: a client that connects in between waits.
* When an app can't start its error is shown, and the reloader waits for the next change.
* Only Python files count: an app that writes its log beside its code mustn't start anew with
  each line.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import trio

from .._errors import CommandError
from ..server._listeners import open_listeners
from .logs import configure_logging
from .options import Settings
from .processes import START_FAILURES, Launcher, Worker, worker_command
from .signals import Order, StopSignals, stop_signals
from .statuses import run_for_status

logger = logging.getLogger("trioweb.run")

Changes = AsyncIterable[Sequence[str]]
Watcher = Callable[[Path, trio.Event], Changes]


def reload(settings: Settings, arguments: Sequence[str]) -> int:
    """Serve, and start anew at each change; returns the exit status.  Raises CommandError."""
    configure_logging(settings.log_config)
    watch = watcher()
    return run_for_status(_reload, settings, worker_command(arguments), watch)


async def _reload(settings: Settings, command: Sequence[str], watch: Watcher) -> int:
    launcher = Launcher(command, await open_listeners(settings.server))
    reloader = Reloader(launcher.start)
    with trio.open_signal_receiver(*stop_signals()) as signals:
        logger.info("watching the Python files in %s; press Ctrl-C to stop", os.getcwd())
        try:
            await reloader.run(signals, watch(Path.cwd(), reloader.ending))
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


def watcher() -> Watcher:
    """What sees changes of files.  Raises CommandError if it isn't installed."""
    try:
        import watchfiles
    except ModuleNotFoundError:
        raise CommandError(
            "changes are seen by watchfiles, which is not installed",
            wrong="trioweb dev",
            right="pip install watchfiles, or trioweb dev --no-reload",
        ) from None

    async def watch(folder: Path, stop: trio.Event) -> AsyncIterator[list[str]]:
        python = watchfiles.PythonFilter()
        async for found in watchfiles.awatch(folder, watch_filter=python, stop_event=stop):
            yield sorted({path.removeprefix(f"{folder}{os.sep}") for _, path in found})

    return watch
