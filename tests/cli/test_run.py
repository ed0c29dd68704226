"""One process that serves: how it is told to end, and that it does."""

from __future__ import annotations

import functools
import logging
import math
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb import App, Limits
from trioweb._cli import run as _run, signals as _ending, survivors as _survivors
from trioweb._cli.options import Settings
from trioweb._cli.run import (
    adjusted_limits,
    report,
    run,
    run_worker,
    serve_options,
    serve_until_told,
    ssl_context,
)
from trioweb._cli.signals import EXIT_HARD, Order, Times, Watch, hard_exit
from trioweb._errors import CommandError
from trioweb.server import Server, ServerLimits, StartupFailed

from ..support.trioweb_process import ENDINGS, trioweb_process

# Seconds.  Only ends a wait that will never be answered.
TIMEOUT = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(ENDINGS)
    return tmp_path


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Those of this process, which hasn't ended where another would have.

    Each test begins with those of a program in a terminal, also under `nohup`.
    """
    numbers = (*_ending.STOP_SIGNALS, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process isn't ended, and modules that a test imports are forgotten afterwards."""
    # A watch keeps the limit beyond the end of what it watched.
    monkeypatch.setattr(_run, "hard_exit", lambda survivors: None)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


# --- Watch: signals and a supervisor are heard by a thread


class Watched:
    """What a watch has told, and whether it has given up."""

    def __init__(self, supervisor: socket.socket | None = None) -> None:
        self.told: queue.Queue[Order] = queue.Queue()
        self.given_up = threading.Event()
        self.roused = threading.Event()
        self.watch = Watch(
            self.told.put, self.given_up.set, rouse=self.roused.set, supervisor=supervisor
        )
        self.watch.times = Times(math.inf, math.inf)

    def next_order(self) -> Order:
        return self.told.get(timeout=TIMEOUT)


@pytest.fixture
def no_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal counts however soon it comes."""
    monkeypatch.setattr(_ending, "ECHO_TIME", 0.0)


@pytest.mark.usefixtures("no_echo")
def test_the_first_signal_drains_the_second_cancels_the_third_changes_nothing() -> None:
    watched = Watched()
    with watched.watch:
        signal.raise_signal(signal.SIGTERM)
        assert watched.next_order() is Order.DRAIN
        assert watched.roused.wait(TIMEOUT)
        signal.raise_signal(signal.SIGINT)
        assert watched.next_order() is Order.CANCEL
        signal.raise_signal(signal.SIGINT)
    watched.watch._thread.join(TIMEOUT)
    assert watched.told.empty()
    assert not watched.given_up.is_set()
    signal.raise_signal(signal.SIGTERM)  # a late one doesn't change how the process ends


def test_what_follows_at_once_is_an_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops a process and its group sends it two."""
    monkeypatch.setattr(_ending, "ECHO_TIME", TIMEOUT)
    watched = Watched()
    with watched.watch:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert watched.next_order() is Order.DRAIN
        watched.roused.clear()
        signal.raise_signal(signal.SIGINT)
        assert watched.roused.wait(TIMEOUT)
    watched.watch._thread.join(TIMEOUT)
    assert watched.told.empty()


def test_a_terminal_that_closes_is_a_stop_unless_nohup_says_otherwise() -> None:
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    watched = Watched()
    with watched.watch:
        signal.raise_signal(signal.SIGHUP)
        assert watched.next_order() is Order.DRAIN
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Watched().watch:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_without_an_order_signals_are_what_they_were() -> None:
    handlers = [signal.getsignal(number) for number in _ending.STOP_SIGNALS]
    with Watched().watch:
        pass
    assert [signal.getsignal(number) for number in _ending.STOP_SIGNALS] == handlers


def test_other_signals_are_passed_on() -> None:
    watched = Watched()
    heard = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.set())
    try:
        with watched.watch:
            signal.raise_signal(signal.SIGUSR1)
            assert watched.roused.wait(TIMEOUT)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard.is_set()
    assert watched.told.empty()


