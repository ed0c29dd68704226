"""Worker processes, as whoever supervises them sees them.

Rules of this module:

* A worker is started from the command line that was typed, never forked.  It inherits the
  listening sockets, and a socket to its supervisor: there it says that it is ready
  and how long its end may take, the supervisor says cancel, and each learns that the other
  is gone.
* It ends by itself, in its own time; it is killed only past its own hard limit.
* A supervisor is told what to do by signals, and knows Ctrl-C by its count.
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

from ..server import ServerConfig
from ..server._listeners import Listener, open_listeners
from .options import Settings
from .run import ssl_context
from .signals import CANCEL_BYTE, Order, Times

logger = logging.getLogger("trioweb.run")

# What a worker may take beyond its own hard limit before it is killed.
MARGIN = 2.0  # seconds

# Not to be missed, nor to kill, between a worker's begin and its first line.
_HELD_BACK = (signal.SIGINT, signal.SIGHUP)


class Worker(abc.ABC):
    """One worker: `settled` when it is ready or over, `over` when its process has ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ready = False
        self.status: int | None = None  # as a shell would say it
        self.lifetime = 0.0  # seconds
        self.settled = trio.Event()
        self.over = trio.Event()
        self._times = Times(drain_timeout=0.0)
        self._order: Order | None = None
        self._patience = trio.CancelScope()

    async def run(self) -> None:
        """Returns when its process has ended.

        Cancellation: returns, and leaves the process to its socket's end.
        """
        begin = trio.current_time()
        try:
            with self._patience:
                self.status = await self._wait()
            if self.status is None:
                logger.critical("worker %d didn't end in time: killing it", self.pid)
                self._kill()
                self.status = await self._wait()
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

    def _tell(self, order: Order) -> None:
        if self._order is None or (order is Order.CANCEL and self._order is Order.DRAIN):
            self._order = order
            self._told_at = trio.current_time()
            self._set_limit(order)
            self._send(order)

    def _set_limit(self, order: Order) -> None:
        self._patience.deadline = self._told_at + self._times.after(order) + MARGIN

    def _settle(self, times: Times) -> None:
        """It has said that it is ready."""
        self._times = times
        self.ready = True
        self.settled.set()
        if self._order is not None:  # which it may have heard only now
            self._set_limit(self._order)

    @abc.abstractmethod
    async def _wait(self) -> int:
        """Wait for the process; returns its status."""

    @abc.abstractmethod
    def _send(self, order: Order) -> None: ...

    @abc.abstractmethod
    def _kill(self) -> None: ...


class WorkerProcess(Worker):
    """A worker that is a process."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        super().__init__(process.pid)
        self._process = process
        self._control = control
        control.setblocking(False)

    async def run(self) -> None:
        with self._control:
            await super().run()

    async def _wait(self) -> int:
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
            if told:  # else it is about to end
                self._settle(Times.from_bytes(told))

    def _send(self, order: Order) -> None:
        if order is Order.DRAIN:
            # Before it serves this ends it at once.
            self._process.terminate()
        else:
            with contextlib.suppress(OSError):
                self._control.send(CANCEL_BYTE)

    def _kill(self) -> None:
        self._process.kill()


def worker_command(arguments: Sequence[str]) -> list[str]:
    """The command line that was typed, in this interpreter, with its options."""
    # Private, but what `multiprocessing` starts its processes with since 3.2.
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
    """A process started in here has these signals blocked, until it wants to hear them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def listen(settings: Settings) -> list[Listener]:
    """The sockets that all workers share.  Raises OSError and CommandError."""
    return await open_listeners(
        ServerConfig(
            host=settings.host,
            port=settings.port,
            uds=settings.uds,
            sockets=() if settings.fd is None else (settings.fd,),
            ssl_context=ssl_context(settings),
        )
    )
