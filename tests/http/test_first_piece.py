"""The first piece of a stream is asked for before the head: what fails by then is answered."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, Depends, HTTPException, JSONResponse, Request, StreamingResponse, task
from trioweb._limits import FIRST_PIECE_TIME
from trioweb.testing._clock import time_for_threads

from ..support.asgi import Exchange, Message, http_scope, running
from ..support.log_records import before_the_report

Make = Callable[[], Any]
LATE = "GET / failed too late to be answered"


class SoldOut(Exception):
    pass


class Closed(Exception):
    pass


async def nothing() -> AsyncIterator[None]:
    yield


def streaming(make: Make, **options: Any) -> App:
    app = App()

    @app.get("/", **options)
    async def handler() -> StreamingResponse:
        return StreamingResponse(make())

    @app.exception_handler(SoldOut)
    async def sold_out(request: Request, exc: SoldOut) -> JSONResponse:
        return JSONResponse("sold out", 409)

    return app


async def ask(app: App, method: str = "GET", **options: Any) -> Exchange:
    with time_for_threads():
        async with running(app) as client:
            exchange = await client(method, "/", **options)
    return exchange


def failing(exc: BaseException, seconds: float) -> Make:
    async def generator() -> AsyncIterator[str]:
        await trio.sleep(seconds)
        raise exc
        yield ""

    return generator


def failing_in_thread(exc: BaseException, seconds: float) -> Make:
    def generator() -> Iterator[str]:
        raise exc
        yield ""

    return generator


# Handlers of both kinds: answered in the server's call, and in a task of their own.
Options = pytest.mark.parametrize("options", [{}, {"dependencies": [Depends(nothing)]}])


@Options
@pytest.mark.parametrize("fail", [failing, failing_in_thread])
@pytest.mark.parametrize(
    ("exc", "status"),
    [
        (HTTPException(403), 403),
        (SoldOut(), 409),
        (ValueError("went wrong"), 500),
        (SystemExit(1), 500),
        (ExceptionGroup("one", [SoldOut()]), 409),
    ],
)
async def test_what_fails_before_it_is_answered(
    options: Any,
    fail: Any,
    exc: BaseException,
    status: int,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = await ask(streaming(fail(exc, FIRST_PIECE_TIME / 2), **options))
    assert exchange.status == status
    assert exchange.headers["content-type"] == "application/json"
    assert before_the_report(caplog) == ["GET / failed"] * (status == 500)


@Options
async def test_a_client_waits_for_its_head_so_long_and_no_longer(
    options: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    heads: list[float] = []

    async def send(message: Message) -> None:
        heads.append(trio.current_time() - begin)

    app = streaming(failing(HTTPException(403), 10), **options)
    async with running(app):
        begin = trio.current_time()
        await app(http_scope("GET", "/", []), trio.sleep_forever, send)
    assert heads == [FIRST_PIECE_TIME] * 2
    assert before_the_report(caplog) == [LATE]


@Options
async def test_a_piece_of_the_wrong_kind_is_found_out_in_time(
    options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await ask(streaming(lambda: iter([1]), **options))).status == 500
    assert "each piece" in caplog.text


@Options
async def test_a_stream_of_nothing_is_a_whole_one(options: Any) -> None:
    exchange = await ask(streaming(lambda: iter([]), **options))
    assert (exchange.status, exchange.body) == (200, b"")
    assert exchange.complete.is_set()


async def test_head_asks_for_nothing(autojump_clock: MockClock) -> None:
    assert (await ask(streaming(failing(HTTPException(403), 0)), "HEAD")).status == 200


@Options
async def test_tasks_and_dependencies_know_that_it_failed(options: Any) -> None:
    app = App()
    seen: list[str] = []

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            seen.append("rolled back")
            raise

    def note(when: Any) -> Any:
        @task(when=when)
        async def ran() -> None:
            seen.append(when)

        return ran

    dependencies = [Depends(session)] if options else []

    @app.get("/", dependencies=dependencies)
    async def handler(request: Request) -> StreamingResponse:
        for when in ("success", "sent", "error", "always"):
            request.tasks.add_task(note(when))
        return StreamingResponse(failing(ValueError(), 0)())

    assert (await ask(app)).status == 500
    # As of a handler that fails: dependencies are left before the failure is answered.
    assert seen == ["rolled back"] * bool(options) + ["error", "always"]


@Options
async def test_who_leaves_before_it_has_left_a_stream_and_no_failure(
    options: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    seen: list[str] = []

    async def after() -> None:
        seen.append("task")

    async def pieces() -> AsyncIterator[str]:
        try:
            yield await trio.sleep_forever()
        finally:
            seen.append("closed")

    @app.get("/", **options)
    async def handler(request: Request) -> StreamingResponse:
        request.tasks.add_task(after)
        return StreamingResponse(pieces())

    async def receive() -> Message:
        await trio.sleep(FIRST_PIECE_TIME / 2)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise OSError("gone")

    async with running(app):
        await app(http_scope("GET", "/", []), receive, send)
    assert seen == ["closed", "task"]
    assert before_the_report(caplog) == []


async def test_a_head_that_the_client_does_not_take_ends_the_stream(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[float] = []

    async def pieces() -> AsyncIterator[str]:
        try:
            yield await trio.sleep_forever()
        finally:
            closed.append(trio.current_time() - begin)

    async def send(message: Message) -> None:
        raise OSError("gone")

    app = streaming(pieces)
    async with running(app):
        begin = trio.current_time()
        await app(http_scope("GET", "/", []), trio.sleep_forever, send)
    assert closed == [FIRST_PIECE_TIME]
    assert before_the_report(caplog) == []


async def test_who_has_left_before_the_first_piece_takes_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps: list[int] = []

    async def pieces() -> AsyncIterator[str]:
        while True:
            steps.append(len(steps))
            yield "piece"

    async def send(message: Message) -> None:
        raise OSError("gone")

    await streaming(pieces)(http_scope("GET", "/", []), trio.sleep_forever, send)
    assert steps == [0]
    assert before_the_report(caplog) == []


async def test_a_first_piece_waits_for_a_head_that_is_on_its_way(
    autojump_clock: MockClock,
) -> None:
    async def pieces() -> AsyncIterator[str]:
        await trio.sleep(FIRST_PIECE_TIME + 1)
        yield "first"

    sent: list[Any] = []

    async def send(message: Message) -> None:
        await trio.sleep(2)
        sent.append(message.get("body"))

    await streaming(pieces)(http_scope("GET", "/", []), trio.sleep_forever, send)
    assert sent[:3] == [None, b"", b"first"]


@Options
async def test_the_answer_to_it_may_be_a_stream_that_fails_as_well(
    options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is asked a third time: the server, which has had no answer, says 500."""
    app = streaming(failing(Closed(), 0), **options)

    @app.exception_handler(Closed)
    async def closed(request: Request, exc: Closed) -> StreamingResponse:
        return StreamingResponse(failing(ValueError("again"), 0)())

    exchange = await ask(app)
    assert exchange.sent == []
    assert before_the_report(caplog) == [LATE]
    assert caplog.records[0].levelno == logging.ERROR


