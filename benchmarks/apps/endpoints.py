"""What is asked of every app, and which answer is right.

Rules of this module:

* An answer is right by its status, its content type and what its body says; whether there is a
  space behind a comma is the framework's business.
* Tasks count only if they ran: the app is asked how many did.
"""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any

from .work import CHUNK, CHUNKS

PATIENCE = 30.0  # seconds, for any one answer
TASKS_TIME = 5.0  # seconds, for tasks to run after their response
POLL = 0.02  # seconds

JSON = "application/json"
ITEM = {"name": "lamp", "price": 19.5, "tags": ["light", "desk"]}


@dataclass(frozen=True)
class Endpoint:
    """One request, as it is sent, and its answer: JSON, or a body as it is."""

    title: str
    method: str
    target: str
    answer: Any
    sent: bytes = b""
    tasks: int = 0  # that each request adds
    varies: bool = False  # each request has an X-Request-ID of its own

    @property
    def headers(self) -> dict[str, str]:
        return {"content-type": JSON} if self.sent else {}

    def fault(self, status: int, content_type: str, body: bytes) -> str | None:
        """What is wrong with an answer, None if it is right."""
        streamed = isinstance(self.answer, bytes)
        wanted = "application/octet-stream" if streamed else JSON
        if status != 200:
            return f"status {status}: {body[:200]!r}"
        if content_type.partition(";")[0] != wanted:
            return f"content type {content_type!r}, not {wanted!r}"
        if (body if streamed else json.loads(body)) != self.answer:
            return f"another answer: {body[:200]!r}"
        return None


_ITEM_42 = {"id": 42, "name": "item 42"}
ENDPOINTS = {
    "path": Endpoint("a path parameter to JSON", "GET", "/items/42", _ITEM_42),
    "ids": Endpoint(
        "a path parameter, each request with an id of its own",
        "GET",
        "/items/42",
        _ITEM_42,
        varies=True,
    ),
    "body": Endpoint(
        "a JSON body validated and echoed", "POST", "/items", ITEM, json.dumps(ITEM).encode()
    ),
    "dependency": Endpoint("one dependency", "GET", "/hello?name=ada", {"hello": "Ada"}),
    "one-task": Endpoint("one background task", "POST", "/one-task", {"added": 1}, tasks=1),
    "ten-tasks": Endpoint("ten background tasks", "POST", "/ten-tasks", {"added": 10}, tasks=10),
    "stream": Endpoint("a streamed response of 1 MiB", "GET", "/stream", CHUNK * CHUNKS),
}
TASKS_RUN = Endpoint("how many tasks have run", "GET", "/ran", None)


class WrongAnswer(Exception):
    """A server that isn't worth measuring until this is mended."""


class Asker:
    """One client on one connection, for what is asked beside the load."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def ask(self, endpoint: Endpoint) -> tuple[int, str, bytes]:
        self._connection.request(
            endpoint.method, endpoint.target, endpoint.sent or None, endpoint.headers
        )
        with self._connection.getresponse() as response:
            return response.status, response.headers.get("content-type", ""), response.read()

    def check(self, endpoint: Endpoint) -> None:
        """Raises WrongAnswer, also if the tasks don't run."""
        before = self.tasks_run() if endpoint.tasks else 0
        fault = endpoint.fault(*self.ask(endpoint))
        if fault is not None:
            raise WrongAnswer(f"{endpoint.method} {endpoint.target}: {fault}")
        if endpoint.tasks:
            self.wait_for_tasks(before + endpoint.tasks)

    def tasks_run(self) -> int:
        return int(json.loads(self.ask(TASKS_RUN)[2])["ran"])

    def wait_for_tasks(self, count: int) -> None:
        """Until so many have run in all; raises WrongAnswer when they don't."""
        deadline = time.monotonic() + TASKS_TIME
        while (ran := self.tasks_run()) < count:
            if time.monotonic() > deadline:
                raise WrongAnswer(f"{count} tasks were added, and {ran} have run")
            time.sleep(POLL)
