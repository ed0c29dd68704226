"""A bounded run of the fuzzing, and proof that it sees what goes wrong."""

from __future__ import annotations

import base64
import contextlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from trio.testing import MockClock

from trioweb.server import ServerLimits, _bodies, _heads, _limits, _strict
from trioweb.server._bodies import SizedBody
from trioweb.server._parsers import HttptoolsParser, parser

from ..support.server_driver import PARSERS, EachParser, ParserName, echo, serving, statuses
from .fuzz import __main__ as command, checks, guided, mutations
from .fuzz.checks import Difference, Other, Target, check
from .fuzz.reader import read

RUNS = 150
LIMITS = ServerLimits()

SIMPLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n0\r\na: b\r\n\r\n"
)


def mutated(seed: int, count: int) -> list[bytes]:
    """So many inputs, without the cases that they come from."""
    first = len(mutations.cases())
    return list(itertools.islice(mutations.inputs(seed, first + count), first, None))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_no_input_makes_a_difference(seed: int) -> None:
    requests = refused = 0
    for data in mutated(seed, RUNS):
        reading = check(data, "differential")
        requests += len(reading.requests)
        refused += reading.refused is not None
    # It's neither all noise nor all the same.
    assert requests > RUNS / 10
    assert refused > RUNS / 10


@pytest.mark.slow
def test_no_case_makes_a_difference() -> None:
    for data in mutations.cases():
        check(data, "differential")


@pytest.mark.parametrize("target", PARSERS)
def test_either_parser_may_be_fuzzed_alone(target: ParserName) -> None:
    for data in mutated(2, 30):
        check(data, target)


def test_an_input_is_read_as_requests() -> None:
    """Each with the bytes that are its own, whatever is around them."""
    reading = check(b"\r\n" + SIMPLE + b"\r\n\r\n" + CHUNKED + SIMPLE + SIMPLE[:9], "differential")
    assert [request.raw for request in reading.requests] == [SIMPLE, CHUNKED, SIMPLE]
    assert [request.body for request in reading.requests] == [b"", b"hello", b""]
    assert reading.refused is None


@pytest.mark.parametrize("http", PARSERS)
def test_a_head_that_is_known_is_read_as_the_first_one_was(http: ParserName) -> None:
    reading = read([SIMPLE, SIMPLE], parser(http), ServerLimits())
    assert [request.raw for request in reading.requests] == [SIMPLE, SIMPLE]
    assert reading.requests[0].head == reading.requests[1].head


def test_the_same_seed_gives_the_same_inputs() -> None:
    assert mutated(5, 200) == mutated(5, 200)
    assert mutated(5, 200) != mutated(6, 200)
    assert list(mutations.inputs(5, 3)) == mutations.cases()[:3]


@pytest.mark.slow
@EachParser
async def test_what_is_fuzzed_is_what_a_connection_does(
    http: ParserName, autojump_clock: MockClock
) -> None:
    async with serving(echo, http=http) as server:
        for data in [*mutations.cases(), *mutated(9, 150)]:
            reading = read([data], parser(http), LIMITS)
            expected = [200] * len(reading.requests)
            if reading.refused is not None:
                expected.append(reading.refused)
            client = server.connect()
            await client.send(data)
            received = b""
            with trio.move_on_after(1):
                async for more in client.stream:
                    received += more
            await client.leave()
            assert statuses(received) == expected, data
            for request in reading.requests:
                assert request.head.method == b"HEAD" or request.body in received, data


# Teeth: each plants one fault, and names an input that shows it


def _lax_sizes(patch: pytest.MonkeyPatch) -> None:
    """Underscores in the size of a chunk, as int() takes them."""
    lax = re.compile(rb"(?P<size>[0-9A-Fa-f_]{1,16})(?P<extensions>)\r\n")
    patch.setattr(_bodies, "_CHUNK", lax)


def _lax_line_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_bodies, "_TRAILER", re.compile(rb"[^\r\n]+\r\n"))


