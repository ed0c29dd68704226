"""Endpoints: what a lifetime needs to know of whatever answers a request.

Rules of this module:

* What holds for every call is known before the first one: nothing is asked for each request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from .._concurrency.exits import RequestExits
from .._concurrency.grace import Grace
from .._errors import HTTPException
from .._http.exchange import Exchange
from .._http.response import Response

# Makes the response for what a handler raised; raises only what isn't a failure.
# Where threads get no cleanup time, it has no Grace.
ErrorResponse = Callable[[Exchange, BaseException, Grace | None], Awaitable[Response]]


class Endpoint(Protocol):
    """A handler with everything it needs: one call makes its response."""

    @property
    def inline(self) -> bool:
        """Whether it leaves nothing open when it has returned, and runs in no thread."""
        ...

    @property
    def needs_nursery(self) -> bool: ...

    @property
    def waits(self) -> bool:
        """Whether a call can take time, but for reading the body."""
        ...

    @property
    def reads_body(self) -> bool: ...

    @property
    def cancel_on_disconnect(self) -> bool: ...

    @property
    def stops_with_client(self) -> bool:
        """Whether a client's closing of its sending side ends what is streamed to it."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may take."""

    def __call__(
        self, exchange: Exchange, exits: RequestExits
    ) -> Coroutine[Any, Any, Response]: ...


def too_slow(endpoint: Endpoint) -> HTTPException:
    return HTTPException(503, f"The handler took longer than {endpoint.timeout:g} s")
