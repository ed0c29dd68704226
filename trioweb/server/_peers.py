"""Peers: workers that accept from the same sockets, and what each of them knows of the others.

Rules of this module:

* A table in memory that they share has a row for each worker: only that worker writes it, but for
  who started it, who clears the row before and after.
* What it says is advice.  Who has more connections than another lets that one go first, for a
  moment; nobody is waited for longer, and nobody at all who gives no sign of life.
* A number is one word of the processor: it is read whole, old or new.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable
from io import FileIO
from typing import NamedTuple

from . import _limits

# Words of a row: how many connections are active, in the upper half, and one more than all that are
# open, or 0 where none is accepted; the last sign of life, in ms of the system's clock; how many
# requests there were.
_WORDS = 3
_WORD_SIZE = 8  # bytes
_HALF = 32  # bits


class WorkerTable:
    """The table; `file` has no name, and is inherited by other processes."""

    def __init__(self, file: FileIO) -> None:
        self.file = file
        size = os.fstat(file.fileno()).st_size
        words = memoryview(mmap.mmap(file.fileno(), size)).cast("Q")
        self.taken: memoryview[int] = words[0::_WORDS]
        self.signs: memoryview[int] = words[1::_WORDS]
        self.requests: memoryview[int] = words[2::_WORDS]

    @classmethod
    def create(cls, rows: int) -> WorkerTable:
        file = _nameless_file()
        file.truncate(rows * _WORDS * _WORD_SIZE)
        return cls(file)

    @classmethod
    def inherited(cls, descriptor: int) -> WorkerTable:
        """The table that whoever started this process has made; the file isn't needed longer."""
        with FileIO(descriptor, "r+") as file:
            return cls(file)

    def clear(self, row: int) -> None:
        """Nobody has this row, or somebody who has said nothing yet."""
        for words in (self.taken, self.signs, self.requests):
            words[row] = 0


def _nameless_file() -> FileIO:
    """In memory where the system has that; Linux does, and needs no folder to write to."""
    if hasattr(os, "memfd_create"):
        return FileIO(os.memfd_create("trioweb workers"), "r+")
    with tempfile.TemporaryFile() as file:
        return FileIO(os.dup(file.fileno()), "r+")


class Load(NamedTuple):
    """Connections of one worker: those that have requests weigh more than any that are idle."""

    active: int
    open: int


class Peers:
    """What one worker tells the others, and asks of them; its row is `row`."""

    def __init__(
        self, table: WorkerTable, row: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._table = table
        self._row = row
        self._clock = clock

    def accept(self, load: Load) -> None:
        """This worker accepts, and has so many connections."""
        self._table.taken[self._row] = (load.active << _HALF) + load.open + 1

    def withdraw(self) -> None:
        """This worker accepts no more."""
        self._table.taken[self._row] = 0

    def live(self, requests: int) -> None:
        """This worker lives, and has had so many requests."""
        self._table.requests[self._row] = requests
        self._table.signs[self._row] = self._now()

    def least(self) -> Load | None:
        """What the one has that has least, of the others; None if no other one accepts."""
        oldest = self._now() - int(_limits.LIFE_SIGN_LASTS * 1000)
        rows = zip(self._table.taken.tolist(), self._table.signs.tolist(), strict=True)
        others = (
            taken
            for row, (taken, sign) in enumerate(rows)
            if taken and sign >= oldest and row != self._row
        )
        least = min(others, default=0)
        return Load(*divmod(least - 1, 1 << _HALF)) if least else None

    def _now(self) -> int:
        return int(self._clock() * 1000)
