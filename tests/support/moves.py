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


@contextmanager
def followed() -> Iterator[list[str]]:
    """What is entered within the block, in this thread: one `module.function` for each move."""
    moves: list[str] = []
    last = ""

    def enter(frame: FrameType, event: str, _: object) -> None:
        nonlocal last
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(PACKAGE) and file != last:
            last = file
            moves.append(f"{file[len(PACKAGE) : -len('.py')]}.{frame.f_code.co_name}")

    sys.setprofile(enter)
    try:
        yield moves
    finally:
        sys.setprofile(None)
