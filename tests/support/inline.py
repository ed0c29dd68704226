"""Both ways to a handler: in the server's own call, or beside it on a task of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

Beside = pytest.mark.parametrize("beside", [False, True], ids=["inline", "beside"])


async def nothing() -> AsyncIterator[None]:
    """A dependency that makes its handler run beside the server's call."""
    yield
