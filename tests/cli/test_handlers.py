"""A signal's handler is that of one process: not of its children, and of the first one, too."""

from __future__ import annotations

import functools
import os
import queue
import signal
import socket
from collections.abc import Iterator

import pytest

from trioweb._cli import handlers
from trioweb._cli.handlers import OwnHandlers, default_actions, is_unhandled, prompt_actions
from trioweb._cli.signals import Order, SignalThread

from ..support.forks import ENDED, INTERRUPTED, forked

# Seconds.  Only ends a wait that will never be answered.
TIMEOUT = 20.0

pytestmark = pytest.mark.usefixtures("in_a_terminal")


def ignore(*args: object) -> None:
    """A handler."""


@pytest.fixture
def told() -> Iterator[queue.Queue[Order]]:
    """What a thread hears that hears this process's signals."""
    told: queue.Queue[Order] = queue.Queue()
    with SignalThread(told.put, lambda: None, wake_trio=lambda: None):
        yield told


@pytest.mark.parametrize("round_", range(10))
def test_what_ends_a_child_is_not_heard_by_its_parent(
    told: queue.Queue[Order], round_: int
) -> None:
    """Not even where it comes before the child has taken a step."""
    with forked() as child:
        child.kill(signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    signal.raise_signal(signal.SIGHUP)
    assert told.get(timeout=TIMEOUT) is Order.DRAIN
    assert told.empty()


def test_in_a_child_signals_do_what_they_do_by_default(told: queue.Queue[Order]) -> None:
    for number in (signal.SIGHUP, signal.SIGINT):  # both before it has taken a step
        with forked() as child:
            child.kill(number)
            assert child.wait() in (-number, INTERRUPTED)
    with forked(functools.partial(signal.raise_signal, signal.SIGINT)) as child:
        assert child.wait() == INTERRUPTED
    assert told.empty()


def test_a_child_may_have_handlers_of_its_own(told: queue.Queue[Order]) -> None:
    def prepare() -> None:  # pragma: no cover - another process
        assert signal.set_wakeup_fd(-1) == -1
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        signal.signal(signal.SIGTERM, ignore)
        os.kill(os.getpid(), signal.SIGTERM)

    with forked(prepare) as child:
        pass
    assert child.wait() == ENDED
    assert told.empty()


def test_a_handler_of_the_apps_is_the_childs_too(told: queue.Queue[Order]) -> None:
    def prepare() -> None:  # pragma: no cover - another process
        assert signal.getsignal(signal.SIGTERM) is ignore

    before = signal.signal(signal.SIGTERM, ignore)
    with forked(prepare) as child:
        pass
    assert child.wait() == ENDED
    signal.signal(signal.SIGTERM, before)


def test_a_process_that_has_set_none_forgets_none() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        own = OwnHandlers()
        own.keep(ours)
        own.block()
        own.enter_child()
        assert ours.fileno() >= 0


def is_blocked(number: signal.Signals) -> bool:
    return number in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_a_child_forgets() -> None:
    own = OwnHandlers()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    own.keep(ours)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        own.set(number, ignore)
    assert signal.signal(signal.SIGUSR1, print) is ignore  # the app's
    own.block()
    assert is_blocked(signal.SIGTERM)
    with theirs:
        signal.set_wakeup_fd(theirs.fileno())
        own.enter_child()
        assert signal.set_wakeup_fd(-1) == -1
    assert not is_blocked(signal.SIGTERM)
    assert ours.fileno() == -1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.signal(signal.SIGUSR1, signal.SIG_DFL) is print


# The first process of a container.


@pytest.fixture
def statuses(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[int]:
    """This is the first process; the statuses with which it would have ended."""
    statuses: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr(handlers, "FIRST_PROCESS", os.getpid())
    monkeypatch.setattr(os, "_exit", statuses.put)
    return statuses


def test_in_the_first_process_signals_do_what_they_do_by_default(
    statuses: queue.Queue[int],
) -> None:
    with default_actions():
        for number in (signal.SIGTERM, signal.SIGHUP):
            assert is_unhandled(number)
            signal.raise_signal(number)
            assert statuses.get(timeout=TIMEOUT) == 128 + number
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    with default_actions():
        assert not is_unhandled(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    assert statuses.empty()


def test_in_the_first_process_a_library_holds_up_no_signal(statuses: queue.Queue[int]) -> None:
    before = signal.signal(signal.SIGUSR1, ignore)
    with default_actions(), prompt_actions():
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        # One from the thread, which doesn't wait for the main thread, and one from the handler.
        assert [statuses.get(timeout=TIMEOUT) for _ in range(2)] == [143, 143]
    signal.signal(signal.SIGUSR1, before)
    assert signal.set_wakeup_fd(-1) == -1


def test_in_any_other_process_the_kernel_has_the_default_actions() -> None:
    with default_actions(), prompt_actions():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.set_wakeup_fd(-1) == -1
