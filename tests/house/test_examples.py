"""Every file in docs/examples does what it says, under a real `hypercorn -k trio`."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, Depends
from trioweb.testing import client

from ..support.asgi import running
from ..support.examples import Shown, check_example, check_request, read_steps
from ..support.hypercorn_process import hypercorn_process
from ..support.postgresql import find_programs, postgresql

pytestmark = [pytest.mark.slow, pytest.mark.processes]

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


# What an example needs besides the packages of the group `test`.
NEEDS_POSTGRESQL = "database_postgresql.py"

NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.skipif(find_programs() is None, reason="needs PostgreSQL: apt install postgresql")
def test_example_of_postgresql_does_what_its_docstring_shows(tmp_path: Path) -> None:
    programs = find_programs()
    assert programs is not None
    with postgresql(programs) as env:
        check_example(EXAMPLES / NEEDS_POSTGRESQL, tmp_path, env)


@pytest.mark.parametrize("name", sorted({*NAMES} - {NEEDS_POSTGRESQL}))
def test_example_does_what_its_docstring_shows(name: str, tmp_path: Path) -> None:
    check_example(EXAMPLES / name, tmp_path)


async def test_streaming_example_takes_a_client_that_leaves(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    app = runpy.run_path(str(EXAMPLES / "streaming.py"))["app"]
    async with running(app) as client:
        ticks = await client("GET", "/ticks", leaves_after=1)
    assert ticks.body == b"data: 2\n\n"
    assert caplog.records == []


# --- outbox.py: what its page says beyond the request that it shows.


@pytest.fixture
def outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The example's names, in a folder of its own, with two rows that an earlier run left."""
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(EXAMPLES / "outbox.py"))
    earlier = names["Outbox"]("outbox.db")
    assert [earlier.add("tea"), earlier.add("milk")] == [1, 2]
    earlier.close()
    return names


def rows_left(outbox: dict[str, Any]) -> list[tuple[int, str]]:
    later = outbox["Outbox"]("outbox.db")
    left: list[tuple[int, str]] = later.left()
    later.close()
    return left


async def test_the_outbox_works_on_what_an_earlier_run_left(
    outbox: dict[str, Any], autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async with client(outbox["app"]) as c:
        response = await c.post("/orders/bread")
        assert response.json() == {"order": 3}
        await trio.sleep(1)
        assert c.app.statistics().added == 1  # the rows are no tasks
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "shipped bread",
        "shipped milk",
        "shipped tea",
    ]
    assert rows_left(outbox) == []


async def test_a_row_of_the_outbox_that_fails_ends_neither_the_others_nor_the_server(
    outbox: dict[str, Any], autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    send_parcel = outbox["send_parcel"]

    async def no_tea(item: str) -> None:
        if item == "tea":
            raise OSError("no van")
        await send_parcel(item)

    outbox["ship"].__globals__["send_parcel"] = no_tea
    async with client(outbox["app"]) as c:
        await trio.sleep(1)
        assert (await c.post("/orders/bread")).status_code == 202
    assert rows_left(outbox) == [(1, "tea")]
    assert caplog.messages == ["order 1 isn't shipped, the next start tries again"]


async def test_a_shutdown_cancels_the_work_on_the_outbox_and_keeps_its_rows(
    outbox: dict[str, Any], autojump_clock: MockClock
) -> None:
    async with client(outbox["app"]):
        await trio.sleep(0.15)
    assert trio.current_time() == 0.15
    assert rows_left(outbox) == [(2, "milk")]


# --- database_apsw.py: its transactions.


async def test_the_apsw_example_leaves_no_transaction_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apsw's own `async with` rolls nothing back when it is cancelled."""
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(EXAMPLES / "database_apsw.py"))
    app: App = names["app"]
    transaction, wrote = Depends(names["transaction"]), trio.Event()

    @app.get("/hangs")
    async def hangs(database: Any = transaction) -> None:
        await database.execute("INSERT INTO notes (text) VALUES ('never')")
        wrote.set()
        await trio.sleep_forever()

    async with client(app) as c:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(c.get, "/hangs")
            await wrote.wait()
            nursery.cancel_scope.cancel()  # the client leaves
        assert (await c.post("/notes", json={"text": "tea"})).status_code == 201
        assert (await c.get("/notes")).json() == [{"id": 1, "text": "tea"}]


# --- The checker itself: what it reads, and that it can say no.

ECHO = '''"""Repeats the request.

    $ curl -d one http://127.0.0.1:8000/a?b=c
    POST /a?b=c application/x-www-form-urlencoded one

Then:

    served /a
"""

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = dict(scope["headers"])
    body = (await receive())["body"]
    target = scope["path"] + "?" + scope["query_string"].decode()
    kind = headers.get(b"content-type", b"-").decode()
    text = f"{scope['method']} {target} {kind} {body.decode()}"
    answer = body if kind == "application/json" else text.encode()
    status = 404 if scope["path"] == "/missing" else 200
    seen = [(b"x-seen", headers.get(b"x-sent", b"-"))]
    await send({"type": "http.response.start", "status": status, "headers": seen})
    await send({"type": "http.response.body", "body": answer})
    print("served", scope["path"])
'''

URL = "http://127.0.0.1:8000"

TRUE = [
    Shown(f"curl {URL}/?", ["GET /? - "]),
    Shown(f"curl --json '{{\"a\": [1]}}' {URL}/", ["{", '  "a": [1]', "}"]),
    Shown(
        f"curl -X PUT -H 'X-Sent: yes' -i {URL}/?", ["HTTP/1.1 200", "X-Seen: yes", "", "PUT /? - "]
    ),
    Shown(f"curl -i {URL}/missing", ["HTTP/1.1 404", "", "GET /missing? -"]),
]
FALSE = [
    Shown(f"curl {URL}/", ["something else"]),
    Shown(f"curl {URL}/missing", ["GET /missing? -"]),
    Shown(f"curl -i {URL}/", ["HTTP/1.1 201", "", "GET /? -"]),
    Shown(f"curl -i {URL}/", ["HTTP/1.1 200", "X-Seen: yes", "", "GET /? -"]),
    Shown(f"curl --json '[1]' {URL}/", ["[2]"]),
]
REFUSED = [Shown(f"wget {URL}/", []), Shown(f"curl --compressed {URL}/", [])]


def test_reads_requests_and_lines_in_order() -> None:
    docstring = """Title.

    $ curl /one
    1

    2
    $ curl \\
        /two

    Text between.

    printed
    """
    # The docstring's own indentation is that of its blocks, so the prose is moved out.
    text = docstring.replace("    Text", "Text")
    assert list(read_steps(text)) == [
        Shown("curl /one", ["1", "", "2"]),
        Shown("curl /two", [""]),
        "printed",
    ]


def test_says_yes_to_what_is_true_and_no_to_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    with hypercorn_process("echo:app", cwd=tmp_path) as server:
        for shown in TRUE:
            check_request(server, shown)
        for shown in FALSE:
            with pytest.raises(AssertionError, match="shown:"):
                check_request(server, shown)
        for shown in REFUSED:
            with pytest.raises(ValueError, match="an example"):
                check_request(server, shown)


def test_runs_a_whole_file(tmp_path: Path) -> None:
    example = tmp_path / "echo.py"
    example.write_text(ECHO)
    check_example(example, tmp_path)


def test_an_example_must_show_a_request(tmp_path: Path) -> None:
    example = tmp_path / "silent.py"
    example.write_text('"""Says nothing."""')
    with pytest.raises(AssertionError, match=r"silent\.py shows no request"):
        check_example(example, tmp_path)
