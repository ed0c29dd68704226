"""The clients of a world: they send what their plans say, badly at times, and read as they can.

Rules of this module:

* What a client gets is read by h11, which takes nothing for HTTP that isn't.
* A client that isn't at fault stays until it has all its answers, or the connection is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import cycle

import h11
import trio

from .plans import RequestPlan
from .streams import End, stream_pair
from .world import Answer, ConnectionRecord, RequestRecord, World

JUNK = b"\x00 what?\r\n\r\n"
SENT_IN_PIECES = 1_000  # bytes


class _AtFault(Exception):
    """The client does what its plan says it does wrong; it goes no further."""


class Client:
    """One connection, from the client's side."""

    def __init__(self, world: World, record: ConnectionRecord) -> None:
        self._world = world
        self._record = record
        self._plan = record.plan
        self._requests = list(_until_the_last(record.requests))
        self._sent = 0  # bytes
        self._received = 0  # bytes
        self._answered = trio.Event()  # anew for each answer
        self._over = trio.Event()

    async def run(self) -> None:
        await trio.sleep(self._plan.after)
        if self._world.is_stopping:
            return
        ours, theirs = stream_pair(self._plan.capacity)
        self._record.theirs = theirs
        self._record.began_at = trio.current_time()
        self._stream: End = ours
        self._world.server.serve_stream(theirs)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._upload)
                await self._download()
                nursery.cancel_scope.cancel()
        finally:
            ours.close()

    def _note(self, what: str) -> None:
        number = self._record.requests[0].number
        self._world.note(f"the client of request {number} {what}")

    # Sending.

    async def _upload(self) -> None:
        record = self._record
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, _AtFault):
            try:
                for position, request in enumerate(self._requests):
                    await self._wait_for_answers(position - self._plan.ahead)
                    if position:
                        await trio.sleep(self._plan.pause)
                    await self._send(head_of(request) + body_of(request))
                    request.sent_at = trio.current_time()
                if self._plan.ends_with_junk and not self._requests[-1].plan.says_close:
                    await self._send(JUNK)
            finally:
                record.stopped_at = trio.current_time()

    async def _wait_for_answers(self, count: int) -> None:
        while sum(answer.is_complete for answer in self._record.answers) < count:
            await self._answered.wait()

    async def _send(self, data: bytes) -> None:
        sizes = cycle(self._plan.send_sizes or (len(data),))
        while data:
            # Past that, small pieces teach nothing more.
            size = min(next(sizes), len(data)) if self._sent < SENT_IN_PIECES else len(data)
            is_at_fault = self._sent + size >= self._plan.at_byte
            if is_at_fault and self._plan.fault.endswith("sending"):
                size = max(0, self._plan.at_byte - self._sent)
            await self._stream.send_all(data[:size])
            self._sent += size
            data = data[size:]
            if is_at_fault:
                await self._do_wrong_while_sending()
            await trio.sleep(self._plan.send_seconds)

    async def _do_wrong_while_sending(self) -> None:
        fault = self._plan.fault
        if fault not in ("stalls while sending", "resets while sending", "closes its side early"):
            return
        self._record.fault_at = trio.current_time()
        self._note(fault)
        if fault == "resets while sending":
            self._stream.reset()
        elif fault == "closes its side early":
            await self._stream.send_eof()
        raise _AtFault

    # Reading.

    async def _download(self) -> None:
        record = self._record
        try:
            for request in self._requests:
                if not await self._read_answer(request.plan):
                    return
            if self._plan.leaves and not self._plan.ends_with_junk:
                return
            # What comes now answers no request of the plan.
            while await self._read_answer(RequestPlan()):
                pass
        except trio.BrokenResourceError:
            record.was_reset = True
            self._note("was reset")
        except h11.RemoteProtocolError as exc:
            record.problem = str(exc)
            self._note(f"is at a loss: {exc}")
        except (_AtFault, trio.ClosedResourceError):
            self._note("goes no further")

    async def _read_answer(self, plan: RequestPlan) -> bool:
        """Whether there was one, and another can follow."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=plan.method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        if self._unread:
            parser.receive_data(self._unread)
        answer: Answer | None = None
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                data = await self._read()
                if not data and not parser.trailing_data[0] and answer is None:
                    return False
                parser.receive_data(data)
            elif isinstance(event, h11.Response):
                answer = Answer(trio.current_time(), event.status_code, dict(event.headers))
                self._record.answers.append(answer)
                self._note(f"reads status {answer.status}")
            elif isinstance(event, h11.Data):
                assert answer is not None
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert answer is not None
                return self._finish(answer, parser)

    _unread = b""

    def _finish(self, answer: Answer, parser: h11.Connection) -> bool:
        answer.completed_at = trio.current_time()
        self._note("has its answer")
        self._unread = parser.trailing_data[0]
        self._answered.set()
        self._answered = trio.Event()
        return True

    async def _read(self) -> bytes:
        await trio.sleep(self._plan.read_seconds)
        size = self._plan.read_size
        if self._plan.fault.endswith("while reading"):
            size = min(size, self._plan.at_byte - self._received)
            if size <= 0:
                await self._do_wrong_while_reading()
        data = await self._stream.receive_some(size)
        self._received += len(data)
        return data

    async def _do_wrong_while_reading(self) -> None:
        self._record.fault_at = trio.current_time()
        self._note(self._plan.fault)
        if self._plan.fault == "stalls while reading":
            await trio.sleep_forever()
        self._stream.reset()
        raise _AtFault


def _until_the_last(requests: Iterable[RequestRecord]) -> Iterator[RequestRecord]:
    """Up to the one that says it is: more mustn't follow."""
    for request in requests:
        yield request
        if request.plan.says_close:
            return


def head_of(request: RequestRecord) -> bytes:
    plan = request.plan
    version = "1.0" if plan.is_old else "1.1"
    lines = [f"{plan.method} /{plan.route}/{request.number} HTTP/{version}", "Host: x"]
    if plan.chunk:
        lines.append("Transfer-Encoding: chunked")
    elif plan.method == "POST":
        lines.append(f"Content-Length: {plan.body}")
    if plan.expects_continue:
        lines.append("Expect: 100-continue")
    if plan.says_close:
        lines.append("Connection: close")
    elif plan.is_old:
        lines.append("Connection: keep-alive")
    return "\r\n".join([*lines, "", ""]).encode()


def body_of(request: RequestRecord) -> bytes:
    body, size = request.body, request.plan.chunk
    if not size:
        return body
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
