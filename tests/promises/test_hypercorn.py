"""What trioweb promises of tasks, lifetimes and the wire, kept under a real Hypercorn.

Rules of this module:

* Real sockets to a real process; the apps stand in `apps/`.
* An app prints what happens in it.  Those lines and the log's come through one pipe, so their order
  is the order of things; tests wait for a line and never for time.
* What lasts waits at a gate that the test opens, with a request.
* Hypercorn's exit code is 0 even when its only worker failed, so a clean end is one that left no
  traceback in the log, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import itertools
import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from ..support.hypercorn_process import hypercorn_process, hypercorn_refusal
from ..support.processes import HOST, LINE_TIMEOUT, ServerProcess
from ..support.server_clients import RESET

pytestmark = [pytest.mark.slow, pytest.mark.processes]

APPS = Path(__file__).parents[1] / "support" / "apps"
MIB = 1024 * 1024
# For an end that takes a second where the machine has nothing else to do; by default it would
# drain for longer than that, and clean up for as long again.
SOON = 15.0  # seconds

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with hypercorn_process("promises:app", cwd=APPS) as running:
        yield running


@pytest.fixture(scope="module")
def patient_server() -> Iterator[ServerProcess]:
    """Another one, that reads a body away however long its client takes."""
    env = {"LINGER_TIME": str(LINE_TIMEOUT)}
    with hypercorn_process("promises:app", cwd=APPS, env=env) as running:
        yield running


@pytest.fixture
def key() -> str:
    """What names this test's events and its gate."""
    return f"key{next(_numbers)}"


def events(server: ServerProcess, key: str) -> list[str]:
    """What was recorded under `key`, in the order in which it happened."""
    lines = server.log.splitlines()
    return [
        line.removeprefix(f"event {key} ") for line in lines if line.startswith(f"event {key} ")
    ]


def wait_for(server: ServerProcess, key: str, what: str) -> None:
    server.wait_for_line(f"event {key} {what}\n")


@contextlib.contextmanager
def connected(server: ServerProcess) -> Iterator[http.client.HTTPConnection]:
    """One connection; that it stays the same one is checked at the end."""
    with contextlib.closing(server.connect()) as connection:
        connection.connect()
        first = connection.sock
        yield connection
        assert connection.sock in (first, None)


def ask(
    connection: http.client.HTTPConnection, method: str, target: str, body: bytes | None = None
) -> tuple[int, bytes]:
    assert connection.sock is not None, "the server closed the connection"
    connection.request(method, target, body)
    with connection.getresponse() as response:
        return response.status, response.read()


def once(server: ServerProcess, method: str, target: str) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    with connected(server) as connection:
        return ask(connection, method, target)


def open_gate(server: ServerProcess, key: str) -> None:
    assert once(server, "POST", f"/open/{key}")[0] == 200


@contextlib.contextmanager
def raw_socket(server: ServerProcess) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, server.port), LINE_TIMEOUT) as client:
        yield client


def send_head(client: socket.socket, request_line: str, *fields: str) -> None:
    client.sendall("\r\n".join([f"{request_line} HTTP/1.1", "Host: x", *fields, "", ""]).encode())


def read_response(client: socket.socket, method: str = "GET") -> http.client.HTTPResponse:
    """The head of a response; its body is still to be read."""
    response = http.client.HTTPResponse(client, method=method)
    response.begin()
    return response


