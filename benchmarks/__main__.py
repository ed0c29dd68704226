"""The command line of the benchmarks."""

from __future__ import annotations

import argparse

from . import attack, internals, shutdown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures trioweb beside other frameworks, in pairs within one run.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    inside = commands.add_parser(
        "internals",
        help="cost of one ASGI call without a server, against Starlette, FastAPI and a bare app",
        description="Frameworks that aren't installed are left out: pip install starlette fastapi",
    )
    inside.add_argument("--rounds", type=int, default=30, help="of 1,000 calls each (%(default)s)")
    end = commands.add_parser(
        "shutdown",
        help="SIGTERM to real servers full of tasks, and to some that try not to end",
        description=shutdown.DESCRIPTION,
        epilog=shutdown.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    end.add_argument("--tasks", type=int, default=100_000, help="in each run (%(default)s)")
    end.add_argument("--runs", type=int, default=10, help="of load and of hostile (%(default)s)")
    end.add_argument("--seed", type=int, default=0, help="of the first run (%(default)s)")
    end.add_argument(
        "--moment",
        choices=["added", "adding"],
        default="added",
        help="SIGTERM when all tasks were added, or while they are (%(default)s)",
    )
    hostile = commands.add_parser(
        "attack",
        help="slow clients by the hundred, pipelines and idle connections, against a real server",
        description=attack.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    hostile.add_argument("--connections", type=int, default=500, help="of attackers (%(default)s)")
    hostile.add_argument("--pipelined", type=int, default=10_000, help="requests (%(default)s)")
    hostile.add_argument("--idle", type=int, default=10_000, help="connections (%(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "internals":
        internals.run(arguments.rounds)
    elif arguments.command == "attack":
        attack.run(arguments.connections, arguments.pipelined, arguments.idle)
    else:
        shutdown.run(arguments.tasks, arguments.runs, arguments.seed, arguments.moment)


if __name__ == "__main__":
    main()
