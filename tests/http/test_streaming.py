"""Streaming: pieces as they come, the iterator closed on every way out, no false ending."""

from __future__ import annotations

import contextvars
import io
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioweb import App, JSONResponse, Request, StreamingResponse, _limits

from ..support.asgi import Client, Exchange, Message, http_scope, running
from ..support.exchanges import exchange_of
from ..support.log_records import messages

Make = Callable[[], Any]


def streaming(make: Make, **options: Any) -> App:
    """An app that answers with a stream of what `make` makes."""
    app = App()

    @app.route("/", methods=["GET", "POST", "HEAD"])
    async def handler() -> StreamingResponse:
        return StreamingResponse(make(), **options)

    return app


async def stream(make: Make, method: str = "GET", **options: Any) -> Exchange:
    return await Client(streaming(make))(method, "/", **options)


def pieces(exchange: Exchange) -> list[bytes]:
    return [message["body"] for message in exchange.sent[1:] if message["more_body"]]


def ended(exchange: Exchange) -> bool:
    """Whether the response was ended as a whole one is."""
    return not exchange.sent[-1].get("more_body", True)


class Source(AsyncIterator[str]):
    """Yields a piece each so many seconds, and knows when it was closed."""

    def __init__(
        self, count: float = 3, *, seconds: float = 1, failure: BaseException | None = None
    ) -> None:
        self.steps = 0
        self.closed: list[float] = []
        self._count = count
        self._seconds = seconds
        self._failure = failure

    async def __anext__(self) -> str:
        if self.steps >= self._count:
            if self._failure is not None:
                raise self._failure
            raise StopAsyncIteration
        await trio.sleep(self._seconds)
        self.steps += 1
        return f"{self.steps} "

    async def aclose(self) -> None:
        self.closed.append(trio.current_time())
        await trio.lowlevel.checkpoint()  # it has time to


class Stuck(Source):
    """Never closes by itself."""

    async def aclose(self) -> None:
        await super().aclose()
        await trio.sleep_forever()


# What can be streamed


async def generated() -> AsyncIterator[str | bytes]:
    yield "é"
    yield b"\xff"
    yield ""
    yield bytearray(b"b")  # type: ignore[misc]
    yield memoryview(b"m")  # type: ignore[misc]


def generated_in_thread() -> Iterator[str | bytes]:
    yield "é"
    yield b"\xff"
    yield ""
    yield bytearray(b"b")  # type: ignore[misc]
    yield memoryview(b"m")  # type: ignore[misc]


def channel() -> trio.MemoryReceiveChannel[str | bytes]:
    to_stream, received = trio.open_memory_channel[str | bytes](10)
    with to_stream:
        for piece in generated_in_thread():
            to_stream.send_nowait(piece)
    return received


@pytest.mark.parametrize(
    "make",
    [generated, generated_in_thread, channel, lambda: list(generated_in_thread())],
)
async def test_pieces_are_sent_one_by_one_as_bytes(make: Make) -> None:
    exchange = await stream(make)
    assert pieces(exchange) == ["é".encode(), b"\xff", b"", b"b", b"m"]
    assert all(type(piece) is bytes for piece in pieces(exchange))
    assert exchange.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert exchange.raw_headers == []


