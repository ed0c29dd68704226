"""What the README shows is what the main example is, and does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from ..support.examples import Shown, read_steps

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "send_notification.py"
README = (ROOT / "README.md").read_text("utf-8")
SOURCE = EXAMPLE.read_text("utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_its_code_is_the_example_without_its_docstring() -> None:
    docstring = ast.parse(SOURCE).body[0]
    assert docstring.end_lineno is not None
    code = "".join(SOURCE.splitlines(keepends=True)[docstring.end_lineno :])
    assert code.strip() in [block.strip() for block in code_blocks("python")]


def test_it_shows_what_the_example_shows() -> None:
    shown = "".join(code_blocks("console"))
    for step in read_steps(ast.get_docstring(ast.parse(SOURCE)) or ""):
        lines = [f"$ {step.command}", *step.output] if isinstance(step, Shown) else [step]
        assert "\n".join(lines).strip() in shown


def test_its_first_command_serves_the_example() -> None:
    app = ".".join(EXAMPLE.relative_to(ROOT).with_suffix("").parts)
    assert code_blocks("sh")[0].endswith(f".venv/bin/trioweb run {app}:app\n")
