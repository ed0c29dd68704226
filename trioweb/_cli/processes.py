"""Worker processes, as the supervisor or the reloader that started them sees them.

Rules of this module:

* A worker is started from the command line that was typed, never forked.  It inherits the
  listening sockets, and one end of a socket pair: over that it says that it is ready and how long
  its end may take, its supervisor says cancel, and each of the two learns that the other is gone.
* A worker ends by itself, in its own time; it is killed only past its own hard limit, or when its
  event loop hangs: then it says first where, by itself or, where nothing of Python's can run any
  more, by the fault handler that answers SIGABRT.
* For how long a worker is silent is counted in looks at it: the time in which nobody could look,
  because the machine slept, isn't held against it.
* It is started in the folder that was typed, which may be a link that leads elsewhere by now; and
  nothing in that folder is imported before the app, where it might be taken for a module of
  Python's own.
* The sockets that the workers share are opened and closed by the process that starts them.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from ..server._listeners import Listener
from ..server._peers import WorkerTable
from .signals import CANCEL_BYTE, HANG_BYTE, RETIRE_BYTE, Order, Times
from .systems import HANG_UP, block_signals, set_blocked_signals

logger = logging.getLogger("trioweb.run")

# The folder that the package is in.  Who works in it may have nothing but that to import it from.
_HOME = Path(__file__).parents[2]

# What starting one raises where the system has no room for another process or thread, or where the
# folder is gone.
START_FAILURES = (OSError, RuntimeError)

# What a worker may take beyond its own hard limit before it is killed.
MARGIN = 2.0  # seconds

# What a worker that hangs has to say where it does, each time that it is asked.
WORDS_TIME = 2.0  # seconds

# How often workers are looked at.
LOOK_INTERVAL = 0.5  # seconds

# How many rows the table of workers has at least, for those that drain beside those that serve.
MIN_ROWS = 64

# Signals that wait while a worker starts: it mustn't miss them, nor end by them, before it has
# handlers for them.
_HELD_BACK = (signal.SIGINT, *HANG_UP)


class Worker(abc.ABC):
    """One worker: `settled` when it is ready or over, `over` when its process has ended.

    `times`: how long its end may take; `status`: its exit status, as a shell would say it;
    `lifetime`: for how many seconds it ran; `silence`: for how many seconds it has given no sign of
    life.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ready = False
        self.times = Times(drain_timeout=0.0)
        self.status: int | None = None
        self.lifetime = 0.0
        self.silence = 0.0
        self.settled = trio.Event()
        self.over = trio.Event()
        self._began = trio.current_time()
        self._last_sign: int | None = None
        self._hangs = False
        self._order: Order | None = None
        self._in_time = trio.CancelScope()

    async def run(self) -> None:
        """Returns when its process has ended.

        Cancellation: returns, and leaves the process to its socket's end.
        """
        try:
            with self._in_time:
                self.status = await self.wait_ended()
            if self.status is None and self._hangs:
                self.abort()
                with trio.move_on_after(WORDS_TIME):
                    self.status = await self.wait_ended()
            if self.status is None:
                logger.critical("worker %d didn't end in time: killing it", self.pid)
                self.kill()
                self.status = await self.wait_ended()
        finally:
            self.lifetime = self.age
            self.over.set()
            self.settled.set()

    @property
    def age(self) -> float:
        """For how many seconds it has run."""
        return trio.current_time() - self._began

    @property
    def serves(self) -> bool:
        """Whether it has started, hasn't ended, and hasn't been told to."""
        return self.ready and self._order is None and not self._hangs and not self.over.is_set()

    def look(self) -> None:
        """See whether it has given a sign of life since the last look, LOOK_INTERVAL ago."""
        sign = self.last_sign()
        self.silence = self.silence + LOOK_INTERVAL if sign == self._last_sign else 0.0
        self._last_sign = sign

    def forgive(self) -> None:
        """Its silence until now has a good reason."""
        self.silence = 0.0

    def give_up(self) -> None:
        """It hangs: have it say where, and end it."""
        self._hangs = True
        self._in_time.deadline = trio.current_time() + WORDS_TIME
        self.ask_where()

    def retire(self) -> None:
        """Tell it to end: another one has its place."""
        self._tell(Order.RETIRE if self.ready else Order.DRAIN)

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
        if self._order is None or order > self._order:
            self._order = order
            self._told_at = trio.current_time()
            self._set_limit(order)
            self.send(order)

    def _set_limit(self, order: Order) -> None:
        limit = self._told_at + self.times.after(order) + MARGIN
        self._in_time.deadline = min(self._in_time.deadline, limit) if self._hangs else limit

    # The process itself.

    @abc.abstractmethod
    async def wait_ended(self) -> int:
        """Wait for the process; returns its status."""

    @abc.abstractmethod
    def send(self, order: Order) -> None:
        """Pass an order on to the process."""

    @abc.abstractmethod
    def last_sign(self) -> int:
        """Its last sign of life: any number, another one with each sign."""

    @abc.abstractmethod
    def requests(self) -> int:
        """How many requests it has had, as of its last sign of life."""

    @abc.abstractmethod
    def is_traced(self) -> bool:
        """Whether a debugger holds it."""

    @abc.abstractmethod
    def ask_where(self) -> None:
        """Have it log where its event loop hangs, and end."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Have the process show where it stands, whatever it does, and end."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End the process, whatever it does."""