async def test_each_piece_is_sent_when_it_comes(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    times: list[tuple[str, float]] = []

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        times.append((message.get("body", b"head").decode(), trio.current_time() - start))

    await streaming(Source)(http_scope("GET", "/", []), trio.sleep_forever, send)
    # The head doesn't wait for the first piece; the empty one has servers send it.
    assert times[:5] == [("head", 0.5), ("", 0.5), ("1 ", 1), ("2 ", 2), ("3 ", 3)]


@pytest.mark.parametrize("content", ["text", b"bytes", bytearray(b"x"), memoryview(b"x")])
def test_a_body_in_one_piece_is_refused(content: Any) -> None:
    with pytest.raises(TypeError, match="Response takes it in one"):
        StreamingResponse(content)


@pytest.mark.parametrize("content", [None, 1, generated])
def test_what_has_no_pieces_is_refused(content: Any) -> None:
    with pytest.raises(TypeError):
        StreamingResponse(content)


@pytest.mark.parametrize("piece", [None, 1, {"a": 1}])
async def test_a_piece_that_is_neither_text_nor_bytes_breaks_the_stream_off(
    piece: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """None too: it mustn't be taken for the end."""
    exchange = await stream(lambda: iter(["a", piece, "b"]))
    assert pieces(exchange) == [b"a"]
    assert not ended(exchange)
    assert messages(caplog) == ["GET / failed too late to be answered"]
    assert f"holds str or bytes, not {type(piece).__name__}" in caplog.text


async def test_a_stream_may_have_a_length_a_type_and_a_status() -> None:
    app = streaming(
        lambda: ["ab"], headers={"content-length": "2"}, media_type="text/css", status_code=203
    )
    exchange = await Client(app)("GET", "/")
    assert exchange.status == 203
    assert exchange.headers == {"content-type": "text/css; charset=utf-8", "content-length": "2"}


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_where_there_is_no_body_the_iterator_is_only_closed(
    method: str, status: int, autojump_clock: MockClock
) -> None:
    source = Source()
    app = streaming(lambda: source, status_code=status, headers={"content-length": "2"})
    exchange = await Client(app)(method, "/")
    assert source.steps == 0
    assert len(source.closed) == 1
    assert exchange.body == b""
    assert ended(exchange)
    assert ("content-length" in exchange.headers) == (method == "HEAD")


# Iterators in threads


class Steps:
    """A plain iterator that notes which thread each step ran in."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.closed_in: list[int] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.threads.append(threading.get_ident())
        if len(self.threads) > 3:
            raise StopIteration
        return "x"

    def close(self) -> None:
        self.closed_in.append(threading.get_ident())


async def test_each_step_of_a_plain_iterator_runs_in_a_thread() -> None:
    steps = Steps()
    assert (await stream(lambda: steps)).body == b"xxx"
    assert len(steps.threads) == 4
    assert len(steps.closed_in) == 1
    assert threading.get_ident() not in steps.threads + steps.closed_in


async def test_a_step_that_blocks_does_not_block_the_others() -> None:
    reached, release = trio.Event(), threading.Event()

    def blocking() -> Iterator[str]:
        trio.from_thread.run_sync(reached.set)
        release.wait()
        yield "released"

    app = streaming(blocking)
    app.get("/other")(lambda: "other")
    async with running(app) as client, trio.open_nursery() as nursery:

        async def request() -> None:
            assert (await client("GET", "/")).body == b"released"

        nursery.start_soon(request)
        await reached.wait()
        assert (await client("GET", "/other")).json() == "other"
        release.set()


async def test_a_file_is_streamed_and_closed() -> None:
    file = io.BytesIO(b"one\ntwo\n")
    assert pieces(await stream(lambda: file)) == [b"one\n", b"two\n"]
    assert file.closed


async def test_a_step_that_blocks_is_left_behind_and_closed_when_it_ends(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reached, closed, release = trio.Event(), trio.Event(), threading.Event()
    # The thread that is left behind has the only place: closing mustn't wait for it.
    trio.to_thread.current_default_thread_limiter().total_tokens = 1

    def blocking() -> Iterator[str]:
        try:
            trio.from_thread.run_sync(reached.set)
            release.wait()
            yield "nobody reads it"
        finally:
            trio.from_thread.run_sync(closed.set)

    left = trio.Event()

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(streaming(blocking), http_scope("GET", "/", []), receive, send)
        await reached.wait()
        left.set()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(_limits.STREAM_CLOSE_TIMEOUT)
    assert not closed.is_set()
    assert messages(caplog)[0].startswith("the iterator <generator object")
    release.set()
    await closed.wait()
    assert len(sent) == 1


# Ways out


@pytest.mark.parametrize("leaves_after", [1, 2])
async def test_between_pieces_the_client_may_leave(
    leaves_after: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source(count=100)
    exchange = await stream(lambda: source, leaves_after=leaves_after)
    assert len(pieces(exchange)) == leaves_after
    assert len(source.closed) == 1
    assert not ended(exchange)
    assert caplog.records == []


async def test_while_the_iterator_waits_the_client_may_leave(autojump_clock: MockClock) -> None:
    cleaned_up: list[float] = []

    async def endless() -> AsyncIterator[str]:
        try:
            yield "first"
            await trio.sleep_forever()
        finally:
            cleaned_up.append(trio.current_time())

    async def receive() -> Message:
        await trio.sleep_until(start + 30)
        return {"type": "http.disconnect"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    start = trio.current_time()
    await streaming(endless)(http_scope("GET", "/", []), receive, send)
    assert cleaned_up == [start + 30]
    assert [message.get("body") for message in sent] == [None, b"first"]


async def test_a_disconnect_right_after_the_last_byte_means_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = streaming(Source)
    ran: list[str] = []

    async def task() -> None:
        ran.append("task")

    @app.get("/tasks")
    async def handler(request: Request) -> StreamingResponse:
        request.tasks.add_task(task)
        return StreamingResponse(Source())

    async with running(app) as client:
        exchange = await client("GET", "/tasks")
    assert exchange.body == b"1 2 3 "
    assert ended(exchange)
    assert exchange.left.is_set()
    assert ran == ["task"]
    assert caplog.records == []


async def failing_generator() -> AsyncIterator[str]:
    yield "a"
    raise ValueError("went wrong")


def failing_generator_in_thread() -> Iterator[str]:
    yield "a"
    raise ValueError("went wrong")


@pytest.mark.parametrize(
    "make",
    [
        failing_generator,
        failing_generator_in_thread,
        lambda: Source(1, seconds=0, failure=ValueError("went wrong")),
    ],
)
async def test_a_stream_that_fails_is_logged_once_and_does_not_pretend_to_be_whole(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = await stream(make)
    assert len(pieces(exchange)) == 1
    assert not ended(exchange)
    assert messages(caplog) == ["GET / failed too late to be answered"]
    assert caplog.text.count("ValueError: went wrong") == 1
    assert caplog.records[0].exc_info is not None
    assert type(caplog.records[0].exc_info[1]) is ValueError


@pytest.mark.parametrize(
    "failure", [SystemExit(1), ExceptionGroup("two", [OSError("1"), OSError("2")])]
)
async def test_whatever_it_fails_with_the_app_lives(
    failure: BaseException, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sources = [Source(1, failure=failure), Source(1, failure=failure)]
    async with running(streaming(iter(sources).__next__)) as client:
        for _ in range(2):
            assert not ended(await client("GET", "/"))
    assert messages(caplog) == ["GET / failed too late to be answered"] * 2
    assert [len(source.closed) for source in sources] == [1, 1]


class FailsToClose(Source):
    async def aclose(self) -> None:
        await super().aclose()
        raise ValueError("can't close")


async def test_a_failure_to_close_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = FailsToClose()
    await stream(lambda: source)
    assert messages(caplog) == ["GET / failed too late to be answered"]
    assert "ValueError: can't close" in caplog.text
    assert len(source.closed) == 1


async def test_a_head_that_can_not_be_sent_closes_the_iterator(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("broken")

    await streaming(lambda: source)(http_scope("GET", "/", []), trio.sleep_forever, send)
    assert (source.steps, len(source.closed)) == (0, 1)
    assert messages(caplog) == ["GET / failed too late to be answered"]


async def test_a_cancelled_server_closes_the_iterator_and_says_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source(count=100)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    start = trio.current_time()
    with trio.move_on_after(2.5) as scope:
        await streaming(lambda: source)(http_scope("GET", "/", []), trio.sleep_forever, send)
    assert scope.cancelled_caught
    assert source.closed == [start + 2.5]
    assert [message.get("body") for message in sent] == [None, b"", b"1 ", b"2 "]
    assert caplog.records == []


async def test_closing_is_bounded_at_the_end_of_a_stream(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Stuck()
    start = trio.current_time()
    exchange = await stream(lambda: source)
    assert source.closed == [start + 3]
    assert trio.current_time() == start + 3 + _limits.STREAM_CLOSE_TIMEOUT
    assert ended(exchange)
    assert messages(caplog) == [f"the iterator {source!r} behind a response didn't close in time"]
    assert caplog.records[0].levelno == logging.ERROR


async def test_closing_is_bounded_when_the_client_leaves(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Stuck()
    start = trio.current_time()
    exchange = await stream(lambda: source, leaves_after=2)
    assert trio.current_time() == start + 1 + _limits.STREAM_CLOSE_TIMEOUT
    assert not ended(exchange)
    assert len(messages(caplog)) == 1


async def test_closing_is_bounded_when_the_server_is_cancelled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Stuck()
    start = trio.current_time()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with trio.move_on_after(1.5) as scope:
        await streaming(lambda: source)(http_scope("GET", "/", []), trio.sleep_forever, send)
    assert scope.cancelled_caught
    assert trio.current_time() == start + 1.5 + _limits.STREAM_CLOSE_TIMEOUT
    assert sent[-1] == {"type": "http.response.body", "body": b"1 ", "more_body": True}
    assert len(messages(caplog)) == 1


async def test_a_failure_is_not_forgotten_over_an_iterator_that_does_not_close(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Stuck(1, failure=ValueError("went wrong"))
    exchange = await stream(lambda: source)
    assert not ended(exchange)
    assert [text.partition(" ")[0] for text in messages(caplog)] == ["the", "GET"]
    assert "ValueError: went wrong" in caplog.text


class Merged:
    """A generator that holds a nursery and a scope open around its `yield`."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.closed = False
        self._failure = failure

    async def __aiter__(self) -> AsyncIterator[str]:
        to_merge, received = trio.open_memory_channel[str](0)
        try:
            async with trio.open_nursery() as nursery, received:
                nursery.start_soon(self._produce, to_merge)
                with trio.move_on_after(1000):
                    async for piece in received:
                        yield piece
                        await trio.sleep(1)
        finally:
            self.closed = True

    async def _produce(self, to_merge: trio.MemorySendChannel[str]) -> None:
        try:
            for n in range(4):
                await trio.sleep(1)
                await to_merge.send(f"{n}")
        finally:
            to_merge.close()
            if self._failure is not None:
                raise self._failure


@pytest.mark.parametrize("leaves_after", [1, 2, 100])
async def test_a_generator_may_hold_scopes_open_while_it_waits(
    leaves_after: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    merged = Merged()
    exchange = await stream(lambda: merged, leaves_after=leaves_after)
    assert len(pieces(exchange)) == min(leaves_after, 1 + 4)  # one is to have the head sent
    assert ended(exchange) == (leaves_after == 100)
    assert merged.closed
    assert caplog.records == []


async def never_sent(make: Make, *, cancelled_after: float) -> bool:
    """A first piece that can't be sent until the client leaves, a minute later; if cancelled."""

    async def receive() -> Message:
        await trio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await trio.sleep_forever()

    with trio.move_on_after(cancelled_after) as scope:
        await streaming(make)(http_scope("GET", "/", []), receive, send)
    return scope.cancelled_caught


@pytest.mark.parametrize("cancelled_after", [30, 90])
async def test_a_generator_may_hold_scopes_open_while_its_piece_is_sent(
    cancelled_after: float, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is closed within the scopes that it was entered in, or Trio would say they are broken."""
    merged = Merged()
    assert await never_sent(lambda: merged, cancelled_after=cancelled_after) == (
        cancelled_after < 60
    )
    assert merged.closed
    assert caplog.records == []


@pytest.mark.parametrize("cancelled_after", [30, 90])
async def test_a_generator_closed_within_a_nursery_has_not_failed(
    cancelled_after: float, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Trio makes a group of its GeneratorExit, which Python's `aclose` then doesn't know."""

    async def in_nursery() -> AsyncIterator[str]:
        async with trio.open_nursery():
            yield "x"

    generator = in_nursery()
    await never_sent(lambda: generator, cancelled_after=cancelled_after)
    assert [piece async for piece in generator] == []  # it is at its end
    assert caplog.records == []


async def test_what_fails_in_a_generators_nursery_while_it_is_closed_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    merged = Merged(ValueError("went wrong"))
    await never_sent(lambda: merged, cancelled_after=90)
    assert merged.closed
    assert messages(caplog) == ["GET / failed too late to be answered"]
    assert "ValueError: went wrong" in caplog.text


async def test_a_channel_is_closed_so_that_its_sender_knows(autojump_clock: MockClock) -> None:
    to_stream, received = trio.open_memory_channel[str](0)
    outcome: list[str] = []

    async def produce() -> None:
        try:
            while True:
                await trio.sleep(1)
                await to_stream.send("x")
        except trio.BrokenResourceError:
            outcome.append("told")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await stream(lambda: received, leaves_after=3)
    assert outcome == ["told"]


async def test_an_iterator_without_a_close_is_just_left(autojump_clock: MockClock) -> None:
    class Plain:
        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> str:
            await trio.sleep(1)
            return "x"

    exchange = await stream(Plain, leaves_after=3)
    assert pieces(exchange) == [b"", b"x", b"x"]


async def test_a_stream_that_is_never_sent_is_closed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    response = StreamingResponse(source)
    exchange = exchange_of(http_scope("GET", "/", []), trio.sleep_forever)
    await response.close(exchange)
    await response.close(exchange)
    assert (source.steps, len(source.closed)) == (0, 1)
    await JSONResponse({}).close(exchange)


async def test_closing_ends_with_the_cleanup_time_where_that_is_shorter(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(drain_timeout=1, cleanup_timeout=0.5)

    @app.get("/")
    async def root(nursery: trio.Nursery) -> StreamingResponse:
        return StreamingResponse(Stuck())

    async with trio.open_nursery() as nursery:
        async with running(app) as client:
            nursery.start_soon(client, "GET", "/")
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
        assert trio.current_time() == pytest.approx(start + 1.5)


# With a request's body


async def test_the_body_can_be_streamed_back(autojump_clock: MockClock) -> None:
    app = App()

    @app.post("/")
    async def echo(request: Request) -> StreamingResponse:
        return StreamingResponse(request.stream())

    exchange = await Client(app)("POST", "/", body=[b"one", b"two", b"three"])
    assert pieces(exchange) == [b"one", b"two", b"three"]
    assert ended(exchange)


async def test_what_is_unread_is_discarded_after_a_stream(autojump_clock: MockClock) -> None:
    size = _limits.READ_AHEAD
    exchange = await stream(Source, "POST", body=[b"x" * size] * 5)
    assert exchange.body == b"1 2 3 "
    assert exchange.received == 5
    assert ended(exchange)


async def test_a_stream_that_fails_with_an_unread_body_is_not_ended(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = await stream(failing_generator, "POST", body=[b"x" * _limits.READ_AHEAD] * 5)
    assert not ended(exchange)
    assert messages(caplog) == ["POST / failed too late to be answered"]


async def test_a_failure_is_logged_even_if_the_call_is_cancelled_at_the_same_moment(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def chunks() -> AsyncIterator[str]:
        yield "a"
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        raise ValueError("went wrong")

    app = App()

    @app.get("/")
    async def root() -> StreamingResponse:
        return StreamingResponse(chunks())

    async with running(app) as client:
        with trio.move_on_after(0.5) as scope:
            await client("GET", "/")
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == ["went wrong"]


class Held(Iterator[str]):
    """Its second step blocks for as long as the test likes; notes which threads run it."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.blocks, self.release = threading.Event(), threading.Event()
        self.has_closed = threading.Event()
        self.steps: list[int] = []
        self.closes: list[int] = []
        self._failure = failure

    def __next__(self) -> str:
        self.steps.append(threading.get_ident())
        if len(self.steps) > 1:
            self.blocks.set()
            self.release.wait()
        return "a"

    def close(self) -> None:
        self.closes.append(threading.get_ident())
        self.has_closed.set()
        if self._failure is not None:
            raise self._failure


async def leave_while_it_blocks(source: Held, left: trio.Event) -> None:
    async def receive() -> Message:
        await trio.to_thread.run_sync(source.blocks.wait)
        left.set()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()

    await streaming(lambda: source)(http_scope("GET", "/", []), receive, send)


async def test_the_thread_that_is_within_a_step_closes_behind_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A second one would wait for it, and clients that come and leave would make more and more."""
    source = Held()
    await leave_while_it_blocks(source, trio.Event())
    assert messages(caplog) == [f"the iterator {source!r} behind a response didn't close in time"]
    assert source.closes == []
    source.release.set()
    await trio.to_thread.run_sync(source.has_closed.wait)
    assert source.closes == source.steps[1:]


async def test_what_closing_behind_a_step_raises_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Held(OSError("no"))

    async def release() -> None:
        await left.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)  # the app waits for the thread to close
        source.release.set()

    left = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave_while_it_blocks, source, left)
        nursery.start_soon(release)
    assert source.closes == source.steps[1:]
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == ["no"]


# The contextvars of a plain iterator

user = contextvars.ContextVar("user", default="nobody")


class Remembering(Iterator[str]):
    """Sets a variable as it begins, and gives it back as it is closed."""

    def __init__(self) -> None:
        self.seen = [f"made by {user.get()}"]
        self._token: contextvars.Token[str] | None = None

    def __next__(self) -> str:
        self.seen.append(user.get())
        if self._token is not None:
            raise StopIteration
        self._token = user.set("the iterator")
        return "a"

    def close(self) -> None:
        self.seen.append(user.get())
        assert self._token is not None
        user.reset(self._token)
        self.seen.append(user.get())


@pytest.mark.parametrize("leaves_after", [1, 100])
@pytest.mark.parametrize("in_thread", [True, False])
async def test_all_steps_of_a_plain_iterator_are_in_the_context_it_was_made_in(
    in_thread: bool, leaves_after: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    made: list[Remembering] = []

    def respond() -> StreamingResponse:
        user.set("the handler")
        made.append(Remembering())
        return StreamingResponse(made[0])

    if in_thread:
        app.get("/")(respond)
    else:

        @app.get("/")
        async def handler() -> StreamingResponse:
            return respond()

    async with running(app) as client:
        await client("GET", "/", leaves_after=leaves_after)
    # A second step may have begun when the client leaves.
    assert made[0].seen[:2] == ["made by the handler", "the handler"]
    assert made[0].seen[2:] in (["the iterator"] * n + ["the handler"] for n in (1, 2))
    assert caplog.records == []
