"""`trioweb run` where it is deployed: containers, releases, children, low limits, odd folders."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from ..support.trioweb_process import ENDINGS, PATIENT, TriowebProcess, trioweb_process

pytestmark = [pytest.mark.slow, pytest.mark.processes]

EachWay = pytest.mark.parametrize(
    "arguments", [("run",), ("run", "--workers", "2"), ("dev",)], ids=["run", "workers", "dev"]
)

# As the script `trioweb` does it, which has no folder of the user's on its path.
SCRIPT = ("-P", "-m", "trioweb")

# Children.

FORKING = """
import multiprocessing, time

@app.get("/children")
def children() -> list[int | None]:
    fork = multiprocessing.get_context("fork")
    codes = []
    for _ in range(5):
        child = fork.Process(target=time.sleep, args=(1000,))
        child.start()
        child.terminate()
        child.join()
        codes.append(child.exitcode)
    with fork.Pool(2) as pool:
        codes += pool.map(abs, [-1, -2])
    return codes
"""


@EachWay
def test_a_child_that_is_ended_doesnt_end_its_parent(
    endings: Path, arguments: tuple[str, ...]
) -> None:
    (endings / "main.py").write_text(ENDINGS + FORKING)
    with trioweb_process(*arguments, "main:app", "--port", "0", cwd=endings) as server:
        assert server.ask("GET", "/children") == "[-15,-15,-15,-15,-15,1,2]"
        assert server.ask("GET", "/")
        assert "draining" not in server.log
        assert server.stop() == 0


# The first process of a container.

# SIGTERM is what stops a container; here to all of its processes.
_UNSHARE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


def can_unshare() -> bool:
    try:
        return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:  # pragma: no cover - not Linux
        return False


FIRST_PROCESS = f"""
import os, sys
os.execvp("unshare", [*{_UNSHARE}, sys.executable, "-m", "trioweb", *sys.argv[1:]])
"""

# A library may wait in C, where Python's handlers don't run.
IMPORTED_SLOWLY = """
import ctypes, os
os.write(1, b"event importing in process %d\\n" % os.getpid())
for _ in range(1000):
    ctypes.CDLL(None).sleep(1000)
"""


@pytest.mark.skipif(not can_unshare(), reason="no container may be made here")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_process_of_a_container_ends_while_the_app_is_imported(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    slow = "import time\nwhile True:\n    time.sleep(0.01)"  # Python's handler runs here
    importing = IMPORTED_SLOWLY.partition("for")[0] + slow
    (tmp_path / "main.py").write_text(importing if number == signal.SIGINT else IMPORTED_SLOWLY)
    with trioweb_process("run", cwd=tmp_path, wait=False, program=("-c", FIRST_PROCESS)) as server:
        server.wait_for_line("event importing in process 1")
        server.send_group_signal(number)
        assert server.wait() == status
        assert "Traceback" not in server.log


@pytest.mark.skipif(not can_unshare(), reason="no container may be made here")
@EachWay
def test_the_first_process_of_a_container_drains(endings: Path, arguments: tuple[str, ...]) -> None:
    with trioweb_process(
        *arguments, "main:app", "--port", "0", cwd=endings, program=("-c", FIRST_PROCESS)
    ) as server:
        server.ask("POST", "/task/short")
        server.wait_for_line("event short began")
        server.send_group_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "event short ended" in server.log


# A start that waits.

STARTS_IN_A_THREAD = """
def wait_for_database():
    record("starting")
    open("database").close()  # a pipe that somebody is to write to

@asynccontextmanager
async def starting(app):
    try:
        await trio.to_thread.run_sync(wait_for_database)
        yield
    finally:
        record("closed")

