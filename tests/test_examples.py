"""Every file in docs/examples does what it says, under a real `hypercorn -k trio`."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from trio.testing import MockClock

from .asgi import running
from .examples import Shown, check_example, check_request, read_steps
from .hypercorn_process import hypercorn_process

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
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
