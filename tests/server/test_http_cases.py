"""Cases that others wrote: the answer that was settled, however the bytes are cut."""

from __future__ import annotations

import base64
import itertools
import json
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from trio.testing import MockClock

from trioweb.server import Server, ServerLimits, serve

from ..support.server_clients import address_of
from ..support.server_driver import (
    EachParser,
    ParserName,
    Running,
    echo,
    serving,
    statuses,
    without_date,
)

# How long a client looks whether anything comes.
A_WHILE = 1.0  # seconds


@dataclass(frozen=True)
class Case:
    id: str
    verdict: str
    raw: bytes
    expect: str


class Outcome(NamedTuple):
    answer: bytes
    closed: bool

    @property
    def essence(self) -> object:
        """All but the words of a refusal, which are the parser's."""
        reason = re.compile(rb"content-length: [0-9]+\r\nconnection: close\r\n\r\n[^\r]+\n\Z")
        return reason.sub(b"", self.answer), self.closed

    def is_as(self, verdict: str) -> bool:
        final = statuses(self.answer)
        good = [status for status in final if status < 400]
        return {
            "accept": bool(good) and good == final,
            "reject": good != final or (not final and self.closed),
            "wait": not final and not self.closed,
            "reject_or_wait": not good,
        }[verdict]


Sizes = Callable[[], Iterator[int]]


def read(name: str) -> list[Case]:
    lines = (Path(__file__).parent / "http_cases" / name).read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [
        Case(
            case["id"],
            case["verdict"],
            base64.b64decode(case["raw_host"] or case["raw"]),
            case["expect"],
        )
        for case in found
    ]


STRICT = read("strict.jsonl")
LIMITS = read("limits.jsonl")


def whole() -> Iterator[int]:
    return iter(())


def byte_by_byte() -> Iterator[int]:
    return itertools.repeat(1)


def at_random(seed: int) -> Sizes:
    def sizes() -> Iterator[int]:
        rng = random.Random(seed)
        return iter(lambda: rng.choice((1, 1, 2, 3, 5, 8, 13, 40, 200)), 0)

    return sizes


SPLITS: dict[str, Sizes] = {
    "whole": whole,
    "byte by byte": byte_by_byte,
    **{f"at random, seed {seed}": at_random(seed) for seed in range(2)},
}
EachSplit = pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)


async def outcome(server: Running, case: Case, sizes: Sizes) -> Outcome:
    """What a client gets that sends the case and waits for a while."""
    client = server.connect(sizes())
    await client.send(case.raw)
    answer = b""
    with trio.move_on_after(A_WHILE) as waiting:
        async for data in client.stream:
            answer += data
    await client.leave()
    return Outcome(without_date(answer), not waiting.cancelled_caught)


async def outcomes(cases: list[Case], http: ParserName, sizes: Sizes) -> dict[str, Outcome]:
    async with serving(echo, http=http) as server:
        return {case.id: await outcome(server, case, sizes) for case in cases}


def wrong(cases: list[Case], found: dict[str, Outcome]) -> dict[str, Outcome]:
    return {case.id: found[case.id] for case in cases if not found[case.id].is_as(case.verdict)}


@pytest.fixture(scope="module")
def expected() -> dict[str, Outcome]:
    """What h11 makes of the cases when they come whole."""
    clock = MockClock(autojump_threshold=0)
    return trio.run(outcomes, STRICT, "h11", whole, clock=clock)


def test_none_is_missing() -> None:
    assert len({case.id for case in STRICT}) == 188
    assert len({case.id for case in LIMITS}) == 10


