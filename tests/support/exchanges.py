"""Exchanges without a server: a scope, and whatever the test has for its messages."""

from __future__ import annotations

from typing import Any

from trioweb._asgi import Message, Receive, Scope, Send
from trioweb._http.exchange import Exchange


async def swallow(message: Message) -> None:
    """A server that takes whatever is sent."""


def exchange_of(
    scope: Scope,
    receive: Receive,
    app: Any = None,
    max_body_size: int = 1000,
    send: Send = swallow,
) -> Exchange:
    return Exchange(scope, receive, send, app, {}, max_body_size)
