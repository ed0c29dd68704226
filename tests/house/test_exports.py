"""What the door shows is exactly what is meant to be public."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest

import trioweb

EXPORTS = {
    "App",
    "BackgroundTask",
    "BackgroundTasks",
    "Body",
    "ClientDisconnect",
    "Cookie",
    "Depends",
    "HTMLResponse",
    "HTTPException",
    "Header",
    "JSONResponse",
    "Limits",
    "Path",
    "PlainTextResponse",
    "Query",
    "RedirectResponse",
    "RegistrationError",
    "Request",
    "RequestValidationError",
    "Response",
    "Retry",
    "Router",
    "StreamingResponse",
    "TaskStatistics",
    "TaskTimeout",
    "serve",
    "task",
}
SUBMODULES = {"server"}  # that the import of trioweb brings along

# Each costs its importer time or a dependency, and is loaded when it is used.
NOT_IMPORTED = {"asyncio", "hypercorn", "pydantic"}

LOOK = "import json, sys, trioweb; print(json.dumps([dir(trioweb), sorted(sys.modules)]))"


@pytest.fixture(scope="module")
def fresh() -> tuple[set[str], set[str]]:
    """The public names of a freshly imported trioweb, and the modules that its import loaded."""
    looked = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, check=True, text=True
    )
    names, modules = json.loads(looked.stdout)
    return {name for name in names if not name.startswith("_")}, set(modules)


def test_all_is_the_table() -> None:
    assert set(trioweb.__all__) == EXPORTS
    assert len(trioweb.__all__) == len(EXPORTS)


def test_nothing_else_is_visible(fresh: tuple[set[str], set[str]]) -> None:
    assert fresh[0] == EXPORTS | SUBMODULES


def test_import_loads_only_what_it_needs(fresh: tuple[set[str], set[str]]) -> None:
    assert fresh[1] & NOT_IMPORTED == set()


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_tracebacks_name_the_door(name: str) -> None:
    public: Any = getattr(trioweb, name)
    assert public.__module__ == "trioweb"
    assert public.__qualname__ == name


def test_types_are_for_everyone() -> None:
    assert files(trioweb).joinpath("py.typed").is_file()
