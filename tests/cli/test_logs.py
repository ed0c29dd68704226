"""How the command line logs, and what a file can change of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioweb._cli.logs import configure_logging
from trioweb._errors import CommandError


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
        ("log.ini", "", "needs to be a .json or .toml file"),
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
