"""Documentation holds: the tests that docs/testing.md shows pass, and what is named is there."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import pydoc
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import trioweb

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


def test_every_public_name_is_in_the_reference() -> None:
    missing = [
        f"{module.__name__}.{name}"
        for module in public_modules()
        for name in module.__all__
        if qualified_name(module, name) not in reference_entries()
    ]
    assert missing == []


def test_every_public_method_and_property_is_in_the_reference() -> None:
    """By an entry, in the text around it, or in what its class says of itself."""
    missing = []
    for path, page in reference_entries().items():
        found = pydoc.locate(path)
        if isinstance(found, type):
            text = f"{page} {found.__doc__}"
            words = set(re.findall(r"\w+", text))
            missing += [f"{path}.{name}" for name in own_members(found) if name not in words]
    assert missing == []


def public_modules() -> list[types.ModuleType]:
    """The doors: every module that one may import, by its name."""
    walked = pkgutil.walk_packages(trioweb.__path__, "trioweb.")
    names = [each.name for each in walked if "._" not in each.name]
    return [trioweb, *map(importlib.import_module, names)]


def qualified_name(module: types.ModuleType, name: str) -> str:
    """As its first door has it: two doors may lead to one thing."""
    where = getattr(getattr(module, name), "__module__", "")
    return f"{where if where.startswith('trioweb') else module.__name__}.{name}"


@functools.cache
def reference_entries() -> dict[str, str]:
    """What the reference has an entry for, each with its page."""
    entries: dict[str, str] = {}
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        text = page.read_text("utf-8")
        for name in re.findall(r"^\.\. auto[a-z]+:: ([\w.]+)", text, re.MULTILINE):
            entries[name] = text
    return entries


def own_members(cls: type) -> list[str]:
    kinds = (types.FunctionType, property, classmethod, staticmethod)
    return [
        name
        for name, value in vars(cls).items()
        if not name.startswith("_") and isinstance(value, kinds)
    ]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_each_page_shows_an_example_before_any_table(page: Path) -> None:
    begins = [line[:3] for line in page.read_text("utf-8").splitlines()]
    assert "```" in begins
    assert not any(begin.startswith("|") for begin in begins[: begins.index("```")])


def test_the_files_that_the_house_is_described_with_exist() -> None:
    """Each `room/file.py` that docs/how-it-is-built.md names is one of the package's."""
    text = (ROOT / "docs" / "how-it-is-built.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z_/]+\.py)`", text))
    assert len(named) > 30
    assert sorted(name for name in named if not (ROOT / "trioweb" / name).is_file()) == []
