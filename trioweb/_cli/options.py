"""The settings: from the command line and the environment to one record of all that was set.

Rules of this module:

* Rows of the table set fields of records; nothing here knows a single one of them, but for what
  doesn't go together.
* The command's own defaults stand here; all others where the fields do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .._app.limits import Limits
from .._errors import CommandError
from ..server import ServerConfig
from .others import ALIASES, REFUSED, Refusal, refuse_variables
from .settings import Option, Settings, flag
from .table import ABOUT_WORKERS, DEV_DRAIN_TIMEOUT, rows
from .tls import CertificateFiles

Given = Mapping[str, Any]
Environ = Mapping[str, str]


def options(command: str) -> tuple[Option, ...]:
    """What `run`, `dev` or `routes` takes, by all its names."""
    return tuple(replace(option, aliases=ALIASES.get(option.name, ())) for option in rows(command))


def refused(command: str) -> Mapping[str, Refusal]:
    """What it doesn't take, by its names: other servers' options, and those of `run` alone."""
    here = {option.name for option in rows(command)}
    elsewhere = [option for option in options("run") if option.name not in here]
    names = [name for option in elsewhere for name in (option.name, *option.aliases)]
    return {
        **REFUSED,
        **{name: ("it is for trioweb run", f"trioweb run {flag(name)} …") for name in names},
    }


def settings(command: str, given: Given, environ: Environ) -> Settings:
    """The settings for `run` or `dev`.  Raises CommandError."""
    refuse_variables(environ)
    records: dict[type, dict[str, Any]] = {
        Settings: {},
        ServerConfig: {"access_log": True},
        CertificateFiles: {},
        Limits: {},
    }
    if command == "dev":
        records[Settings] |= {"reload": True}
        records[ServerConfig] |= {"debug": True, "drain_timeout": DEV_DRAIN_TIMEOUT}
    for option in options(command):
        if option.is_given(given, environ):
            records[option.record][option.field] = option.read(given, environ)
    _check_combination(records[Settings])
    _check_places(command, given, environ)
    records[Settings]["supervised"] = _is_supervised(records[Settings])
    server = ServerConfig(
        ssl_context=CertificateFiles(**records[CertificateFiles]).context(),
        limit_overrides=records[Limits],
        **records[ServerConfig],
    )
    return Settings(server=server, **records[Settings])


def value_of(option: Option, given: Given, environ: Environ) -> Any:
    """The value of one option alone; None if it isn't given.  Raises CommandError."""
    return option.read(given, environ) if option.is_given(given, environ) else None


def _check_combination(values: Mapping[str, Any]) -> None:
    for option in ABOUT_WORKERS:
        if option.field in values and "workers" not in values:
            given = f"{option.flag} {values[option.field]:g}"
            raise CommandError(
                f"{option.flag} is about workers, and there are none",
                wrong=given,
                right=f"--workers 2 {given}",
            )
    if values.get("reload") and _is_supervised(values):
        raise CommandError(
            "--reload starts one process anew at each change, --workers keeps several",
            wrong=f"--reload --workers {values['workers']}",
            right="one of the two; SIGHUP replaces workers without refusing a connection",
        )


def _is_supervised(values: Mapping[str, Any]) -> bool:
    """One worker needs nobody who keeps it, unless it is to be replaced."""
    asks = any(option.field in values for option in ABOUT_WORKERS)
    return asks or values.get("workers", 1) > 1


def _check_places(command: str, given: Given, environ: Environ) -> None:
    """Of an address that is written whole, and one in two options, one would be ignored."""
    written = {
        option.name: option.written(given, environ)
        for option in options(command)
        if option.is_given(given, environ)
    }
    if "bind" in written and (apart := written.get("host") or written.get("port")):
        raise CommandError(
            "--bind has both host and port in it",
            wrong=f"{written['bind']} and {apart}",
            right="--bind alone, as often as there are addresses to listen on",
        )
