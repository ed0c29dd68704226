"""The suite runs as in the foreground of a terminal, wherever it was started.

Rules of this module:

* Under `nohup`, or behind `&` of a script, SIGHUP and SIGINT are ignored, and every process that a
  test starts would inherit that.  A handler isn't inherited: what a test starts has the defaults.
* `nohup` keeps its meaning for the suite itself.
"""

from __future__ import annotations

import signal
from types import FrameType


def _go_on(number: int, frame: FrameType | None) -> None: ...


for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, _go_on)):
    _before = signal.getsignal(_number)
    signal.signal(_number, {signal.SIG_IGN: _handler}.get(_before, _before))  # type: ignore[call-overload]
