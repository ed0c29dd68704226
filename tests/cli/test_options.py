"""The options: what each becomes, from the command line and from the environment."""

from __future__ import annotations

import ssl
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

import pytest

from trioweb import Limits
from trioweb._cli import main, options
from trioweb._cli.conversions import client_certificates
from trioweb._cli.settings import Settings
from trioweb._cli.table import DEV_DRAIN_TIMEOUT, LIMIT_OPTIONS
from trioweb._errors import CommandError
from trioweb.server import ServerConfig


def settings(*arguments: str, command: str = "run", **environ: str) -> Settings:
    given = vars(main.parser().parse_args([command, *arguments]))
    return options.settings(command, given, environ)


def test_defaults() -> None:
    assert settings() == Settings(server=ServerConfig(access_log=True))
    assert settings(command="dev") == Settings(
        reload=True,
        server=ServerConfig(access_log=True, debug=True, drain_timeout=DEV_DRAIN_TIMEOUT),
    )


GIVEN: list[tuple[str, str, str, object]] = [
    ("--host", "0.0.0.0", "server.host", "0.0.0.0"),
    ("--port", "0", "server.port", 0),
    ("--uds", "/run/app.sock", "server.uds", "/run/app.sock"),
    ("--fd", "3", "server.sockets", (3,)),
    ("--bind", "[::1]:80", "server.bind", ("[::1]:80",)),
    ("--uds-permissions", "660", "server.uds_permissions", 0o660),
    ("--uds-permissions", "0o600", "server.uds_permissions", 0o600),
    ("--uds-permissions", "0666", "server.uds_permissions", 0o666),
    ("--backlog", "64", "server.backlog", 64),
    ("--workers", "4", "workers", 4),
    ("--worker-timeout", "0.5", "worker_timeout", 0.5),
    ("--worker-timeout", "none", "worker_timeout", float("inf")),
    ("--max-requests", "1000", "max_requests", 1000),
    ("--max-requests", "None", "max_requests", float("inf")),
    ("--workers-lifetime", "86400", "workers_lifetime", 86400),
    ("--app-dir", "/", "app_dir", "/"),
    ("--env-file", __file__, "env_file", __file__),
    ("--log-level", "debug", "log_level", "debug"),
    ("--log-level", "WARNING", "log_level", "warning"),
    ("--reload-dir", "/", "reload_dirs", ("/",)),
    ("--reload-include", "*.html", "reload_includes", ("*.html",)),
    ("--reload-exclude", "data", "reload_excludes", ("data",)),
    ("--http", "h11", "server.http", "h11"),
    ("--drain-timeout", "0.5", "server.drain_timeout", 0.5),
    ("--cleanup-timeout", "inf", "server.cleanup_timeout", float("inf")),
    ("--root-path", "/api", "server.root_path", "/api"),
    (
        "--forwarded-allow-ips",
        "10.0.0.0/8, ::1",
        "server.forwarded_allow_ips",
        ("10.0.0.0/8", "::1"),
    ),
    ("--forwarded-allow-ips", "*", "server.forwarded_allow_ips", ("*",)),
    ("--forwarded-allow-ips", "none", "server.forwarded_allow_ips", ()),
    ("--forwarded-header", "forwarded", "server.forwarded_header", "forwarded"),
    ("--limit-concurrency", "9", "server.limit_overrides", {"max_requests": 9}),
    ("--limit-max-body-size", "10", "server.limit_overrides", {"max_body_size": 10}),
    ("--limit-max-running-tasks", "none", "server.limit_overrides", {"max_running_tasks": None}),
    ("--limit-head-timeout", "0.5", "server.limit_overrides", {"head_timeout": 0.5}),
    ("--limit-idle-timeout", "7", "server.limit_overrides", {"idle_timeout": 7}),
]


@pytest.mark.parametrize(("flag", "text", "field", "value"), GIVEN)
def test_an_option_and_its_variable_say_the_same(
    flag: str, text: str, field: str, value: object
) -> None:
    variable = "TRIOWEB_" + flag[2:].upper().replace("-", "_")
    workers = ("--workers", "4")  # some options are about them
    assert attrgetter(field)(settings(*workers, flag, text)) == value
    assert attrgetter(field)(settings(*workers, **{variable: text})) == value


@pytest.mark.parametrize(
    ("flag", "text"),
    [("--worker-timeout", "5"), ("--max-requests", "1000"), ("--workers-lifetime", "60")],
)
def test_what_is_about_workers_needs_some(flag: str, text: str) -> None:
    with pytest.raises(CommandError, match=rf"right:  --workers 2 {flag} {text}$"):
        settings(flag, text)
    variable = "TRIOWEB_" + flag[2:].upper().replace("-", "_")
    with pytest.raises(CommandError, match=f"{flag} is about workers, and there are none"):
        settings(**{variable: text})
    assert settings("--workers", "1", flag, text).supervised  # by a process that keeps it
    assert settings("--workers", "2").supervised
    assert not settings("--workers", "1").supervised


