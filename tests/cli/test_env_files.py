"""`--env-file`: variables for the app, and for the options."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from trioweb._cli import main, run
from trioweb._cli.env_files import load_env_file, read_env_file
from trioweb._cli.settings import Settings
from trioweb._errors import CommandError

LINES = """
# A comment.
export SECRET='a # b' # and another
GREETING="hello
world"
NAME=${SECRET}!
EMPTY=
NOTHING
TRIOWEB_PORT=1234
"""


@pytest.fixture
def env_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("SECRET", "GREETING", "NAME", "EMPTY", "TRIOWEB_PORT"):
        monkeypatch.setenv(name, "to be put back")
        monkeypatch.delenv(name)
    (folder / ".env").write_text(LINES)
    return str(folder / ".env")


def test_quotes_comments_and_references(env_file: str) -> None:
    assert read_env_file(env_file) == {
        "SECRET": "a # b",
        "GREETING": "hello\nworld",
        "NAME": "a # b!",
        "EMPTY": "",
        "TRIOWEB_PORT": "1234",
    }
    assert read_env_file(None) == {}


def test_what_is_set_already_stays(env_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "mine")
    load_env_file(env_file)
    assert os.environ["SECRET"] == "mine"
    assert os.environ["GREETING"] == "hello\nworld"


def test_the_options_have_it_and_what_is_set_goes_before_it(
    env_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []

    def see(settings: Settings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(main, "run", see)
    assert main.main(["run"], {"TRIOWEB_ENV_FILE": env_file}) == 0
    assert main.main(["run", "--env-file", env_file], {"TRIOWEB_PORT": "1"}) == 0
    assert main.main(["run", "--env-file", env_file, "--port", "2"], {"TRIOWEB_PORT": "1"}) == 0
    assert [settings.server.port for settings in seen] == [1234, 1, 2]
    assert seen[0].env_file == env_file


def test_only_a_process_that_imports_the_app_sets_them(
    env_file: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "supervise", lambda settings, arguments: 0)
    assert main.main(["run", "--workers", "2", "--env-file", env_file], {}) == 0
    assert "SECRET" not in os.environ
    (folder / "main.py").write_text("import os, trioweb\napp = trioweb.App()\nos.environ['SECRET']")
    assert main.main(["routes", "--env-file", env_file], {}) == 0
    assert os.environ["SECRET"] == "a # b"


def test_the_app_has_them(env_file: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "main.py").write_text("import os\nos.environ['SECRET']\nasync def app(a, b, c): ...")
    monkeypatch.setattr(run, "run_for_status", lambda *args: 7)
    assert main.main(["run", "--env-file", env_file], {}) == 7


def test_a_file_that_is_none(folder: Path) -> None:
    (folder / ".env").write_bytes(b"A=\xff")
    with pytest.raises(CommandError, match=r"^--env-file \.env: .*utf-8"):
        read_env_file(".env")


def test_python_dotenv_is_an_extra(env_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dotenv", None)
    with pytest.raises(CommandError, match="pip install python-dotenv"):
        read_env_file(env_file)
