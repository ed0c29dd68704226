"""A nursery from whose block a failure comes out as it was raised.

Rules of this module:

* A test says `pytest.raises(LookupError)` around its client: the block's own failure comes out in
  no exception group, whatever failed in the nursery because of it.
* Ctrl-C in the app comes before the failure that it led to in the block.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .. import _errors


@asynccontextmanager
async def open_nursery() -> AsyncIterator[trio.Nursery]:
    """As `trio.open_nursery`; a failure of the block cancels the nursery, and is raised as it is.

    What its tasks raise comes out in a group, as always; beside a failure of the
    block that group is the failure's cause.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:
                if not _errors.is_failure(exc):
                    raise
                failure = exc
                nursery.cancel_scope.cancel()
    except BaseException as exc:
        is_ctrl_c = any(isinstance(leaf, KeyboardInterrupt) for leaf in _errors.leaves(exc))
        if failure is None or is_ctrl_c:
            raise
        raise failure from exc
    if failure is not None:
        raise failure
