"""The command line: which command does what, and what it says when it can't."""

from __future__ import annotations

import functools
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trioweb import __main__ as entry
from trioweb._cli import main, options
from trioweb._cli.settings import Settings

from ..support.trioweb_process import trioweb_output


def test_help_tells_each_variable_and_each_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main.main(["run", "--help"])
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in options.options("run"):
        assert f"[{option.variable}]" in text
    for default in ("127.0.0.1) [TRIOWEB_HOST]", "8000)", "the app's, 1048576)", "the app's, 20)"):
        assert f"(default: {default}" in text
    assert "trioweb run main:app --port 80" in text
    assert "--worker " not in text


def test_help_of_dev_tells_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["dev", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 1) [TRIOWEB_DRAIN_TIMEOUT]" in text
    assert "(default: true) [TRIOWEB_RELOAD]" in text
    assert "TRIOWEB_WORKERS" not in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--version"])
    assert capsys.readouterr().out.startswith("trioweb 0.")


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["run"], "run"),
        (["run", "--workers", "1"], "run"),
        (["dev", "--no-reload"], "run"),
        (["run", "--workers", "2"], "supervise"),
        (["run", "--workers", "1", "--max-requests", "1000"], "supervise"),
        (["run", "--reload"], "reload"),
        (["dev"], "reload"),
        (["run", "--workers", "2", "--worker=4,5,6"], "run_worker"),
        (["dev", "--worker=4,5,6"], "run_worker"),
    ],
)
def test_dispatch(arguments: list[str], called: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = []

    def record(name: str, *args: Any) -> int:
        calls.append((name, args))
        return 7

    for name in ("run", "supervise", "reload", "run_worker"):
        monkeypatch.setattr(main, name, functools.partial(record, name))
    assert main.main(arguments, {}) == 7
    [(name, args)] = calls
    assert name == called
    assert isinstance(args[0], Settings)
    rest: dict[str, tuple[Any, ...]] = {"run": (), "run_worker": (4, [5, 6])}
    assert args[1:] == rest.get(name, (arguments,))


def test_a_mistake_is_told_in_one_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run"], {"TRIOWEB_PORT": "x"}) == 2
    output = capsys.readouterr()
    assert output.err.startswith("trioweb: error: TRIOWEB_PORT=x: needs ")
    assert "Traceback" not in output.err


def test_ctrl_c_before_anything_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(settings: Settings) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "run", interrupt)
    assert main.main(["run"], {}) == 130


@pytest.mark.parametrize(
    ("handler", "left"),
    [(signal.default_int_handler, signal.SIG_DFL), (signal.SIG_IGN, signal.SIG_IGN)],
)
def test_the_command_ends_with_the_status(
    handler: Any, left: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["trioweb", "run"])
    monkeypatch.setattr(main, "run", lambda settings: 5)
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(SystemExit) as exit:
            entry.command()
    finally:
        after = signal.signal(signal.SIGINT, before)
    assert exit.value.code == 5
    assert after is left


def test_it_is_a_module_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trioweb.__main__")
    monkeypatch.setattr(sys, "argv", ["trioweb", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_module("trioweb", run_name="__main__")


# --- Real processes


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "env", "status", "line"),
    [
        (["run", "mian"], {}, 2, "trioweb: error: there is no module 'mian'"),
        (["run", "--wrokers", "2"], {}, 2, "unrecognized arguments: --wrokers"),
        (["run"], {"TRIOWEB_HTTP": "h12"}, 2, "TRIOWEB_HTTP=h12: needs one of"),
        (["routes"], {}, 0, "POST     /mail"),
    ],
)
def test_the_program(
    names: Path, arguments: Sequence[str], env: dict[str, str], status: int, line: str
) -> None:
    ended, output = trioweb_output(*arguments, cwd=names, env=env)
    assert ended == status
    assert line in output
    assert "Traceback" not in output
