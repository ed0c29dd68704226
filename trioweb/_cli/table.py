"""The table of options: each also a variable of the environment.

Rules of this module:

* One row tells it all: the name, what text becomes, the help, and which field of which record
  the option sets.  The parser, the environment and `--help` are made from it, and so are the
  settings: an option of the server needs a field of `ServerConfig` and a row here.
* A name that Uvicorn has, has Uvicorn's meaning; what others call it stands in `aliases`.
* A limit is an option because it is a field of `Limits`; the app's own stands where none is given.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import get_args

from .._app.limits import Limits
from ..server import ForwardedHeader, ParserName
from .conversions import (
    bind,
    client_certificates,
    descriptor,
    existing_file,
    existing_folder,
    limit,
    one_of,
    or_none,
    peers,
    permissions,
    positive_seconds,
    prefix,
    seconds,
    switch,
    text,
    whole,
)
from .logs import LEVELS
from .settings import Option, Settings
from .tls import CertificateFiles

# How long `dev` waits for what is in flight before it starts anew.
DEV_DRAIN_TIMEOUT = 1.0  # seconds

_SWITCH = "true or false"

APP = Option(
    "app",
    text,
    "MODULE:APP",
    "the app: its module, a colon, its name there, or a call that makes it, such as"
    " main:make_app(); a MODULE with one app needs no more",
    "of main.py or app.py in this folder",
    record=Settings,
)
APP_DIR = Option(
    "app-dir",
    existing_folder,
    "FOLDER",
    "look for MODULE in this folder",
    "the current one",
    "the app",
    record=Settings,
)
ENV_FILE = Option(
    "env-file",
    existing_file,
    "FILE",
    "read variables of the environment from this file, for the app and for these options; those"
    " that are set already stay as they are",
    group="the app",
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
ABOUT_WORKERS = (
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
HOST = Option("host", text, "HOST", "listen on this address or name; 0.0.0.0 for all")
PORT = Option("port", whole(0, 65535), "PORT", "listen on this port; 0 for any that is free")
BIND = Option(
    "bind",
    bind,
    "ADDRESS",
    "listen there: host:port, [::1]:port, :port for all addresses, unix:PATH or fd://N; can be"
    " given several times, instead of host and port",
    many=True,
)

_LISTENING = (
    HOST,
    PORT,
    BIND,
    Option("uds", text, "PATH", "listen on this Unix socket, not on host and port"),
    Option(
        "uds-permissions",
        permissions,
        "MODE",
        "give each Unix socket these permissions, such as 660",
        "what the umask leaves",
    ),
    Option(
        "fd",
        descriptor,
        "FD",
        "listen on this inherited socket, not on host and port",
        sets="sockets",
    ),
    Option("backlog", whole(1), "N", "so many connections may wait in the kernel to be accepted"),
    Option(
        "http",
        one_of(*get_args(ParserName)),
        "PARSER",
        "auto, h11 or httptools; auto is httptools where it is installed",
    ),
)

_BEHIND_A_PROXY = (
    Option(
        "root-path",
        prefix,
        "PATH",
        "the prefix under which a proxy shows the app",
        "none",
        "behind a proxy",
    ),
    Option(
        "forwarded-allow-ips",
        peers,
        "IPS",
        "trust X-Forwarded-For and -Proto, or Forwarded, from these peers: addresses and networks,"
        " with commas; * for all, none for nobody",
        group="behind a proxy",
    ),
    Option(
        "forwarded-header",
        one_of(*get_args(ForwardedHeader)),
        "HEADER",
        "which of them the peers write: x-forwarded, forwarded, or auto, which takes the first"
        " where it is",
        group="behind a proxy",
    ),
)


def _tls(name: str, help: str, shown: str, sets: str) -> Option:
    return Option(
        name, existing_file, "FILE", help, shown, "TLS", record=CertificateFiles, sets=sets
    )


_TLS = (
    _tls("ssl-certfile", "the certificates", "no TLS", "certfile"),
    _tls("ssl-keyfile", "their key", "in the file of the certificates", "keyfile"),
    Option(
        "ssl-keyfile-password",
        text,
        "PASSWORD",
        "what the key is encrypted with; as a variable, it isn't seen in the list of processes",
        group="TLS",
        record=CertificateFiles,
        sets="password",
    ),
    _tls("ssl-ca-certs", "whoever these have signed is a client to trust", "", "ca_certs"),
    Option(
        "ssl-cert-reqs",
        client_certificates,
        "MODE",
        "a client's certificate is none, optional or required",
        "required with --ssl-ca-certs",
        "TLS",
        record=CertificateFiles,
        sets="cert_reqs",
    ),
)

_RELOADING = (
    Option(
        "reload",
        switch,
        _SWITCH,
        "start anew when a file changes; this needs watchfiles",
        group="reloading",
        record=Settings,
    ),
    Option(
        "reload-dir",
        existing_folder,
        "FOLDER",
        "watch this folder; can be given several times",
        "the current one",
        "reloading",
        record=Settings,
        sets="reload_dirs",
        many=True,
    ),
    Option(
        "reload-include",
        text,
        "PATTERN",
        "watch files like this beside *.py, such as *.html; can be given several times",
        group="reloading",
        record=Settings,
        sets="reload_includes",
        many=True,
    ),
    Option(
        "reload-exclude",
        text,
        "PATTERN",
        "don't watch files or folders like this; can be given several times.  Never watched:"
        " hidden ones, virtual environments, __pycache__, build, dist, node_modules",
        group="reloading",
        record=Settings,
        sets="reload_excludes",
        many=True,
    ),
)

_SHUTTING_DOWN = (
    Option(
        "drain-timeout",
        seconds,
        "SECONDS",
        "wait so many seconds for requests and tasks, then cancel them",
        "the app's, 20",
        "shutting down",
    ),
    Option(
        "cleanup-timeout",
        seconds,
        "SECONDS",
        "give what was cancelled so many seconds to clean up; a second later the process exits",
        "the app's, 5",
        "shutting down",
    ),
)

_LOGS = (
    Option("access-log", switch, _SWITCH, "log a line for each answer", "true", "logs"),
    Option(
        "log-level",
        one_of(*LEVELS),
        "LEVEL",
        f"log this and above: {', '.join(LEVELS)}",
        "info",
        "logs",
        record=Settings,
    ),
    Option(
        "log-config",
        existing_file,
        "FILE",
        "configure logging with this .json, .toml, .yaml or .ini file, as logging.config does",
        "to standard error",
        "logs",
        record=Settings,
    ),
)

_OPTIONS = (
    APP_DIR,
    ENV_FILE,
    *_LISTENING,
    *_TLS,
    *_BEHIND_A_PROXY,
    *_RELOADING,
    *_SHUTTING_DOWN,
    *_LOGS,
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

# `--limit-max-requests` is another thing in Uvicorn: after so many requests its process ends.
_LIMIT_NAMES = {"max_requests": "limit-concurrency"}


def _limit_option(name: str, default: object) -> Option:
    metavar, help = _LIMIT_HELP[name]
    shown = f"the app's, {str(default).lower()}"
    return Option(
        _LIMIT_NAMES.get(name, f"limit-{name.replace('_', '-')}"),
        limit(name),
        metavar,
        help,
        shown,
        "limits",
        record=Limits,
        sets=name,
    )


LIMIT_OPTIONS = tuple(_limit_option(field.name, field.default) for field in fields(Limits))


def rows(command: str) -> tuple[Option, ...]:
    """What `run`, `dev` or `routes` takes."""
    if command == "routes":
        return (APP, APP_DIR, ENV_FILE)
    if command == "run":
        return (APP, *_OPTIONS, WORKERS, *ABOUT_WORKERS, *LIMIT_OPTIONS)
    return (APP, *map(_of_dev, _OPTIONS), *LIMIT_OPTIONS)


def _of_dev(option: Option) -> Option:
    shown = {"reload": "true", "drain-timeout": f"{DEV_DRAIN_TIMEOUT:g}"}
    return replace(option, shown=shown.get(option.name, option.shown))
