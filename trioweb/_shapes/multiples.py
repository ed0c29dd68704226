"""Multiples: whether a number is one of another, as they are written in decimal digits.

Rules of this module:

* 19.99 is a multiple of 0.01, though no float is: the digits count, as in JSON Schema.  What a
  client has computed in floats, 0.1 + 0.2, is near enough.
* It takes no longer for 1e999999 than for 1.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import cast

Number = int | float | Decimal

# So far, of its own size, is what a few steps of arithmetic in floats may be off.
_ROUNDING = 2.0**-50
# Where that is no small part of the step any more, all would be a multiple of it.
_SMALL = 1 / 1024


def is_multiple(value: Number, step: Number) -> bool:
    """Whether `value` is a whole number of times `step`."""
    number = _decimal(value)
    if not number.is_finite():
        return False
    if _is_exact_multiple(number, _decimal(step)):
        return True
    if not isinstance(value, float):
        return False
    rounding = abs(value) * _ROUNDING
    return rounding < float(step) * _SMALL and abs(math.remainder(value, step)) <= rounding


def is_floats(step: Number) -> bool:
    """Whether remainders in floats are right for `step`: it is what it is written as."""
    return Decimal(step) == _decimal(step)


def _decimal(number: Number) -> Decimal:
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def _is_exact_multiple(number: Decimal, step: Decimal) -> bool:
    digits, exponent = _scaled(number)
    step_digits, step_exponent = _scaled(step)
    shift = exponent - step_exponent
    if shift >= 0:
        return digits * int(pow(10, shift, step_digits)) % step_digits == 0
    if -shift > len(number.as_tuple().digits):
        return digits == 0
    return digits % (step_digits * int(10**-shift)) == 0


def _scaled(number: Decimal) -> tuple[int, int]:
    """Its digits as an integer, and the power of ten that they are to be multiplied with."""
    _, digits, exponent = number.as_tuple()
    # By way of a Decimal: a text of so many digits int() may refuse.
    return int(Decimal((0, digits, 0))), cast(int, exponent)  # an int, as it is finite
