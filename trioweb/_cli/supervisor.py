"""The supervisor: `trioweb run --workers N`.

Rules of this module:

* It listens, the workers serve: a worker that ends, or is replaced, takes no connection with it
  that hasn't been accepted yet.
* The first worker shows whether the app starts.  If it doesn't, all is over, with the worker's
  status; later too, when no worker is left that serves.
* Every place has a worker.  A worker that crashes is replaced, after a pause that grows with each
  crash in a row; SIGHUP replaces them one by one, the new one ready before the old one drains.
* At the end all drain at once; each has its own time, and none is told more than once.
"""

from __future__ import annotations

import functools
import logging
import signal
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

import trio

from ..server._listeners import open_listeners
from .logs import configure_logging
from .notify import notify_ready, notify_reloading, notify_stopping
from .processes import Worker, close_all, start_worker, worker_command
from .settings import Settings
from .signals import STOP_SIGNALS, Order, StopSignals
from .statuses import EXIT_FAILED, run_for_status

logger = logging.getLogger("trioweb.run")

# The pause before a worker that crashed is replaced: the first, and the longest.
FIRST_PAUSE = 0.1  # seconds
LONGEST_PAUSE = 30.0  # seconds

# A worker that has lived for so long crashed for a reason of its own.
LONG_LIFE = 30.0  # seconds


def supervise(settings: Settings, arguments: Sequence[str]) -> int:
    """`trioweb run --workers N`; `arguments` are those of the command.  Returns the exit status.

    Raises CommandError.
    """
    configure_logging(settings.log_config, settings.log_level, settings.app_dir)
    return run_for_status(_supervise, settings, worker_command(arguments))


async def _supervise(settings: Settings, command: Sequence[str]) -> int:
    listeners = await open_listeners(settings.server)
    supervisor = Supervisor(
        functools.partial(start_worker, command, listeners),
        settings.workers,
        stop_listening=functools.partial(close_all, listeners),
    )
    with trio.open_signal_receiver(*STOP_SIGNALS, signal.SIGHUP) as signals:
        urls = ", ".join(listener.url for listener in listeners)
        logger.info("%d workers on %s; press Ctrl-C to drain and stop", settings.workers, urls)
        try:
            status = await supervisor.run(signals)
        finally:
            close_all(listeners)
    logger.info("all workers have stopped")
    return status


class _Place:
    """A place that is to have a worker, always."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.lock = trio.Lock()  # held while the worker is replaced
        self.crashes = 0  # in a row

    def pause(self) -> float:
        """Count a crash; returns how many seconds to wait before a new worker is started."""
        self.crashes = 0 if self.worker.lifetime >= LONG_LIFE else self.crashes
        self.crashes += 1
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self.crashes - 1))


class Supervisor:
    """Keeps `count` workers, each made by `start`, until it is told to end."""

    def __init__(
        self,
        start: Callable[[], Awaitable[Worker]],
        count: int,
        stop_listening: Callable[[], object],
    ) -> None:
        self._start = start
        self._count = count
        self._stop_listening = stop_listening
        self._workers: set[Worker] = set()
        self._launching = 0  # how many workers are being started
        self._places: list[_Place] = []
        self._ending = trio.Event()
        self._renewal = trio.Event()
        self._renewing = trio.CancelScope()
        self._status = 0

    async def run(self, signals: AsyncIterable[int]) -> int:
        """Returns the exit status when the last worker has ended."""
        async with trio.open_nursery() as outer:
            outer.start_soon(self._obey, signals)
            async with trio.open_nursery() as self._nursery:
                await self._fill_places()
            outer.cancel_scope.cancel()
        return self._status

    async def _obey(self, signals: AsyncIterable[int]) -> None:
        stops = StopSignals()
        async for number in signals:
            if number == signal.SIGHUP:
                self._renewal.set()
            elif stops.order(trio.current_time()) is Order.CANCEL:
                logger.warning("cancelling what the workers still do")
                for worker in self._workers:
                    worker.cancel()
            elif not self._ending.is_set():
                logger.info("draining all workers; a second signal cancels what they do")
                self._end()

    def _end(self) -> None:
        """Stop listen, so that nobody listens any more when the last worker has ended."""
        notify_stopping()
        self._ending.set()
        self._renewing.cancel()
        if not self._launching:
            self._stop_listening()
        for worker in self._workers:
            worker.drain()

    async def _fill_places(self) -> None:
        first = await self._launch()
        await first.settled.wait()
        if not first.ready:
            await self._give_up(first)
            return
        if not self._ending.is_set():
            notify_ready()
        workers = [first]
        while len(workers) < self._count and not self._ending.is_set():
            workers.append(await self._launch())
        self._places = [_Place(worker) for worker in workers]
        for place in self._places:
            self._nursery.start_soon(self._keep, place)
        self._nursery.start_soon(self._renew_when_told)

    async def _launch(self) -> Worker:
        # The sockets stay open until the worker has started: it is to inherit them.
        self._launching += 1
        try:
            worker = await self._start()
        finally:
            self._launching -= 1
            if self._ending.is_set() and not self._launching:
                self._stop_listening()
        self._workers.add(worker)
        self._nursery.start_soon(self._care_for, worker)
        if self._ending.is_set():
            worker.drain()
        return worker

    async def _care_for(self, worker: Worker) -> None:
        await worker.run()
        self._workers.discard(worker)
        if self._ending.is_set() and worker.ready:
            # It was told to end, and its status says whether that went well.
            self._status = self._status or worker.status or 0

    async def _keep(self, place: _Place) -> None:
        """Replace the worker of this place whenever it crashes, until it is told to end."""
        while True:
            worker = place.worker
            await worker.over.wait()
            if self._ending.is_set() or place.worker is not worker:
                return
            if not worker.ready and not any(other.ready for other in self._workers):
                await self._give_up(worker)
                return
            await self._pause(place)
            async with place.lock:
                if self._ending.is_set() or place.worker is not worker:
                    return
                place.worker = await self._launch()

    async def _pause(self, place: _Place) -> None:
        worker, seconds = place.worker, place.pause()
        logger.error(
            "worker %d %s after %.1f s; replaced in %.1f s",
            worker.pid,
            worker.describe_end(),
            worker.lifetime,
            seconds,
        )
        with trio.move_on_after(seconds):
            await self._ending.wait()

    async def _give_up(self, worker: Worker) -> None:
        await worker.over.wait()
        if not self._ending.is_set():
            logger.error("worker %d %s before it could serve", worker.pid, worker.describe_end())
            self._status = worker.status or EXIT_FAILED
            self._end()

    async def _renew_when_told(self) -> None:
        with self._renewing:
            while True:
                await self._renewal.wait()
                self._renewal = trio.Event()
                logger.info("replacing the workers one by one")
                notify_reloading()
                for place in self._places:
                    if not await self._renew(place):
                        break
                notify_ready()

    async def _renew(self, place: _Place) -> bool:
        """Give this place a new worker; returns False if the new one can't serve."""
        async with place.lock:
            old = place.worker
            new = await self._launch()
            await new.settled.wait()
            if not new.ready:
                logger.error("the new worker %d can't serve; worker %d stays", new.pid, old.pid)
                return False
            place.worker = new
            self._nursery.start_soon(self._keep, place)
            old.drain()
            return True
