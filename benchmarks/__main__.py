"""The command line of the benchmarks."""

from __future__ import annotations

import argparse

from . import internals, shutdown


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
    arguments = parser.parse_args()
    if arguments.command == "internals":
        internals.run(arguments.rounds)
    else:
        shutdown.run(arguments.tasks, arguments.runs, arguments.seed, arguments.moment)


if __name__ == "__main__":
    main()
