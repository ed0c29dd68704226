"""The words of ASGI 3, and what our app and our server say to each other besides.

Rules of this module:

* It says what goes from one to the other, and does nothing: names, and shapes of objects.
* What isn't ASGI's is ours, and has `trioweb` in its name: nobody else's server says it, and nobody
  else's app has to heed it.

Source: the ASGI specification, HTTP 2.4 and Lifespan 2.0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, Protocol

import msgspec

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
RawFields = list[tuple[bytes, bytes]]

LIFESPAN_VERSIONS = {"version": "3.0", "spec_version": "2.0"}


# Requests

# In the `extensions` of a request's scope: the server reads away what the app leaves unread of a
# body, within its own limits.  Any middleware may stand between: the app just doesn't.
DISCARDS_UNREAD_BODY: Final = "trioweb.discards_unread_body"


# In an `http.disconnect`: the client has closed its sending side, and may still read.  Only what
# becomes of what is sent to it tells.
HALF_CLOSED: Final = "trioweb.half_closed"


class ServerExchange(Protocol):
    """What our server's `receive` and `send` are methods of.

    An app that was given these themselves, with no middleware in between, may call what follows in
    place of them.  `is_of_trioweb` tells such an object from another server's.
    """

    is_of_trioweb: bool

    def take_body(self, limit: int) -> bytes | None:
        """The whole body, if it is here and not longer; None where `receive` has to be asked."""
        ...

    def send_whole(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> Awaitable[None] | None:
        """What sends a whole response; None where messages have to be sent."""
        ...


# The lifespan

# In its scope: a `ServerSettings`.
SERVER_SETTINGS: Final = "trioweb.server"


class ConnectionOpened(msgspec.Struct, frozen=True):
    """The server has a new connection; `client` is `host:port`, or `-`."""

    client: str


class ConnectionClosed(msgspec.Struct, frozen=True):
    """A connection is gone; it has had so many requests."""

    client: str
    requests: int


class LimitReached(msgspec.Struct, frozen=True):
    """From now on somebody has to wait or is refused, as this field of `Limits` says."""

    limit: str


ServerEvent = ConnectionOpened | ConnectionClosed | LimitReached
ServerListener = Callable[[ServerEvent], object]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the server was told of the app, for as long as it serves it.

    The times are in seconds, None where the app's own are to stand.  `limits` are only those that
    were given, by the names of the fields of `Limits`.  `debug`: whether errors are answered with
    their traceback, whatever the app says.  `listen` has the server tell of its events.
    """

    drain_timeout: float | None = None
    cleanup_timeout: float | None = None
    limits: Mapping[str, Any]
    debug: bool = False
    listen: Callable[[ServerListener], object]


def _nothing() -> None: ...


# In `lifespan.startup.complete`: an `AppSettings`.
APP_SETTINGS: Final = "trioweb.app"


class AppSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an app says of itself as it starts.

    It drains by itself, in so many seconds, and cleans up in so many more.  `limits` are those that
    count now: the app's own, with those of `ServerSettings` in their place.  `cancel` has it cancel
    what is in flight, and then close its lifespan in order.
    """

    drain_timeout: float
    cleanup_timeout: float
    limits: object
    cancel: Callable[[], object] = _nothing
