"""The command line never changes the user's app, and yet its options count while it is served."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import signal
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest
import trio

from trioweb import App
from trioweb._cli.main import main
from trioweb._cli.signals import Times
from trioweb.server import ServerConfig, serve_config
from trioweb.server._peers import WorkerTable

from ..support.log_records import on_record
from ..support.processes import HOST

# Middleware hides from the command line that there is an App.
MAIN = """
import trioweb

limits = trioweb.Limits(max_body_size=1000, max_fields=50)
app = trioweb.App(limits=limits, drain_timeout=9, cleanup_timeout=8)

@app.post("/")
async def take(body: dict[str, str]):
    return "taken"

@app.get("/")
async def fail():
    return 1 / 0

async def middleware(scope, receive, send):
    await app(scope, receive, send)

async def stranger(scope, receive, send):
    raise NotImplementedError
"""

OPTIONS = ("--limit-max-body-size", "10", "--limit-max-fields", "5", "--cleanup-timeout", "0.5")


class Client(threading.Thread):
    """Asks what the options decide, then ends the server by a signal to this process."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.long_body = 0  # the status
        self.many_fields = 0  # the status
        self.page = ""
        self._port = port

    def run(self) -> None:
        try:
            self.ask_all()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def ask_all(self) -> None:
        self.long_body, _ = self._ask("POST", {}, json.dumps({"a": "b" * 20}))
        self.many_fields, _ = self._ask("GET", {f"x-{i}": "y" for i in range(10)})
        _, self.page = self._ask("GET", {"accept": "text/html"})

    def _ask(self, method: str, fields: dict[str, str], body: str = "") -> tuple[int, str]:
        with closing(http.client.HTTPConnection(HOST, self._port, timeout=20)) as connection:
            connection.request(
                method, "/", body or None, {"content-type": "application/json"} | fields
            )
            response = connection.getresponse()
            return response.status, response.read().decode()


def run_in_process(command: str, app: str, *options: str) -> Client:
    """Run it here, on a port of its own, until the client has ended it."""
    with socket.create_server((HOST, 0)) as listener:
        client = Client(listener.getsockname()[1])
        arguments = [command, app, "--fd", str(listener.detach()), *options]
        with on_record("press Ctrl-C", client.start):
            assert main(arguments, {}) == 0
    client.join()
    return client


@pytest.fixture
def app(folder: Path) -> App:
    """The app, as it is before it is served."""
    (folder / "main.py").write_text(MAIN)
    app: App = importlib.import_module("main").app
    return app


def own(app: App) -> dict[str, object]:
    """What is the author's to set."""
    return {name: value for name, value in vars(app).items() if name[:1] != "_"} | {
        "limits": app.limits,
        "debug": app.debug,
    }


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["app", "middleware"])
@pytest.mark.parametrize("command", ["run", "dev --no-reload"])
def test_options_count_and_the_app_stays_what_it_was(command: str, name: str, app: App) -> None:
    before = own(app)
    assert {"debug", "limits", "state"} <= before.keys()
    word, *switches = command.split()
    client = run_in_process(word, f"main:{name}", *switches, *OPTIONS)
    assert (client.long_body, client.many_fields) == (413, 431)
    assert ("ZeroDivisionError" in client.page) is (word == "dev")
    after = own(app)
    assert after.keys() == before.keys()
    assert all(after[name] is value for name, value in before.items())
    trio.run(check_that_its_own_settings_count, app)


async def check_that_its_own_settings_count(app: App) -> None:
    """What can't be seen of it from outside shows when another server serves it."""
    with socket.create_server((HOST, 0)) as listener:
        client = Client(listener.getsockname()[1])
        config = ServerConfig(sockets=[listener.detach()])
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_config, app, config)
            assert (server.drain_timeout, server.cleanup_timeout) == (9, 8)
            await trio.to_thread.run_sync(client.ask_all)
            server.cancel()
    assert (client.long_body, client.many_fields) == (200, 500)
    assert "ZeroDivisionError" not in client.page


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["app", "middleware"])
def test_times_count_and_the_app_keeps_its_own(name: str, app: App) -> None:
    """A worker tells its supervisor how long its end may take."""
    ours, theirs = socket.socketpair()
    told: list[Times] = []
    with socket.create_server((HOST, 0)) as listener, ours:
        table = WorkerTable.create(1)
        row = f"0,{theirs.detach()},{os.dup(table.file.fileno())}"
        table.file.close()
        descriptors = f"--worker={row},{listener.detach()}"
        supervisor = threading.Thread(target=hear_and_leave, args=(ours, told))
        supervisor.start()
        times = ("--drain-timeout", "2", "--cleanup-timeout", "0.5")
        assert main(["run", f"main:{name}", descriptors, *times], {}) == 0
    supervisor.join()
    assert told == [Times(2, 0.5, 10)]
    trio.run(check_that_its_own_settings_count, app)


def hear_and_leave(supervisor: socket.socket, told: list[Times]) -> None:
    with supervisor:
        told.append(Times.from_bytes(supervisor.recv(100)))


@pytest.mark.usefixtures("in_process", "app")
def test_a_limit_that_only_an_app_of_ours_keeps_is_refused_for_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments = ["run", "main:stranger", "--port", "0", "--limit-max-body-size", "10"]
    assert main(arguments, {}) == 1
    assert caplog.records[-1].getMessage() == (
        "the app failed to start: only a trioweb.App keeps max_body_size, and this is another kind"
        " of app"
    )


@pytest.mark.usefixtures("in_process", "app")
def test_a_limit_of_the_servers_counts_for_any_app() -> None:
    client = run_in_process("run", "main:stranger", "--limit-max-fields", "5")
    assert client.many_fields == 431
