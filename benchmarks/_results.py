"""What a run found: JSON to keep, Markdown to read.

Rules of this module:

* A result is worth nothing without what it was measured with: every file of results
  names the versions and the machine.
* Nothing here says whose machine it was: no host, no user, no path.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
STATIC = DOCS / "_static"

PACKAGES = (
    "trioweb",
    "trio",
    "h11",
    "httptools",
    "msgspec",
    "hypercorn",
    "uvicorn",
    "uvloop",
    "starlette",
    "fastapi",
    "pydantic",
    "falcon",
    "blacksheep",
    "sanic",
    "quart-trio",
)


ENOUGH_ROUNDS = 5


def are_kept(rounds: int, *, is_whole: bool = True) -> bool:
    """Whether a run is written down; says if it isn't."""
    if is_whole and rounds >= ENOUGH_ROUNDS:
        return True
    print(
        f"Not written down: that takes {ENOUGH_ROUNDS} rounds or more, and all there is to measure."
    )
    return False


def save(name: str, results: dict[str, Any]) -> Path:
    """Write results/NAME.json: the results, beside the versions and the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    whole = {"versions": versions(), "machine": machine(), "results": results}
    path.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")
    return path


def versions() -> dict[str, str]:
    """Of Python, and of those packages that are installed."""
    found = {platform.python_implementation(): platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """What a reader must know of it to compare."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": f"{os.cpu_count()} cores",
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    """Its name as Linux tells it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is words, the others are figures."""
    align = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, align, *rows))


def setting() -> str:
    """The machine and the versions, as two paragraphs of Markdown."""
    named = ", ".join(f"{package} {number}" for package, number in versions().items())
    return f"Machine: {', '.join(machine().values())}.\n\nVersions: {named}."
