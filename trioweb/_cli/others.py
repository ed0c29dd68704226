"""What other servers' options are called: each is one of ours by another name, or refused.

Rules of this module:

* A command line of Uvicorn's can be carried over: each of its options is in the table of options,
  or here; a test holds that.  Of Gunicorn, Hypercorn and Granian, those that everybody knows.
* A name that means the same is taken.  One that means something else, or that there is no need for
  here, is refused with the line to write instead: it is never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping

from .._errors import CommandError
from .settings import variable

# By our name.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "bind": ("b",),
    "workers": ("w",),
    "worker-timeout": ("timeout-worker-healthcheck", "timeout", "t"),
    "drain-timeout": ("timeout-graceful-shutdown", "graceful-timeout"),
    "root-path": ("url-path-prefix",),
    "limit-idle-timeout": ("timeout-keep-alive", "keep-alive"),
    "limit-max-head-size": ("h11-max-incomplete-event-size",),
    "limit-max-fields": ("limit-request-fields",),
    "limit-max-connections": ("worker-connections",),
    "ssl-certfile": ("certfile", "ssl-certificate"),
    "ssl-keyfile": ("keyfile",),
    "ssl-keyfile-password": ("keyfile-password",),
    "ssl-ca-certs": ("ca-certs", "ssl-ca"),
    "ssl-cert-reqs": ("cert-reqs", "verify-mode"),
}

LEAVE_OUT = "leave it out"
_TRIO = ("trioweb runs on Trio, and has no other event loop", LEAVE_OUT)
_ASGI = ("the app is an ASGI 3 app, whose lifespan runs if it has one", LEAVE_OUT)
_WEBSOCKETS = ("trioweb serves no WebSockets yet", LEAVE_OUT)
_HTTP2 = ("trioweb run serves HTTP/1.1", "hypercorn -k trio main:app, or a proxy that has HTTP/2")
_TLS = (
    "what TLS allows is Python's default for servers",
    "trioweb.serve(app, ssl_context=…), in a program of your own",
)
_THREADS = (
    "one event loop serves, and each `def` has a thread of Trio's while it runs",
    "--workers, to use more cores; --limit-max-task-threads, for tasks of `def`",
)
_USER = (
    "the user is for whoever starts the server to choose",
    "User= and Group= of the systemd unit, and --uds-permissions 660",
)
_BACKGROUND = ("it stays in the foreground", "a systemd unit, or a container, that starts it")
_LOG_FILE = (
    "all logs go to standard error",
    "2>app.log; or --log-config, for a file for each logger",
)
_LOG_FORMAT = (
    "a line is written by its formatter",
    "--log-config, with a format such as '%(client)s %(status)d'",
)
_NAME = ("a process has the name of its command", LEAVE_OUT)
_CONFIG = (
    "there is no file of options",
    "--env-file .env, with lines such as TRIOWEB_PORT=8000",
)
_HEADERS = ("headers are the app's to send", "a middleware, or headers= of a response")
_RELOADER = (
    "watchfiles tells of a change at once",
    f"{LEAVE_OUT}; --reload-dir, --reload-exclude say what is watched",
)
_APP_DIR = ("the app is looked for in one folder", "--app-dir FOLDER")

# Why there is no such option, and what to write instead.
Refusal = tuple[str, str]

# By their name.
REFUSED: Mapping[str, Refusal] = {
    # Uvicorn
    "limit-max-requests": (
        "it could mean two things",
        "--limit-concurrency N, for requests at once; --max-requests N, for a worker's lifetime",
    ),
    "limit-max-requests-jitter": (
        "workers are told apart by themselves",
        "--max-requests N, for a worker's lifetime",
    ),
    "factory": ("a call says that it is a factory", "trioweb run 'main:make_app()'"),
    "loop": _TRIO,
    "interface": _ASGI,
    "lifespan": _ASGI,
    "reset-contextvars": ("each request has a context of its own", LEAVE_OUT),
    "http2": _HTTP2,
    "ws": _WEBSOCKETS,
    "ws-max-size": _WEBSOCKETS,
    "ws-max-queue": _WEBSOCKETS,
    "ws-ping-interval": _WEBSOCKETS,
    "ws-ping-timeout": _WEBSOCKETS,
    "ws-per-message-deflate": _WEBSOCKETS,
    "use-colors": ("logs have no colours", "a formatter of --log-config"),
    "no-use-colors": ("logs have no colours", LEAVE_OUT),
    "proxy-headers": ("peers are trusted by their addresses", "--forwarded-allow-ips 10.0.0.0/8"),
    "no-proxy-headers": ("peers are trusted by their addresses", "--forwarded-allow-ips none"),
    "header": _HEADERS,
    "server-header": _HEADERS,
    "no-server-header": ("the server doesn't name itself", LEAVE_OUT),
    "date-header": ("each answer has its date", LEAVE_OUT),
    "no-date-header": ("each answer has its date, as HTTP wants it (RFC 9110)", LEAVE_OUT),
    "ssl-version": _TLS,
    "ssl-ciphers": _TLS,
    "reload-delay": _RELOADER,
    "version": ("it is one of trioweb itself", "trioweb --version"),
    # Gunicorn, Hypercorn
    "max-requests-jitter": ("each worker has up to a tenth more, by chance", LEAVE_OUT),
    "k": _TRIO,
    "worker-class": _TRIO,
    "threads": _THREADS,
    "limit-request-line": ("it has another name", "--limit-max-target-size BYTES"),
    "limit-request-field_size": (
        "it has another name",
        "--limit-max-head-size BYTES, for all fields",
    ),
    "e": _CONFIG,
    "env": _CONFIG,
    "n": _NAME,
    "name": _NAME,
    "proxy-protocol": ("it speaks HTTP alone", "a proxy that writes X-Forwarded-For"),
    "access-logformat": _LOG_FORMAT,
    "preload": ("each worker imports the app itself, so that SIGHUP brings new code", LEAVE_OUT),
    "chdir": _APP_DIR,
    "pythonpath": _APP_DIR,
    "c": _CONFIG,
    "config": _CONFIG,
    "D": _BACKGROUND,
    "daemon": _BACKGROUND,
    "p": _BACKGROUND,
    "pid": _BACKGROUND,
    "u": _USER,
    "user": _USER,
    "g": _USER,
    "group": _USER,
    "m": _USER,
    "umask": _USER,
    "access-logfile": _LOG_FILE,
    "error-logfile": _LOG_FILE,
    "log-file": _LOG_FILE,
    "ciphers": _TLS,
    "quic-bind": _HTTP2,
    "insecure-bind": ("TLS is for all addresses, or for none", "a second trioweb run, without TLS"),
    # Granian
    "access-log-fmt": _LOG_FORMAT,
    "process-name": _NAME,
    "pid-file": _BACKGROUND,
    "respawn-failed-workers": ("a worker that crashes is always replaced", LEAVE_OUT),
    "static-path-mount": ("files are served by the app, or by a proxy", LEAVE_OUT),
    "blocking-threads": _THREADS,
    "runtime-threads": _THREADS,
    "runtime-mode": _THREADS,
    "task-impl": _TRIO,
    "no-ws": _WEBSOCKETS,
    "working-dir": _APP_DIR,
    "ssl-client-verify": ("it has three values", "--ssl-cert-reqs required"),
    "reload-paths": ("it has another name", "--reload-dir FOLDER"),
    "reload-ignore-dirs": ("it has another name", "--reload-exclude FOLDER"),
    "reload-ignore-patterns": ("it has another name", "--reload-exclude PATTERN"),
    "backpressure": ("it has another name", "--limit-concurrency N"),
    "env-files": ("it has another name", "--env-file FILE"),
}


def refuse(given: str, refusal: Refusal) -> CommandError:
    """What to say of an option that is refused; `given`: as it was."""
    why, right = refusal
    return CommandError(f"{given} isn't an option here: {why}", wrong=given, right=right)


def refuse_variables(environ: Mapping[str, str]) -> None:
    """Raises CommandError for a variable that would be ignored."""
    for name, refusal in REFUSED.items():
        if len(name) > 1 and variable(name) in environ:
            raise refuse(variable(name), refusal)
