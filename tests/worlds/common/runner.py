"""Runs one world: scheduling, clock and randomness are all the seed's.

Rules of this module:

* Trio schedules by a seeded `Random` here, and time passes only when everybody waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest import mock

import trio
import trio._core._run as trio_run
from trio.testing import MockClock

from .world import BaseWorld, LogWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How one world ended."""

    violations: list[str]
    trace: list[str]
    count: int  # of what its simulation counts


def run_seeded(
    world: BaseWorld[Any],
    main: Callable[[], Awaitable[None]],
    instruments: Sequence[trio.abc.Instrument],
) -> None:
    """Run what happens in this world, by its seed; trioweb's log is the world's meanwhile."""
    clock = MockClock(autojump_threshold=0)
    with _deterministic(world.seed), _watched_log(world):
        trio.run(main, clock=clock, instruments=instruments)


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    with (
        mock.patch.object(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        mock.patch.object(trio_run, "_r", Random(seed)),
    ):
        yield


@contextmanager
def _watched_log(world: BaseWorld[Any]) -> Iterator[None]:
    logger = logging.getLogger("trioweb")
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with (
            mock.patch.object(logger, "handlers", [LogWatch(world)]),
            mock.patch.object(logger, "propagate", False),
        ):
            yield
    finally:
        logger.setLevel(level)
