"""The options of the command line, each also a variable of the environment.

Rules of this module:

* One table tells it all: the name, what text becomes, the help, and which field of which record
  the option sets.  The parser, the environment and `--help` are made from it, and so are the
  settings: an option of the server needs a field of `ServerConfig` and a row here.
* A default stands where the field does; the table only says what `--help` calls it.
* An option goes before its variable, and that before the default.
* Whatever is wrong is said with the name under which it was given.
* A limit is an option because it is a field of `Limits`; the app's own stands where none is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from .._app.limits import Limits
from .._errors import CommandError
from ..server import ParserName, ServerConfig
from .conversions import (
    descriptor,
    existing_file,
    limit,
    one_of,
    or_none,
    peers,
    positive_seconds,
    prefix,
    seconds,
    switch,
    text,
    whole,
)
from .tls import CertificateFiles

PREFIX = "TRIOWEB_"

# How long `dev` waits for what is in flight before it starts anew.
DEV_DRAIN_TIMEOUT = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of `run` and `dev`, read: those of the server, and what is the command's own."""

    app: str | None = None
    workers: int = 1
    worker_timeout: float = 30.0  # a loop that is blocked for shorter may yet go on
    max_requests: float = math.inf
    workers_lifetime: float = math.inf
    supervised: bool = False  # a process of its own keeps the workers
    reload: bool = False
    log_config: str | None = None
    server: ServerConfig


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    `convert` raises ValueError with what would be right.  `record` is the class whose field the
    option sets: the field has the option's name, or the one that `sets` gives.  `shown`: what
    `--help` says of the default, where that isn't the field's own.
    """

    name: str
    convert: Callable[[str], Any]
    metavar: str
    help: str
    shown: str = ""
    group: str = "listening"
    record: type = ServerConfig
    sets: str = ""

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def key(self) -> str:
        """The name that the parser has for it."""
        return self.name.replace("-", "_")

    @property
    def field(self) -> str:
        """The field of `record` that it sets."""
        return self.sets or self.key

    @property
    def default(self) -> str:
        """As `--help` says it; empty where nothing is set by default."""
        return self.shown or _shown_default(self.record, self.field)

    @property
    def variable(self) -> str:
        return PREFIX + self.key.upper()

    @property
    def is_switch(self) -> bool:
        return self.convert is switch

    def is_given(self, given: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
        """Whether the command line has it, as the parser says in `given`, or the environment."""
        return given.get(self.key) is not None or self.variable in environ

    def read(self, given: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
        """The value of an option that is given.  Raises CommandError."""
        typed = given.get(self.key)
        if typed is None:
            return self._converted(self.variable, "=", environ[self.variable])
        if isinstance(typed, bool):
            return typed
        return self._converted(self.flag, " ", typed)

    def _converted(self, name: str, separator: str, text: str) -> Any:
        if not text:
            raise CommandError(f"{name} is empty: give it a value, or leave it out")
        try:
            return self.convert(text)
        except ValueError as exc:
            raise CommandError(f"{name}{separator}{text}: {exc}{_hint(text)}") from None


def _shown_default(record: type, name: str) -> str:
    [default] = [field.default for field in fields(record) if field.name == name]
    if isinstance(default, tuple):
        return ",".join(default)
    return "" if default is None or default is False else str(default)


def _hint(text: str) -> str:
    """Kubernetes sets TRIOWEB_PORT=tcp://... wherever a Service has the name trioweb."""
    if not text.startswith("tcp://"):
        return ""
    return " (set for a Service named trioweb? enableServiceLinks: false in the pod ends that)"


