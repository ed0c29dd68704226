"""The request, as handlers see it: a view of an exchange.

Rules of this module:

* It holds nothing of its own: two views of one exchange are alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from .._asgi import Scope
from .._errors import Invalid, RequestValidationError
from .._instead import tells_instead
from .._shapes.json import body_decoder
from .._tasks.list import BackgroundTasks
from .exchange import Exchange, State
from .headers import Headers
from .paths import PATH_SAFE
from .url import URL, Address, QueryParams, url_of

_decode_json = body_decoder(Any)


@tells_instead()
class Request:
    """One HTTP request.  Handlers, dependencies and exception handlers take it as a parameter."""

    _url: URL | None = None

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def scope(self) -> Scope:
        return self._exchange.scope

    @property
    def app(self) -> Any:
        return self._exchange.app

    @property
    def path_params(self) -> dict[str, Any]:
        return self._exchange.path_params

    @property
    def max_body_size(self) -> int:
        """In bytes: the route's, or the app's; may be set until the body is read."""
        return self._exchange.max_body_size

    @max_body_size.setter
    def max_body_size(self, size: int) -> None:
        self._exchange.max_body_size = size

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def url(self) -> URL:
        if self._url is None:
            self._url = url_of(self.scope, self.headers.getlist("host"))
        return self._url

    @property
    def headers(self) -> Headers:
        return self._exchange.headers

    @property
    def query_params(self) -> QueryParams:
        return self._exchange.query_params

    @property
    def cookies(self) -> Mapping[str, str]:
        return self._exchange.cookies

    @property
    def client(self) -> Address | None:
        client = self.scope.get("client")
        return Address(client[0], client[1]) if client else None

    @property
    def state(self) -> State:
        """Yours for this request; begins with what the app's lifespan yielded."""
        return self._exchange.state

    @property
    def tasks(self) -> BackgroundTasks:
        """The request's task list, the one that a `BackgroundTasks` parameter gets."""
        return self._exchange.tasks

    def url_for(self, name: str, /, **path_params: Any) -> str:
        """The absolute URL of a route of this app, by the route's name."""
        root = quote(self.scope.get("root_path", "").rstrip("/"), safe=PATH_SAFE)
        path = self.app.url_for(name, **path_params)
        return f"{self.url.scheme}://{self.url.netloc}{root}{path}"

    async def body(self) -> bytes:
        """The whole body.  Raises `HTTPException(413)` past `max_body_size`, before it is read
        where its length was declared, and `ClientDisconnect` when the client leaves within it.

        Cancellation: what has arrived is lost; don't read on.
        """
        return await self._exchange.body()

    async def json(self) -> Any:
        """The body as JSON.  Raises `RequestValidationError`, a 422, when it is none."""
        try:
            return _decode_json(await self.body())
        except Invalid as exc:
            raise RequestValidationError(
                [{**problem, "loc": ["body", *problem["loc"]]} for problem in exc.problems]
            ) from None

    def stream(self) -> AsyncIterator[bytes]:
        """The body in pieces, as they arrive; each is thrown away when the next is asked for.

        Errors as for `body`; RuntimeError when the body was streamed before, or
        another task reads it.
        """
        return self._exchange.stream()

    async def wait_disconnected(self) -> None:
        """Returns when the client has left.

        It means nothing past the last byte of the response, when servers say so of
        clients that are still there.
        """
        await self._exchange.wait_disconnected()

    def __repr__(self) -> str:
        return f"<Request {self._exchange.label}>"


def request_of(exchange: Exchange) -> Request:
    """The view that all who ask for it share."""
    if exchange.view is None:
        exchange.view = Request(exchange)
    request: Request = exchange.view
    return request
