"""Ends real servers with SIGTERM, as often and with as many tasks as asked.

Rules of this module:

* It runs what tests/shutdown_proof.py checks; a broken promise ends it, with the server's log.
* Each run is reported as it ends: nobody has to wait for the last one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.hypercorn_process import hypercorn_process
from tests.support.processes import Start
from tests.support.server_process import command_line, embedded
from tests.support.shutdown_proof import (
    BOUND,
    CLEANUP_TIMEOUT,
    DRAIN_TIMEOUT,
    AddedBy,
    Moment,
    Stop,
    run_hostile,
    run_load,
    run_shielded,
)

SERVERS = {"hypercorn": hypercorn_process, "embedded": embedded, "run": command_line}

DESCRIPTION = """\
Starts a server on the loopback interface, sends it SIGTERM, and checks what is left.
Three parts, each with its own processes:

  load      tasks of 0 to 2 s, SIGTERM at a random moment: the app's own books say that each was
            counted in one end state, none was run twice, and all that began ran their `finally`
            with the database open
  hostile   tasks that never end, that swallow their cancellation, in threads, waiting for a retry,
            a thread or a place, and a dependency whose exit hangs, all at once: the shutdown is
            over within drain_timeout + cleanup_timeout + 1 s, and the log names each
  shielded  a task behind a shield: it is named every few seconds, and nobody waits behind it

A broken promise ends the command with the server's log and a non-zero status.
"""
EPILOG = """\
Columns, in seconds: `heard`, from the signal until the server tells the app, and `exit`, from the
app's answer until the process has ended; `shutdown` between them is the app's.  `unfinished`:
tasks in flight or pending when the app heard of the shutdown.

  python -m benchmarks shutdown                         10 runs of 100,000 tasks: ten minutes
  python -m benchmarks shutdown --tasks 5000 --runs 3   a minute
  python -m benchmarks shutdown --server run            the same with `trioweb run`
  python -m benchmarks shutdown --moment adding         SIGTERM while requests still add tasks
  python -m benchmarks shutdown --seed 7 --runs 1       run 7 alone once more

With an odd seed only a tenth of the tasks may run at once, and the others wait for a place.
About 600 MB of memory for 100,000 tasks.
"""

LOAD_HEAD = (
    "| seed | whole run | heard | shutdown | exit | unfinished | done | failed | timed out "
    "| cancelled | of them begun | log, MB |"
)


def run(server: str, tasks: int, runs: int, seed: int, moment: Moment) -> None:
    start = SERVERS[server]
    _load(start, tasks, range(seed, seed + runs), moment)
    _hostile(start, runs)
    if server == "run":
        print("\nshielded: left out, `trioweb run` ends the process when time is up")
    else:
        _shielded(start)
    print("\nAll promises were kept.")


def _load(start: Start, tasks: int, seeds: Sequence[int], moment: Moment) -> None:
    print(f"load: {tasks:,} tasks, SIGTERM at a random moment ({moment})\n\n{LOAD_HEAD}")
    print("|---" * (LOAD_HEAD.count("|") - 1) + "|")
    for seed in seeds:
        begin = time.monotonic()
        figures = run_load(tasks, seed, moment, start=start)
        took = time.monotonic() - begin
        ended_themselves = figures.done + figures.failed + figures.timed_out
        _row(
            str(seed),
            f"{took:.1f}",
            *_seconds(figures.stop),
            f"{figures.unfinished:,}",
            f"{figures.done:,}",
            f"{figures.failed:,}",
            f"{figures.timed_out:,}",
            f"{figures.cancelled:,}",
            f"{figures.begun - ended_themselves:,}",
            f"{len(figures.stop.log) / 1e6:.1f}",
        )


def _hostile(start: Start, runs: int) -> None:
    print(f"\nhostile: drain {DRAIN_TIMEOUT} s + cleanup {CLEANUP_TIMEOUT} s, bound {BOUND} s\n")
    print("| requests | heard | shutdown | exit |\n|---|---|---|---|")
    for _ in range(runs):
        _row("none in flight", *_seconds(run_hostile(start=start)))
    # Hypercorn gives it `graceful_timeout` before it tells the app.
    _row("one in flight", *_seconds(run_hostile(request_in_flight=True, start=start)))


def _shielded(start: Start) -> None:
    print("\nshielded: named three times, then let go\n")
    print("| added by | heard | shutdown | exit |\n|---|---|---|---|")
    ways: tuple[AddedBy, ...] = ("add_task", "start_soon")
    for added_by in ways:
        with tempfile.TemporaryDirectory() as folder:
            held_up = run_shielded(Path(folder), added_by, start=start)
        _row(added_by, *_seconds(held_up.stop))


def _seconds(stop: Stop) -> tuple[str, str, str]:
    return f"{stop.seconds_to_hear:.2f}", f"{stop.seconds:.2f}", f"{stop.seconds_to_exit:.2f}"


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)