def test_an_option_goes_before_its_variable_and_any_before_the_default() -> None:
    assert settings("--port", "1", TRIOWEB_PORT="2").server.port == 1
    assert settings("mine:app", TRIOWEB_APP="theirs:app").app == "mine:app"
    assert settings(TRIOWEB_APP="theirs:app").app == "theirs:app"
    assert settings("--drain-timeout", "9", command="dev").server.drain_timeout == 9
    assert settings("--no-reload", command="dev").reload is False


@pytest.mark.parametrize("word", ["0", "false", "No", "OFF"])
def test_a_switch_can_be_turned_off(word: str) -> None:
    assert settings("--no-access-log").server.access_log is False
    assert settings(TRIOWEB_ACCESS_LOG=word).server.access_log is False
    assert settings("--access-log", TRIOWEB_ACCESS_LOG=word).server.access_log is True
    assert settings(TRIOWEB_RELOAD="yes").reload is True


REFUSED = [
    ("--port", "99999", "a whole number from 0 to 65535"),
    ("--port", "-1", "a whole number from 0 to 65535"),
    ("--port", "1_000", "a whole number from 0 to 65535"),
    ("--port", "tcp://10.0.0.1:80", "enableServiceLinks: false"),
    ("--workers", "0", "a whole number of at least 1"),
    ("--worker-timeout", "0", "more than 0 seconds; none switches it off"),
    ("--max-requests", "0", "a whole number of at least 1"),
    ("--workers-lifetime", "soon", "a number of seconds"),
    ("--http", "http2", "one of auto, h11, httptools"),
    ("--drain-timeout", "soon", "a number of seconds"),
    ("--drain-timeout", "-1", "a number of seconds"),
    ("--drain-timeout", "nan", "a number of seconds"),
    ("--forwarded-allow-ips", "proxy", "addresses or networks"),
    ("--forwarded-header", "x-real-ip", "auto, x-forwarded, forwarded"),
    ("--root-path", "api", "a slash"),
    ("--log-config", "no-such-file", "there is no such file"),
    ("--ssl-certfile", "no-such-file", "there is no such file"),
    ("--app-dir", "no-such-folder", "there is no such folder"),
    ("--reload-dir", "no-such-folder", "there is no such folder"),
    ("--backlog", "0", "a whole number of at least 1"),
    ("--bind", "localhost:http", "a port from 0 to 65535"),
    ("--uds-permissions", "rw", "octal digits, such as 660"),
    ("--uds-permissions", "689", "octal digits, such as 660"),
    ("--uds-permissions", "1777", "octal digits, such as 660"),
    ("--log-level", "trace", "one of critical, error, warning, info, debug"),
    ("--ssl-cert-reqs", "3", "one of none, optional, required"),
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
    with pytest.raises(CommandError, match=r"wrong:  --reload --workers 1\n    right:  one of"):
        settings("--reload", "--workers", "1", "--max-requests", "1000")
    key = tmp_path / "key.pem"
    key.touch()
    with pytest.raises(CommandError, match=r"right:  --ssl-certfile cert\.pem --ssl-keyfile"):
        settings("--ssl-keyfile", str(key))


def test_a_client_certificate_is_asked_for_by_uvicorns_number_or_by_its_name() -> None:
    for texts, mode in (
        (("0", "none"), ssl.CERT_NONE),
        (("1", "optional"), ssl.CERT_OPTIONAL),
        (("2", "Required"), ssl.CERT_REQUIRED),
    ):
        assert [client_certificates(text) for text in texts] == [mode, mode]


def test_an_option_can_be_given_several_times_and_its_variable_has_commas() -> None:
    places = (":80", "unix:/run/app.sock")
    assert settings("--bind", places[0], "-b", places[1]).server.bind == places
    assert settings(TRIOWEB_BIND=":80, unix:/run/app.sock").server.bind == places
    assert settings("--bind", ":1", TRIOWEB_BIND=":2,:3").server.bind == (":1",)
    with pytest.raises(CommandError, match=r"^TRIOWEB_BIND is empty"):
        settings(TRIOWEB_BIND=":80,,:81")


@pytest.mark.parametrize(
    ("arguments", "environ", "wrong"),
    [
        (["--bind", ":80", "--port", "81"], {}, "--bind :80 and --port 81"),
        (["-b", ":80"], {"TRIOWEB_HOST": "::1"}, "--bind :80 and TRIOWEB_HOST=::1"),
        (["--port", "81"], {"TRIOWEB_BIND": ":80"}, "TRIOWEB_BIND=:80 and --port 81"),
    ],
)
def test_an_address_is_said_in_one_way(
    arguments: list[str], environ: dict[str, str], wrong: str
) -> None:
    with pytest.raises(CommandError) as refused:
        settings(*arguments, **environ)
    assert f"wrong:  {wrong}\n" in str(refused.value)


def test_each_limit_is_an_option() -> None:
    assert [option.field for option in LIMIT_OPTIONS] == [field.name for field in fields(Limits)]


@pytest.mark.parametrize("command", ["run", "dev", "routes"])
def test_each_option_sets_a_field_that_there_is(command: str) -> None:
    for option in options.options(command):
        assert option.field in {field.name for field in fields(option.record)}
