"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import functools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    from . import (
        _wrk,
        attack,
        balance,
        compare,
        instructions,
        internals,
        latency,
        scale,
        shutdown,
        tls,
    )
    from .apps.endpoints import ENDPOINTS
    from .apps.servers import SERVERS
except ModuleNotFoundError as exc:
    raise SystemExit(
        f"{exc}: the benchmarks need more than trioweb does\n\n"
        "    pip install --editable . --group bench"
    ) from None

Commands = Any  # what `add_subparsers` gives has no public name


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures trioweb beside other frameworks, in pairs within one run.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (
        add_compare,
        add_internals,
        add_instructions,
        add_scale,
        add_latency,
        add_shutdown,
        add_attack,
        add_balance,
        add_tls,
    ):
        add(commands)
    arguments = vars(parser.parse_args())
    del arguments["command"]
    run = arguments.pop("run")
    sys.exit(_run(functools.partial(run, **arguments)))


def _run(command: Callable[[], None]) -> int:
    """The exit status.  Any signal ends it as Ctrl-C does, which Trio takes at a safe place:
    what was started, and is stopped meanwhile, is ended."""
    status = 0

    def interrupt(number: int, frame: object) -> None:
        nonlocal status
        status = 128 + number
        signal.raise_signal(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)
    try:
        command()
    except* KeyboardInterrupt:
        status = status or 128 + signal.SIGINT
    return status


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _added(commands: Commands, module: ModuleType, summary: str) -> argparse.ArgumentParser:
    """The command that runs this module, named and described as it is."""
    command: argparse.ArgumentParser = commands.add_parser(
        module.__name__.rpartition(".")[2],
        help=summary,
        description=module.DESCRIPTION,
        epilog=getattr(module, "EPILOG", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=module.run)
    return command


def _add_load(command: argparse.ArgumentParser, *, seconds: int) -> None:
    """For how long, and by how many, servers are asked."""
    command.add_argument(
        "--rounds", type=_positive, default=5, help="over all of them (%(default)s)"
    )
    command.add_argument(
        "--seconds",
        type=_positive,
        default=seconds,
        help="for each measurement, whole ones (%(default)s)",
    )
    command.add_argument(
        "--connections",
        type=_positive,
        default=_wrk.CONNECTIONS,
        help="at once (%(default)s)",
    )


def add_compare(commands: Commands) -> None:
    command = _added(
        commands, compare, "requests a second on real sockets, beside other frameworks and servers"
    )
    _add_load(command, seconds=compare.SECONDS)
    for what, names in (("endpoint", ENDPOINTS), ("server", SERVERS)):
        command.add_argument(
            f"--{what}",
            action="append",
            choices=[*names],
            default=[],
            dest=f"{what}s",
            metavar="NAME",
            help=f"only this one, may be repeated: {', '.join(map(repr, names))}",
        )


def add_internals(commands: Commands) -> None:
    command = _added(
        commands,
        internals,
        "cost of one ASGI call and of its parts, without a server, beside other frameworks",
    )
    command.add_argument(
        "--rounds", type=_positive, default=30, help="of 1,000 calls each (%(default)s)"
    )
    command.add_argument(
        "--instructions",
        action="store_true",
        help="count instructions too: by perf, or by valgrind, which takes minutes",
    )


def add_instructions(commands: Commands) -> None:
    command = _added(
        commands,
        instructions,
        "instructions of a request over sockets, the same in each run, beside another checkout's",
    )
    command.add_argument(
        "--http", choices=instructions.PARSERS, default="httptools", help="who parses (%(default)s)"
    )
    command.add_argument(
        "--against", type=Path, metavar="FOLDER", help="a checkout: its trioweb is counted too"
    )


def add_scale(commands: Commands) -> None:
    command = _added(
        commands, scale, "how cost grows with routes, pending tasks, connections and sizes"
    )
    command.add_argument("--rounds", type=_positive, default=5, help="of each size (%(default)s)")


def add_latency(commands: Commands) -> None:
    command = _added(
        commands,
        latency,
        "percentiles at half the maximum rate, while up to 10,000 tasks sleep in the server",
    )
    _add_load(command, seconds=latency.SECONDS)


def add_shutdown(commands: Commands) -> None:
    command = _added(
        commands, shutdown, "SIGTERM to real servers full of tasks, and to some that try not to end"
    )
    command.add_argument(
        "--server",
        choices=list(shutdown.SERVERS),
        default="hypercorn",
        help="who serves: hypercorn -k trio, trioweb.serve, or trioweb run (%(default)s)",
    )
    command.add_argument(
        "--tasks", type=_positive, default=100_000, help="in each run (%(default)s)"
    )
    command.add_argument(
        "--runs", type=_positive, default=10, help="of load and of hostile (%(default)s)"
    )
    command.add_argument("--seed", type=int, default=0, help="of the first run (%(default)s)")
    command.add_argument(
        "--moment",
        choices=["added", "adding"],
        default="added",
        help="SIGTERM when all tasks were added, or while they are (%(default)s)",
    )


def add_attack(commands: Commands) -> None:
    command = _added(
        commands,
        attack,
        "slow clients by the hundred, pipelines and idle connections, against a real server",
    )
    command.add_argument(
        "--connections", type=_positive, default=500, help="of attackers (%(default)s)"
    )
    command.add_argument(
        "--pipelined", type=_positive, default=10_000, help="requests (%(default)s)"
    )
    command.add_argument("--idle", type=_positive, default=10_000, help="connections (%(default)s)")


def add_balance(commands: Commands) -> None:
    command = _added(
        commands, balance, "how evenly workers share what comes: the rate, of the best there can be"
    )
    command.add_argument("--workers", type=_positive, default=4, help="of trioweb (%(default)s)")
    command.add_argument("--rounds", type=_positive, default=3, help="of each (%(default)s)")
    command.add_argument(
        "--seconds", type=_positive, default=5, help="for each measurement (%(default)s)"
    )
    command.add_argument(
        "--connections",
        type=_positive,
        nargs="+",
        default=[12, 64],
        metavar="N",
        help="at once; each number is measured (12 and 64)",
    )


def add_tls(commands: Commands) -> None:
    command = _added(
        commands, tls, "what TLS costs: CPU time for 200 MiB down and up, beside Uvicorn"
    )
    command.add_argument("--rounds", type=_positive, default=5, help="of each (%(default)s)")
    command.add_argument(
        "--mebibytes", type=_positive, default=200, help="in each request (%(default)s)"
    )


if __name__ == "__main__":
    main()
