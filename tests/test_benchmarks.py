"""The benchmarks' commands run; how fast is not for tests to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def benchmark(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    return ran.stdout


def test_help_teaches() -> None:
    assert "internals" in benchmark("--help")
    assert "pip install starlette fastapi" in benchmark("internals", "--help")


def test_internals_measures_trioweb_beside_what_is_installed() -> None:
    table = benchmark("internals", "--rounds", "1")
    assert "| trioweb | " in table
    assert "| bare ASGI | " in table
