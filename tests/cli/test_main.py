"""The command line: what it takes, from where, and what it says when it can't."""

from __future__ import annotations

import functools
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from trioweb import App, Limits, __main__ as entry
from trioweb._cli import logs as _logs, main as _cli, options as _options
from trioweb._cli.importing import load_app
from trioweb._cli.options import DEV_DRAIN_TIMEOUT, LIMIT_OPTIONS, Settings
from trioweb._cli.routes import show_routes
from trioweb._errors import CommandError

from ..support.trioweb_process import trioweb_output

MAIN = """
from typing import Annotated
from trioweb import App, BackgroundTasks, Depends, Header, Query, Router
import functools

app = App()
other = App()
class Kind: pass
async def bare(scope, receive, send): ...
def make_app(): return app
def make_nothing(): return {}
def fail_to_make(): return 1 / 0
async def zero(): ...
settings = {}

def token(x_token: Annotated[str, Header()]) -> str:
    return x_token

router = Router("/items", dependencies=[Depends(token)])

@router.get("/{item_id:int}", name="read")
async def read_item(item_id: int, limit: Annotated[list[int], Query(alias="max")] = []): ...

@app.post("/mail")
async def send_mail(mail: dict[str, str], tasks: BackgroundTasks): ...

@app.put("/two")
async def two(first: dict[str, int], second: list[dict[str, int]]): ...

app.include_router(router)
app.get("/partial")(functools.partial(read_item, item_id=1))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in; modules that a test imports from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def settings(*arguments: str, command: str = "run", **environ: str) -> Settings:
    given = vars(_cli.parser().parse_args([command, *arguments]))
    return _options.settings(command, given, environ)


# --- Options


def test_defaults() -> None:
    assert settings() == Settings(limits={})
    assert settings(command="dev") == Settings(
        limits={}, reload=True, debug=True, drain_timeout=DEV_DRAIN_TIMEOUT
    )


GIVEN: list[tuple[str, str, str, object]] = [
    ("--host", "0.0.0.0", "host", "0.0.0.0"),
    ("--port", "0", "port", 0),
    ("--uds", "/run/app.sock", "uds", "/run/app.sock"),
    ("--fd", "3", "fd", 3),
    ("--workers", "4", "workers", 4),
    ("--http", "h11", "http", "h11"),
    ("--drain-timeout", "0.5", "drain_timeout", 0.5),
    ("--cleanup-timeout", "inf", "cleanup_timeout", float("inf")),
    ("--root-path", "/api", "root_path", "/api"),
    ("--forwarded-allow-ips", "10.0.0.0/8, ::1", "forwarded_allow_ips", ("10.0.0.0/8", "::1")),
    ("--forwarded-allow-ips", "*", "forwarded_allow_ips", ("*",)),
    ("--limit-max-body-size", "10", "limits", {"max_body_size": 10}),
    ("--limit-max-running-tasks", "none", "limits", {"max_running_tasks": None}),
    ("--limit-head-timeout", "0.5", "limits", {"head_timeout": 0.5}),
    ("--limit-idle-timeout", "7", "limits", {"idle_timeout": 7}),
]


@pytest.mark.parametrize(("flag", "text", "field", "value"), GIVEN)
def test_an_option_and_its_variable_say_the_same(
    flag: str, text: str, field: str, value: object
) -> None:
    variable = "TRIOWEB_" + flag[2:].upper().replace("-", "_")
    assert getattr(settings(flag, text), field) == value
    assert getattr(settings(**{variable: text}), field) == value


def test_an_option_goes_before_its_variable_and_any_before_the_default() -> None:
    assert settings("--port", "1", TRIOWEB_PORT="2").port == 1
    assert settings("mine:app", TRIOWEB_APP="theirs:app").app == "mine:app"
    assert settings(TRIOWEB_APP="theirs:app").app == "theirs:app"
    assert settings("--drain-timeout", "9", command="dev").drain_timeout == 9
    assert settings("--no-reload", command="dev").reload is False


@pytest.mark.parametrize("word", ["0", "false", "No", "OFF"])
def test_a_switch_can_be_turned_off(word: str) -> None:
    assert settings("--no-access-log").access_log is False
    assert settings(TRIOWEB_ACCESS_LOG=word).access_log is False
    assert settings("--access-log", TRIOWEB_ACCESS_LOG=word).access_log is True
    assert settings(TRIOWEB_RELOAD="yes").reload is True


REFUSED = [
    ("--port", "99999", "a whole number from 0 to 65535"),
    ("--port", "-1", "a whole number from 0 to 65535"),
    ("--port", "1_000", "a whole number from 0 to 65535"),
    ("--port", "tcp://10.0.0.1:80", "enableServiceLinks: false"),
    ("--workers", "0", "a whole number of at least 1"),
    ("--http", "http2", "one of auto, h11, httptools"),
    ("--drain-timeout", "soon", "a number of seconds"),
    ("--drain-timeout", "-1", "a number of seconds"),
    ("--drain-timeout", "nan", "a number of seconds"),
    ("--forwarded-allow-ips", "proxy", "addresses or networks"),
    ("--root-path", "api", "a slash"),
    ("--log-config", "no-such-file", "there is no such file"),
    ("--ssl-certfile", "no-such-file", "there is no such file"),
    ("--limit-max-body-size", "0", "a whole number of at least 1"),
    ("--limit-max-body-size", "1.5", "a whole number of at least 1"),
    ("--limit-max-body-size", "much", "a whole number of at least 1"),
    ("--limit-max-body-size", "none", "a whole number of at least 1"),
    ("--limit-idle-timeout", "0", "at least 0.1 seconds"),
]


@pytest.mark.parametrize(("flag", "text", "what"), REFUSED)
def test_a_wrong_value_is_refused_under_the_name_that_it_was_given(
    flag: str, text: str, what: str
) -> None:
    with pytest.raises(CommandError) as by_flag:
        settings(f"{flag}={text}")
    assert str(by_flag.value).startswith(f"{flag} {text}: ")
    assert what in str(by_flag.value)
    variable = "TRIOWEB_" + flag[2:].upper().replace("-", "_")
    with pytest.raises(CommandError) as by_variable:
        settings(**{variable: text})
    assert str(by_variable.value).startswith(f"{variable}={text}: ")
    assert what in str(by_variable.value)


def test_a_switch_takes_no_other_word() -> None:
    with pytest.raises(CommandError, match=r"^TRIOWEB_ACCESS_LOG=maybe: needs true or false$"):
        settings(TRIOWEB_ACCESS_LOG="maybe")


def test_an_empty_value_is_no_default() -> None:
    with pytest.raises(CommandError, match=r"^TRIOWEB_PORT is empty: give it a value, or leave"):
        settings(TRIOWEB_PORT="")
    with pytest.raises(CommandError, match=r"^--host is empty"):
        settings("--host", "")


def test_what_does_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"wrong:  --reload --workers 2\n    right:  one of"):
        settings("--reload", "--workers", "2")
    key = tmp_path / "key.pem"
    key.touch()
    with pytest.raises(CommandError, match=r"right:  --ssl-certfile cert\.pem --ssl-keyfile"):
        settings("--ssl-keyfile", str(key))


def test_each_limit_is_an_option() -> None:
    assert [option.key for option in LIMIT_OPTIONS] == [f"limit_{f.name}" for f in fields(Limits)]


def test_help_tells_each_variable_and_each_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        _cli.main(["run", "--help"])
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in _options.options("run"):
        assert f"[{option.variable}]" in text
    for default in ("127.0.0.1) [TRIOWEB_HOST]", "8000)", "the app's, 1048576)", "the app's, 20)"):
        assert f"(default: {default}" in text
    assert "trioweb run main:app --port 80" in text
    assert "--worker " not in text


def test_help_of_dev_tells_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _cli.main(["dev", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 1) [TRIOWEB_DRAIN_TIMEOUT]" in text
    assert "(default: true) [TRIOWEB_RELOAD]" in text
    assert "TRIOWEB_WORKERS" not in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _cli.main(["--version"])
    assert capsys.readouterr().out.startswith("trioweb 0.")


# --- Which command does what


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["run"], "run"),
        (["run", "--workers", "1"], "run"),
        (["dev", "--no-reload"], "run"),
        (["run", "--workers", "2"], "supervise"),
        (["run", "--reload"], "reload"),
        (["dev"], "reload"),
        (["run", "--workers", "2", "--worker=5,6"], "run_worker"),
        (["dev", "--worker=5,6"], "run_worker"),
    ],
)
def test_dispatch(arguments: list[str], called: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = []

    def record(name: str, *args: Any) -> int:
        calls.append((name, args))
        return 7

    for name in ("run", "supervise", "reload", "run_worker"):
        monkeypatch.setattr(_cli, name, functools.partial(record, name))
    assert _cli.main(arguments, {}) == 7
    [(name, args)] = calls
    assert name == called
    assert isinstance(args[0], Settings)
    rest: dict[str, tuple[Any, ...]] = {"run": (), "run_worker": ([5, 6],)}
    assert args[1:] == rest.get(name, (arguments,))


def test_a_mistake_is_told_in_one_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["run"], {"TRIOWEB_PORT": "x"}) == 2
    output = capsys.readouterr()
    assert output.err.startswith("trioweb: error: TRIOWEB_PORT=x: needs ")
    assert "Traceback" not in output.err


def test_ctrl_c_before_anything_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(settings: Settings) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(_cli, "run", interrupt)
    assert _cli.main(["run"], {}) == 130


@pytest.mark.parametrize(
    ("handler", "left"),
    [(signal.default_int_handler, signal.SIG_DFL), (signal.SIG_IGN, signal.SIG_IGN)],
)
def test_the_command_ends_with_the_status(
    handler: Any, left: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["trioweb", "run"])
    monkeypatch.setattr(_cli, "run", lambda settings: 5)
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


# --- Import strings


@pytest.mark.parametrize(
    "import_string", ["main:app", "main", None, "main:make_app()", "main:bare", "main:app.__call__"]
)
def test_the_app_is_found(folder: Path, import_string: str | None) -> None:
    (folder / "main.py").write_text(MAIN)
    (folder / "app.py").write_text("raise RuntimeError('main.py comes first')")
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
def test_what_is_there_is_shown(folder: Path, wrong: str, problem: str, right: str) -> None:
    (folder / "main.py").write_text(MAIN)
    (folder / "empty.py").touch()
    (folder / "two.py").write_text("import trioweb\none = trioweb.App()\nother = trioweb.App()")
    with pytest.raises(CommandError) as error:
        load_app(wrong)
    told, _, last = str(error.value).splitlines()
    assert problem in told
    assert last.startswith(f"    right:  {right}")


def test_no_module_far_and_wide(folder: Path) -> None:
    with pytest.raises(CommandError, match=r"has no modules\n.*\n.*right:  MODULE:APP, in the f"):
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
    assert "_importing" not in text


def test_a_factory_that_fails_shows_its_own_lines(folder: Path) -> None:
    (folder / "main.py").write_text(MAIN)
    with pytest.raises(CommandError, match=r"main:fail_to_make\(\) can't be (.|\n)*ZeroDivision"):
        load_app("main:fail_to_make()")


def test_ctrl_c_while_the_app_is_imported(folder: Path) -> None:
    (folder / "main.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_app("main:app")


# --- Routes


TABLE = """\
METHODS  PATH                  NAME       HANDLER         TASKS  PARAMETERS
POST     /mail                 send_mail  main:send_mail  yes    mail: dict[str, str] (body)
PUT      /two                  two        main:two        -      \
first: dict[str, int] (body), second: list[dict[str, int]] (body)
GET      /items/{item_id:int}  read       main:read_item  -      \
x_token: str (header x-token), item_id: int (path), limit: list[int] (query max)
GET      /partial              read_item  main:read_item  -      limit: list[int] (query max)
"""


def test_routes_as_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "main.py").write_text(MAIN)
    assert _cli.main(["routes"], {}) == 0
    assert capsys.readouterr().out == TABLE
    assert _cli.main(["routes"], {"TRIOWEB_APP": "main:other"}) == 0
    assert capsys.readouterr().out.startswith("METHODS  PATH")


def test_routes_as_json(folder: Path) -> None:
    (folder / "main.py").write_text(MAIN)
    found: list[dict[str, Any]] = json.loads(show_routes("main:app", as_json=True))
    assert found[0] == {
        "methods": ["POST"],
        "path": "/mail",
        "name": "send_mail",
        "handler": "main:send_mail",
        "tasks": True,
        "parameters": [
            {"name": "mail", "type": "dict[str, str]", "source": "body", "alias": ""},
        ],
    }
    assert [p["alias"] for p in found[1]["parameters"]] == ["first", "second"]


def test_only_our_apps_have_a_table(folder: Path) -> None:
    (folder / "main.py").write_text(MAIN)
    with pytest.raises(CommandError, match=r"only a trioweb\.App can tell its routes"):
        show_routes("main:bare", as_json=False)


def test_a_reader_of_the_table_may_leave_early(folder: Path) -> None:
    (folder / "main.py").write_text(MAIN)
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as nobody_reads:
        routes = subprocess.run(
            [sys.executable, "-m", "trioweb", "routes"],
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (routes.returncode, routes.stderr) == (0, "")


def test_print_to_a_reader_who_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as nobody_reads:
        monkeypatch.setattr(sys, "stdout", nobody_reads)
        assert _cli._print("the table") == 0


# --- Logging


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
    _logs.configure_logging(name)
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
        _logs.configure_logging(name)


# --- Real processes


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
    folder: Path, arguments: Sequence[str], env: dict[str, str], status: int, line: str
) -> None:
    (folder / "main.py").write_text(MAIN)
    ended, output = trioweb_output(*arguments, cwd=folder, env=env)
    assert ended == status
    assert line in output
    assert "Traceback" not in output