def test_signals_to_a_worker_only_drain_and_its_supervisor_cancels() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watched = Watched(theirs)
        with watched.watch:
            signal.raise_signal(signal.SIGINT)
            assert watched.next_order() is Order.DRAIN
            signal.raise_signal(signal.SIGINT)
            ours.send(_ending.CANCEL_BYTE)
            assert watched.next_order() is Order.CANCEL
            ours.close()  # says drain, which it is past
            watched.roused.clear()
            signal.raise_signal(signal.SIGINT)
            assert watched.roused.wait(TIMEOUT)
        watched.watch._thread.join(TIMEOUT)
        assert watched.told.empty()


@pytest.mark.parametrize("unread", [False, True])
def test_a_worker_whose_supervisor_is_gone_drains(unread: bool) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        watched = Watched(theirs)
        with watched.watch:
            if unread:
                theirs.send(b"ready")
            ours.close()
            assert watched.next_order() is Order.DRAIN


@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.usefixtures("no_echo")
def test_the_limit_counts_from_the_signal_and_beyond_the_block(
    signals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ending, "SLACK", 0.05)
    watched = Watched()
    watched.watch.times = Times(0.05 if signals == 1 else 1000.0, 0.05)
    begin = time.monotonic()
    with watched.watch:
        for _ in range(signals):
            signal.raise_signal(signal.SIGTERM)
            watched.next_order()
    assert watched.given_up.wait(TIMEOUT)
    assert time.monotonic() - begin >= (0.15 if signals == 1 else 0.1)


def test_the_limit_holds_within_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ending, "SLACK", 0.05)
    watched = Watched()
    watched.watch.times = Times(0, 0)
    with watched.watch:
        signal.raise_signal(signal.SIGTERM)
        assert watched.given_up.wait(TIMEOUT)


def test_a_hard_exit_has_last_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    hard_exit(lambda: ["task a of POST /", "b (b.py:1)"])
    hard_exit(list)
    assert statuses == [EXIT_HARD, EXIT_HARD]
    first, second = (record.getMessage() for record in caplog.records)
    assert first.endswith("still runs: task a of POST /; b (b.py:1)")
    assert second.endswith("still runs: nothing that has a name")


def test_a_hard_exit_waits_for_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: list[int] = []
    stuck = threading.Event()
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(_ending, "LAST_WORDS_TIME", 0.01)
    monkeypatch.setattr(_ending, "_last_words", lambda survivors: stuck.wait(TIMEOUT))
    hard_exit(list)
    assert statuses == [EXIT_HARD]
    stuck.set()


# --- Survivors


async def test_who_still_runs_is_named_with_the_authors_line() -> None:
    async def author() -> None:
        await trio.sleep_forever()

    release = threading.Event()
    thread = threading.Thread(target=lambda: release.wait(TIMEOUT), name="mine")
    thread.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(author)
        await wait_all_tasks_blocked()
        named = await trio.to_thread.run_sync(
            _survivors.survivors, None, trio.lowlevel.current_root_task()
        )
        nursery.cancel_scope.cancel()
    release.set()
    thread.join()
    assert any("<locals>.author (" in name and __file__ in name for name in named)
    assert any(name.startswith("thread mine: ") and __file__ in name for name in named)


async def test_tasks_are_named_by_their_request_and_only_some_of_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Task:
        name = "send_mail"
        request = "POST /"

    app = App()
    monkeypatch.setattr(app, "tasks", lambda: [Task()] * 25)
    named = _survivors.survivors(app, None)
    assert named[:20] == ["task send_mail of POST /"] * 20
    assert named[20].startswith("and ")


# --- What is settled before it listens