def _lost_bytes(patch: pytest.MonkeyPatch) -> None:
    """A read of one byte loses it."""
    take = SizedBody.take

    def lossy(self: SizedBody, buffer: bytearray) -> bytes:
        return take(self, buffer) if len(buffer) > 1 else b"?" * len(take(self, buffer))

    patch.setattr(SizedBody, "take", lossy)


def _scanned_too_far(patch: pytest.MonkeyPatch) -> None:
    """The end of a head is looked for only behind what was seen."""
    cut = _heads.cut_head

    def hasty(buffer: bytearray, scanned: int, limits: ServerLimits) -> bytes | None:
        return cut(buffer, scanned + 3 if scanned else 0, limits)

    patch.setattr(_heads, "cut_head", hasty)


def _lost_field(patch: pytest.MonkeyPatch) -> None:
    """One parser drops what the other one has."""
    on_header = HttptoolsParser.on_header

    def forgetful(self: HttptoolsParser, name: bytes, value: bytes) -> None:
        if value:
            on_header(self, name, value)

    patch.setattr(HttptoolsParser, "on_header", forgetful)


def _no_length(patch: pytest.MonkeyPatch) -> None:
    """A body is taken for the next request."""
    patch.setattr(_strict, "_length", lambda found, version: 0)


def _raises(patch: pytest.MonkeyPatch) -> None:
    """int() refuses what is too long."""
    patch.setattr(_limits, "MAX_CHUNK_LINE", 10_000)
    patch.setattr(_bodies, "_CHUNK", re.compile(rb"(?P<size>.+?)(?P<extensions>)\r\n"))


SIZED = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"

TEETH: list[tuple[Callable[[pytest.MonkeyPatch], None], bytes]] = [
    (_lax_sizes, CHUNKED.replace(b"5;a=b", b"0_5")),
    (_lax_line_ends, CHUNKED.replace(b"a: b", b"a\x00b")),
    (_lost_bytes, SIZED),
    (_scanned_too_far, SIMPLE),
    (_lost_field, SIMPLE[:-2] + b"a:\r\n\r\n"),
    (_no_length, SIZED),
    (_raises, CHUNKED.replace(b"5;a=b", b"x")),
]


@pytest.mark.parametrize(("plant", "data"), TEETH, ids=[plant.__name__ for plant, _ in TEETH])
def test_a_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Difference):
        check(data, "differential")
    monkeypatch.undo()
    check(data, "differential")


# What others make of a request


@pytest.mark.parametrize("ask", [checks.ask_h11, checks.ask_llhttp])
def test_others_are_asked(ask: Callable[[bytes], Other | None]) -> None:
    assert ask(SIMPLE) == Other(b"GET", b"/", b"")
    assert ask(CHUNKED) == Other(b"POST", b"/", b"hello")
    for broken in (CHUNKED[:-1], CHUNKED.replace(b"5;", b"6;"), SIMPLE[:-1], b"\x00" + SIMPLE):
        found = ask(broken)
        assert found is not None
        assert found.fault


def test_others_say_when_something_is_left() -> None:
    found = checks.ask_h11(SIMPLE + b"x")
    assert found is not None
    assert found.fault


