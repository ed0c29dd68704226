"""Problems: what is said of a value that doesn't fit, small whatever was sent.

Rules of this module:

* A problem's text and the keys in its place are clipped, and its place goes only so deep, so that
  an answer stays small however large the input was.
* Places are relative to the value that was decoded; `placed_within` puts an outer place in front.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .._errors import Problem
from .._limits import MAX_PROBLEM_DEPTH, MAX_PROBLEM_TEXT

MISSING = ("Field required", "missing")
EXTRA = ("Extra inputs are not permitted", "extra_forbidden")
NOT_FINITE = ("Input should be a finite number", "finite_number")


def make_problem(loc: Sequence[str | int], msg: str, type: str) -> Problem:
    place = [_clip(part) if isinstance(part, str) else part for part in loc[:MAX_PROBLEM_DEPTH]]
    return {"loc": place, "msg": _clip(msg), "type": type}


def placed_within(loc: Sequence[str | int], problem: Problem) -> Problem:
    return make_problem([*loc, *problem["loc"]], problem["msg"], problem["type"])


def choices(values: Iterable[Any]) -> str:
    """The values that an input could have had, for a message."""
    return " or ".join(map(repr, values))


def _clip(text: str) -> str:
    return text if len(text) <= MAX_PROBLEM_TEXT else text[: MAX_PROBLEM_TEXT - 1] + "…"