class SlowServer:
    """It has taken what it was sent before `send` returns, and its client leaves within that."""

    def __init__(self, *, leaves_at: float = math.inf) -> None:
        self.sent: list[Any] = []
        self._leaves_at = leaves_at

    async def receive(self) -> Message:
        await trio.sleep(self._leaves_at)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message.get("status", message.get("body")))
        await trio.sleep(2)


def ending(seconds: float, failure: Exception | None = None) -> Make:
    async def generator() -> AsyncIterator[str]:
        await trio.sleep(seconds)
        if failure is not None:
            raise failure
        return
        yield ""

    return generator


async def whole() -> AsyncIterator[str]:
    yield "first"


@Options
async def test_who_leaves_while_the_head_goes_out_is_sent_no_second_one(
    options: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server, app = SlowServer(leaves_at=1), streaming(whole, **options)
    async with running(app):
        await app(http_scope("GET", "/", []), server.receive, server.send)
    assert server.sent == [200]
    assert before_the_report(caplog) == []


@Options
@pytest.mark.parametrize("seconds", [1, 3])  # within the head, and what makes it go out
async def test_a_stream_that_ends_while_its_head_goes_out_is_a_whole_one(
    options: Any, seconds: float, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server, app = SlowServer(), streaming(ending(seconds), **options)
    async with running(app):
        await app(http_scope("GET", "/", []), server.receive, server.send)
    assert (server.sent[0], set(server.sent[1:])) == (200, {b""})
    assert before_the_report(caplog) == []


@Options
@pytest.mark.parametrize("seconds", [1, 3])
async def test_what_fails_while_the_head_goes_out_is_too_late(
    options: Any, seconds: float, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server, app = SlowServer(), streaming(ending(seconds, ValueError()), **options)
    async with running(app):
        await app(http_scope("GET", "/", []), server.receive, server.send)
    assert server.sent == [200, b""]
    assert before_the_report(caplog) == [LATE]


async def test_a_dependency_sees_one_cancellation_of_a_stream(autojump_clock: MockClock) -> None:
    """As of a handler: no group of those that run beside it."""
    app = App()
    seen: list[type[BaseException]] = []

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as exc:
            seen.append(type(exc))
            raise

    @app.get("/", dependencies=[Depends(session)])
    async def handler() -> StreamingResponse:
        return StreamingResponse(ending(10)())

    with trio.move_on_after(1):
        await app(http_scope("GET", "/", []), trio.sleep_forever, Exchange([]).send)
    assert seen == [trio.Cancelled]
