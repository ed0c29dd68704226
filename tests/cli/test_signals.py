"""Signals and a supervisor are heard by a thread, which makes sure that the process ends."""

from __future__ import annotations

import logging
import math
import os
import queue
import signal
import socket
import threading
import time

import pytest

from trioweb._cli import signals
from trioweb._cli.signals import Order, SignalThread, Times, hard_exit
from trioweb._cli.statuses import EXIT_HARD

from ..support.log_records import messages

# Seconds.  Only ends a wait that will never be answered.
TIMEOUT = 20.0

pytestmark = pytest.mark.usefixtures("in_a_terminal")


class Heard:
    """What a signal thread has told, and whether it has given up."""

    def __init__(self, supervisor: socket.socket | None = None) -> None:
        self.told: queue.Queue[Order] = queue.Queue()
        self.given_up = threading.Event()
        self.woken = threading.Event()
        self.hangs = threading.Event()
        self.thread = SignalThread(
            self.told.put,
            self.given_up.set,
            wake_trio=self.woken.set,
            report_hang=self.hangs.set,
            supervisor=supervisor,
        )
        self.thread.times = Times(math.inf, math.inf)

    def next_order(self) -> Order:
        return self.told.get(timeout=TIMEOUT)


@pytest.fixture
def no_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal counts however soon it comes."""
    monkeypatch.setattr(signals, "ECHO_TIME", 0.0)


@pytest.mark.usefixtures("no_echo")
def test_the_first_signal_drains_the_second_cancels_the_third_changes_nothing() -> None:
    heard = Heard()
    with heard.thread:
        signal.raise_signal(signal.SIGTERM)
        assert heard.next_order() is Order.DRAIN
        assert heard.woken.wait(TIMEOUT)
        signal.raise_signal(signal.SIGINT)
        assert heard.next_order() is Order.CANCEL
        signal.raise_signal(signal.SIGINT)
    heard.thread.join(TIMEOUT)
    assert heard.told.empty()
    assert not heard.given_up.is_set()
    signal.raise_signal(signal.SIGTERM)  # a late one doesn't change how the process ends


def test_what_follows_at_once_is_an_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops a process and its group sends it two."""
    monkeypatch.setattr(signals, "ECHO_TIME", TIMEOUT)
    heard = Heard()
    with heard.thread:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert heard.next_order() is Order.DRAIN
        heard.woken.clear()
        signal.raise_signal(signal.SIGINT)
        assert heard.woken.wait(TIMEOUT)
    heard.thread.join(TIMEOUT)
    assert heard.told.empty()


def test_a_terminal_that_closes_is_a_stop_unless_nohup_says_otherwise() -> None:
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    heard = Heard()
    with heard.thread:
        signal.raise_signal(signal.SIGHUP)
        assert heard.next_order() is Order.DRAIN
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Heard().thread:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_without_an_order_signals_are_what_they_were() -> None:
    handlers = [signal.getsignal(number) for number in signals.STOP_SIGNALS]
    with Heard().thread:
        pass
    assert [signal.getsignal(number) for number in signals.STOP_SIGNALS] == handlers


def test_other_signals_are_passed_on() -> None:
    heard = Heard()
    handled = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: handled.set())
    try:
        with heard.thread:
            signal.raise_signal(signal.SIGUSR1)
            assert heard.woken.wait(TIMEOUT)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled.is_set()
    assert heard.told.empty()


def test_signals_to_a_worker_only_drain_and_its_supervisor_cancels() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        heard = Heard(theirs)
        with heard.thread:
            signal.raise_signal(signal.SIGINT)
            assert heard.next_order() is Order.DRAIN
            signal.raise_signal(signal.SIGINT)
            ours.send(signals.CANCEL_BYTE)
            assert heard.next_order() is Order.CANCEL
            ours.close()  # says drain, which it is past
            heard.woken.clear()
            signal.raise_signal(signal.SIGINT)
            assert heard.woken.wait(TIMEOUT)
        heard.thread.join(TIMEOUT)
        assert heard.told.empty()


def test_a_supervisor_may_have_it_retire_before_it_drains() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        heard = Heard(theirs)
        heard.thread.times = Times(math.inf, 0.0, math.inf)
        with heard.thread:
            ours.send(signals.RETIRE_BYTE)
            assert heard.next_order() is Order.RETIRE
            signal.raise_signal(signal.SIGTERM)
            assert heard.next_order() is Order.DRAIN
            ours.send(signals.RETIRE_BYTE)
            ours.send(signals.HANG_BYTE)
            assert heard.hangs.wait(TIMEOUT)
            ours.send(signals.CANCEL_BYTE + signals.HANG_BYTE)
            assert heard.next_order() is Order.CANCEL


def test_each_order_has_its_times() -> None:
    times = Times(20.0, 5.0, 75.0)
    assert [times.after(order) for order in Order] == [101.0, 26.0, 6.0]
    assert Times.from_bytes(times.to_bytes()) == times


@pytest.mark.parametrize("unread", [False, True])
def test_a_worker_whose_supervisor_is_gone_drains(unread: bool) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        heard = Heard(theirs)
        with heard.thread:
            if unread:
                theirs.send(b"ready")
            ours.close()
            assert heard.next_order() is Order.DRAIN


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.usefixtures("no_echo")
def test_the_limit_counts_from_the_signal_and_beyond_the_block(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "SLACK", 0.05)
    heard = Heard()
    heard.thread.times = Times(0.05 if count == 1 else 1000.0, 0.05)
    begin = time.monotonic()
    with heard.thread:
        for _ in range(count):
            signal.raise_signal(signal.SIGTERM)
            heard.next_order()
    assert heard.given_up.wait(TIMEOUT)
    assert time.monotonic() - begin >= (0.15 if count == 1 else 0.1)


def test_the_limit_holds_within_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SLACK", 0.05)
    heard = Heard()
    heard.thread.times = Times(0, 0)
    with heard.thread:
        signal.raise_signal(signal.SIGTERM)
        assert heard.given_up.wait(TIMEOUT)


def test_a_hard_exit_has_last_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    hard_exit(lambda: ["task a of POST /", "b (b.py:1)"])
    hard_exit(list)
    assert statuses == [EXIT_HARD, EXIT_HARD]
    first, second = messages(caplog)
    assert first.endswith("still runs: task a of POST /; b (b.py:1)")
    assert second.endswith("still runs: nothing that has a name")


def test_a_hard_exit_waits_for_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: list[int] = []
    stuck = threading.Event()
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(signals, "LAST_WORDS_TIME", 0.01)

    def ask_who_survives() -> list[str]:
        stuck.wait(TIMEOUT)
        return []

    hard_exit(ask_who_survives)
    assert statuses == [EXIT_HARD]
    stuck.set()
