"""Import strings: the app that each one names, or what is there instead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import trioweb
from trioweb import App
from trioweb._cli.importing import load_app
from trioweb._errors import CommandError


@pytest.mark.parametrize(
    "import_string", ["main:app", "main", None, "main:make_app()", "main:bare", "main:app.__call__"]
)
def test_the_app_is_found(names: Path, import_string: str | None) -> None:
    (names / "app.py").write_text("raise RuntimeError('main.py comes first')")
    found = load_app(import_string)
    assert callable(found)
    if import_string not in ("main:bare", "main:app.__call__"):
        assert isinstance(found, App)


def test_the_folder_comes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[1:])
    (folder / "app.py").write_text("import trioweb\nthe_only = trioweb.App()")
    assert isinstance(load_app(), App)
    assert sys.path[0] == str(folder)


def test_there_is_nothing_to_find(folder: Path) -> None:
    with pytest.raises(CommandError, match=r"has none of main\.py, app\.py\n.*\n.*MODULE:APP"):
        load_app()


WRONG_STRINGS = [
    ("main.py", "main:app"),
    ("main.py:other", "main:other"),
    ("./src/main.py", "src.main:app"),
    ("main:", "main:app"),
    (":", "main:app"),
    ("main:app(1)", "main:app"),
    ("main app", "main:app"),
]


@pytest.mark.parametrize(("wrong", "right"), WRONG_STRINGS)
def test_what_is_no_import_string(folder: Path, wrong: str, right: str) -> None:
    with pytest.raises(CommandError) as error:
        load_app(wrong)
    lines = str(error.value).splitlines()
    assert lines[1:] == [f"    wrong:  {wrong}", f"    right:  {right}"]


WRONG_NAMES = [
    ("mian:app", "no module 'mian'", "main:app"),
    ("main.sub:app", "no module 'main.sub'", "main:app"),
    ("main:ap", "main has no 'ap'; its apps: app, other", "main:app"),
    ("main:settings", "main:settings is a dict, not an ASGI app", "main:app or main:other"),
    ("main:zero", "main:zero is a function, not an ASGI app", "main:app or main:other"),
    ("main:make_nothing()", "make_nothing() is a dict, not", "main:app or main:other"),
    ("main:make_app", "main:make_app is a function, not an app", "main:make_app()"),
    ("main:Kind", "main:Kind is a class, not an app", "main:Kind()"),
    ("empty", "empty has no app", "empty:app, with app = App() in empty.py"),
    ("empty:app", "empty has no 'app'; nor any App", "app = App() in empty.py, outside of any"),
    ("two", "two has 2 apps", "two:one or two:other"),
]


@pytest.mark.parametrize(("wrong", "problem", "right"), WRONG_NAMES)
def test_what_is_there_is_shown(names: Path, wrong: str, problem: str, right: str) -> None:
    (names / "empty.py").touch()
    (names / "two.py").write_text("import trioweb\none = trioweb.App()\nother = trioweb.App()")
    with pytest.raises(CommandError) as error:
        load_app(wrong)
    told, _, last = str(error.value).splitlines()
    assert problem in told
    assert last.startswith(f"    right:  {right}")


def test_another_folder_is_named(folder: Path) -> None:
    (folder / "project").mkdir()
    (folder / "project" / "main.py").write_text("from trioweb import App\nmine = App()\n")
    assert load_app(None, "project") is load_app("main:mine", "project")
    assert sys.path[0] == str(folder / "project")
    with pytest.raises(CommandError) as refused:
        load_app("mian", "project")
    assert f"no module 'mian' in {folder / 'project'}" in str(refused.value)
    assert "right:  main:app" in str(refused.value)


def test_no_module_far_and_wide(folder: Path) -> None:
    with pytest.raises(CommandError, match=r"has no modules\n.*\n.*right:  MODULE:APP, with"):
        load_app("main:app")


FAILING = [
    ("x = 1 / 0", "ZeroDivisionError: division by zero"),
    ("def (", "SyntaxError: invalid syntax"),
    ("import not_installed", "ModuleNotFoundError: No module named 'not_installed'"),
    ("import sys; sys.exit(1)", "SystemExit: 1"),
    ("raise ModuleNotFoundError('who?')", "ModuleNotFoundError: who?"),
]


@pytest.mark.parametrize(("source", "last"), FAILING)
def test_a_module_that_fails_shows_its_own_lines(folder: Path, source: str, last: str) -> None:
    (folder / "main.py").write_text(source)
    with pytest.raises(CommandError) as error:
        load_app("main:app")
    text = str(error.value)
    assert text.startswith("main can't be imported:\n\n")
    assert text.endswith(last)
    assert str(folder / "main.py") in text
    assert "importlib" not in text
    assert "_cli" not in text


@pytest.mark.usefixtures("names")
def test_a_factory_that_fails_shows_its_own_lines() -> None:
    with pytest.raises(CommandError, match=r"main:fail_to_make\(\) can't be (.|\n)*ZeroDivision"):
        load_app("main:fail_to_make()")


def test_a_factory_that_is_ours_alone_shows_no_lines_of_ours(folder: Path) -> None:
    """The frames of whichever room refused what the author gave it."""
    (folder / "main.py").write_text(
        "import functools, trioweb\nmake = functools.partial(trioweb.App, drain_timeout='soon')"
    )
    with pytest.raises(CommandError) as error:
        load_app("main:make()")
    text = str(error.value)
    assert "RegistrationError: drain_timeout is a number of seconds" in text
    assert "Traceback" not in text
    assert str(Path(trioweb.__file__).parent) not in text


def test_frames_of_ours_below_the_authors_line_are_shown(folder: Path) -> None:
    """What the author called may matter to whoever reads it."""
    (folder / "main.py").write_text("import trioweb\napp = trioweb.App(drain_timeout='soon')")
    with pytest.raises(CommandError) as error:
        load_app("main:app")
    first, *rest = [line for line in str(error.value).splitlines() if line.startswith("  File ")]
    assert str(folder / "main.py") in first
    assert all(str(Path(trioweb.__file__).parent) in line for line in rest)
    assert rest


def test_ctrl_c_while_the_app_is_imported(folder: Path) -> None:
    (folder / "main.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_app("main:app")