app = App(lifespan=starting, cleanup_timeout=30)
"""


def test_a_signal_while_the_start_waits_in_a_thread(endings: Path) -> None:
    (endings / "main.py").write_text(ENDINGS + STARTS_IN_A_THREAD)
    os.mkfifo(endings / "database")
    with trioweb_process("run", "main:app", "--port", "0", cwd=endings, wait=False) as server:
        server.wait_for_line("event starting")
        server.send_signal(signal.SIGTERM)
        server.wait_for_line("told to stop before the app has started")
        with open(endings / "database", "w"):
            assert server.wait() == 0
        assert "event closed" in server.log
        assert "listening" not in server.log


def test_a_start_that_waits_for_ever_is_named_and_ends_with_the_process(endings: Path) -> None:
    (endings / "main.py").write_text(ENDINGS + STARTS_IN_A_THREAD + PATIENT)
    os.mkfifo(endings / "database")
    with trioweb_process(
        "run", "main:app", "--port", "0", "--cleanup-timeout", "0.1", cwd=endings, wait=False
    ) as server:
        server.wait_for_line("event starting")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 3
        assert "wait_for_database (" in server.wait_for_line("exiting hard")


# Folders.


def release(folder: Path, version: int) -> None:
    folder.mkdir()
    (folder / "main.py").write_text(ENDINGS.replace("VERSION = 1", f"VERSION = {version}"))


def test_sighup_serves_the_release_to_which_a_link_leads_now(tmp_path: Path) -> None:
    release(tmp_path / "one", 1)
    release(tmp_path / "two", 2)
    current = tmp_path / "current"
    current.symlink_to("one")
    with trioweb_process(
        "run", "--port", "0", "--workers", "2", cwd=current, env={"PWD": str(current)}
    ) as server:
        old = server.wait_for_workers(2)
        assert server.ask("GET", "/").endswith(",1]")
        switch(current, "two")
        renew(server, old)
        assert server.ask("GET", "/").endswith(",2]")
        current.unlink()
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("a worker can't be started: ")
        assert server.ask("GET", "/").endswith(",2]")
        assert server.stop() == 0


def switch(link: Path, target: str) -> None:
    new = link.with_name("new")
    new.symlink_to(target)
    new.rename(link)


def renew(server: TriowebProcess, old: list[int]) -> None:
    server.send_signal(signal.SIGHUP)
    server.wait_for_workers(2 * len(old))
    for pid in old:
        server.wait_for_line(f"event lifespan closed {pid}")


@EachWay
def test_modules_beside_the_app_are_not_taken_for_pythons_own(
    endings: Path, arguments: tuple[str, ...]
) -> None:
    for name in ("queue", "types", "email", "random", "selectors", "signal", "socket", "logging"):
        (endings / f"{name}.py").write_text(f"raise ImportError('{name}.py is the app\\'s')")
    (endings / "profile.py").write_text("NAME = 'of the app'")
    (endings / "main.py").write_text(
        ENDINGS + "import queue, profile\nqueue.SimpleQueue\nrecord(profile.NAME)\n"
    )
    with trioweb_process(
        *arguments, "main:app", "--port", "0", cwd=endings, program=SCRIPT
    ) as server:
        assert server.ask("GET", "/")
        server.wait_for_line("event of the app")
        assert server.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take away its own right to write")
def test_a_socket_in_a_folder_that_became_read_only_holds_up_no_drain(
    endings: Path, workers: str
) -> None:
    folder = endings / "run"
    folder.mkdir(mode=0o777)
    os.chmod(endings, 0o755)
    with trioweb_process(
        "run",
        "--uds",
        str(folder / "app.sock"),
        "--workers",
        workers,
        cwd=endings,
        wait=False,
        program=("-c", UNPRIVILEGED),
    ) as server:
        server.wait_for_lines("trioweb.server: listening on ", int(workers))
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(folder / "app.sock"))
            client.sendall(b"POST /task/short HTTP/1.0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        server.wait_for_line("event short began")
        folder.chmod(0o555)
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "event short ended" in server.log
        assert server.log.count("app.sock can't be removed") == 1


# Root may write everywhere, but for this: without its right to pass over permissions.
UNPRIVILEGED = """
import ctypes, os, sys
CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24
assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) == 0
assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, 2, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-m", "trioweb", *sys.argv[1:]])
"""


# Files.

LOW_LIMIT = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
os.execv(sys.executable, [sys.executable, "-m", "trioweb", *sys.argv[1:]])
"""


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_burst_right_after_the_start_waits_for_files(endings: Path, http: str) -> None:
    with (
        trioweb_process(
            "run", "--port", "0", "--http", http, cwd=endings, program=("-c", LOW_LIMIT)
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for _ in range(200)
        ]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients:
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            client.close()
        assert server.log.count("can't accept connections for a while") >= 1
        assert server.ask("GET", "/")
        assert server.stop() == 0
        assert "Traceback" not in server.log
