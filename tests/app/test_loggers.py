"""An app that configures logging while it starts silences neither the server nor its tasks."""

from __future__ import annotations

import configparser
import logging
import logging.config
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import trioweb
from trioweb import App, BackgroundTasks
from trioweb._loggers import NAMES

from ..support.asgi import running
from ..support.log_records import configuration_put_back

# What Alembic's own file has, in short.
INI = """
[loggers]
keys = root, alembic
[handlers]
keys =
[formatters]
keys =
[logger_root]
level = WARNING
handlers =
[logger_alembic]
level = INFO
handlers =
qualname = alembic
"""


def by_file() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(INI)
    logging.config.fileConfig(parser)


def by_dict() -> None:
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    with configuration_put_back():
        yield


@pytest.fixture
def reports() -> Iterator[list[str]]:
    """What the loggers of trioweb pass on."""
    ours = logging.getLogger("trioweb")
    heard: list[str] = []

    class Hear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(f"{record.name}: {record.getMessage()}")

    ours.addHandler(handler := Hear())
    yield heard
    ours.removeHandler(handler)


@pytest.mark.parametrize("configure", [by_file, by_dict])
@pytest.mark.parametrize("when", ["startup", "handler"])
async def test_a_task_that_fails_is_reported_whoever_configures_logging(
    configure: Callable[[], None], when: str, reports: list[str]
) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        if when == "startup":
            configure()
        yield

    app = App(lifespan=lifespan)
    bystander = logging.getLogger("trioweb_tests_bystander")

    async def fail() -> None:
        raise ValueError("lost?")

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        if when == "handler":
            configure()
        tasks.add_task(fail)

    async with running(app) as client:
        await client("GET", "/")
    assert bystander.disabled  # which is why this test is one
    assert any(line.startswith("trioweb.tasks: ") and "fail" in line for line in reports)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_set_by_hand_counts(name: str) -> None:
    logger = logging.getLogger(name)
    logger.disabled = True
    try:
        assert not logger.isEnabledFor(logging.CRITICAL)
        by_dict()
        assert logger.disabled
    finally:
        logger.disabled = False
    assert logger.isEnabledFor(logging.CRITICAL)


def test_a_configuration_that_names_them_says_all_else(reports: list[str]) -> None:
    access = logging.getLogger("trioweb.access")
    loggers = {"trioweb.access": {"level": "ERROR", "propagate": False}}
    try:
        logging.config.dictConfig({"version": 1, "loggers": loggers})
        assert (access.level, access.propagate) == (logging.ERROR, False)
    finally:
        access.setLevel(logging.NOTSET)
        access.propagate = True


def test_each_of_ours_is_among_them() -> None:
    folder = Path(trioweb.__file__).parent
    sources = "".join(path.read_text("utf-8") for path in folder.rglob("*.py"))
    assert set(re.findall(r'getLogger\("(trioweb[.\w]*)"\)', sources)) == set(NAMES)
