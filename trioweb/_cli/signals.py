"""How a process is told to end, and made to.

Rules of this module:

* A thread hears signals, and a supervisor's word, so that they count while the event loop is
  blocked: the interpreter writes each signal's number to a socket at once
  (`signal.set_wakeup_fd`), before it finds the time to run a handler.
* What a signal means is decided in one place, for a process, a supervisor and a reloader: the
  first one says drain, the next one cancel, unless it is an echo of the first.  A program that
  stops another one often signals the process, and then its whole group.
* A terminal that is closed sends SIGHUP: that is a stop too, unless `nohup` has silenced it.
* To a worker every signal says drain: in a terminal Ctrl-C goes to every process, and what a
  second one means is for the supervisor to say.  The supervisor says with a byte: retire, cancel,
  or that the event loop hangs; when the supervisor is gone, that says drain.
* What has not ended in time is named in the log, and ends with the process.
"""

from __future__ import annotations

import enum
import logging
import math
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType

from .. import _limits
from .handlers import is_unhandled, own
from .statuses import EXIT_HARD
from .systems import BREAK, HANG_UP

logger = logging.getLogger("trioweb.run")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *BREAK)

# A signal that comes so soon after the first one is its echo: nobody is as quick on purpose.
ECHO_TIME = 0.25  # seconds

# What an end may take beyond the times that were set.
SLACK = 1.0  # seconds

# How long the last log record may take: a log that is stuck may be why nothing ends.
LAST_WORDS_TIME = 0.5  # seconds

RETIRE_BYTE = b"r"
CANCEL_BYTE = b"c"
HANG_BYTE = b"h"

# `select` refuses waits that are much longer.
_LONGEST_WAIT = 3600.0  # seconds


class Order(enum.IntEnum):
    """What a process may be told; each goes beyond the one before it."""

    RETIRE = 1  # others take its place: let idle connections end by themselves, then drain
    DRAIN = 2
    CANCEL = 3


@dataclass(frozen=True, slots=True)
class Times:
    """How long the phases of an end may take, in seconds."""

    drain_timeout: float = _limits.DRAIN_TIMEOUT
    cleanup_timeout: float = _limits.CLEANUP_TIMEOUT
    retire_timeout: float = 0.0

    def after(self, order: Order) -> float:
        """How long after this order everything is over."""
        phases = (self.cleanup_timeout, self.drain_timeout, self.retire_timeout)
        return sum(phases[: 4 - order], SLACK)

    def to_bytes(self) -> bytes:
        """What a worker tells its supervisor when it is ready."""
        return f"{self.drain_timeout} {self.cleanup_timeout} {self.retire_timeout}".encode()

    @classmethod
    def from_bytes(cls, told: bytes) -> Times:
        return cls(*map(float, told.split()))


class StopSignals:
    """What each signal to stop means, in the order in which they come."""

    def __init__(self) -> None:
        self._first_at: float | None = None

    def order(self, now: float) -> Order:
        """What a signal says that comes now; `now` is in seconds, always of the same clock."""
        if self._first_at is None:
            self._first_at = now
            return Order.DRAIN
        is_echo = now - self._first_at < ECHO_TIME
        return Order.DRAIN if is_echo else Order.CANCEL


