"""Whatever a handler or a filter of our loggers raises stays with it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
import trio

from trioweb import App, BackgroundTasks
from trioweb._loggers import NAMES, make_lasting

from ..support.server_clients import connected, listening, request
from ..support.server_driver import GET


class Broken(logging.Handler):
    """Raises for each record: a log whose disk is full, or one that is written wrong."""

    def __init__(self, exc: BaseException) -> None:
        super().__init__()
        self.exc = exc
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.name)
        raise self.exc


@pytest.fixture
def broken(request: pytest.FixtureRequest) -> Iterator[Broken]:
    """One of the root's handlers is broken; the loggers let every record through."""
    handler = Broken(getattr(request, "param", OSError("no space left on device")))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("broken", [ValueError(), SystemExit(1)], indirect=True)
def test_no_record_ends_who_writes_it(
    name: str, broken: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger(name)
    logger.error("said %s", 1)
    assert broken.records == [name]
    shown = capsys.readouterr().err
    assert "--- Logging error ---" in shown
    assert "Message: 'said %s'" in shown


@pytest.mark.parametrize("exc", [KeyboardInterrupt, trio.Cancelled])
def test_ctrl_c_and_cancellation_go_through(exc: type[BaseException]) -> None:
    logger = logging.Logger("ours")

    def interrupt(record: logging.LogRecord) -> bool:
        raise KeyboardInterrupt if exc is KeyboardInterrupt else kept[0]

    async def keep_one() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as caught:
                kept.append(caught)

    kept: list[BaseException] = []
    trio.run(keep_one)
    logger.addFilter(interrupt)
    make_lasting(logger)
    with pytest.raises(exc):
        logger.error("said")


def test_a_closed_standard_error_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.Logger("ours")
    logger.addHandler(Broken(ValueError()))
    make_lasting(logger)
    with open("/dev/null", "w") as closed:
        pass
    monkeypatch.setattr(sys, "stderr", closed)
    logger.error("said")


async def test_a_broken_log_ends_no_server(broken: Broken) -> None:
    """As it starts, as it logs answers, failures and tasks that fail, and as it ends."""
    app = App()

    async def fail() -> None:
        raise ValueError("a task")

    @app.get("/")
    async def index(tasks: BackgroundTasks) -> None:
        tasks.add_task(fail)

    @app.get("/failing")
    async def failing() -> None:
        raise ValueError("a handler")

    async with listening(app, access_log=True) as server, connected(server.urls[0]) as client:
        for _ in range(3):
            assert (await client.ask(GET)).status == 200
            assert (await client.ask(request("/failing"))).status == 500
    statistics = app.statistics()
    assert (statistics.added, statistics.failed) == (3, 3)
    assert {"trioweb", "trioweb.tasks", "trioweb.access", "trioweb.server"} <= set(broken.records)
