"""Ends the apps of tests/support/apps/load.py with SIGTERM, and checks that nothing was lost.

Rules of this module:

* One function is one run of one server, by default `hypercorn -k trio`; it raises AssertionError,
  with the log, when a promise was broken, and returns figures when all were kept.
* The tests run each a few times; `python -m benchmarks shutdown` as often and as large as asked.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import math
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .hypercorn_process import hypercorn_process
from .processes import ServerProcess, Start

APPS = Path(__file__).parent / "apps"
# How long Hypercorn waits for requests before it tells the app of the shutdown: 3 s by default.
GRACEFUL_TIMEOUT = 1  # seconds
OPTIONS = ("--graceful-timeout", str(GRACEFUL_TIMEOUT))
TASKS_IN_A_REQUEST = 100
# How the summary calls what `statistics()` counts.
REPORTED = {
    "finished": "done",
    "failed": "failed",
    "timed out": "timed_out",
    "cancelled": "cancelled",
}
MAX_DELAY = 2.0  # seconds, as long as most tasks take at the most
TIME_OF_A_REQUEST = 0.01  # seconds, or more where the machine is slower
STOP_TIMEOUT = 120.0  # seconds
NAMED_TIMEOUT = 20.0  # seconds, for three times with 5 s between

# The settings of the app `hostile`.
DRAIN_TIMEOUT = 0.5  # seconds
CLEANUP_TIMEOUT = 2.0  # seconds: who needs a tenth of one has it on a busy machine, too
# What a busy machine may add: less than what has no end.
SLACK = 10.0  # seconds
BOUND = DRAIN_TIMEOUT + CLEANUP_TIMEOUT + SLACK

# Who holds up the shutdown of `hostile`, and the line by which one knows that it does.
BEGUN = {
    "endless": "event endless began",
    "stubborn": "event stubborn began",
    "polite": "event polite began",
    "retrying": "task retrying of POST /retrying: attempt 1 of 3 failed",
    "hang": "event hanging_exit began",
}

# What the log says of them in the end, in lines of their own and in the summary.
HOSTILE_LINES = (
    "event stubborn goes on",
    "event polite cleaned up",
    "task endless_thread of POST /endless_thread: its thread didn't end in time, abandoned",
    "dependency hanging_exit didn't close within the cleanup timeout",
)
HOSTILE_NAMES = (
    "endless of POST /endless: cancelled, ran ",
    "stubborn of POST /stubborn: cancelled, ran ",
    "polite of POST /polite: cancelled, ran ",
    "retrying of POST /retrying: cancelled, ran ",
    "without_thread of POST /without_thread: cancelled, ",
    "without_place of POST /without_place: cancelled, never began",
    "endless_thread of POST /endless_thread: abandoned, ran ",
    "0 finished, 0 failed, 0 timed out, 6 cancelled, 2 abandoned",
)

Moment = Literal["added", "adding"]
AddedBy = Literal["add_task", "start_soon"]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """How a server ended: what its log said, and how long what took, in seconds."""

    log: str
    seconds_to_hear: float
    """From the signal until the server tells the app: Hypercorn's, where it is one."""
    seconds: float
    """From then until the app had shut down."""
    seconds_to_exit: float
    """From then until the process had ended: not ours either."""

    @property
    def summary(self) -> str:
        pattern = r"^(?:INFO|WARNING) trioweb: (stopped after .*)$"
        (line,) = re.findall(pattern, self.log, re.MULTILINE)
        return str(line)

    def event(self, what: str) -> str:
        """What was recorded after these words, without the time."""
        (found,) = recorded(self.log, what)
        return found