def read_to_end(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def reset(client: socket.socket) -> None:
    """Close with a reset, as a client does whose process was killed or whose network went."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def ended_cleanly(server: ServerProcess) -> bool:
    return server.wait() == 0 and "Traceback" not in server.log


# The response, then the task


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("injected", (200, b'"ab"')),
        ("returned", (200, b'"ab"')),
        ("streamed", (200, b"ab")),
        ("raised", (418, b'"odd"')),
    ],
)
def test_the_response_is_complete_before_the_task_starts(
    server: ServerProcess, key: str, tmp_path: Path, kind: str, answer: tuple[int, bytes]
) -> None:
    target = f"/blocking/{kind}/{key}?path={quote(str(tmp_path / 'lock'))}"
    with connected(server) as connection, (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # As long as we hold the lock, the task stops the whole event loop: what isn't sent when it
        # starts won't be.
        assert ask(connection, "POST", target) == answer
    wait_for(server, key, "held the server")


def test_no_task_starts_while_the_client_has_not_taken_the_response(
    server: ServerProcess, key: str
) -> None:
    with raw_socket(server) as client:
        send_head(client, f"GET /big/{key}")
        response = read_response(client)  # its body is more than the system's buffers hold
        once(server, "GET", f"/mark/{key}/client%20reads")
        assert len(response.read()) == 32 * MIB
        wait_for(server, key, "started")
    open_gate(server, key)
    wait_for(server, key, "ended")
    assert events(server, key) == ["client reads", "started", "gate opened", "ended"]


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_the_next_request_on_the_connection_is_answered_while_a_task_runs(
    server: ServerProcess, key: str, kind: str
) -> None:
    with connected(server) as connection:
        assert ask(connection, "POST", f"/hold/{kind}/{key}") == (200, b'"held"')
        wait_for(server, key, "started")
        assert ask(connection, "GET", "/threaded") == (200, b'"from a thread"')
        assert ask(connection, "POST", f"/open/{key}")[0] == 200
        wait_for(server, key, "ended")
    assert events(server, key) == ["started", "gate opened", "ended"]


def test_a_pipelined_request_is_answered_while_a_task_of_the_one_before_runs(
    server: ServerProcess, key: str
) -> None:
    first, second = f"{key}-first", f"{key}-second"
    with raw_socket(server) as client:
        client.sendall(
            b"".join(
                f"{request} HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode()
                for request, close in [
                    (f"GET /hold/async/{first}", ""),
                    ("GET /typed/2", ""),
                    (f"POST /open/{first}", "Content-Length: 0\r\n"),
                    (f"GET /hold/thread/{second}", ""),
                    ("GET /typed/5", "Connection: close\r\n"),
                ]
            )
        )
        answers = read_to_end(client)
    bodies = re.findall(rb"\r\n\r\n([^H]*)", answers)
    assert bodies == [b'"held"', b"2", b"null", b'"held"', b"5"]
    wait_for(server, first, "ended")
    open_gate(server, second)
    wait_for(server, second, "ended")
    assert sorted(events(server, first)) == ["ended", "gate opened", "started"]


def test_a_task_of_a_head_request_runs(server: ServerProcess, key: str) -> None:
    with connected(server) as connection:
        assert ask(connection, "HEAD", f"/hold/async/{key}") == (200, b"")
        wait_for(server, key, "started")
        assert ask(connection, "POST", f"/open/{key}")[0] == 200
    wait_for(server, key, "ended")


# The client leaves


def test_a_task_survives_a_reset_after_the_response(server: ServerProcess, key: str) -> None:
    with raw_socket(server) as client:
        send_head(client, f"GET /hold/async/{key}")
        assert read_response(client).read() == b'"held"'
        wait_for(server, key, "started")
        reset(client)
    # By the second answer, the server has long seen the reset: it came first.
    assert once(server, "GET", "/typed/1") == once(server, "GET", "/typed/1") == (200, b"1")
    open_gate(server, key)
    wait_for(server, key, "ended")


def test_tasks_start_after_a_reset_in_the_middle_of_a_body(server: ServerProcess, key: str) -> None:
    with raw_socket(server) as client:
        send_head(client, f"GET /big/{key}")
        assert read_response(client).read(1000) == b"x" * 1000
        once(server, "GET", f"/mark/{key}/reset")
        reset(client)
    wait_for(server, key, "started")
    open_gate(server, key)
    wait_for(server, key, "ended")
    assert events(server, key) == ["reset", "started", "gate opened", "ended"]


def test_a_reset_closes_the_generator_at_once_and_tasks_start(
    server: ServerProcess, key: str
) -> None:
    with raw_socket(server) as client:
        send_head(client, f"GET /stream/generator/{key}")
        assert read_response(client).read(5) == b"first"
        reset(client)
    # The generator waits for ever, and nothing is sent that could fail.
    wait_for(server, key, "generator closed")
    wait_for(server, key, "started")
    open_gate(server, key)
    wait_for(server, key, "ended")
    assert events(server, key) == [
        "generator started",
        "generator closed",
        "started",
        "gate opened",
        "ended",
    ]


def test_a_receive_channel_is_streamed_and_its_connection_kept(server: ServerProcess) -> None:
    with connected(server) as connection:
        assert ask(connection, "GET", "/stream/channel/finite") == (200, b"0;1;2;")
        assert ask(connection, "GET", "/typed/1") == (200, b"1")


def test_the_producer_behind_a_channel_hears_that_the_client_left(
    server: ServerProcess, key: str
) -> None:
    with raw_socket(server) as client:
        send_head(client, f"GET /stream/channel/{key}")
        assert read_response(client).read(6) == b"0;1;2;"  # of a stream without end
        reset(client)
    wait_for(server, key, "producer heard of it")


# The list


def test_tasks_run_one_after_another_in_the_order_added(server: ServerProcess, key: str) -> None:
    once(server, "GET", f"/steps/{key}")
    wait_for(server, key, "5 ends")
    assert events(server, key) == [f"{n} {what}" for n in range(6) for what in ("begins", "ends")]


@pytest.mark.parametrize("kind", ["Odd", "HTTPException", "SystemExit", "KeyError"])
def test_a_failing_task_is_logged_once_and_the_others_run(
    server: ServerProcess, key: str, kind: str
) -> None:
    target = f"/failing/{kind}/{key}"
    with connected(server) as connection:
        assert ask(connection, "POST", target) == (200, b'"accepted"')
        wait_for(server, key, "after")
        assert events(server, key) == ["before", "between", "after"]
        log = server.log
        for name in ("fail", "fail_in_thread"):
            line = f"task {name} of POST {target} failed\n"
            assert log.count(line) == 1
            # Its own traceback, which ends with its own type, not with a group that it came in.
            traceback = log.partition(line)[2].partition("\nevent ")[0]
            assert traceback.startswith("Traceback (most recent call last):\n")
            assert re.search(rf"^(\w+\.)*{kind}\b.*\Z", traceback, re.MULTILINE)
            assert "Group" not in traceback
        assert log.count(f"{target} failed") == 2
        # The exception handler for Odd never saw it, and the server lives.
        assert f"of {target}" not in "".join(events(server, "odd"))
        assert ask(connection, "GET", "/typed/1") == (200, b"1")


def test_the_exception_handler_that_tasks_never_reach_works(server: ServerProcess) -> None:
    assert once(server, "GET", "/odd") == (418, b'"odd"')
    wait_for(server, "odd", "exception handler saw raised by a handler of /odd")


def test_dependencies_are_open_in_the_task_and_closed_after_it(
    server: ServerProcess, key: str
) -> None:
    with connected(server) as connection:
        assert ask(connection, "POST", f"/dependency/{key}")[0] == 200
        assert ask(connection, "POST", f"/open/{key}")[0] == 200
        wait_for(server, key, "async connection closes")
    assert events(server, key) == [
        "gate opened",
        "used open open",
        "sync connection closes",
        "async connection closes",
    ]


def test_tasks_from_every_source_run(server: ServerProcess, key: str) -> None:
    once(server, "POST", f"/sources/{key}")
    wait_for(server, key, "response")
    assert events(server, key) == ["subdependency", "dependency", "handler", "response"]


def test_tasks_of_an_exception_handler_run(server: ServerProcess, key: str) -> None:
    assert once(server, "GET", f"/odd?key={key}") == (418, b'"odd"')
    wait_for(server, key, "exception handler's response")
    assert events(server, key) == ["exception handler", "exception handler's response"]


def test_ten_thousand_tasks_of_one_request_run(server: ServerProcess, key: str) -> None:
    once(server, "POST", f"/many/10000/{key}")
    wait_for(server, key, "counted 10000")


def test_a_task_sees_contextvars_as_they_were_when_it_was_added(
    server: ServerProcess, key: str
) -> None:
    with connected(server) as connection:
        # The second request on the connection must not see what the first one set.
        for number in ("1", "2"):
            assert ask(connection, "POST", f"/user/{key}-{number}") == (200, b'"nobody"')
            server.wait_for_lines(f"event {key}-{number} user is ", 3)
            assert events(server, f"{key}-{number}") == [
                "user is ann",
                "user is bob",
                "user is bob",
            ]


def test_tasks_in_threads_do_not_hold_up_threaded_handlers(server: ServerProcess, key: str) -> None:
    with connected(server) as connection:
        for _ in range(45):
            assert ask(connection, "POST", f"/hold/thread/{key}")[0] == 200
        # They hold all the threads that tasks have: whoever shared those would wait, too.
        server.wait_for_lines(f"event {key} started\n", 20)
        assert ask(connection, "GET", "/threaded") == (200, b'"from a thread"')
        open_gate(server, key)
        server.wait_for_lines(f"event {key} ended\n", 45)
    recorded = events(server, key)
    assert recorded.index("gate opened") == 20 == recorded[:21].count("started")


def test_45_tasks_of_two_seconds_do_not_delay_a_threaded_handler(
    server: ServerProcess, key: str
) -> None:
    # Whoever waits for a thread of theirs waits each time; the machine is late now and then only.
    assert any(_seconds_beside_45_tasks(server, f"{key}-{n}") < 1 for n in range(5))


def _seconds_beside_45_tasks(server: ServerProcess, key: str) -> float:
    """How long a threaded handler takes that is asked while they begin."""
    with connected(server) as connection:
        for _ in range(45):
            assert ask(connection, "POST", f"/hold/two-seconds/{key}")[0] == 200
        before = time.monotonic()
        assert ask(connection, "GET", "/threaded") == (200, b'"from a thread"')
        took = time.monotonic() - before
        server.wait_for_lines(f"event {key} ended\n", 45)
        return took


# Bodies that nobody reads


def send_declared(client: socket.socket, target: str) -> None:
    send_head(client, f"POST {target}", f"Content-Length: {40 * MIB}")
    client.sendall(b"x" * (40 * MIB))


def send_chunked(client: socket.socket, target: str) -> None:
    send_head(client, f"POST {target}", "Transfer-Encoding: chunked")
    client.sendall((b"100000\r\n" + b"x" * MIB + b"\r\n") * 40 + b"0\r\n\r\n")


def send_in_part(client: socket.socket, target: str) -> None:
    send_head(client, f"POST {target}", f"Content-Length: {40 * MIB}")
    client.sendall(b"x" * (2 * MIB))


def send_one_chunk(client: socket.socket, target: str) -> None:
    send_head(client, f"POST {target}", "Transfer-Encoding: chunked")
    client.sendall(b"5\r\nhello\r\n")


@pytest.mark.parametrize(
    ("served_by", "send"),
    [
        ("patient_server", send_declared),
        ("patient_server", send_chunked),
        # Their ends never come: they are waited for until it has been long enough.
        ("server", send_in_part),
        ("server", send_one_chunk),
    ],
)
def test_an_unread_body_keeps_neither_the_response_nor_the_task(
    request: pytest.FixtureRequest,
    key: str,
    served_by: str,
    send: Callable[[socket.socket, str], None],
) -> None:
    server: ServerProcess = request.getfixturevalue(served_by)
    with raw_socket(server) as client:
        send(client, f"/unread/{key}")
        assert read_response(client).read() == b'"not read"'
        wait_for(server, key, "task ran")  # while the client waits, connected


@pytest.mark.parametrize("send", [send_declared, send_chunked])
def test_a_body_over_the_limit_gets_its_answer(
    patient_server: ServerProcess, key: str, send: Callable[[socket.socket, str], None]
) -> None:
    with raw_socket(patient_server) as client:
        send(client, f"/read/{key}")
        response = read_response(client)
        assert response.status == 413
        assert json.load(response) == {"detail": f"The body is larger than {MIB} bytes"}


# The wire


def test_head_has_the_fields_of_get_and_no_body(server: ServerProcess) -> None:
    with raw_socket(server) as client:
        send_head(client, "HEAD /sized")
        send_head(client, "GET /sized", "Connection: close")
        both = re.sub(rb"(?im)^(date|connection): .*\r\n", b"", read_to_end(client))
    head, get, body = both.split(b"\r\n\r\n")
    assert body == b"0123456789"
    assert b"content-length: 10\r\n" in head
    assert b"x-own: 1\r\n" in head
    assert head == get


def test_a_connection_is_kept_after_each_kind_of_error(server: ServerProcess, key: str) -> None:
    with connected(server) as connection:
        for method, target, status, detail in [
            ("GET", "/broken", 500, "Internal Server Error"),
            ("GET", "/nowhere", 404, "Not Found"),
            ("DELETE", "/sized", 405, "Method Not Allowed"),
            ("GET", "/inject/elsewhere?text=a", 400, "no"),
        ]:
            answer = ask(connection, method, target)
            assert (answer[0], json.loads(answer[1])) == (status, {"detail": detail})
        assert ask(connection, "GET", "/typed/no-number")[0] == 422
        assert ask(connection, "GET", "/typed/7") == (200, b"7")
        assert ask(connection, "GET", f"/mark/{key}/end")[0] == 200
    wait_for(server, key, "end")
    assert server.log.count("GET /broken failed\n") == 1


def test_405_names_the_methods_that_are_allowed(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.request("DELETE", "/sized")
        with connection.getresponse() as response:
            assert response.status == 405
            assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("host", ["a/b?c", "a#b", "user@evil.example", "a b"])
def test_a_host_that_is_none_goes_nowhere(server: ServerProcess, host: str) -> None:
    with connected(server) as connection:
        connection.putrequest("GET", "/where?q=1", skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        with connection.getresponse() as response:
            assert response.status == 200
            origin = f"http://{HOST}:{server.port}"
            assert json.load(response) == {
                "path": "/where",
                "url": f"{origin}/where?q=1",
                "url_for": f"{origin}/where",
            }


@pytest.mark.parametrize(
    "slot", ["value", "set", "name", "location", "cookie", "path", "media_type", "raised"]
)
@pytest.mark.parametrize(
    "text",
    ["a\r\nX-Injected: 1", "a\nX-Injected: 1", "a\rX-Injected: 1", "a\r\n\r\nX-Injected: 1", "\0"],
)
def test_no_slot_lets_a_header_field_in(server: ServerProcess, slot: str, text: str) -> None:
    with raw_socket(server) as client:
        send_head(client, f"GET /inject/{slot}?text={quote(text)}", "Connection: close")
        answer = read_to_end(client)
    # A refusal is made of nothing of it; nothing came after it either.
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.endswith(b'\r\n\r\n{"detail":"Internal Server Error"}')
    assert answer.count(b"HTTP/1.1") == 1
    assert b"injected" not in answer.lower()
    assert b"\0" not in answer


# The end


@contextlib.contextmanager
def served(app: str, **tasks: str) -> Iterator[ServerProcess]:
    """A server on which tasks have started: for each its route, and what it records first."""
    with hypercorn_process(f"shutdown:{app}", cwd=APPS) as running:
        for route, started in tasks.items():
            assert once(running, "POST", f"/{route}")[0] == 200
            running.wait_for_line(f"event {started}\n")
        yield running


def happened(server: ServerProcess) -> list[str]:
    return [line[6:] for line in server.log.splitlines() if line.startswith("event ")]


def test_tasks_of_five_seconds_finish_after_sigterm() -> None:
    # One of a request with dependencies to close after it, and one of a request with nothing else.
    with served("app", five="five seconds started", plain="plain started") as server:
        server.send_signal(signal.SIGTERM)
        assert ended_cleanly(server)
    *recorded, last = happened(server)
    assert last == "lifespan closed"
    assert [what for what in recorded if "plain" not in what] == [
        "lifespan opened",
        "five seconds started",
        "five seconds finished",
        "connection closed",
    ]
    assert "plain finished" in recorded


def test_past_the_drain_timeout_a_task_is_cancelled_and_cleans_up() -> None:
    with served("hasty", endless="endless started") as server:
        before = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert ended_cleanly(server)
        assert time.monotonic() - before < SOON  # of which it drains for 0.5
    assert happened(server) == [
        "lifespan opened",
        "endless started",
        "endless cleaned up",
        "connection closed",
        "lifespan closed",
    ]
    # The one that ran, and the one that waited for its turn, in one record.
    [report] = [line for line in server.log.splitlines() if "stopped after" in line]
    assert "0 finished, 0 failed, 0 timed out, 2 cancelled, 0 abandoned" in report
    assert report.count("endless of POST /endless: cancelled, ran ") == 1
    assert report.count("five_seconds of POST /endless: cancelled, never began") == 1


def test_a_thread_that_never_ends_is_abandoned_and_named() -> None:
    with served("hasty", thread="thread started") as server:
        before = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert ended_cleanly(server)
        assert time.monotonic() - before < SOON  # of which it drains and cleans up for 0.5 each
    assert happened(server)[-1] == "lifespan closed"
    abandoned = "task endless_thread of POST /thread: its thread didn't end in time, abandoned\n"
    assert server.log.count(abandoned) == 1


def test_under_asyncio_one_sentence_says_what_to_run() -> None:
    log = hypercorn_refusal("shutdown:app", cwd=APPS, options=["-k", "asyncio"])
    assert log.count("start it with: trioweb run MODULE:APP, or hypercorn -k trio MODULE:APP") == 1
    assert "event lifespan opened" not in log
    assert "Running on" not in log
