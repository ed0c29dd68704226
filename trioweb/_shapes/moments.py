"""Moments: datetimes and durations that are written as numbers, in a text or in JSON.

Rules of this module:

* A number is seconds; of a datetime since 1970, in UTC, and milliseconds past `_LAST_SECOND`, as
  for pydantic.
* Dates and times of day are never numbers.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

_LAST_SECOND = 20_000_000_000  # in the year 2603


def moment_from_number(kind: type[datetime | timedelta], number: int | Decimal) -> Any:
    """Raises ValueError, or ArithmeticError, for what is out of range."""
    if kind is datetime and not -_LAST_SECOND <= number <= _LAST_SECOND:
        number = Decimal(number) / 1000
    return msgspec.convert(str(number), kind, strict=False)
