"""What the command line needs of the operating system, and Windows hasn't.

Rules of this module:

* It asks whether there is a thing, not which system this is.  What isn't there is left out where
  nobody misses it, and refused where somebody has asked for it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

# A terminal that is closed, and to a supervisor the order to replace its workers.
HANG_UP: tuple[signal.Signals, ...] = tuple(
    signal.Signals[name] for name in ("SIGHUP",) if hasattr(signal, name)
)

# Ctrl-Break, which is what one process can send another there.
BREAK: tuple[signal.Signals, ...] = tuple(
    signal.Signals[name] for name in ("SIGBREAK",) if hasattr(signal, name)
)

# Whether a process that is started can inherit sockets.
HAS_WORKERS = sys.platform != "win32"

_signal: Any = signal
_masks = hasattr(signal, "pthread_sigmask")


def block_signals(numbers: Iterable[int]) -> Iterable[int]:
    """Have them wait; returns those that did before."""
    before: Iterable[int] = _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers) if _masks else ()
    return before


def unblock_signals(numbers: Iterable[int]) -> None:
    if _masks:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, numbers)


def set_blocked_signals(numbers: Iterable[int]) -> None:
    """Have these wait, and no others."""
    if _masks:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, numbers)


# Takes `before`, `after_in_parent` and `after_in_child`, as `os.register_at_fork` does.
register_at_fork: Callable[..., object] = getattr(os, "register_at_fork", dict)