def recorded(log: str, what: str) -> list[str]:
    """What was recorded after these words, without the times."""
    return re.findall(rf"^event {re.escape(what)} (.*) [\d.]+$", log, re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class LoadFigures:
    """What became of the tasks of one run."""

    stop: Stop
    unfinished: int
    """In flight or pending when the app heard of the shutdown."""
    begun: int
    added: int
    done: int
    failed: int
    timed_out: int
    cancelled: int


def run_load(
    tasks: int, seed: int, moment: Moment = "added", *, start: Start = hypercorn_process
) -> LoadFigures:
    """SIGTERM at a random moment of `tasks` tasks: all are accounted for, and have cleaned up.

    With `"added"`, they wait at a gate until the last one is, and the signal comes
    up to 2 seconds after it began to open; with `"adding"`, it is open, and the signal
    comes while requests go on, some of which were answered.  With an odd seed most of them
    wait for a place to run in.
    """
    rng = random.Random(seed)
    env = {
        "LOAD_TASKS": str(tasks),
        "LOAD_SEED": str(seed),
        "LOAD_MAX_RUNNING": str(max(1, tasks // 10) if seed % 2 else 0),
    }
    targets = _targets(tasks)
    with (
        start(
            "load:load_app", cwd=APPS, options=OPTIONS, env=env, stop_timeout=STOP_TIMEOUT
        ) as server,
        contextlib.closing(server.connect()) as connection,
    ):
        terminator = _Terminator(server)
        if moment == "added":
            assert all(_posted(connection, target) for target in targets)
            timer = threading.Timer(rng.uniform(0, MAX_DELAY), terminator.terminate)
            timer.start()
            _posted(connection, "/open")  # the signal may come first
            connection.close()  # or it holds Hypercorn up
        else:
            timer = threading.Timer(rng.uniform(0, TIME_OF_A_REQUEST), terminator.terminate)
            assert _posted(connection, "/open")
            before = rng.randint(1, max(1, tasks // TASKS_IN_A_REQUEST - 1))
            assert all(_posted(connection, target) for target in itertools.islice(targets, before))
            timer.start()
            all(_posted(connection, target) for target in targets)  # until one is refused
        timer.join()
        stop = terminator.wait()
    return _checked(stop, tasks, moment)


def _targets(tasks: int) -> Iterator[str]:
    for first in range(0, tasks, TASKS_IN_A_REQUEST):
        yield f"/add/{first}/{min(TASKS_IN_A_REQUEST, tasks - first)}"


def _checked(stop: Stop, tasks: int, moment: Moment) -> LoadFigures:
    books: dict[str, Any] = json.loads(stop.event("books"))
    assert books["problems"] == []
    counted: dict[str, int] = books["counted"]
    ends = {name: counted[name] for name in ("done", "failed", "timed_out", "cancelled")}
    assert sum(ends.values()) == counted["added"]
    assert books["begun"] == books["cleaned_up"]
    assert moment == "adding" or counted["added"] == tasks
    at_signal = json.loads(stop.event("statistics"))
    reported = {name: int(re.findall(rf"(\d+) {name}", stop.summary)[0]) for name in REPORTED}
    assert reported == {name: ends[key] - at_signal[key] for name, key in REPORTED.items()}
    return LoadFigures(
        stop=stop,
        unfinished=at_signal["pending"] + at_signal["running"],
        begun=books["begun"],
        added=counted["added"],
        **ends,
    )


def run_hostile(*, request_in_flight: bool = False, start: Start = hypercorn_process) -> Stop:
    """All who can hold a shutdown up at once: it is over in time, and the log names each.

    `request_in_flight`: one is not answered yet, for which Hypercorn waits for its
    `graceful_timeout` before the app hears of the shutdown.
    """
    with (
        start("load:hostile_app", cwd=APPS, options=OPTIONS) as server,
        contextlib.closing(server.connect()) as connection,
    ):
        _start_hostile(server)
        if request_in_flight:
            connection.request("POST", "/request")
            server.wait_for_line("event request began")
        stop = _Terminator(server).terminate_and_wait()
    assert stop.seconds < BOUND, stop.log
    for line in HOSTILE_LINES:
        assert line in stop.log, f"{line!r} isn't in:\n{stop.log}"
    for name in HOSTILE_NAMES:
        assert name in stop.summary, f"{name!r} isn't in: {stop.summary}"
    # Those that waited for a thread or a place never got one.
    assert "event without_" not in stop.log, stop.log
    return stop


def _start_hostile(server: ServerProcess) -> None:
    for name, line in BEGUN.items():
        _once(server, name)
        server.wait_for_line(line)
    for _ in range(2):
        _once(server, "endless_thread")
    server.wait_for_lines("event endless_thread began", 2)
    _once(server, "without_thread")
    _once(server, "without_place")


@dataclass(frozen=True, kw_only=True)
class HeldUp:
    """A server that one task behind a shield held up."""

    stop: Stop
    before: str
    """The log up to the end of the shield."""


def run_shielded(
    folder: Path, added_by: AddedBy, interval: str = "", *, start: Start = hypercorn_process
) -> HeldUp:
    """A shield that outlasts the cleanup time: its task is named, until it ends.

    `folder` is an empty one to work in; `interval` the seconds between two times
    that the task is named, if not as by default.
    """
    pipe = folder / "held"
    os.mkfifo(pipe)
    env = {"HELD_BY": str(pipe), "OFFENDER_INTERVAL": interval}
    with start("load:hostile_app", cwd=APPS, env=env) as server:
        for target in (SHIELDED[added_by], "polite"):
            _once(server, target)
            server.wait_for_line(f"event {target.rpartition('/')[2]} began")
        terminator = _Terminator(server)
        terminator.terminate()
        server.wait_for_lines(named(added_by), 3, timeout=NAMED_TIMEOUT)
        before = server.log
        pipe.write_bytes(b"end")
        return HeldUp(stop=terminator.wait(), before=before)


SHIELDED = {"add_task": "listed/shielded", "start_soon": "shielded"}


def named(added_by: str) -> str:
    """How the log names the task of `run_shielded`."""
    request = f"POST /{SHIELDED[added_by]}"
    return f"task shielded of {request} is past the cleanup timeout: still waiting for it"


class _Terminator:
    """Sends the signal, and knows when."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._sent_at = math.nan

    def terminate(self) -> None:
        self._sent_at = time.monotonic()
        self._server.send_signal(signal.SIGTERM)

    def wait(self) -> Stop:
        """Wait until the server has ended, and check that it did so in good order."""
        code = self._server.wait(STOP_TIMEOUT)
        ended_at = time.monotonic()
        log = self._server.log
        assert code == 0, log
        assert not posted_once(self._server, "/"), "it still answers"
        assert "Traceback" not in log, log
        assert " CRITICAL " not in f" {log}", log
        times = _times(log)
        events = re.findall(r"^event (.*) [\d.]+$", log, re.MULTILINE)
        assert events[-2:] == ["lifespan closed", "shutdown complete"], log
        return Stop(
            log=log,
            seconds_to_hear=times["shutdown received"] - self._sent_at,
            seconds=times["shutdown complete"] - times["shutdown received"],
            seconds_to_exit=ended_at - times["shutdown complete"],
        )

    def terminate_and_wait(self) -> Stop:
        self.terminate()
        return self.wait()


def _times(log: str) -> Mapping[str, float]:
    found = re.findall(r"^event (shutdown \w+) ([\d.]+)$", log, re.MULTILINE)
    return {what: float(at) for what, at in found}


def _once(server: ServerProcess, name: str) -> None:
    assert posted_once(server, f"/{name}")


def posted_once(server: ServerProcess, target: str) -> bool:
    """Whether it was taken on a connection of its own: an open one would hold Hypercorn up."""
    with contextlib.closing(server.connect()) as connection:
        return _posted(connection, target)


def _posted(connection: http.client.HTTPConnection, target: str) -> bool:
    """Whether the server took it; one that shuts down doesn't."""
    try:
        connection.request("POST", target)
        with connection.getresponse() as response:
            response.read()
            return response.status == 200
    except (http.client.HTTPException, OSError):
        return False
