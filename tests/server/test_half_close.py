"""A client that has closed its sending side: it may wait for its answer, or have left.

Rules of this module:

* Sockets are real ones: what a kernel says of such a client is the point.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioweb import App, BackgroundTasks, Request, StreamingResponse, task
from trioweb._asgi import HALF_CLOSED
from trioweb.server import _limits
from trioweb.server._transport import StreamTransport

from ..support.server_clients import PATIENCE, RESET, address_of, listening
from ..support.server_driver import GET, http_app, respond, serving

Leave = Any


class Service:
    """An app whose answers wait until the server has seen its client close; and what ran."""

    def __init__(self) -> None:
        self.app = App()
        self.ran: list[str] = []
        self.closes = trio.Event()
        self.over = trio.Event()
        for name, is_cancelled in (("watched", None), ("kept", False)):
            self.app.get(f"/{name}", cancel_on_disconnect=is_cancelled)(self._answer)
            self.app.get(f"/{name}/stream", cancel_on_disconnect=is_cancelled)(self._stream)
        self.app.post("/post")(self._answer)
        self.app.post("/post/stream")(self._stream)

    def _note(self, what: str) -> Any:
        async def note() -> None:
            self.ran.append(what)

        return note

    def _add_tasks(self, tasks: BackgroundTasks) -> None:
        tasks.add_task(task(when="sent")(self._note("sent")))
        tasks.add_task(self._end)

    async def _end(self) -> None:
        self.over.set()

    async def _answer(self, request: Request, tasks: BackgroundTasks) -> str:
        self._add_tasks(tasks)
        with trio.move_on_after(PATIENCE):
            await request.wait_disconnected()
        self.closes.set()
        return "the answer"

    async def _stream(self, request: Request, tasks: BackgroundTasks) -> StreamingResponse:
        self._add_tasks(tasks)
        return StreamingResponse(self._pieces(request))

    async def _pieces(self, request: Request) -> AsyncIterator[str]:
        try:
            await request.wait_disconnected()
            self.closes.set()
            # A piece for the kernel to find out with, and one for us.
            for number in range(3):
                yield f"piece {number};"
                await wait_all_tasks_blocked(0.01)
            self.ran.append("made all")
        finally:
            self.ran.append("closed")


def half_close(client: trio.SocketStream) -> None:
    client.socket.shutdown(socket.SHUT_WR)


def leave(client: trio.SocketStream) -> None:
    client.socket.close()


def reset(client: trio.SocketStream) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.socket.close()


async def ask(service: Service, method: str, path: str, close: Leave, **options: Any) -> bytes:
    """What a client gets that closes behind its request."""
    received = b""
    with trio.fail_after(PATIENCE):
        async with listening(service.app, **options) as server:
            [url] = server.urls
            async with await trio.open_tcp_stream(*address_of(url)) as client:
                await client.send_all(request_for(method, path))
                close(client)
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for data in client:
                        received += data
            await service.over.wait()
    return received


def request_for(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/watched"), ("GET", "/kept"), ("POST", "/post")]
)
async def test_it_gets_its_answer_and_that_was_sent(method: str, path: str) -> None:
    """A watched handler would have been cancelled; this one returns at once."""
    service = Service()
    answer = await ask(service, method, path, half_close)
    assert answer.endswith(b'"the answer"')
    assert service.ran == ["sent"]


@pytest.mark.parametrize("path", ["/kept/stream", "/post/stream"])
async def test_it_gets_a_whole_stream_where_the_route_is_not_cancelled(path: str) -> None:
    service = Service()
    method = "GET" if path.startswith("/kept") else "POST"
    answer = await ask(service, method, path, half_close)
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert answer.count(b"piece") == 3
    assert service.ran == ["made all", "closed", "sent"]


async def test_where_the_route_is_its_stream_ends() -> None:
    service = Service()
    answer = await ask(service, "GET", "/watched/stream", half_close)
    assert not answer.endswith(b"\r\n0\r\n\r\n")
    assert service.ran == ["closed"]


@pytest.mark.parametrize("close", [leave, reset])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/watched"), ("GET", "/kept"), ("POST", "/post")]
)
async def test_who_has_left_is_found_out_by_the_answer(
    method: str, path: str, close: Leave
) -> None:
    service = Service()
    await ask(service, method, path, close)
    assert service.closes.is_set()
    assert service.ran == []


@pytest.mark.parametrize("close", [leave, reset])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/watched/stream"), ("GET", "/kept/stream"), ("POST", "/post/stream")],
)
async def test_a_stream_finds_out_who_has_left(method: str, path: str, close: Leave) -> None:
    service = Service()
    await ask(service, method, path, close)
    assert service.ran == ["closed"]


async def test_over_a_unix_socket_it_is_no_different(tmp_path: Path) -> None:
    service = Service()
    path = tmp_path / "s"
    with trio.fail_after(PATIENCE):
        async with listening(service.app, port=None, uds=path):
            async with await trio.open_unix_socket(path) as client:
                await client.send_all(request_for("POST", "/post/stream"))
                half_close(client)
                answer = b"".join([bytes(data) async for data in client])
            await service.over.wait()
    assert answer.count(b"piece") == 3
    assert service.ran == ["made all", "closed", "sent"]


async def test_other_apps_are_told_what_it_may_be_and_may_answer(
    autojump_clock: MockClock,
) -> None:
    told: list[Any] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        told.append(await receive())
        await respond(send, b"hello")
        told.append(await receive())

    async with serving(app) as server:
        client = server.connect()
        await client.send(GET)
        await client.stream.send_eof()
        assert (await client.response()).body == b"hello"
        assert await client.rest() == b""
    assert told == [{"type": "http.disconnect", HALF_CLOSED: True}] * 2


@pytest.mark.parametrize(
    ("backlogs", "refusals", "looks", "is_sent"),
    [
        ([0], [], 0, True),
        ([7, 7, 0], [], 2, True),
        ([7], [False, True], 1, False),
        ([], [], _limits.SETTLING_LOOKS, True),  # it reads nothing, but it may
    ],
)
async def test_the_kernel_is_asked_for_a_while_what_became_of_the_end(
    backlogs: list[int],
    refusals: list[bool],
    looks: int,
    is_sent: bool,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[tuple[bool, float]] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        begin = trio.current_time()
        try:
            await respond(send, b"hello")
            ended.append((True, trio.current_time() - begin))
        except OSError:
            ended.append((False, trio.current_time() - begin))

    is_settling = False

    def backlog(self: StreamTransport) -> int | None:
        if not is_settling:
            return None
        return backlogs.pop(0) if backlogs else 1

    def is_refused(self: StreamTransport) -> bool:
        nonlocal is_settling
        is_settling = True
        return refusals.pop(0) if refusals else False

    async with serving(app) as server:
        client = server.connect()
        await client.send(GET)
        await wait_all_tasks_blocked()
        monkeypatch.setattr(StreamTransport, "is_refused", is_refused)
        monkeypatch.setattr(StreamTransport, "backlog", backlog)
        await client.stream.send_eof()
        await client.rest()
    [(was_sent, seconds)] = ended
    assert was_sent is is_sent
    assert seconds == pytest.approx(looks * _limits.SETTLING_TIME / _limits.SETTLING_LOOKS)
