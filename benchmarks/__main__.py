"""The command line of the benchmarks."""

from __future__ import annotations

import argparse

from . import internals


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
    arguments = parser.parse_args()
    internals.run(arguments.rounds)


if __name__ == "__main__":
    main()
