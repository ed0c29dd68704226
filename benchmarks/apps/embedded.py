"""An app served from inside a Trio program: `python -m benchmarks.apps.embedded APP PORT HTTP`."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from typing import Any

import trio

import trioweb


async def main(name: str, port: int, http: Any) -> None:
    app = importlib.import_module(f"benchmarks.apps.{name}").app
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trioweb.serve, app, port=port, http=http))


if __name__ == "__main__":
    name, port, http = sys.argv[1:]
    trio.run(main, name, int(port), http)