class SignalThread(threading.Thread):
    """A thread that hears orders, passes each on to `tell`, and calls `give_up` when time is up.

    It is a context manager, to be entered in the main thread while Trio runs there; the block is
    what is to end.  `times` say how long that may take, and count from the signal on.  They go on
    counting after the block: a thread of the app may hold up the end of the process as well.

    `report_hang` is called when the supervisor says that the event loop hangs.
    `wake_trio` is called after any signal, because the signal's number no longer goes to Trio: a
    program that has a handler for another signal mustn't miss it.  `supervisor`: the socket to
    the supervisor, in a worker.
    """

    def __init__(
        self,
        tell: Callable[[Order], object],
        give_up: Callable[[], object],
        *,
        wake_trio: Callable[[], object],
        report_hang: Callable[[], object] = lambda: None,
        supervisor: socket.socket | None = None,
    ) -> None:
        super().__init__(name="trioweb signals", daemon=True)
        self.times = Times()
        self._tell = tell
        self._give_up = give_up
        self._report_hang = report_hang
        self._wake_trio = wake_trio
        self._supervisor = supervisor
        self._order: Order | None = None
        self._deadline = math.inf
        self._stops = StopSignals()
        self._hearing, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        own.keep(self._hearing, self._wakeup)

    def __enter__(self) -> SignalThread:
        self._signals = stop_signals()
        self.start()
        self._trios_wakeup = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: own.set(number, _ignore) for number in self._signals}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            # After an order the process is about to end by itself: a late signal mustn't change
            # its status, not even when Python has put the handlers of its own away.
            own.set(number, handler if self._order is None else signal.SIG_IGN)
        signal.set_wakeup_fd(self._trios_wakeup, warn_on_full_buffer=False)
        self._wakeup.shutdown(socket.SHUT_RDWR)  # the thread is to see that, whoever has a copy
        self._wakeup.close()

    def run(self) -> None:
        """What the thread does: hear orders until the block ends, then wait for the deadline."""
        self._hear()
        if self._deadline < math.inf:
            time.sleep(max(0.0, self._deadline - time.monotonic()))
            self._give_up()

    def _hear(self) -> None:
        """Returns at the end of the block, or at the deadline."""
        with self._hearing, selectors.DefaultSelector() as selector:
            selector.register(self._hearing, selectors.EVENT_READ, self._hear_signals)
            if self._supervisor is not None:
                selector.register(self._supervisor, selectors.EVENT_READ, self._hear_supervisor)
            while (left := self._deadline - time.monotonic()) > 0:
                for key, _ in selector.select(min(left, _LONGEST_WAIT)):
                    if not key.data():
                        selector.unregister(key.fileobj)
                if self._hearing not in selector.get_map():
                    break

    def _hear_signals(self) -> bool:
        """Returns False at the end of the block."""
        numbers = self._hearing.recv(4096)
        for number in numbers:
            if number in self._signals:
                order = self._stops.order(time.monotonic())
                self._obey(order if self._supervisor is None else Order.DRAIN)
        if numbers:
            self._wake_trio()
        return bool(numbers)

    def _hear_supervisor(self) -> bool:
        """Returns False when the supervisor is gone."""
        assert self._supervisor is not None
        try:
            said = self._supervisor.recv(4096)
        except ConnectionError:  # it died before it had read that this worker is ready
            said = b""
        if HANG_BYTE in said:
            self._report_hang()
        if RETIRE_BYTE in said:
            self._obey(Order.RETIRE)
        if CANCEL_BYTE in said:
            self._obey(Order.CANCEL)
        if not said:
            self._obey(Order.DRAIN)
        return bool(said)

    def _obey(self, order: Order) -> None:
        if self._order is None or order > self._order:
            self._order = order
            self._deadline = min(self._deadline, time.monotonic() + self.times.after(order))
            self._tell(order)


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop a process without workers; to be asked before they have handlers."""
    return (*STOP_SIGNALS, *filter(is_unhandled, HANG_UP))


def _ignore(number: int, frame: FrameType | None) -> None:
    """The handler of the signals that stop: the thread has heard them already."""


def hard_exit(survivors: Callable[[], list[str]]) -> None:
    """End the process now, after a log record with the names of what still runs."""
    exit_with_words(lambda: f"out of time; still runs: {_listed(survivors())}")


def _listed(names: list[str]) -> str:
    return "; ".join(names) or "nothing that has a name"


def exit_with_words(words: Callable[[], str]) -> None:
    """End the process now, after a log record with these words."""
    last_words = threading.Thread(target=_say, args=(words,), daemon=True)
    try:
        last_words.start()
        last_words.join(LAST_WORDS_TIME)
    finally:  # where no more threads can be started, too
        os._exit(EXIT_HARD)


def _say(words: Callable[[], str]) -> None:
    logger.critical("exiting hard with status %d: %s", EXIT_HARD, words())
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
