"""The client: requests to an app that runs in a nursery of the test's own.

Rules of this module:

* Leaving the block of `client` leaves nothing behind, and shuts down as a server would.
* What the test itself raises comes out as it was raised, in no exception group, and at once:
  nothing is drained for a test that has failed.
* Nothing waits for a time of its own: under a mock clock, time is the app's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn, TypeVar, Unpack

import trio

from .._app.app import App
from .._app.limits import Limits
from .._asgi import ASGIApp
from .._instead import tells_instead
from .._tasks.task import BackgroundTask
from ..server import ParserName
from ._attached import attached, check_app, wait_tasks
from ._clock import time_for_threads
from ._cookies import keep_cookies
from ._nursery import open_nursery
from ._requests import Fields, RequestBuilder, RequestOptions
from ._responses import ClientResponse
from ._server import InMemoryServer
from ._wire import Wire

C = TypeVar("C", bound="Client")


def client(
    app: App,
    *,
    asgi: ASGIApp | None = None,
    threads: bool = False,
    base_url: str = "http://testserver",
    headers: Fields = (),
) -> AbstractAsyncContextManager[Client]:
    """Run `app` between the start and the end of its lifespan.

    `asgi` is what a server would be given in place of `app`: middleware around it.
    Without `threads`, every `def` runs in the test's own thread.  `headers` are sent
    with each request.

    Error handling: raises TypeError for what is no `App`, and what the lifespan raises.
    What is raised within the block comes out as it is.

    Resource handling: leaving the block is `Client.shutdown`.  Leaving it by an
    exception or cancellation cancels everything at once; what cleans up has
    `cleanup_timeout`.
    """
    check_app(app)
    c = Client(app, asgi or app, base_url, headers)
    return _Opening("client", _running(app, c, threads=threads))


def connect(
    app: App,
    *,
    asgi: ASGIApp | None = None,
    http: ParserName = "auto",
    limits: Limits | None = None,
    threads: bool = False,
    base_url: str = "http://testserver",
    headers: Fields = (),
) -> AbstractAsyncContextManager[ConnectedClient]:
    """As `client`, but through the embedded server: each request is HTTP over a memory stream.

    So the limits of the server hold, and bytes can be sent that no client would
    send.  `http` is the parser, `limits` those of the app by default.
    """
    check_app(app)
    wire = Wire(asgi or app, limits or app.limits, http)
    c = ConnectedClient(app, wire, base_url, headers)
    return _Opening("connect", _running(app, c, threads=threads))


@asynccontextmanager
async def _running(app: App, c: C, *, threads: bool) -> AsyncIterator[C]:
    with attached(app, c._note_task_error, threads=threads), time_for_threads():
        async with open_nursery() as nursery:
            await c._server.start(nursery)
            yield c
            await c.shutdown()


class _Opening(AbstractAsyncContextManager[C]):
    """What `client` and `connect` return; whoever uses it without `async with` is told to."""

    def __init__(self, name: str, opening: AbstractAsyncContextManager[C]) -> None:
        self._name = name
        self._opening = opening

    async def __aenter__(self) -> C:
        return await self._opening.__aenter__()

    async def __aexit__(self, *exc: Any) -> bool | None:
        return await self._opening.__aexit__(*exc)

    def __enter__(self) -> NoReturn:
        raise TypeError(self._usage(f"with {self._name}(app) as c: ..."))

    def __exit__(self, *exc: object) -> None:
        """Never called; Python looks for it before it calls `__enter__`."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(self._usage(f"c = {self._name}(app), then c.{name}"))

    def _usage(self, wrong: str) -> str:
        return (
            "a client can be used within its block only\n"
            f"    wrong:  {wrong}\n    right:  async with {self._name}(app) as c: ..."
        )


@tells_instead()
class Client:
    """Sends requests to an app.  Made by `client`.

    `app` is the app.  `cookies` are those that responses have set and not deleted, by
    name, sent with each request whatever their path, domain and age; change them at
    will.  `task_errors` are the tasks that failed or timed out, each with its
    exception, in the order in which they failed; they are reported as without a client.
    """

    def __init__(self, app: App, asgi: ASGIApp, base_url: str, headers: Fields) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}
        self.task_errors: list[tuple[BackgroundTask, BaseException]] = []
        self._server = InMemoryServer(asgi)
        self._requests = RequestBuilder(base_url, headers)

    def _note_task_error(self, task: BackgroundTask, exc: BaseException) -> None:
        self.task_errors.append((task, exc))

    async def shutdown(self) -> None:
        """Shut down as a server does, to the end of the lifespan, whose exception this raises.

        Calls of the app that still run when its `drain_timeout` is over are
        cancelled.  Later requests are answered by 503.  A second time does nothing.
        """
        await self._server.shutdown()

    async def wait_tasks(self) -> None:
        """Returns when no task of the app waits or runs any more.

        Cancellation cancels the waiting, not the tasks.
        """
        await wait_tasks(self.app)

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("GET", …)`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("POST", …)`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("PUT", …)`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("PATCH", …)`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("DELETE", …)`."""
        return await self.request("DELETE", url, **options)

    async def options(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("OPTIONS", …)`."""
        return await self.request("OPTIONS", url, **options)

    async def head(self, url: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("HEAD", …)`."""
        return await self.request("HEAD", url, **options)

    async def request(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> ClientResponse:
        """Send a request; returns at the last byte of the response, while its tasks go on.

        `url` is a path, with or without a query, or absolute; what isn't ASCII is
        percent-encoded.  A redirect is a response like any other.

        Error handling: raises `IncompleteResponse`, ValueError for what can't be
        sent, TypeError for an option that there isn't, and what `content` raises: its
        client leaves then.  A handler's exception is a 500 and a record in the log.

        Cancellation: the client leaves, as it does by closing a connection.
        """
        async with self.stream(method, url, **options) as response:
            await response.read()
        return response

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> AsyncIterator[ClientResponse]:
        """Send a request; gives the response at its head, to be read piece by piece.

        Each piece that the app sends waits until it is read.  Leaving the block
        before the last one is the client leaving.  What `content` raises cancels
        the block, and comes out of it; all else is as in `request`.
        """
        request = self._requests.build(method, url, options, self.cookies)
        conversation = self._server.answer(request)
        async with conversation.uploading():
            try:
                head = await conversation.take()
                response = ClientResponse(head, conversation, options.get("disconnect_after"))
                keep_cookies(self.cookies, response.headers)
                yield response
            finally:
                conversation.leave()


class ConnectedClient(Client):
    """A client of the embedded server.  Made by `connect`."""

    def __init__(self, app: App, wire: Wire, base_url: str, headers: Fields) -> None:
        super().__init__(app, wire, base_url, headers)
        self._wire = wire

    def open_stream(self) -> trio.abc.HalfCloseableStream:
        """The client's end of a new connection, for bytes of your own."""
        return self._wire.open_stream()
