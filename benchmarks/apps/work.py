"""What every app's endpoints work on, whatever the framework.

Rules of this module:

* Cheap: what is measured is the way to it and back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

CHUNK = b"x" * 64 * 1024
CHUNKS = 16  # 1 MiB in all

ran = 0  # tasks


async def count() -> None:
    """The background task."""
    global ran
    ran += 1


def tasks_run() -> dict[str, int]:
    return {"ran": ran}


def item(item_id: int) -> dict[str, object]:
    return {"id": item_id, "name": f"item {item_id}"}


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(CHUNKS):
        yield CHUNK
