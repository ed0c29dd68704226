"""Exchanges, on a server that isn't ours: what becomes of an unread body, and who has failed."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import Request, StreamingResponse
from trioweb._asgi import Message

from ..support.asgi import http_scope
from ..support.exchanges import exchange_of

UPLOAD = [("content-length", "6")]


class Client:
    """Sends its body in two messages, and can be gone from some message of the response on."""

    def __init__(self, *, takes: int = 100) -> None:
        self.takes = takes
        self.sent: list[Message] = []
        self._body = [b"one", b"two"]

    async def receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        chunk = self._body.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self._body)}

    async def send(self, message: Message) -> None:
        if len(self.sent) >= self.takes:
            raise OSError("gone")
        self.sent.append(message)

    @property
    def is_read_up(self) -> bool:
        return not self._body


async def test_a_body_that_was_read_is_not_looked_for_again() -> None:
    client = Client()
    exchange = exchange_of(http_scope("POST", "/", UPLOAD), client.receive, send=client.send)
    assert await exchange.body() == b"onetwo"
    await exchange.send_last(b"end")
    assert [message["body"] for message in client.sent] == [b"end"]


class ServerOfOurs(Client):
    is_of_trioweb = True

    def take_body(self, limit: int) -> bytes:
        return b"".join(self._body)


async def test_a_body_that_our_server_gave_whole_is_not_looked_for_again() -> None:
    """Where middleware has made a scope of its own, which doesn't say whose server it is."""
    client = ServerOfOurs()
    exchange = exchange_of(http_scope("POST", "/", UPLOAD), client.receive, send=client.send)
    assert await exchange.body() == b"onetwo"
    await exchange.send_last(b"end")
    assert [message["body"] for message in client.sent] == [b"end"]
    assert not client.is_read_up  # it was never asked for by `receive`


async def test_an_unread_body_is_thrown_away_before_the_end() -> None:
    client = Client()
    exchange = exchange_of(http_scope("POST", "/", UPLOAD), client.receive, send=client.send)
    await exchange.send_last(b"end")
    assert [message["body"] for message in client.sent] == [b"end", b""]
    assert client.is_read_up


async def test_a_client_that_leaves_before_the_end_is_no_group(autojump_clock: MockClock) -> None:
    client = Client(takes=1)
    exchange = exchange_of(http_scope("POST", "/", UPLOAD), client.receive, send=client.send)
    with pytest.raises(OSError, match="gone"):
        await exchange.send_last(b"end")


async def test_a_stream_ends_where_the_server_takes_no_more() -> None:
    made: list[int] = []

    async def pieces() -> Any:
        while True:
            made.append(len(made))
            yield "x"

    client = Client(takes=3)
    exchange = exchange_of(http_scope("GET", "/", []), client.receive, send=client.send)
    assert await StreamingResponse(pieces()).send(exchange) is False
    assert made == [0, 1, 2]  # the head and two pieces were taken


def test_a_request_shows_and_sets_its_limit() -> None:
    request = Request(exchange_of(http_scope("GET", "/", []), trio.sleep_forever, max_body_size=7))
    assert request.max_body_size == 7
    request.max_body_size = 8
    assert request.max_body_size == 8
