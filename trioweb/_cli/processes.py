"""Worker processes, as the supervisor or the reloader that started them sees them.

Rules of this module:

* A worker is started from the command line that was typed, never forked.  It inherits the
  listening sockets, and one end of a socket pair: over that it says that it is ready and how long
  its end may take, its supervisor says cancel, and each of the two learns that the other is gone.
* A worker ends by itself, in its own time; it is killed only past its own hard limit.
* The sockets that the workers share are opened and closed by the process that starts them.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

import trio

from ..server._listeners import Listener
from .signals import CANCEL_BYTE, Order, Times
from .systems import HANG_UP, block_signals, set_blocked_signals

logger = logging.getLogger("trioweb.run")

# What a worker may take beyond its own hard limit before it is killed.
MARGIN = 2.0  # seconds

# Signals that wait while a worker starts: it mustn't miss them, nor end by them, before it has
# handlers for them.
_HELD_BACK = (signal.SIGINT, *HANG_UP)


class Worker(abc.ABC):
    """One worker: `settled` when it is ready or over, `over` when its process has ended.

    `times`: how long its end may take; `status`: its exit status, as a shell would say it;
    `lifetime`: for how many seconds it ran.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ready = False
        self.times = Times(drain_timeout=0.0)
        self.status: int | None = None
        self.lifetime = 0.0
        self.settled = trio.Event()
        self.over = trio.Event()
        self._order: Order | None = None
        self._in_time = trio.CancelScope()

    async def run(self) -> None:
        """Returns when its process has ended.

        Cancellation: returns, and leaves the process to its socket's end.
        """
        begin = trio.current_time()
        try:
            with self._in_time:
                self.status = await self.wait_ended()
            if self.status is None:
                logger.critical("worker %d didn't end in time: killing it", self.pid)
                self.kill()
                self.status = await self.wait_ended()
        finally:
            self.lifetime = trio.current_time() - begin
            self.over.set()
            self.settled.set()

    def drain(self) -> None:
        """Tell it to end."""
        self._tell(Order.DRAIN)

    def cancel(self) -> None:
        """Tell it to end now."""
        self._tell(Order.CANCEL)

    def describe_end(self) -> str:
        if self.status is not None and self.status > 128:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(self.status - 128).name}"
        return f"ended with status {self.status}"

    def settle(self, times: Times) -> None:
        """It has said that it is ready, and how long its end may take."""
        self.times = times
        self.ready = True
        self.settled.set()
        if self._order is not None:  # it may have heard the order only now
            self._set_limit(self._order)

    def _tell(self, order: Order) -> None:
        if self._order is None or (order is Order.CANCEL and self._order is Order.DRAIN):
            self._order = order
            self._told_at = trio.current_time()
            self._set_limit(order)
            self.send(order)

    def _set_limit(self, order: Order) -> None:
        self._in_time.deadline = self._told_at + self.times.after(order) + MARGIN

    # The process itself.

    @abc.abstractmethod
    async def wait_ended(self) -> int:
        """Wait for the process; returns its status."""

    @abc.abstractmethod
    def send(self, order: Order) -> None:
        """Pass an order on to the process."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End the process, whatever it does."""


class WorkerProcess(Worker):
    """A worker that is a process of the system."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        super().__init__(process.pid)
        self._process = process
        self._control = control
        control.setblocking(False)

    async def run(self) -> None:
        with self._control:
            await super().run()

    async def wait_ended(self) -> int:
        async with trio.open_nursery() as nursery:
            if not self.settled.is_set():
                nursery.start_soon(self._hear_when_ready)
            status = await trio.to_thread.run_sync(
                self._process.wait,
                abandon_on_cancel=True,
                limiter=trio.CapacityLimiter(1),  # not the program's: there may be many workers
            )
            nursery.cancel_scope.cancel()
        return status if status >= 0 else 128 - status

    async def _hear_when_ready(self) -> None:
        await trio.lowlevel.wait_readable(self._control)
        with contextlib.suppress(ConnectionError):
            told = self._control.recv(1024)
            if told:  # else the process is about to end
                self.settle(Times.from_bytes(told))

    def send(self, order: Order) -> None:
        if order is Order.DRAIN:
            # A worker that doesn't serve yet ends at once by this.
            self._process.terminate()
        else:
            with contextlib.suppress(OSError):
                self._control.send(CANCEL_BYTE)

    def kill(self) -> None:
        self._process.kill()


def worker_command(arguments: Sequence[str]) -> list[str]:
    """The command line that was typed, for this interpreter with the options it was given."""
    # Private, but `multiprocessing` starts its processes with it since 3.2.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, "-m", "trioweb", *arguments]


async def start_worker(command: Sequence[str], listeners: Sequence[Listener]) -> WorkerProcess:
    """Start `command` as a worker that listens there."""
    ours, theirs = socket.socketpair()
    descriptors = [theirs.fileno(), *(listener.socket.fileno() for listener in listeners)]
    option = f"--worker={','.join(map(str, descriptors))}"
    with theirs:
        process = await trio.to_thread.run_sync(
            functools.partial(_popen, [*command, option], descriptors)
        )
    return WorkerProcess(process, ours)


def _popen(command: Sequence[str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    with _held_back():
        return subprocess.Popen(command, pass_fds=descriptors)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """A process that is started in this block has these signals blocked, until it lets them in."""
    before = block_signals(_HELD_BACK)
    try:
        yield
    finally:
        set_blocked_signals(before)


def close_all(listeners: Sequence[Listener]) -> None:
    for listener in listeners:
        listener.close()
