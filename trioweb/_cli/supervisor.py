"""The supervisor: `trioweb run --workers N`.

Rules of this module:

* It listens, the workers serve: a worker that ends, or is replaced, takes no connection with it
  that hasn't been accepted yet.
* The first worker shows whether the app starts.  If it doesn't, all is over, with the worker's
  status; later too, when no worker is left that serves.
* Every place has a worker.  A worker that crashes is replaced, after a pause that grows with each
  crash in a row; one whose event loop hangs is ended, and replaced like that.
* SIGHUP replaces them one by one, the new one ready before the old one retires; so is replaced
  whoever has had enough requests, or has lived for long enough.  How much that is differs a little
  from worker to worker, by chance: those that began together don't end together.
* A start may take as long as it likes, but one that takes long is told of, and SIGHUP gives it up:
  what hangs may be what has been mended meanwhile.
* At the end all drain at once; each has its own time, and none is told more than once.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

import trio

from ..server._listeners import open_listeners
from .logs import configure_logging
from .notify import notify_ready, notify_reloading, notify_stopping
from .processes import LOOK_INTERVAL, MIN_ROWS, START_FAILURES, Launcher, Worker, worker_command
from .settings import Settings
from .signals import STOP_SIGNALS, Order, StopSignals
from .statuses import EXIT_FAILED, run_for_status
from .systems import HANG_UP

logger = logging.getLogger("trioweb.run")

# The pause before a worker that crashed is replaced: the first, and the longest.
FIRST_PAUSE = 0.1  # seconds
LONGEST_PAUSE = 30.0  # seconds

# A worker that has lived for so long crashed for a reason of its own.
LONG_LIFE = 30.0  # seconds

# A start that takes longer is told of.
LONG_START = 10.0  # seconds

# By how much a worker may have more requests, or more time, than was set.
TOLERANCE = 0.1


def supervise(settings: Settings, arguments: Sequence[str]) -> int:
    """`trioweb run --workers N`; `arguments` are those of the command.  Returns the exit status.

    Raises CommandError.
    """
    configure_logging(settings.log_config, settings.log_level, settings.app_dir)
    return run_for_status(_supervise, settings, worker_command(arguments))


async def _supervise(settings: Settings, command: Sequence[str]) -> int:
    listeners = await open_listeners(settings.server)
    launcher = Launcher(command, listeners, rows=max(MIN_ROWS, 4 * settings.workers))
    supervisor = Supervisor(
        launcher.start,
        settings.workers,
        launcher.close,
        worker_timeout=settings.worker_timeout,
        max_requests=settings.max_requests,
        workers_lifetime=settings.workers_lifetime,
    )
    with trio.open_signal_receiver(*STOP_SIGNALS, *HANG_UP) as signals:
        urls = ", ".join(listener.url for listener in listeners)
        count = "1 worker" if settings.workers == 1 else f"{settings.workers} workers"
        logger.info("%s on %s; press Ctrl-C to drain and stop", count, urls)
        try:
            status = await supervisor.run(signals)
        finally:
            launcher.close()
    logger.info("all workers have stopped")
    return status


class _Place:
    """A place that is to have a worker, always."""

    def __init__(self, worker: Worker) -> None:
        self.lock = trio.Lock()  # held while the worker is replaced
        self.crashes = 0  # in a row, and failures to start another one
        self._crashed: Worker | None = None
        self.take(worker)

    def take(self, worker: Worker) -> None:
        self.worker = worker
        self.endurance = random.uniform(1.0, 1.0 + TOLERANCE)  # a factor of what was set

    def pause(self) -> float:
        """Count a crash; returns how many seconds to wait before a new worker is started."""
        if self.worker is not self._crashed and self.worker.lifetime >= LONG_LIFE:
            self.crashes = 0
        self._crashed = self.worker
        self.crashes += 1
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self.crashes - 1))


class Supervisor:
    """Keeps `count` workers, each made by `start`, until it is told to end.

    A worker that is silent for `worker_timeout` hangs, and is ended; who has had `max_requests`, or
    has lived for `workers_lifetime`, is replaced in peace.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[Worker]],
        count: int,
        stop_listening: Callable[[], object],
        *,
        worker_timeout: float = math.inf,
        max_requests: float = math.inf,
        workers_lifetime: float = math.inf,
    ) -> None:
        self._start = start
        self._count = count
        self._stop_listening = stop_listening
        self._worker_timeout = worker_timeout
        self._max_requests = max_requests
        self._workers_lifetime = workers_lifetime
        self._workers: set[Worker] = set()
        self._launching = 0  # how many workers are being started
        self._places: list[_Place] = []
        self._ending = trio.Event()
        self._renewal = trio.Event()
        self._renewing = trio.CancelScope()
        self._one_by_one = trio.Lock()
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
            if number in HANG_UP:
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
        workers: list[Worker] = []
        while len(workers) < self._count and not self._ending.is_set():
            worker = await self._launch()
            if worker is None:
                self._fail(EXIT_FAILED)
                return
            workers.append(worker)
            if len(workers) == 1:
                await worker.settled.wait()
                if not worker.ready:
                    await self._give_up(worker)
                    return
                if not self._ending.is_set():
                    notify_ready()
        self._places = [_Place(worker) for worker in workers]
        for place in self._places:
            self._nursery.start_soon(self._keep, place)
        self._nursery.start_soon(self._look_after_workers)

    async def _launch(self) -> Worker | None:
        """A new worker; None if none can be started, which is logged."""
        # The sockets stay open until the worker has started: it is to inherit them.
        self._launching += 1
        try:
            worker = await self._start()
        except START_FAILURES as exc:
            logger.error("a worker can't be started: %s", exc)
            return None
        finally:
            self._launching -= 1
            if self._ending.is_set() and not self._launching:
                self._stop_listening()
        self._workers.add(worker)
        self._nursery.start_soon(self._care_for, worker)
        self._nursery.start_soon(self._watch_start, worker)
        if self._ending.is_set():
            worker.drain()
        return worker

    async def _watch_start(self, worker: Worker) -> None:
        with trio.move_on_after(LONG_START) as scope:
            await worker.settled.wait()
        if scope.cancelled_caught and not self._ending.is_set():
            what = "worker %d has been starting for %.0f s, and doesn't serve yet"
            logger.warning(what, worker.pid, LONG_START)

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
                new = await self._launch()
                if new is not None:
                    place.take(new)

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
            self._fail(worker.status or EXIT_FAILED)

    def _fail(self, status: int) -> None:
        self._status = status
        self._end()

    async def _look_after_workers(self) -> None:
        """Until all are told to end: then each has its own limit."""
        with self._renewing:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew_when_told)
                nursery.start_soon(self._renew_when_due)
                nursery.start_soon(self._look_for_hangs)

    async def _renew_when_told(self) -> None:
        while True:
            await self._renewal.wait()
            self._renewal = trio.Event()
            logger.info("replacing the workers one by one")
            notify_reloading()
            for place in self._places:
                if not await self._renew(place):
                    break
            notify_ready()

    async def _renew_when_due(self) -> None:
        while True:
            await trio.sleep(LOOK_INTERVAL)
            for place in self._places:
                if self._is_due(place) and not await self._renew(place):
                    await trio.sleep(LONGEST_PAUSE)

    def _is_due(self, place: _Place) -> bool:
        worker = place.worker
        if not worker.serves:
            return False
        requests, age = worker.requests(), worker.age
        is_due = (
            requests >= self._max_requests * place.endurance
            or age >= self._workers_lifetime * place.endurance
        )
        if is_due:
            what = "replacing worker %d: it has had %d requests in %.0f s"
            logger.info(what, worker.pid, requests, age)
        return is_due

    async def _look_for_hangs(self) -> None:
        while True:
            await trio.sleep(LOOK_INTERVAL)
            for worker in [place.worker for place in self._places if place.worker.serves]:
                worker.look()
                if worker.silence >= self._worker_timeout:
                    self._end_hanging(worker)

    def _end_hanging(self, worker: Worker) -> None:
        what = "worker %d has given no sign of life for %.1f s: "
        if worker.is_traced():
            what += "it stays, because a debugger holds it"
            logger.warning(what, worker.pid, worker.silence)
            worker.forgive()
        else:
            what += "its event loop hangs, it is ended and replaced"
            logger.error(what, worker.pid, worker.silence)
            worker.give_up()

    async def _renew(self, place: _Place) -> bool:
        """Give this place a new worker; returns False if the new one can't serve."""
        async with self._one_by_one, place.lock:
            old = place.worker
            new = await self._launch()
            if new is None:
                return False
            await self._settle(new)
            if not new.ready:
                logger.error("the new worker %d can't serve; worker %d stays", new.pid, old.pid)
                return False
            place.take(new)
            self._nursery.start_soon(self._keep, place)
            old.retire()
            return True

    async def _settle(self, new: Worker) -> None:
        """Wait until it is ready or over."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_up_long_start, new)
            await new.settled.wait()
            nursery.cancel_scope.cancel()

    async def _give_up_long_start(self, new: Worker) -> None:
        await trio.sleep(LONG_START)
        await self._renewal.wait()
        new.drain()
