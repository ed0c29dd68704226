"""Moves between modules: how often whoever follows a request has to open another file.

Rules of this module:

* A move is a function of the package that is entered, or entered again where it waited, in another
  module than the one that was entered last.  To return is no move.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import trioweb

PACKAGE = f"{Path(trioweb.__file__).parent}/"


class Follower:
    """Notes each move, as `module.function`."""

    def __init__(self) -> None:
        self.moves: list[str] = []
        self._last = ""

    def enter(self, frame: FrameType, event: str, _: object) -> None:
        """For `sys.setprofile`."""
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(PACKAGE) and file != self._last:
            self._last = file
            self.moves.append(f"{file[len(PACKAGE) : -len('.py')]}.{frame.f_code.co_name}")


@contextmanager
def followed() -> Iterator[list[str]]:
    """The moves within the block, in this thread."""
    follower = Follower()
    sys.setprofile(follower.enter)
    try:
        yield follower.moves
    finally:
        sys.setprofile(None)
