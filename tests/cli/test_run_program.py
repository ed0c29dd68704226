"""`trioweb run` as a program: how it is told to end, and that it does."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from trioweb._cli.signals import ECHO_TIME
from trioweb._cli.statuses import EXIT_HARD

from ..support.processes import HOST
from ..support.trioweb_process import DRAINING_FOR_LONG, ENDINGS, PATIENT, trioweb_process

pytestmark = [pytest.mark.slow, pytest.mark.processes]

# Seconds.  Only ends a wait that will never be answered.
TIMEOUT = 20.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains(endings: Path, number: signal.Signals) -> None:
    with trioweb_process("run", "--port", "0", cwd=endings) as server:
        server.ask("POST", "/task/short")
        server.wait_for_line("event short began")
        server.send_signal(number)
        assert server.wait() == 0
        assert "event short ended" in server.log
        assert "event lifespan closed" in server.log
        assert "Traceback" not in server.log
        assert server.log.rstrip().endswith("trioweb.run: stopped")


def test_a_second_signal_cancels_and_the_lifespan_closes_in_order(endings: Path) -> None:
    with trioweb_process("run", "--port", "0", *DRAINING_FOR_LONG, cwd=endings) as server:
        server.ask("POST", "/task/endless")
        server.wait_for_line("event endless began")
        server.send_signal(signal.SIGINT)
        server.wait_for_line("draining")
        time.sleep(ECHO_TIME)  # a person takes longer
        server.send_signal(signal.SIGINT)
        assert server.wait() == 0
        before, _, after = server.log.partition("event endless cleaned up")
        assert "event lifespan closed" not in before
        assert "event lifespan closed" in after
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


def test_a_signal_that_comes_while_python_ends_changes_nothing(endings: Path) -> None:
    (endings / "late.py").write_text(ENDINGS + LATE_SIGNAL)
    with trioweb_process("run", "late:app", "--port", "0", cwd=endings) as server:
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "event late signal" in server.log


SHORT = ("--drain-timeout", "0.1", "--cleanup-timeout", "0.1")
# With these, and with the times of the app itself, which are 10 and 5.
SHORT_END, LONG_END = 1.2, 16.0  # seconds


@pytest.mark.parametrize(
    ("target", "line", "named"),
    [
        ("/task/stubborn", "event stubborn began", "task stubborn of POST /task/{name}"),
        ("/block", "event blocked", "thread MainThread: block ("),
    ],
)
def test_what_does_not_end_is_named_and_ends_with_the_process(
    endings: Path, target: str, line: str, named: str
) -> None:
    (endings / "main.py").write_text(ENDINGS + PATIENT)
    with trioweb_process("run", "--port", "0", *SHORT, cwd=endings) as server:
        with closing(server.connect()) as connection:
            connection.request("POST", target)
            server.wait_for_line(line)
            begin = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert server.wait() == EXIT_HARD
        assert SHORT_END <= time.monotonic() - begin < LONG_END
        last = server.wait_for_line("exiting hard")
        assert named.partition("{")[0] in last


def test_a_thread_that_the_app_forgot_ends_with_the_process(endings: Path) -> None:
    with trioweb_process("run", "--port", "0", *SHORT, cwd=endings) as server:
        server.ask("POST", "/thread")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == EXIT_HARD
        assert "trioweb.run: stopped" in server.log


def test_a_signal_while_the_app_starts(endings: Path) -> None:
    (endings / "slow.py").write_text(ENDINGS.replace("STARTS = True", "STARTS = False"))
    with trioweb_process("run", "slow:app", "--port", "0", cwd=endings, wait=False) as server:
        server.wait_for_line("event starting")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "before the app has started" in server.log
        assert "Traceback" not in server.log


def test_ctrl_c_while_the_app_is_imported(endings: Path) -> None:
    # In short pieces: Python misses a signal that comes just before it begins to sleep.
    (endings / "slow.py").write_text(
        "import time\nprint('event', flush=True)\nwhile True:\n    time.sleep(0.01)"
    )
    with trioweb_process("run", "slow:app", cwd=endings, wait=False) as server:
        server.wait_for_line("event")
        server.send_signal(signal.SIGINT)
        assert server.wait() == 130
        assert "Traceback" not in server.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_busy_port_is_told_once(endings: Path, workers: str) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = str(listener.getsockname()[1])
        with trioweb_process(
            "run", "--port", port, "--workers", workers, cwd=endings, wait=False
        ) as server:
            assert server.wait() == 1
            assert server.log.count("somebody listens there already") == 1
            assert "Traceback" not in server.log


def test_an_inherited_socket_a_unix_socket_and_json_logs(endings: Path) -> None:
    (endings / "log.json").write_text(
        '{"handlers": {"h": {"class": "logging.StreamHandler"}},'
        ' "root": {"level": "INFO", "handlers": ["h"]}}'
    )
    options = ("--uds", "app.sock", "--log-config", "log.json", "--no-access-log")
    with (
        socket.create_server((HOST, 0)) as listener,
        trioweb_process(
            "run", "--fd", str(listener.fileno()), *options, cwd=endings, sockets=[listener]
        ) as server,
    ):
        assert server.log.startswith("listening on http://127.0.0.1:")
        assert server.ask("GET", "/")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(endings / "app.sock"))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.stop() == 0
        assert "GET" not in server.log
    assert not (endings / "app.sock").exists()


_MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem"
    " -out cert.pem -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
)


def test_tls(endings: Path) -> None:
    subprocess.run(
        _MAKE_CERTIFICATE.split(),
        cwd=endings,
        check=True,
        capture_output=True,
    )
    files = ("--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem")
    with trioweb_process("run", "--port", "0", *files, cwd=endings, wait=False) as server:
        port = int(server.wait_for_line("https://").rpartition(":")[2])
        context = ssl.create_default_context(cafile=str(endings / "cert.pem"))
        with (
            socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
        ):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.stop() == 0
