"""Other servers' options: a command line is carried over, or told what to write instead."""

from __future__ import annotations

from operator import attrgetter

import click
import pytest
import uvicorn

from trioweb._cli import main, options
from trioweb._cli.others import ALIASES, LEAVE_OUT, REFUSED
from trioweb._cli.settings import Settings, flag, variable
from trioweb._errors import CommandError


def settings(*arguments: str, **environ: str) -> Settings:
    given = vars(main.parser().parse_args(["run", *arguments]))
    return options.settings("run", given, environ)


def uvicorns_flags() -> set[str]:
    command = uvicorn.main
    assert isinstance(command, click.Command)
    return {
        flag
        for parameter in command.params
        if parameter.param_type_name == "option"
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }


def test_each_option_of_uvicorn_is_known() -> None:
    known = {option.flag for option in options.options("run")}
    known |= {f"--no-{o.name}" for o in options.options("run") if o.is_switch}
    known |= {flag(alias) for aliases in ALIASES.values() for alias in aliases}
    known |= {flag(name) for name in REFUSED}
    assert len(uvicorns_flags()) > 50
    assert uvicorns_flags() <= known


def test_no_name_has_two_meanings() -> None:
    ours = [option.name for option in options.options("run")]
    aliases = [alias for names in ALIASES.values() for alias in names]
    names = [*ours, *aliases, *REFUSED]
    assert len(names) == len(set(names))
    assert set(ALIASES) <= set(ours)


MEAN_THE_SAME: list[tuple[list[str], str, object]] = [
    (["--timeout-keep-alive", "75"], "server.limit_overrides", {"idle_timeout": 75}),
    (["--timeout-graceful-shutdown", "9"], "server.drain_timeout", 9),
    (["--limit-concurrency", "100"], "server.limit_overrides", {"max_requests": 100}),
    (["--h11-max-incomplete-event-size", "9"], "server.limit_overrides", {"max_head_size": 9}),
    (["-b", ":80", "-b", "[::]:81"], "server.bind", (":80", "[::]:81")),
    (["-w", "4"], "workers", 4),
    (["-w", "4", "--timeout-worker-healthcheck", "9"], "worker_timeout", 9),
    (["--graceful-timeout", "9"], "server.drain_timeout", 9),
]


@pytest.mark.parametrize(("arguments", "field", "value"), MEAN_THE_SAME)
def test_another_name_for_the_same(arguments: list[str], field: str, value: object) -> None:
    assert attrgetter(field)(settings(*arguments)) == value


def test_a_name_of_theirs_is_a_variable_too_and_an_option_goes_before_it() -> None:
    assert settings(TRIOWEB_TIMEOUT_GRACEFUL_SHUTDOWN="9").server.drain_timeout == 9
    assert settings("--graceful-timeout", "1", TRIOWEB_DRAIN_TIMEOUT="9").server.drain_timeout == 1
    with pytest.raises(CommandError, match=r"^--timeout-keep-alive soon: needs"):
        settings("--timeout-keep-alive", "soon")
    # A letter alone is no name for a variable.
    assert settings(TRIOWEB_W="4").workers == 1


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_means_nothing_here_is_refused_with_the_right_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for before, value in ([], []), ([], ["1"]), (["main:app"], []):
        assert main.main(["run", *before, flag(name), *value], {}) == 2
        told = capsys.readouterr().err
        given = " ".join([flag(name), *value])
        assert f"wrong:  {given}\n    right:  {REFUSED[name][1]}\n" in told
    if len(name) > 1:
        assert main.main(["run"], {variable(name): "1"}) == 2
        assert f"wrong:  {variable(name)}\n" in capsys.readouterr().err


def test_the_right_lines_are_options_that_there_are() -> None:
    known = {option.flag for option in options.options("run")} | {"--version"}
    for _, right in REFUSED.values():
        flags = {word.strip(";,") for word in right.split() if word.startswith("--")}
        assert flags <= known
        assert flags or right.startswith((LEAVE_OUT, "trioweb", "hypercorn", "a ", "2>", "User="))


def test_recycling_is_not_mistaken_for_requests_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["run", "--limit-max-requests", "1000"], {}) == 2
    told = capsys.readouterr().err
    assert "--limit-concurrency" in told
    assert "--max-requests" in told


def test_an_option_of_run_alone_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for command, given in (("dev", "--workers 2"), ("dev", "-w 2"), ("routes", "--port 80")):
        assert main.main([command, *given.split()], {}) == 2
        right = f"trioweb run {given.split()[0]} …"
        assert f"wrong:  {given}\n    right:  {right}\n" in capsys.readouterr().err
