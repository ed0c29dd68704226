"""What was logged, and something to do when a record of trioweb's log comes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

# How the report of a shutdown begins.
REPORT = "stopped after"


def messages(
    caplog: pytest.LogCaptureFixture, logger: str | None = None, *, level: int = logging.NOTSET
) -> list[str]:
    """What was logged, of any logger or of this one alone, and at least of this level."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= level and logger in (None, record.name)
    ]


def before_the_report(caplog: pytest.LogCaptureFixture, logger: str = "trioweb") -> list[str]:
    """What this logger has logged, but for the report of the shutdown."""
    return [text for text in messages(caplog, logger) if not text.startswith(REPORT)]


class _OnRecord(logging.Handler):
    """Does something when a record comes whose text holds this."""

    def __init__(self, text: str, do: Callable[[], object]) -> None:
        super().__init__()
        self._text = text
        self._do = do

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self._do()


@contextmanager
def on_record(text: str, do: Callable[[], object]) -> Iterator[None]:
    """Within this block `do` is called when a record comes whose text holds `text`."""
    handler = _OnRecord(text, do)
    logger = logging.getLogger("trioweb")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextmanager
def configuration_put_back() -> Iterator[None]:
    """Within this block logging may be configured, which changes each logger that there is."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    loggers = [root.getChild(name) for name in list(root.manager.loggerDict)]
    disabled = [logger.disabled for logger in loggers]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for logger, was_disabled in zip(loggers, disabled, strict=True):
            logger.disabled = was_disabled