@pytest.mark.parametrize(
    ("answer", "closed", "verdicts"),
    [
        (b"HTTP/1.1 200 \r\n", False, {"accept"}),
        (b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 200 \r\n", True, {"accept"}),
        (b"HTTP/1.1 200 \r\n\r\nHTTP/1.1 400 \r\n", True, {"reject"}),
        (b"HTTP/1.1 400 \r\n", False, {"reject", "reject_or_wait"}),
        (b"", True, {"reject", "reject_or_wait"}),
        (b"", False, {"wait", "reject_or_wait"}),
    ],
)
def test_how_an_answer_is_judged(answer: bytes, closed: bool, verdicts: set[str]) -> None:
    found = Outcome(answer, closed)
    every = ("accept", "reject", "wait", "reject_or_wait")
    assert {verdict for verdict in every if found.is_as(verdict)} == verdicts


@pytest.mark.slow
@EachParser
@EachSplit
async def test_each_case_gets_its_settled_answer(
    http: ParserName, sizes: Sizes, expected: dict[str, Outcome], autojump_clock: MockClock
) -> None:
    """And the same one for each parser, however it is cut."""
    found = await outcomes(STRICT, http, sizes)
    assert wrong(STRICT, found) == {}
    every_status = {status for one in found.values() for status in statuses(one.answer)}
    assert {status for status in every_status if status >= 500} <= {501, 505}
    differences = [id for id, one in found.items() if one.essence != expected[id].essence]
    assert differences == []


# Bodies, where the case says what is in them


@EachParser
@pytest.mark.parametrize(
    ("id", "bodies"),
    [
        ("gunicorn/valid/001", [b'{"nom": "nom"}']),
        ("gunicorn/valid/011", [b"hello world"]),
        ("gunicorn/valid/012", [b"hello world"]),
        ("gunicorn/valid/013", [b"hello world"]),
        ("gunicorn/valid/018", [b"", b""]),
        ("gunicorn/valid/020", [b"GET /second HTTP/1.1\r\nHo"]),
        ("gunicorn/valid/023", [b"hello world", b""]),
        ("gunicorn/valid/rfc9112_chunked_ext_quoted_01", [b"hello"]),
        ("llhttp/content-length/021 `Content-Length` with zeroes", [b"abc"]),
        ("llhttp/pipelining/105 Should parse multiple events", [b"AAA", b"BBBB"]),
    ],
)
async def test_the_bodies_are_what_was_sent(
    http: ParserName, id: str, bodies: list[bytes], autojump_clock: MockClock
) -> None:
    [case] = [case for case in STRICT if case.id == id]
    async with serving(echo, http=http) as server:
        for sizes in SPLITS.values():
            client = server.connect(sizes())
            await client.send(case.raw)
            assert [(await client.response()).body for _ in bodies] == bodies
            await client.leave()


# Limits

# Those of gunicorn, as far as its cases name them.
USUAL = ServerLimits(max_target_size=4094, max_head_size=8190, max_fields=100)
OF_A_CASE = {
    "gunicorn/invalid/010": ServerLimits(max_head_size=40),
    "gunicorn/invalid/011": ServerLimits(max_fields=2),
    "gunicorn/invalid/012": ServerLimits(max_head_size=98),
}
FOLDED = "gunicorn/invalid/013"  # refused under any limits: it has a folded line
ANSWERS = {"LimitRequestLine": 414, "LimitRequestHeaders": 431}


@pytest.mark.slow
@EachParser
@pytest.mark.parametrize("sizes", [whole, byte_by_byte, at_random(0)])
@pytest.mark.parametrize("case", LIMITS, ids=[case.id for case in LIMITS])
async def test_past_a_limit(
    http: ParserName, sizes: Sizes, case: Case, autojump_clock: MockClock
) -> None:
    async with serving(echo, http=http, limits=OF_A_CASE.get(case.id, USUAL)) as server:
        found = await outcome(server, case, sizes)
    assert found.is_as(case.verdict)
    assert statuses(found.answer) == [400 if case.id == FOLDED else ANSWERS[case.expect]]


@EachParser
async def test_within_other_limits_the_same_is_served(
    http: ParserName, autojump_clock: MockClock
) -> None:
    wide = ServerLimits(max_target_size=5_000, max_head_size=15_000, max_fields=110)
    async with serving(echo, http=http, limits=wide) as server:
        for case in LIMITS:
            if case.id != FOLDED:
                assert statuses((await outcome(server, case, whole)).answer) == [200], case.id


# Real sockets


@pytest.mark.slow
@EachParser
async def test_the_answers_are_the_same_over_real_sockets(
    http: ParserName, expected: dict[str, Outcome]
) -> None:
    """A client reads as many answers as there are in memory; where it waits there, it says that
    it's done, and is sent nothing good.
    """
    found: dict[str, list[int]] = {}

    async def ask(server: Server, case: Case) -> None:
        async with await trio.open_tcp_stream(*address_of(server.urls[0])) as stream:
            await stream.send_all(case.raw)
            answers = statuses(expected[case.id].answer)
            if not answers:
                await stream.send_eof()
            found[case.id] = await _read_answers(stream, len(answers))

    def start_serving(*, task_status: trio.TaskStatus[Server]) -> Awaitable[None]:
        return serve(echo, port=0, http=http, task_status=task_status)

    with trio.fail_after(20):
        async with trio.open_nursery() as servers:
            server = await servers.start(start_serving)
            async with trio.open_nursery() as clients:
                for case in STRICT:
                    clients.start_soon(ask, server, case)
            await server.shutdown()
    for id, one in expected.items():
        answers = statuses(one.answer)
        assert found[id] == answers or not answers, id
    in_vain = [id for id, one in expected.items() if not one.answer]
    assert in_vain
    assert [id for id in in_vain if min(found[id], default=400) < 400] == []


async def _read_answers(stream: trio.SocketStream, count: int) -> list[int]:
    answer = b""
    async for data in stream:
        answer += data
        if count and len(statuses(answer)) >= count:
            break
    return statuses(answer)
