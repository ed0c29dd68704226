"""`trioweb routes`: the table of an app's routes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from trioweb._cli.main import main
from trioweb._cli.routes import show_routes
from trioweb._errors import CommandError

TABLE = """\
METHODS  PATH                  NAME       HANDLER         TASKS  PARAMETERS
POST     /mail                 send_mail  main:send_mail  yes    mail: dict[str, str] (body)
PUT      /two                  two        main:two        -      \
first: dict[str, int] (body), second: list[dict[str, int]] (body)
GET      /items/{item_id:int}  read       main:read_item  -      \
x_token: str (header x-token), item_id: int (path), limit: list[int] (query max)
GET      /partial              read_item  main:read_item  -      limit: list[int] (query max)
"""


@pytest.mark.usefixtures("names")
def test_routes_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes"], {}) == 0
    assert capsys.readouterr().out == TABLE
    assert main(["routes"], {"TRIOWEB_APP": "main:other"}) == 0
    assert capsys.readouterr().out.startswith("METHODS  PATH")


@pytest.mark.usefixtures("names")
def test_routes_as_json() -> None:
    found: list[dict[str, Any]] = json.loads(show_routes("main:app", as_json=True))
    assert found[0] == {
        "methods": ["POST"],
        "path": "/mail",
        "name": "send_mail",
        "handler": "main:send_mail",
        "tasks": True,
        "parameters": [
            {"name": "mail", "type": "dict[str, str]", "source": "body", "alias": ""},
        ],
    }
    assert [p["alias"] for p in found[1]["parameters"]] == ["first", "second"]


@pytest.mark.usefixtures("names")
def test_only_our_apps_have_a_table() -> None:
    with pytest.raises(CommandError, match=r"only a trioweb\.App can tell its routes"):
        show_routes("main:bare", as_json=False)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.usefixtures("names")
def test_a_reader_of_the_table_may_leave_early() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as nobody_reads:
        routes = subprocess.run(
            [sys.executable, "-m", "trioweb", "routes"],
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (routes.returncode, routes.stderr) == (0, "")


@pytest.mark.usefixtures("names")
def test_the_table_has_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as nobody_reads:
        monkeypatch.setattr(sys, "stdout", nobody_reads)
        assert main(["routes"], {}) == 0