def settings(**given: Any) -> Settings:
    return Settings(**{"limits": {}, **given})


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that knows nothing, lifespans least of all."""
    raise NotImplementedError


def test_limits_that_are_given_go_before_the_apps() -> None:
    app = App(limits=Limits(max_body_size=7, max_requests=8))
    limits = adjusted_limits(app, {"max_body_size": 9})
    assert limits == app.limits == Limits(max_body_size=9, max_requests=8)


def test_limits_of_other_apps() -> None:
    assert adjusted_limits(bare, {"max_requests": 9}) == ServerLimits(max_requests=9)

    class Wrapper:
        limits = ServerLimits(max_fields=5)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    assert adjusted_limits(Wrapper(), {"max_requests": 9}) == ServerLimits(
        max_requests=9, max_fields=5
    )
    with pytest.raises(CommandError, match=r"^--limit-max-body-size is kept by a trioweb\.App"):
        adjusted_limits(bare, {"max_body_size": 9})


def test_what_isnt_given_is_for_the_app_to_say() -> None:
    assert adjusted_limits(bare, {}) is None


def test_an_app_of_ours_is_adjusted() -> None:
    app = App()
    serve_options(app, settings(debug=True, cleanup_timeout=7.0), [])
    assert app.debug
    assert app._cleanup_timeout == 7.0
    kept = App(debug=True, cleanup_timeout=3.0)
    serve_options(kept, settings(), [])
    assert kept.debug
    assert kept._cleanup_timeout == 3.0


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing of the kind")
    with pytest.raises(CommandError, match=r"can't be used.*\n +wrong:  \S*cert\.pem\n"):
        ssl_context(settings(ssl_certfile=str(tmp_path / "cert.pem")))


def test_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(
        ssl.SSLContext, "load_cert_chain", lambda self, cert, key: loaded.append((cert, key))
    )
    context = ssl_context(settings(ssl_certfile="cert.pem", ssl_keyfile="key.pem"))
    assert isinstance(context, ssl.SSLContext)
    assert loaded == [("cert.pem", "key.pem")]
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_what_went_wrong_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    group = ExceptionGroup(
        "", [StartupFailed("no database"), OSError(98, "can't listen on x"), KeyError("ours")]
    )
    assert report(group) == 1
    started, listened, ours = caplog.records
    assert started.getMessage() == "the app failed to start: no database"
    assert listened.getMessage() == "can't listen on x"
    assert ours.levelno == logging.CRITICAL
    assert ours.exc_info is not None


# --- Orders are obeyed


@contextmanager
def _bound() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


class Served:
    """`serve_until_told` in a task: `server` once it listens, `orders` to send."""

    def __init__(self, app: Any) -> None:
        self.orders, self._orders = trio.open_memory_channel[Order](math.inf)
        self.announced = trio.Event()
        self.server: Server | None = None
        self._app = app

    async def run(self) -> None:
        with _bound() as listener:
            options = serve_options(self._app, settings(), [listener.detach()])
            await serve_until_told(self._app, options, self._orders, self._announce)

    def _announce(self, server: Server) -> None:
        self.server = server
        self.announced.set()


async def test_drain_then_cancel(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = App(cleanup_timeout=1.0)
    began, ended = trio.Event(), trio.Event()

    @app.get("/")
    async def slow() -> None:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    served = Served(app)
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.run)
            await served.announced.wait()
            assert served.server is not None
            port = int(served.server.urls[0].rpartition(":")[2])
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await began.wait()
            await served.orders.send(Order.DRAIN)
            await app.draining.wait()
            await wait_all_tasks_blocked()
            assert not ended.is_set()
            await served.orders.send(Order.CANCEL)
            await ended.wait()
        await stream.aclose()
    messages = [record.getMessage() for record in caplog.records]
    assert any(message.startswith("draining: ") for message in messages)
    assert "cancelling what is still in flight" in messages


async def test_before_the_app_has_started_there_is_nothing_to_drain() -> None:
    starting, closed = trio.Event(), trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        starting.set()
        try:
            await trio.sleep_forever()
        finally:
            closed.set()

    served = Served(app)
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.run)
            await starting.wait()
            await served.orders.send(Order.DRAIN)
    assert closed.is_set()
    assert not served.announced.is_set()


async def test_how_long_an_end_may_take_is_the_apps_to_say_or_else_what_was_given() -> None:
    for app, expected in [
        (bare, Times(20.0, 7.0)),
        (App(drain_timeout=3.0, cleanup_timeout=2.0), Times(3.0, 2.0)),
    ]:
        served = Served(app)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.run)
            await served.announced.wait()
            assert served.server is not None
            assert _run.times_to_end(served.server, settings(cleanup_timeout=7.0)) == expected
            await served.orders.send(Order.CANCEL)
    assert _run.times_to_start(settings()) == Times(0.0, 5.0)
    assert _run.times_to_start(settings(cleanup_timeout=7.0)) == Times(0.0, 7.0)


# --- In this process, with real signals


class OnRecord(logging.Handler):
    """Does something when a record comes whose text holds this."""

    def __init__(self, text: str, do: Callable[[], object]) -> None:
        super().__init__()
        self._text = text
        self._do = do

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self._do()


@contextmanager
def on_record(text: str, do: Callable[[], object]) -> Iterator[None]:
    handler = OnRecord(text, do)
    logger = logging.getLogger("trioweb")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@pytest.mark.usefixtures("in_process")
def test_run_returns_when_it_was_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run_in_process.py").write_text("import trioweb\napp = trioweb.App()")
    with on_record("press Ctrl-C", functools.partial(os.kill, os.getpid(), signal.SIGINT)):
        assert run(settings(app="run_in_process", port=0)) == 0
    assert caplog.records[-1].getMessage() == "stopped"


@pytest.mark.usefixtures("in_process")
def test_run_fails_when_the_app_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing_in_process.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    with _bound() as listener:
        fd = listener.detach()
        assert run(settings(app="failing_in_process:app", fd=fd)) == 1
    assert caplog.records[-1].getMessage() == "the app failed to start: no database"


@pytest.mark.usefixtures("in_process")
def test_a_worker_says_when_it_is_ready_and_drains_when_its_supervisor_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worker_in_process.py").write_text(
        "import trioweb\napp = trioweb.App(drain_timeout=2.5, cleanup_timeout=1.5)"
    )
    ours, theirs = socket.socketpair()
    told: queue.Queue[bytes] = queue.Queue()

    def supervise() -> None:
        with ours:
            told.put(ours.recv(100))

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    with _bound() as listener:
        descriptors = [theirs.detach(), listener.detach()]
        assert run_worker(settings(app="worker_in_process", uds="bound"), descriptors) == 0
    supervisor.join()
    assert not (tmp_path / "bound").exists()  # that is for the supervisor
    assert Times.from_bytes(told.get()) == Times(2.5, 1.5)
    signal.raise_signal(signal.SIGHUP)  # is for the supervisor


def test_orders_after_the_end_are_nobodys() -> None:
    async def get() -> Any:
        return _run._order_channel()

    _, tell, rouse = trio.run(get)
    tell(Order.DRAIN)
    rouse()


def test_status_of_passes_on_what_is_the_commands_fault() -> None:
    async def fail() -> int:
        raise CommandError("typed wrong")

    with pytest.raises(CommandError):
        _run.status_of(fail)


# --- Real processes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains(folder: Path, number: signal.Signals) -> None:
    with trioweb_process("run", "--port", "0", cwd=folder) as server:
        server.ask("POST", "/task/short")
        server.wait_for_line("event short began")
        server.send_signal(number)
        assert server.wait() == 0
        assert "event short ended" in server.log
        assert "event lifespan closed" in server.log
        assert "Traceback" not in server.log
        assert server.log.rstrip().endswith("trioweb.run: stopped")


# A drain that would outlast the waiting for its end: so who ends has been cancelled.
DRAINING_FOR_LONG = ("--drain-timeout", "1000")


def test_a_second_signal_cancels(folder: Path) -> None:
    with trioweb_process("run", "--port", "0", *DRAINING_FOR_LONG, cwd=folder) as server:
        server.ask("POST", "/task/endless")
        server.wait_for_line("event endless began")
        server.send_signal(signal.SIGINT)
        server.wait_for_line("draining")
        time.sleep(_ending.ECHO_TIME)  # a person takes longer
        server.send_signal(signal.SIGINT)
        assert server.wait() == 0
        assert "event endless cleaned up" in server.log
        assert "Traceback" not in server.log


# Python takes its modules apart after it has put its signal handlers away.
LATE_SIGNAL = """
import sys

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), write=os.write):
        write(1, b"event late signal\\n")
        kill(pid, 15)

