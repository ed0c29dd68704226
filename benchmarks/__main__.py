"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
from typing import Any

from . import attack, compare, internals, latency, scale, shutdown
from .apps.endpoints import ENDPOINTS
from .apps.servers import SERVERS

Commands = Any  # what `add_subparsers` gives has no public name


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures trioweb beside other frameworks, in pairs within one run.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (add_compare, add_internals, add_scale, add_latency, add_shutdown, add_attack):
        add(commands)
    arguments = vars(parser.parse_args())
    del arguments["command"]
    run = arguments.pop("run")
    run(**arguments)


def add_compare(commands: Commands) -> None:
    command = commands.add_parser(
        "compare",
        help="requests a second on real sockets, beside other frameworks and servers",
        description=compare.DESCRIPTION,
        epilog=compare.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--rounds", type=int, default=5, help="over all of them (%(default)s)")
    command.add_argument(
        "--seconds", type=int, default=2, help="for each measurement, whole ones (%(default)s)"
    )
    command.add_argument("--connections", type=int, default=32, help="at once (%(default)s)")
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
    command.set_defaults(run=compare.run)


def add_internals(commands: Commands) -> None:
    command = commands.add_parser(
        "internals",
        help="cost of one ASGI call and of its parts, without a server, beside other frameworks",
        description=internals.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--rounds", type=int, default=30, help="of 1,000 calls each (%(default)s)")
    command.add_argument(
        "--instructions",
        action="store_true",
        help="count instructions too: by perf, or by valgrind, which takes minutes",
    )
    command.set_defaults(run=internals.run)


def add_scale(commands: Commands) -> None:
    command = commands.add_parser(
        "scale",
        help="how cost grows with routes, pending tasks, connections and sizes",
        description=scale.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--rounds", type=int, default=5, help="of each size (%(default)s)")
    command.set_defaults(run=scale.run)


def add_latency(commands: Commands) -> None:
    command = commands.add_parser(
        "latency",
        help="percentiles at half the maximum rate, while up to 10,000 tasks sleep in the server",
        description=latency.DESCRIPTION,
        epilog=latency.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--rounds", type=int, default=5, help="over all of them (%(default)s)")
    command.add_argument(
        "--seconds", type=int, default=5, help="for each measurement, whole ones (%(default)s)"
    )
    command.add_argument("--connections", type=int, default=32, help="at once (%(default)s)")
    command.set_defaults(run=latency.run)


def add_shutdown(commands: Commands) -> None:
    command = commands.add_parser(
        "shutdown",
        help="SIGTERM to real servers full of tasks, and to some that try not to end",
        description=shutdown.DESCRIPTION,
        epilog=shutdown.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--server",
        choices=list(shutdown.SERVERS),
        default="hypercorn",
        help="who serves: hypercorn -k trio, trioweb.serve, or trioweb run (%(default)s)",
    )
    command.add_argument("--tasks", type=int, default=100_000, help="in each run (%(default)s)")
    command.add_argument(
        "--runs", type=int, default=10, help="of load and of hostile (%(default)s)"
    )
    command.add_argument("--seed", type=int, default=0, help="of the first run (%(default)s)")
    command.add_argument(
        "--moment",
        choices=["added", "adding"],
        default="added",
        help="SIGTERM when all tasks were added, or while they are (%(default)s)",
    )
    command.set_defaults(run=shutdown.run)


def add_attack(commands: Commands) -> None:
    command = commands.add_parser(
        "attack",
        help="slow clients by the hundred, pipelines and idle connections, against a real server",
        description=attack.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--connections", type=int, default=500, help="of attackers (%(default)s)")
    command.add_argument("--pipelined", type=int, default=10_000, help="requests (%(default)s)")
    command.add_argument("--idle", type=int, default=10_000, help="connections (%(default)s)")
    command.set_defaults(run=attack.run)


if __name__ == "__main__":
    main()