def test_a_tunnel_is_nothing_for_llhttp() -> None:
    tunnel = b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n"
    assert checks.ask_llhttp(tunnel) is None
    assert len(check(tunnel + SIMPLE, "differential").requests) == 1


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED.replace(b"5;a=b", b"5 ;a=b"),
        CHUNKED.replace(b"5;a=b", b"5;a = b"),
        CHUNKED.replace(b"POST", b"BREW"),
        SIMPLE.replace(b"GET", b"PRI"),
        SIMPLE.replace(b"GET", b"PLAY"),
        SIMPLE.replace(b"/ ", b"http://x# "),
        CHUNKED.replace(b"chunked", b"chunked\t"),
    ],
)
def test_a_difference_that_is_explained(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(check(data, "differential").requests) == 1
    monkeypatch.setattr(checks, "EXPLAINED", ())
    with pytest.raises(Difference, match="by itself"):
        check(data, "differential")


def test_each_explanation_says_why() -> None:
    for known in checks.EXPLAINED:
        assert known.who in checks.OTHERS
        assert known.why


# The command


def test_the_command_says_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--plain", "--runs", "5"]) == 0
    assert capsys.readouterr().out.startswith("5 inputs, ")


def test_the_command_ends_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter(range(100))
    with pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(monotonic=lambda: next(times))
        patch.setattr("tests.server.fuzz.__main__.time", clock)
        assert command.main(["--plain", "--runs", "-1", "--seconds", "3"]) == 0
    assert capsys.readouterr().out.startswith("4 inputs, ")


def test_the_command_replays_an_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--replay", base64.b64encode(SIMPLE).decode()]) == 0
    assert "method=b'GET'" in capsys.readouterr().out


def test_an_input_that_fails_is_made_small_and_can_be_replayed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _lost_field(monkeypatch)
    fails = SIMPLE[:-2] + b"Empty:\r\nAccept: *\r\n\r\n"
    monkeypatch.setattr(mutations, "inputs", lambda seed, count: iter([SIMPLE, fails]))
    assert command.main(["--plain"]) == 1
    [line] = [one for one in capsys.readouterr().out.splitlines() if one.startswith("replay with")]
    arguments = line.removeprefix("replay with: python -m tests.server.fuzz ").split()
    assert len(base64.b64decode(arguments[-1])) < 60
    assert command.main(arguments) == 1
    monkeypatch.undo()
    assert command.main(arguments) == 0


def test_the_help_says_how_to_use_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = capsys.readouterr().out
    assert "pip install atheris" in text
    for option in ("--runs", "--seconds", "--parser", "--seed", "--plain", "--folder", "--replay"):
        assert option in text


class Atheris(SimpleNamespace):
    """In place of the real one: runs its corpus once."""

    def __init__(self) -> None:
        super().__init__(flags=[], included=[], seen=[])

    @contextlib.contextmanager
    def instrument_imports(self, include: list[str], **options: bool) -> Iterator[None]:
        self.included = include
        yield

    def Setup(self, flags: list[str], run: Callable[[bytes], None]) -> None:
        self.flags = flags
        self._run = run

    def Fuzz(self) -> None:
        for path in sorted(Path(self.flags[-1]).iterdir()):
            self.seen.append(path.read_bytes())
            self._run(self.seen[-1])


@pytest.fixture
def atheris(monkeypatch: pytest.MonkeyPatch) -> Atheris:
    found = Atheris()
    monkeypatch.setitem(sys.modules, "atheris", found)
    monkeypatch.setattr(guided, "is_installed", lambda: True)
    return found


@pytest.mark.slow
def test_guidance_begins_with_the_cases(atheris: Atheris, tmp_path: Path) -> None:
    options = ["--runs", "7", "--seconds", "3", "--parser", "h11", "--folder", str(tmp_path)]
    assert command.main(options) == 0
    assert sorted(atheris.seen) == sorted(mutations.cases())
    assert {"-runs=7", "-max_total_time=3"} <= set(atheris.flags)
    assert atheris.included == ["trioweb.server", "h11"]


def test_guidance_says_how_to_replay_what_it_finds(
    atheris: Atheris,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _scanned_too_far(monkeypatch)
    with pytest.raises(Difference):
        command.main(["--folder", str(tmp_path)])
    assert (
        "replay with: python -m tests.server.fuzz --parser differential" in capsys.readouterr().out
    )


def test_whether_guidance_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not guided.is_installed()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert guided.is_installed()


def test_every_target_is_a_choice() -> None:
    targets: tuple[Target, ...] = (*PARSERS, "differential")
    for target in targets:
        check(SIMPLE, target)
        assert command.main(["--plain", "--runs", "1", "--parser", target]) == 0


def test_words_are_written_as_atheris_reads_them() -> None:
    assert guided.escaped(b"a\r\n") == "\\x61\\x0d\\x0a"
