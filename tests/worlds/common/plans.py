"""How plans print, and how they are drawn from a seed.

Rules of this module:

* Seconds come from a few round numbers, so that things often happen at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from random import Random
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")

SECONDS = (0.0, 0.0, 0.0, 0.1, 0.5, 1.0, 3.0)


class Shown:
    """Prints as it would be written: without what is as usual."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __repr__(self) -> str:
        shown = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self)
            if getattr(self, each.name) != each.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


class Draw:
    """Draws; every choice comes from one source of randomness."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def _seconds(self) -> float:
        return self._one_of(SECONDS)

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _one_of(self, choices: Sequence[T]) -> T:
        return self._random.choice(choices)

    def _some(self, draw: Callable[[], T], least: int, most: int) -> tuple[T, ...]:
        return tuple(draw() for _ in range(self._random.randint(least, most)))
