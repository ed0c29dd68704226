"""Constraints: what an annotation asks of a value beyond its type, such as `ge` and `pattern`.

Rules of this module:

* Each constraint has one row in a table: how it is checked, its word for programs, and its text.
* Constraints are checked on a value that has its type already.
* In a pattern that a marker gives (`Query(pattern=...)`), `$` is the end of the text.  Where
  msgspec reads the pattern of a field, `$` is Python's, and we never judge otherwise than msgspec.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import inspect as mi

from .._errors import Problem
from .multiples import is_multiple
from .problems import make_problem


class Constraint(msgspec.Struct, frozen=True):
    bound: Any
    holds: Callable[[Any, Any], bool]
    word: str
    message: str


_CONSTRAINTS: dict[str, tuple[Callable[[Any, Any], bool], str, str]] = {
    "gt": (operator.gt, "greater_than", "Input should be greater than {}"),
    "ge": (operator.ge, "greater_than_equal", "Input should be greater than or equal to {}"),
    "lt": (operator.lt, "less_than", "Input should be less than {}"),
    "le": (operator.le, "less_than_equal", "Input should be less than or equal to {}"),
    "multiple_of": (is_multiple, "multiple_of", "Input should be a multiple of {}"),
    "min_length": (lambda v, n: len(v) >= n, "too_short", "Input should have at least {} {unit}"),
    "max_length": (lambda v, n: len(v) <= n, "too_long", "Input should have at most {} {unit}"),
    "pattern": (
        lambda v, pattern: re.search(pattern, v) is not None,
        "pattern_mismatch",
        "Input should match pattern '{}'",
    ),
    "tz": (
        lambda v, aware: (v.tzinfo is not None) == aware,
        "timezone",
        "Input should be timezone-aware: {}",
    ),
}


def constraints_of(node: mi.Type | msgspec.Meta) -> list[Constraint]:
    prefix, unit = ("string_", "characters") if isinstance(node, mi.StrType) else ("", "items")
    found = []
    for name, (holds, word, message) in _CONSTRAINTS.items():
        bound = getattr(node, name, None)
        if bound is not None:
            text = message.format(bound, unit=unit)
            found.append(Constraint(bound, holds, prefix + word, text))
    return found


def broken_constraint(constraints: Sequence[Constraint], value: Any) -> Problem | None:
    """What is wrong with a value of the right type: the first constraint that doesn't hold."""
    for constraint in constraints:
        if not constraint.holds(value, constraint.bound):
            return make_problem([], constraint.message, constraint.word)
    return None


# A `$`, or what may hold one that isn't an anchor: an escaped character, or a set.
_DOLLAR = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|\$", re.DOTALL)


def pattern_to_the_end(pattern: str) -> str:
    """`pattern` with `$` as elsewhere: the end of the text, and not also before a last newline."""
    if re.compile(pattern).flags & re.MULTILINE:
        return pattern
    return _DOLLAR.sub(lambda found: found[1] or r"\Z", pattern)


def meta_to_the_end(meta: msgspec.Meta | None) -> msgspec.Meta | None:
    """A marker's constraints, with `pattern_to_the_end`."""
    if meta is None or meta.pattern is None:
        return meta
    return msgspec.Meta(
        pattern=pattern_to_the_end(meta.pattern),
        min_length=meta.min_length,
        max_length=meta.max_length,
    )
