"""How the command line logs, and what a file can change of it."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioweb._cli.logs import configure_logging
from trioweb._errors import CommandError

from ..support.log_records import configuration_put_back

INI = """
[loggers]
keys = root, quiet
[handlers]
keys =
[formatters]
keys =
[logger_root]
handlers =
[logger_quiet]
qualname = trioweb.tests.quiet
level = ERROR
handlers =
"""


@pytest.fixture
def quiet_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("trioweb.tests.quiet")
    yield logger
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.json", '{"loggers": {"trioweb.tests.quiet": {"level": "ERROR"}}}'),
        ("log.toml", '[loggers."trioweb.tests.quiet"]\nlevel = "ERROR"'),
        ("log.yaml", "loggers: {trioweb.tests.quiet: {level: ERROR}}"),
        ("log.yml", "loggers:\n  trioweb.tests.quiet:\n    level: ERROR\n"),
        ("log.ini", INI),
        ("log.conf", INI),
    ],
)
def test_a_file_configures_the_log(
    folder: Path, quiet_logger: logging.Logger, name: str, text: str
) -> None:
    other = logging.getLogger("trioweb.tests.other")
    (folder / name).write_text(text)
    configure_logging(name)
    assert quiet_logger.level == logging.ERROR
    assert not other.disabled


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("log.json", "{", "Expecting property name"),
        ("log.json", "[]", "needs an object"),
        ("log.json", '{"handlers": {"h": {"class": "no.such"}}}', "Unable to configure handler"),
        ("log.json", '{"version": 2}', "Unsupported version"),
        ("log.txt", "", "needs to be a file of .json, .toml, .yaml, .yml, .ini, .cfg, .conf"),
        ("log.yaml", "a: [", "while parsing"),
        ("log.yaml", "", "needs an object"),
        ("log.ini", "", "has no 'formatters'"),
        ("log.ini", "[loggers]\nkeys = root\n", "has no 'formatters'"),
        ("log.ini", "loggers", "no section headers"),
        ("log.toml", "=", "Invalid"),
        ("missing.json", None, "No such file"),
    ],
)
def test_a_file_that_configures_nothing(
    folder: Path, name: str, text: str | None, problem: str
) -> None:
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(CommandError, match=f"^--log-config {name}: .*{problem}"):
        configure_logging(name)


def test_pyyaml_is_an_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (folder / "log.yaml").write_text("")
    with pytest.raises(CommandError, match="pip install pyyaml"):
        configure_logging("log.yaml")


@contextlib.contextmanager
def unconfigured() -> Iterator[logging.Logger]:
    """Nobody has configured logging in this block, not even pytest."""
    with configuration_put_back():
        logging.getLogger().handlers[:] = []
        yield logging.getLogger("trioweb")


def test_the_level(folder: Path) -> None:
    with unconfigured() as ours:
        the_level_is_set(ours, folder)


def the_level_is_set(ours: logging.Logger, folder: Path) -> None:
    configure_logging(None, "debug")
    assert ours.level == logging.getLogger().level == logging.DEBUG
    assert logging.getLogger("watchfiles").level == logging.WARNING
    (folder / "log.json").write_text('{"root": {"level": "ERROR"}}')
    configure_logging("log.json", "warning")
    assert ours.level == logging.WARNING
    assert logging.getLogger().level == logging.ERROR


def test_an_app_that_configures_the_root_logger_does_not_silence_ours() -> None:
    with unconfigured():
        configure_logging(None)
        logging.config.dictConfig({"version": 1, "root": {"level": "WARNING"}})
        assert logging.getLogger("trioweb.access").isEnabledFor(logging.INFO)


def test_a_file_names_a_formatter_of_the_project(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = [entry for entry in sys.path if entry != str(folder)]
    monkeypatch.setattr(sys, "path", path[:])
    (folder / "project").mkdir()
    (folder / "project" / "mine.py").write_text(
        "import logging\nclass Mine(logging.Formatter): pass\n"
    )
    config = {
        "formatters": {"mine": {"()": "mine.Mine"}},
        "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "mine"}},
    }
    (folder / "log.json").write_text(json.dumps(config))
    with pytest.raises(CommandError, match="mine"):
        configure_logging("log.json")
    configure_logging("log.json", folder="project")
    # The command's own modules are looked for where they were.
    assert sys.path == path
