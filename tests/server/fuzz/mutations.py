"""Inputs from a seed: cases that others wrote, changed here and there."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path

LONGEST = 3_000  # bytes

# What HTTP is made of, and what it's broken with.
WORDS = (
    *(
        b"\r\n",
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"\x00",
        b"\x7f",
        b"\x0b",
        b"\xff",
        b":",
        b";",
    ),
    *(
        b"=",
        b",",
        b'"',
        b"\\",
        b"0",
        b"1",
        b"a",
        b"F",
        b"-",
        b"+",
        b"_",
        b"/",
        b"*",
        b"#",
        b"?",
        b"@",
    ),
    *(
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"OPTIONS ",
        b"CONNECT ",
        b"PRI ",
        b"BREW ",
        b"PLAY ",
        b"http://",
    ),
    *(
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b" HTTP/2.0\r\n",
        b"Host: x\r\n",
        b"Host: y:80\r\n",
        b"x:1",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"5, 5",
    ),
    *(
        b"Transfer-Encoding: gzip\r\n",
        b"chunked",
        b"gzip, ",
        b"Connection: close\r\n",
        b"keep-alive",
    ),
    *(
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"Expect: 100-continue\r\n",
        b"Expect: x\r\n",
        b"A:\r\n",
    ),
    *(
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"1;a=b\r\nx\r\n",
        b';a="b"',
        b" ; a = b",
        b"0\r\na: b\r\n\r\n",
    ),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
)


def cases(*, accepted: bool = False) -> list[bytes]:
    """The bytes of all cases, each once; or only of those that are to be accepted."""
    folder = Path(__file__).parent.parent / "http_cases"
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.jsonl"))]
    found = [json.loads(line) for text in texts for line in text.splitlines()]
    if accepted:
        found = [case for case in found if case["verdict"] == "accept"]
    raw = [base64.b64decode(case["raw_host"] or case["raw"]) for case in found]
    return [data for data in dict.fromkeys(raw) if len(data) <= LONGEST]


def inputs(seed: int, count: int) -> Iterator[bytes]:
    """As many inputs, the same for the same seed: first the cases, then what becomes of them."""
    rng = random.Random(seed)
    found, accepted = cases(), cases(accepted=True)
    yield from found[:count]
    for _ in range(count - len(found)):
        # Most of what is changed twice is no HTTP any more.
        data = rng.choice(rng.choice((found, accepted, accepted)))
        for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
            data = rng.choice(MUTATIONS)(data, accepted, rng)[:LONGEST]
        yield data


def _put_in(data: bytes, found: list[bytes], rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(WORDS) + data[at:]


def _overwrite(data: bytes, found: list[bytes], rng: random.Random) -> bytes:
    at, word = rng.randint(0, len(data)), rng.choice(WORDS)
    return data[:at] + word + data[at + len(word) :]


def _change(data: bytes, found: list[bytes], rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.randbytes(1) + data[at + 1 :]


def _take_out(data: bytes, found: list[bytes], rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + data[at + rng.choice((1, 1, 2, 5, 20)) :]


def _repeat(data: bytes, found: list[bytes], rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    part = data[at : at + rng.choice((1, 5, 30))]
    return data[:at] + part * rng.randint(2, 9) + data[at:]


def _cross(data: bytes, found: list[bytes], rng: random.Random) -> bytes:
    other = rng.choice(found)
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def _follow(data: bytes, found: list[bytes], rng: random.Random) -> bytes:
    return data + rng.choice(found)


MUTATIONS = (_put_in, _put_in, _overwrite, _change, _take_out, _take_out, _repeat, _cross, _follow)
