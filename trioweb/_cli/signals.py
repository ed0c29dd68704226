"""How a process is told to end, and made to.

Rules of this module:

* A thread of its own hears signals, and a supervisor's word, so that they count while
  the event loop is blocked: the interpreter writes each signal's number to a socket at
  once (`signal.set_wakeup_fd`), before it finds the time to run a handler.
* The first signal says drain, the second cancel.  One stop may come as several signals, by
  whoever tells a process and then its group; and a terminal that is closed hangs up: that
  is a stop, too, unless `nohup` said otherwise.  A worker's signals all say drain: in a
  terminal Ctrl-C goes to every process, and what it means is for the supervisor to say.
* A supervisor says cancel with a byte; that it is gone says drain.
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

logger = logging.getLogger("trioweb.run")

# Exit statuses; that of a wrong command line is argparse's.
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_HARD = 3  # something didn't end in time
EXIT_INTERRUPTED = 128 + signal.SIGINT

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# What follows a stop so soon is its echo, no second one: nobody is as quick on purpose.
ECHO_TIME = 0.25  # seconds

# What an end may take beyond the times that were set.
SLACK = 1.0  # seconds

# How long the last log record may take: a log that is stuck may be why nothing ends.
LAST_WORDS_TIME = 0.5  # seconds

CANCEL_BYTE = b"c"

# The system's calls take no longer ones.
_LONGEST_WAIT = 3600.0  # seconds


class Order(enum.Enum):
    DRAIN = enum.auto()
    CANCEL = enum.auto()


@dataclass(frozen=True, slots=True)
class Times:
    """How long the phases of an end may take, in seconds."""

    drain_timeout: float = _limits.DRAIN_TIMEOUT
    cleanup_timeout: float = _limits.CLEANUP_TIMEOUT

    def after(self, order: Order) -> float:
        """How long after this order everything is over."""
        drain_timeout = self.drain_timeout if order is Order.DRAIN else 0.0
        return drain_timeout + self.cleanup_timeout + SLACK

    def to_bytes(self) -> bytes:
        """What a worker tells its supervisor when it is ready."""
        return f"{self.drain_timeout} {self.cleanup_timeout}".encode()

    @classmethod
    def from_bytes(cls, told: bytes) -> Times:
        return cls(*map(float, told.split()))


class Watch:
    """A thread that hears orders, passes each on to `tell`, and calls `give_up` past the limit.

    `rouse` is called after any signal: whoever has a handler for another one must not
    miss it.  `supervisor`: the socket to it, in a worker.  Entered in the main thread, while Trio
    runs there.  The limit is kept beyond the end of the block: a thread of the app's may
    hold up the end of the process as well.
    """

    def __init__(
        self,
        tell: Callable[[Order], object],
        give_up: Callable[[], object],
        *,
        rouse: Callable[[], object],
        supervisor: socket.socket | None = None,
    ) -> None:
        self.times = Times()
        self._tell = tell
        self._give_up = give_up
        self._rouse = rouse
        self._supervisor = supervisor
        self._order: Order | None = None
        self._deadline = math.inf
        self._first_at: float | None = None  # when the first signal came
        self._hearing, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="trioweb watch", daemon=True)

    def __enter__(self) -> Watch:
        self._signals = stop_signals()
        self._thread.start()
        self._trios_wakeup = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _heard) for number in self._signals}
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
            signal.signal(number, handler if self._order is None else signal.SIG_IGN)
        signal.set_wakeup_fd(self._trios_wakeup, warn_on_full_buffer=False)
        self._wakeup.close()

    def _watch(self) -> None:
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
        self._keep_the_limit()

    def _keep_the_limit(self) -> None:
        if self._deadline < math.inf:
            time.sleep(max(0.0, self._deadline - time.monotonic()))
            self._give_up()

    def _hear_signals(self) -> bool:
        """Returns False at the end of the block."""
        numbers = self._hearing.recv(4096)
        for number in numbers:
            if number in self._signals:
                self._obey(self._meaning())
        if numbers:
            self._rouse()
        return bool(numbers)

    def _meaning(self) -> Order:
        """Of a signal to stop that has come just now."""
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
            return Order.DRAIN
        is_echo = now - self._first_at < ECHO_TIME
        return Order.DRAIN if is_echo or self._supervisor is not None else Order.CANCEL

    def _hear_supervisor(self) -> bool:
        """Returns False when it is gone."""
        assert self._supervisor is not None
        try:
            said = self._supervisor.recv(4096)
        except ConnectionError:  # it died before it had read that we are ready
            said = b""
        self._obey(Order.CANCEL if said else Order.DRAIN)
        return bool(said)

    def _obey(self, order: Order) -> None:
        if self._order in (None, Order.DRAIN) and order is not self._order:
            self._order = order
            self._deadline = min(self._deadline, time.monotonic() + self.times.after(order))
            self._tell(order)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Those that a process without workers is to heed; called before there is a handler."""
    hangs_up = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    return (*STOP_SIGNALS, signal.SIGHUP) if hangs_up else STOP_SIGNALS


def _heard(number: int, frame: FrameType | None) -> None:
    """The signal's handler: the thread has heard it already."""


def hard_exit(survivors: Callable[[], list[str]]) -> None:
    """End the process now, after a log record that names who is left."""
    last_words = threading.Thread(target=_last_words, args=(survivors,), daemon=True)
    last_words.start()
    last_words.join(LAST_WORDS_TIME)
    os._exit(EXIT_HARD)


def _last_words(survivors: Callable[[], list[str]]) -> None:
    named = "; ".join(survivors()) or "nothing that has a name"
    logger.critical("out of time, exiting hard with status %d; still runs: %s", EXIT_HARD, named)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
