"""Runs a documented example and compares it with what its own docstring shows.

An example is a module with an `app`, and its docstring has indented blocks:

* a line that begins with `$ curl` is a request (a backslash at its end continues it), and the lines
  below it are the answer's body, compared as JSON where it is JSON, else letter by letter;
* with `curl -i` the answer begins with the status line and some of the headers, then an empty line;
  without it the status must be a success;
* any other line is one that the server prints, such as a background task's; it is waited for.

Everything happens in the order in which it is written.  Text that isn't indented is for the reader.
"""

from __future__ import annotations

import argparse
import ast
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from .hypercorn_process import hypercorn_process
from .processes import ServerProcess

PROMPT = "$ "
INDENT = "    "


@dataclass(frozen=True)
class Answer:
    """What a request was answered with, or what the docstring says that it is."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Shown:
    """One request of a docstring, and the lines shown as its answer."""

    command: str
    output: list[str]


class _CurlArguments(argparse.ArgumentParser):
    """The part of curl's command line that examples may use."""

    def __init__(self) -> None:
        super().__init__(add_help=False)
        self.add_argument("url")
        self.add_argument("-X", "--request")
        self.add_argument("-H", "--header", action="append", default=[])
        self.add_argument("-d", "--data", default=None)
        self.add_argument("--json", default=None)
        self.add_argument("-i", "--include", action="store_true")

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"an example can't use this curl command: {message}")


def check_example(path: Path, folder: Path, env: Mapping[str, str] | None = None) -> None:
    """Serve the example at `path` from `folder`; AssertionError where it isn't as it says.

    `env` is added to its environment.
    """
    steps = list(read_steps(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""))
    if not any(isinstance(step, Shown) for step in steps):
        raise AssertionError(f"{path.name} shows no request in its docstring")
    app = f"{path.resolve().with_suffix('')}:app"
    with hypercorn_process(app, cwd=folder, env=env) as server:
        for step in steps:
            if isinstance(step, Shown):
                check_request(server, step)
            else:
                server.wait_for_line(step)


def read_steps(docstring: str) -> Iterator[Shown | str]:
    """The requests and the server's lines that a docstring shows, in order."""
    for block in _indented_blocks(docstring):
        shown: Shown | None = None
        for line in block:
            if shown and shown.command.endswith("\\"):
                shown = Shown(shown.command[:-1] + line.strip(), [])
            elif line.startswith(PROMPT):
                if shown:
                    yield shown
                shown = Shown(line.removeprefix(PROMPT), [])
            elif shown:
                shown.output.append(line)
            elif line:
                yield line
        if shown:
            yield shown


def check_request(server: ServerProcess, shown: Shown) -> None:
    """Make the shown request and compare its answer with the shown one."""
    words = shlex.split(shown.command)
    if words[0] != "curl":
        raise ValueError(f"an example's commands are requests by curl, not: {shown.command}")
    arguments = _CurlArguments().parse_args(words[1:])
    got = _request(server, arguments)
    expected = _expected(shown.output, got, arguments.include)
    if got.status != expected.status or not _same_body(got.body, expected.body):
        raise AssertionError(f"$ {shown.command}\nshown:    {expected}\nanswered: {got}")
    for name, value in expected.headers.items():
        if got.headers.get(name) != value:
            raise AssertionError(f"$ {shown.command}\nshown:    {name}: {value}\nanswered: {got}")


def _indented_blocks(text: str) -> Iterator[list[str]]:
    block: list[str] = []
    for line in [*text.splitlines(), "end"]:
        if not line or line.startswith(INDENT):
            block.append(line.removeprefix(INDENT).rstrip())
        elif block:
            yield block
            block = []


def _request(server: ServerProcess, arguments: argparse.Namespace) -> Answer:
    url = urlsplit(arguments.url)
    target = url.path + ("?" + url.query if url.query else "")
    data = arguments.data if arguments.json is None else arguments.json
    method = arguments.request or ("GET" if data is None else "POST")
    connection = server.connect()
    try:
        connection.request(method, target, body=data, headers=_request_headers(arguments))
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, body)


def _request_headers(arguments: argparse.Namespace) -> dict[str, str]:
    """The headers that curl would send."""
    headers = {}
    if arguments.json is not None:
        headers = {"content-type": "application/json", "accept": "application/json"}
    elif arguments.data is not None:
        headers = {"content-type": "application/x-www-form-urlencoded"}
    for field in arguments.header:
        name, _, value = field.partition(":")
        headers[name.strip().lower()] = value.strip()
    return headers


def _expected(output: list[str], got: Answer, include: bool) -> Answer:
    """The shown answer; its status is that of `got` where a success is all that is said."""
    if not include:
        status = got.status if got.status < 400 else 200
        return Answer(status, {}, "\n".join(output).strip())
    head, _, body = "\n".join(output).strip().partition("\n\n")
    status_line, *fields = head.splitlines()
    headers = dict(field.split(": ", 1) for field in fields)
    return Answer(
        int(status_line.split()[1]),
        {name.lower(): value for name, value in headers.items()},
        body.strip(),
    )


def _same_body(got: str, shown: str) -> bool:
    try:
        same: bool = _json(got) == _json(shown)
    except json.JSONDecodeError:
        same = got.strip() == shown
    return same


def _json(text: str) -> Any:
    # The order of an object's members is shown too.
    return json.loads(text, object_pairs_hook=lambda pairs: ("object", pairs))
