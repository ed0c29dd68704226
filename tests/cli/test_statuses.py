"""Exit statuses: what went wrong is in the log."""

from __future__ import annotations

import logging

import pytest

from trioweb._cli.statuses import report, run_for_status
from trioweb._errors import CommandError
from trioweb.server import StartupFailed


def test_what_went_wrong_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    group = ExceptionGroup(
        "", [StartupFailed("no database"), OSError(98, "can't listen on x"), KeyError("ours")]
    )
    assert report(group) == 1
    started, listened, ours = caplog.records
    assert started.getMessage() == "the app failed to start: no database"
    assert listened.getMessage() == "can't listen on x"
    assert ours.levelno == logging.CRITICAL
    assert ours.exc_info is not None


def test_run_for_status_passes_on_what_is_the_commands_fault() -> None:
    async def fail() -> int:
        raise CommandError("typed wrong")

    with pytest.raises(CommandError):
        run_for_status(fail)
