"""What a run found: JSON to keep, Markdown to read, plots to look at.

Rules of this module:

* A result is worth nothing without what it was measured with: every file of results
  names the versions and the machine.
* Every run is written down.  Only a whole one takes the place of what the documentation shows:
  few rounds, a choice, or something that is missing make it a look, which is kept beside it.
* Nothing here says whose machine it was: no host, no user, no path.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LOOKS = RESULTS / "looks"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "_static"

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

# For `--help`.
HOW_KEPT = f"""
A whole run, of {ENOUGH_ROUNDS} rounds or more with nothing left out or cut short, takes the place
of what is in docs/ and benchmarks/results/.  Any other is a look, for benchmarks/results/looks/.
"""


@dataclass(frozen=True)
class Found:
    """What the command `name` found: for JSON, as Markdown, and its plots, SVG by name."""

    name: str
    results: dict[str, Any]
    text: str
    plots: Mapping[str, str] = field(default_factory=dict)


def keep(found: Found, rounds: int, lacks: Iterable[str] = ()) -> None:
    """Write a run down, and say where.

    `lacks`: what keeps it from being a whole one, if anything but too few rounds does.
    """
    lacking = [*lacks]
    if rounds < ENOUGH_ROUNDS:
        lacking.append(f"less than {ENOUGH_ROUNDS} rounds")
    if lacking:
        print(f"\nA look ({', '.join(lacking)}): what the documentation shows stays as it was.")
        written = _keep_look(found)
    else:
        written = _keep_whole(found)
    print("\nWritten:", *(path.relative_to(ROOT) for path in written), sep="\n  ")


def _keep_whole(found: Found) -> list[Path]:
    _put_into_page(found)
    return [PAGE, *_write(found, RESULTS, PLOTS)]


def _keep_look(found: Found) -> list[Path]:
    LOOKS.mkdir(parents=True, exist_ok=True)
    text = LOOKS / f"{found.name}.md"
    text.write_text(found.text, "utf-8")
    return [text, *_write(found, LOOKS, LOOKS)]


def _put_into_page(found: Found) -> None:
    """In place of what stands between the command's marks on the page."""
    begin, end = f"<!-- {found.name} -->\n", f"<!-- end of {found.name} -->"
    before, _, rest = PAGE.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{found.text}\n{end}{after}", "utf-8")


def _write(found: Found, results: Path, plots: Path) -> list[Path]:
    whole = {"versions": versions(), "machine": machine(), "results": found.results}
    files = {results / f"{found.name}.json": json.dumps(whole, indent=2) + "\n"}
    files |= {plots / f"{name}.svg": plot for name, plot in found.plots.items()}
    for path, content in files.items():
        path.write_text(content, "utf-8")
    return [*files]


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