class WorkerProcess(Worker):
    """A worker that is a process of the system; `row` is its own in the table of workers."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        table: WorkerTable,
        row: int,
    ) -> None:
        super().__init__(process.pid)
        self.row = row
        self._process = process
        self._control = control
        self._table = table
        control.setblocking(False)

    async def run(self) -> None:
        with self._control:
            try:
                await super().run()
            finally:
                self._table.clear(self.row)  # nobody waits for it any more

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
            self._say(CANCEL_BYTE if order is Order.CANCEL else RETIRE_BYTE)

    def ask_where(self) -> None:
        self._say(HANG_BYTE)

    def _say(self, byte: bytes) -> None:
        with contextlib.suppress(OSError):
            self._control.send(byte)

    def last_sign(self) -> int:
        return self._table.signs[self.row]

    def requests(self) -> int:
        return self._table.requests[self.row]

    def is_traced(self) -> bool:
        try:
            status = Path(f"/proc/{self.pid}/status").read_bytes()
        except OSError:
            return False  # not Linux
        return b"\nTracerPid:\t" in status and b"\nTracerPid:\t0\n" not in status

    def abort(self) -> None:
        self._process.send_signal(signal.SIGABRT)

    def kill(self) -> None:
        self._process.kill()


def worker_command(arguments: Sequence[str]) -> list[str]:
    """The command line that was typed, for this interpreter with the options it was given."""
    # Private, but `multiprocessing` starts its processes with it since 3.2.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    if Path.cwd() != _HOME and "-P" not in flags:
        flags.append("-P")
    return [sys.executable, *flags, "-m", "trioweb", *arguments]


def typed_folder() -> str:
    """The current folder as it was typed; it may be a link that is to lead elsewhere later on."""
    here = os.getcwd()
    typed = os.environ.get("PWD", here)
    with contextlib.suppress(OSError):
        if os.path.isabs(typed) and os.path.samefile(typed, here):
            return typed
    return here


class Launcher:
    """Starts workers, each with `command`; they share the listeners, and a table of themselves.

    All of these are its own, until `close`.
    """

    def __init__(
        self, command: Sequence[str], listeners: Sequence[Listener], *, rows: int = MIN_ROWS
    ) -> None:
        self._command = command
        self._listeners = listeners
        self._folder = typed_folder()
        self._table = WorkerTable.create(rows)
        self._holders: list[WorkerProcess | None] = [None] * rows

    async def start(self) -> WorkerProcess:
        """Raises START_FAILURES."""
        row = self._free_row()
        self._table.clear(row)
        with contextlib.ExitStack() as stack:
            ours, theirs = map(stack.enter_context, socket.socketpair())
            descriptors = [theirs.fileno(), self._table.file.fileno()]
            descriptors += [listener.socket.fileno() for listener in self._listeners]
            option = f"--worker={','.join(map(str, [row, *descriptors]))}"
            command = [*self._command, option]
            process = await trio.to_thread.run_sync(_popen, command, descriptors, self._folder)
            theirs.close()
            stack.pop_all()
        self._holders[row] = worker = WorkerProcess(process, ours, self._table, row)
        return worker

    def _free_row(self) -> int:
        """One that nobody has; the first one where all are taken: what rows say is advice."""
        rows = enumerate(self._holders)
        free = (row for row, holder in rows if holder is None or holder.over.is_set())
        return next(free, 0)

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._table.file.close()


def _popen(
    command: Sequence[str], descriptors: Sequence[int], folder: str
) -> subprocess.Popen[bytes]:
    with _held_back():
        return subprocess.Popen(command, pass_fds=descriptors, cwd=folder)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """A process that is started in this block has these signals blocked, until it lets them in."""
    before = block_signals(_HELD_BACK)
    try:
        yield
    finally:
        set_blocked_signals(before)