sys.late = Late()
"""


def test_a_signal_that_comes_while_python_ends_changes_nothing(folder: Path) -> None:
    (folder / "late.py").write_text(ENDINGS + LATE_SIGNAL)
    with trioweb_process("run", "late:app", "--port", "0", cwd=folder) as server:
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "event late signal" in server.log


SHORT = ("--drain-timeout", "0.1", "--cleanup-timeout", "0.1")
# With these, and with the times of the app itself, which are 10 and 5.
SHORT_END, LONG_END = 1.2, 16.0  # seconds

# The last words have their time on a busy machine, too: only a log that is stuck takes it all.
PATIENT = """
from trioweb._cli import signals as _ending
_ending.LAST_WORDS_TIME = 10.0
"""


@pytest.mark.parametrize(
    ("target", "line", "named"),
    [
        ("/task/stubborn", "event stubborn began", "task stubborn of POST /task/{name}"),
        ("/block", "event blocked", "thread MainThread: block ("),
    ],
)
def test_what_does_not_end_is_named_and_ends_with_the_process(
    folder: Path, target: str, line: str, named: str
) -> None:
    (folder / "main.py").write_text(ENDINGS + PATIENT)
    with trioweb_process("run", "--port", "0", *SHORT, cwd=folder) as server:
        with closing(server.connect()) as connection:
            connection.request("POST", target)
            server.wait_for_line(line)
            begin = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert server.wait() == EXIT_HARD
        assert SHORT_END <= time.monotonic() - begin < LONG_END
        last = server.wait_for_line("exiting hard")
        assert named.partition("{")[0] in last


def test_a_thread_that_the_app_forgot_ends_with_the_process(folder: Path) -> None:
    with trioweb_process("run", "--port", "0", *SHORT, cwd=folder) as server:
        server.ask("POST", "/thread")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == EXIT_HARD
        assert "trioweb.run: stopped" in server.log


def test_a_signal_while_the_app_starts(folder: Path) -> None:
    (folder / "slow.py").write_text(ENDINGS.replace("STARTS = True", "STARTS = False"))
    with trioweb_process("run", "slow:app", "--port", "0", cwd=folder, wait=False) as server:
        server.wait_for_line("event starting")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "before the app has started" in server.log
        assert "Traceback" not in server.log


def test_ctrl_c_while_the_app_is_imported(folder: Path) -> None:
    # In short pieces: Python misses a signal that comes just before it begins to sleep.
    (folder / "slow.py").write_text(
        "import time\nprint('event', flush=True)\nwhile True:\n    time.sleep(0.01)"
    )
    with trioweb_process("run", "slow:app", cwd=folder, wait=False) as server:
        server.wait_for_line("event")
        server.send_signal(signal.SIGINT)
        assert server.wait() == 130
        assert "Traceback" not in server.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_busy_port_is_told_once(folder: Path, workers: str) -> None:
    with _bound() as listener:
        port = str(listener.getsockname()[1])
        with trioweb_process(
            "run", "--port", port, "--workers", workers, cwd=folder, wait=False
        ) as server:
            assert server.wait() == 1
            assert server.log.count("somebody listens there already") == 1
            assert "Traceback" not in server.log


def test_an_inherited_socket_a_unix_socket_and_json_logs(folder: Path) -> None:
    (folder / "log.json").write_text(
        '{"handlers": {"h": {"class": "logging.StreamHandler"}},'
        ' "root": {"level": "INFO", "handlers": ["h"]}}'
    )
    options = ("--uds", "app.sock", "--log-config", "log.json", "--no-access-log")
    with (
        _bound() as listener,
        trioweb_process(
            "run", "--fd", str(listener.fileno()), *options, cwd=folder, sockets=[listener]
        ) as server,
    ):
        assert server.log.startswith("listening on http://127.0.0.1:")
        assert server.ask("GET", "/")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "app.sock"))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.stop() == 0
        assert "GET" not in server.log
    assert not (folder / "app.sock").exists()


_MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem"
    " -out cert.pem -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
)


def test_tls(folder: Path) -> None:
    subprocess.run(
        _MAKE_CERTIFICATE.split(),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    files = ("--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem")
    with trioweb_process("run", "--port", "0", *files, cwd=folder, wait=False) as server:
        port = int(server.wait_for_line("https://").rpartition(":")[2])
        context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        with (
            socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
        ):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.stop() == 0
