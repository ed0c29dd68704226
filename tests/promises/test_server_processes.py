"""Shutdown for real, of the embedded server: a process, SIGTERM, and whoever could hold it up.

What a run is and what it checks by itself stands in `shutdown_proof.py`; the server that it starts
is another one here, the promises are the same.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import time
from pathlib import Path

import pytest

from ..support.processes import Start
from ..support.server_process import command_line, embedded, two_workers
from ..support.shutdown_proof import (
    APPS,
    CLEANUP_TIMEOUT,
    DRAIN_TIMEOUT,
    Moment,
    named,
    posted_once,
    recorded,
    run_hostile,
    run_load,
    run_shielded,
)

pytestmark = [pytest.mark.slow, pytest.mark.processes]

TASKS = 2_000
TASKS_IN_A_REQUEST = 20
# Where nobody needs it: a process that is late isn't ended for that, and who waits for it is seen.
LONG_CLEANUP = 25.0  # seconds


@pytest.mark.parametrize(
    ("start", "seed", "moment"),
    [(embedded, 1, "added"), (command_line, 2, "adding")],
    ids=["embedded", "trioweb run"],
)
def test_no_task_is_lost_or_run_twice_and_each_cleans_up(
    start: Start, seed: int, moment: Moment
) -> None:
    figures = run_load(TASKS, seed, moment, start=start)
    assert figures.unfinished
    assert figures.cancelled
    assert figures.begun


def test_whatever_hangs_the_shutdown_is_over_in_time_and_the_log_says_who() -> None:
    stop = run_hostile(request_in_flight=True, start=embedded)
    assert stop.seconds >= DRAIN_TIMEOUT + CLEANUP_TIMEOUT


def test_nobody_waits_behind_a_shield_but_the_lifespan(tmp_path: Path) -> None:
    held_up = run_shielded(tmp_path, "add_task", interval="0.2", start=embedded)
    first = held_up.before.partition(named("add_task"))[0]
    assert "event polite cleaned up " in first
    assert "event session closed " in first
    assert "event lifespan closed " not in held_up.before
    after = held_up.stop.log.removeprefix(held_up.before)
    assert "event shielded ended " in after.partition("event lifespan closed ")[0]


# With two workers: which of them gets which connection is the kernel's choice.


def test_two_workers_lose_no_task_between_them() -> None:
    env = {"LOAD_TASKS": str(TASKS), "LOAD_SEED": "3", "LOAD_MAX_RUNNING": str(TASKS // 10)}
    with two_workers("load:load_app", cwd=APPS, env=env) as server:
        for first in range(0, TASKS, TASKS_IN_A_REQUEST):
            assert posted_once(server, f"/add/{first}/{TASKS_IN_A_REQUEST}")
        for _ in range(10):
            posted_once(server, "/open")
        assert server.stop() == 0
        log = server.log
    books = [json.loads(text) for text in recorded(log, "books")]
    assert len(books) == 2
    assert [book["problems"] for book in books] == [[], []]
    counted = [book["counted"] for book in books]
    assert sum(count["added"] for count in counted) == TASKS
    for count in counted:
        ends = ("done", "failed", "timed_out", "cancelled")
        assert sum(count[end] for end in ends) == count["added"]
    assert all(book["begun"] == book["cleaned_up"] for book in books)
    assert "Traceback" not in log


def test_two_workers_drain_each_for_itself_and_none_cuts_the_other_off() -> None:
    env = {"HOSTILE_CLEANUP": str(LONG_CLEANUP)}
    with two_workers("load:hostile_app", cwd=APPS, env=env) as server:
        for name in ("endless", "stubborn", "polite"):
            assert posted_once(server, f"/{name}")
            server.wait_for_line(f"event {name} began")
        with contextlib.closing(server.connect()) as connection:
            connection.request("POST", "/request")
            server.wait_for_line("event request began")
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
            took = time.monotonic() - began
            with contextlib.suppress(http.client.HTTPException, ConnectionError):
                assert connection.getresponse().status == 503
        log = server.log
    assert took < DRAIN_TIMEOUT + LONG_CLEANUP
    assert "event polite cleaned up " in log
    assert len(re.findall(r"^event shutdown complete ", log, re.MULTILINE)) == 2
    assert len(re.findall(r"^event lifespan closed ", log, re.MULTILINE)) == 2
    cancelled = re.findall(r"stopped after .* (\d+) cancelled", log)
    assert sum(map(int, cancelled)) == 3
    assert "Traceback" not in log