def settings(command: str, given: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings for `run` or `dev`.  Raises CommandError."""
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
    records[Settings]["supervised"] = _is_supervised(records[Settings])
    server = ServerConfig(
        ssl_context=CertificateFiles(**records[CertificateFiles]).context(),
        limit_overrides=records[Limits],
        **records[ServerConfig],
    )
    return Settings(server=server, **records[Settings])


def _check_combination(values: Mapping[str, Any]) -> None:
    if values.get("reload") and values.get("workers", 1) > 1:
        raise CommandError(
            "--reload starts one process anew at each change, --workers keeps several",
            wrong=f"--reload --workers {values['workers']}",
            right="one of the two; SIGHUP replaces workers without refusing a connection",
        )
    for option in _OPTIONS_OF_WORKERS:
        if option.field in values and "workers" not in values:
            given = f"{option.flag} {values[option.field]:g}"
            raise CommandError(
                f"{option.flag} is about workers, and there are none",
                wrong=given,
                right=f"--workers 2 {given}",
            )


def _is_supervised(values: Mapping[str, Any]) -> bool:
    """One worker needs nobody who keeps it, unless it is to be replaced."""
    asks = any(option.field in values for option in _OPTIONS_OF_WORKERS)
    return asks or values.get("workers", 1) > 1


# The table.

APP = Option(
    "app",
    text,
    "MODULE:APP",
    "the app: its module, a colon, its name there, or a call that makes it, such as"
    " main:make_app(); a MODULE with one app needs no more",
    "of main.py or app.py in this folder",
    record=Settings,
)
WORKERS = Option(
    "workers",
    whole(1),
    "N",
    "so many processes serve; one that crashes is replaced, SIGHUP replaces all one by one",
    group="processes",
    record=Settings,
)
_OPTIONS_OF_WORKERS = (
    Option(
        "worker-timeout",
        or_none(positive_seconds),
        "SECONDS",
        "a worker whose event loop is blocked for so long is ended, and replaced; none for never",
        group="processes",
        record=Settings,
    ),
    Option(
        "max-requests",
        or_none(whole(1)),
        "N",
        "a worker that has had about so many requests is replaced, the new one ready before",
        "none",
        group="processes",
        record=Settings,
    ),
    Option(
        "workers-lifetime",
        or_none(positive_seconds),
        "SECONDS",
        "a worker that has run for about so long is replaced, the new one ready before",
        "none",
        group="processes",
        record=Settings,
    ),
)
_FD = "listen on this inherited socket, not on host and port"
_DRAIN = "wait so many seconds for requests and tasks, then cancel them"
_OPTIONS = (
    Option("host", text, "HOST", "listen on this address or name; 0.0.0.0 for all"),
    Option("port", whole(0, 65535), "PORT", "listen on this port; 0 for any that is free"),
    Option("uds", text, "PATH", "listen on this Unix socket, not on host and port"),
    Option("fd", descriptor, "FD", _FD, sets="sockets"),
    Option(
        "ssl-certfile",
        existing_file,
        "FILE",
        "the certificates, for TLS",
        "no TLS",
        record=CertificateFiles,
        sets="certfile",
    ),
    Option(
        "ssl-keyfile",
        existing_file,
        "FILE",
        "their key",
        "in the file of the certificates",
        record=CertificateFiles,
        sets="keyfile",
    ),
    Option(
        "http",
        one_of(*get_args(ParserName)),
        "PARSER",
        "auto, h11 or httptools; auto is httptools where it is installed",
    ),
    Option("root-path", prefix, "PATH", "the prefix under which a proxy shows the app", "none"),
    Option(
        "forwarded-allow-ips",
        peers,
        "IPS",
        "trust X-Forwarded-For and -Proto from these peers: addresses and networks, with commas;"
        " * for all",
    ),
    Option(
        "reload",
        switch,
        "true or false",
        "start anew when a Python file in this folder changes",
        group="processes",
        record=Settings,
    ),
    Option("drain-timeout", seconds, "SECONDS", _DRAIN, "the app's, 20", "shutting down"),
    Option(
        "cleanup-timeout",
        seconds,
        "SECONDS",
        "give what was cancelled so many seconds to clean up; a second later the process exits",
        "the app's, 5",
        "shutting down",
    ),
    Option("access-log", switch, "true or false", "log a line for each answer", "true", "logs"),
    Option(
        "log-config",
        existing_file,
        "FILE",
        "configure logging with this .json or .toml file (logging.config.dictConfig)",
        "INFO and above, to standard error",
        "logs",
        record=Settings,
    ),
)

# What each limit is, and its unit.
_LIMIT_HELP = {
    "max_target_size": ("BYTES", "of a request's target; past it 414"),
    "max_head_size": ("BYTES", "of a request's head; past it 431"),
    "max_fields": ("N", "header fields of a request; past it 431"),
    "head_timeout": ("SECONDS", "for a whole head; past it 408"),
    "body_timeout": ("SECONDS", "that a client which sends too little may keep us waiting"),
    "write_timeout": ("SECONDS", "that a client which reads too little may keep us waiting"),
    "idle_timeout": ("SECONDS", "between two requests of a connection"),
    "max_connections": ("N", "connections; past it none is accepted"),
    "max_requests": ("N", "requests in flight; past it 503"),
    "max_connection_requests": ("N", "requests on one connection, which is closed then"),
    "max_body_size": ("BYTES", "of a request's body; past it 413"),
    "max_pending_tasks": ("N", "tasks that wait; past it 503"),
    "max_running_tasks": ("N", "tasks that run at once, or none for no limit; others wait"),
    "max_task_threads": ("N", "tasks of `def` that run at once, in threads; others wait"),
}


def _limit_option(name: str, default: object) -> Option:
    metavar, help = _LIMIT_HELP[name]
    shown = f"the app's, {str(default).lower()}"
    return Option(
        f"limit-{name.replace('_', '-')}",
        limit(name),
        metavar,
        help,
        shown,
        "limits",
        record=Limits,
        sets=name,
    )


LIMIT_OPTIONS = tuple(_limit_option(field.name, field.default) for field in fields(Limits))


def options(command: str) -> tuple[Option, ...]:
    """What `run`, `dev` or `routes` takes."""
    if command == "routes":
        return (APP,)
    if command == "run":
        return (APP, *_OPTIONS, WORKERS, *_OPTIONS_OF_WORKERS, *LIMIT_OPTIONS)
    return (APP, *map(_of_dev, _OPTIONS), *LIMIT_OPTIONS)


def _of_dev(option: Option) -> Option:
    shown = {"reload": "true", "drain-timeout": f"{DEV_DRAIN_TIMEOUT:g}"}
    return replace(option, shown=shown.get(option.name, option.shown))
