"""Documentation holds: the tests that docs/testing.md shows pass, and what is named is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "examples" / "tests"
WITH_ANYIO = FOLDER / "test_with_anyio.py"
WITH_TRIO = sorted(set(FOLDER.glob("test_*.py")) - {WITH_ANYIO})

# pytest-trio's fixtures would take anyio's tests, and the other way round.
RUNS = {
    "pytest-trio": (["-p", "no:anyio", "-o", "trio_mode=true"], WITH_TRIO),
    "anyio": (["-p", "no:trio"], [WITH_ANYIO]),
}


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("plugin", RUNS)
def test_they_pass(plugin: str, tmp_path: Path) -> None:
    options, files = RUNS[plugin]
    # A configuration of their own: ours asks for a plugin that isn't there.
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", str(tmp_path), *options, *map(str, files)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert files
    assert f"{_count(files)} passed" in ran.stdout


def _count(files: list[Path]) -> int:
    return sum(file.read_text().count("async def test_") for file in files)


def test_the_files_that_the_house_is_described_with_exist() -> None:
    """Each `room/file.py` that docs/how-it-is-built.md names is one of the package's."""
    text = (ROOT / "docs" / "how-it-is-built.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z_/]+\.py)`", text))
    assert len(named) > 30
    assert sorted(name for name in named if not (ROOT / "trioweb" / name).is_file()) == []
