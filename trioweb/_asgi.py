"""The words of ASGI 3, which app and server share.

Rules of this module:

* It says what goes from one to the other, and does nothing.

Source: the ASGI specification, HTTP 2.4 and Lifespan 2.0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
RawFields = list[tuple[bytes, bytes]]

LIFESPAN_VERSIONS = {"version": "3.0", "spec_version": "2.0"}
