"""The command line: `trioweb run`, `trioweb dev`, `trioweb routes`.

Rules of this module:

* What can be given is told by the table of options; what is done with it, by the modules below.
* What is wrong is said in one paragraph, without a traceback of ours.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from .._errors import CommandError
from . import options as _options
from .env_files import load_env_file, read_env_file
from .handlers import default_actions
from .others import Refusal, refuse
from .reloader import reload
from .routes import show_routes
from .run import run, run_worker
from .settings import Option, Settings, flag, key
from .statuses import EXIT_INTERRUPTED, EXIT_USAGE
from .supervisor import supervise
from .systems import HAS_WORKERS
from .table import APP, APP_DIR, ENV_FILE

_DESCRIPTION = """\
Serve a trioweb app, or any ASGI application that runs on Trio.
"""

_EXAMPLES = """\
examples:
  trioweb dev                          serve main.py or app.py; start anew at each change
  trioweb run main:app                 serve; Ctrl-C drains, a second one cancels
  trioweb run main:app --port 80 --host 0.0.0.0 --workers 4
  trioweb run main:app --bind 0.0.0.0:8000 --bind '[::]:8000'
  trioweb run main:app --uds /run/app.sock --uds-permissions 660
  trioweb run main:app --ssl-certfile cert.pem --ssl-keyfile key.pem
  TRIOWEB_PORT=8080 trioweb run        each option is also a variable
  trioweb routes main:app              what the app answers to
"""

_RUN = """\
Serve an app, for production.

SIGTERM and Ctrl-C drain: nothing new is accepted, requests and tasks end, up to the
drain timeout.  A second one cancels what is left.  What doesn't end even then is named
in the log, and ends with the process, whose status is 3.  With --workers, SIGHUP
replaces all workers one by one without refusing a connection, and a worker that hangs
or crashes is replaced.
"""

_DEV = """\
Serve an app while you write it: it starts anew when a Python file in this folder
changes, errors are answered with their traceback, and a drain is short.
"""

_ROUTES = """\
Show which routes an app has: methods, path, name, handler, whether it takes background
tasks, and its parameters, each with its type and where it comes from.
"""

_VARIABLES = """\
Each option can be given as a variable of the environment, too: the one in brackets.  The
option goes before the variable.  Uvicorn's options are taken where they mean the same here;
for the others the right line is shown.
"""


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Carry out a command; returns the exit status.

    Raises SystemExit where argparse has the last word: `--help`, an unknown option.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with default_actions():
            return _carry_out(arguments, environ)
    except CommandError as exc:
        print(f"trioweb: error: {exc}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _check_folder() -> None:
    """Raises CommandError where there is none: a release that was switched, and then removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise CommandError(
            "this folder has been removed: cd to the one that has its name now"
        ) from None


def _carry_out(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    given = vars(parser().parse_args(arguments))
    command = given["command"]
    _check_folder()
    env_file = _options.value_of(ENV_FILE, given, environ)
    environ = {**read_env_file(env_file), **environ}
    if command == "routes":
        load_env_file(env_file)
        app, app_dir = (_options.value_of(option, given, environ) for option in (APP, APP_DIR))
        return _print(show_routes(app, app_dir, as_json=given["json"]))
    settings = _options.settings(command, given, environ)
    if given["worker"] is not None:
        row, *descriptors = given["worker"]
        return run_worker(settings, row, descriptors)
    if settings.reload or settings.supervised:
        _check_system(settings)
    if settings.reload:
        return reload(settings, arguments)
    if settings.supervised:
        return supervise(settings, arguments)
    return run(settings)


def _check_system(settings: Settings) -> None:
    """Raises CommandError where one process can't hand its sockets on to another."""
    if not HAS_WORKERS:
        raise CommandError(
            "this system has no processes that share a socket, which this needs",
            wrong="--reload" if settings.reload else f"--workers {settings.workers}",
            right="--no-reload"
            if settings.reload
            else "--workers 1, several times, each on a port of its own",
        )


def _print(text: str) -> int:
    """Returns the exit status; a reader who leaves early, as `head` does, is no failure."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is still in the buffer would be tried again at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="trioweb",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"trioweb {version('trioweb')}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_server(commands, "run", "serve an app, for production", _RUN)
    _add_server(commands, "dev", "serve an app while you write it", _DEV)
    routes = _add_command(commands, "routes", "show an app's routes", _ROUTES)
    routes.add_argument("--json", action="store_true", help="for programs")
    return top


def _add_server(commands: Any, name: str, help: str, description: str) -> None:
    command = _add_command(commands, name, help, description)
    # How a supervisor starts a worker: its row, and the descriptors that it inherits.
    command.add_argument("--worker", type=_numbers, help=argparse.SUPPRESS)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _add_command(commands: Any, name: str, help: str, description: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        usage=f"trioweb {name} [MODULE:APP] [options]",
        help=help,
        description=description,
        epilog=f"{_VARIABLES}\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    groups: dict[str, Any] = {}
    for option in _options.options(name):
        if option.name == APP.name:
            command.add_argument("app", nargs="?", metavar=APP.metavar, help=_help(APP))
            continue
        if option.group not in groups:
            groups[option.group] = command.add_argument_group(option.group)
        _add_option(groups[option.group], option)
    for other, refusal in _options.refused(name).items():
        command.add_argument(
            flag(other), nargs="?", action=_Refuse, refusal=refusal, help=argparse.SUPPRESS
        )
    return command


class _Refuse(argparse.Action):
    """For an option that there isn't, but that somebody may take for one."""

    def __init__(self, *args: Any, refusal: Refusal, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._refusal = refusal

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        raise refuse(f"{option_string} {values or ''}".rstrip(), self._refusal)


def _add_option(group: Any, option: Option) -> None:
    # Their text is converted later, in the same way as that of a variable.
    if option.is_switch:
        action = argparse.BooleanOptionalAction
        group.add_argument(option.flag, action=action, default=None, help=_help(option))
    else:
        store = "append" if option.many else "store"
        group.add_argument(option.flag, action=store, metavar=option.metavar, help=_help(option))
        for alias in option.aliases:
            # Each has a place of its own, so that an error can name it; those of a list have one.
            dest = option.key if option.many else key(alias)
            group.add_argument(flag(alias), action=store, dest=dest, help=argparse.SUPPRESS)


def _help(option: Option) -> str:
    default = f" (default: {option.default})" if option.default else ""
    return f"{option.help}{default} [{option.variable}]".replace("%", "%%")
