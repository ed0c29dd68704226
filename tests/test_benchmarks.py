"""The benchmarks' commands run, and what they make of figures is right; how fast is not for tests.

Rules of this module:

* Figures are made up here.  Where a server or the load is real, nobody looks at its times.
* Apps are called in this process, those whose framework is in the test group.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
import tomllib
import xml.etree.ElementTree
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from benchmarks import _open_loop, _plots, _results, _wrk, compare, internals, latency
from benchmarks.__main__ import main
from benchmarks.apps import endpoints, servers, work
from benchmarks.apps.endpoints import ENDPOINTS, Endpoint, WrongAnswer
from benchmarks.apps.servers import SERVERS, Server
from benchmarks.compare import REFERENCE, Bar

from .asgi import running

ROOT = Path(__file__).parent.parent

RATES = {
    "path": {REFERENCE: [30.0, 20.0, 40.0], "Sanic": [20.0, 25.0, 20.0], "A": [60.0, 40.0, 80.0]},
    "one-task": {REFERENCE: [20.0], "Sanic": [10.0]},
}


@pytest.mark.parametrize(
    ("arguments", "taught"),
    [
        ([], "internals"),
        (["internals"], "pip install starlette fastapi"),
        (["compare"], "How to read it"),
        (["latency"], "How to read it"),
    ],
)
def test_help_teaches(
    arguments: list[str],
    taught: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert taught in capsys.readouterr().out


# What is asked, and of whom


@pytest.mark.parametrize(
    ("app", "names"),
    [
        pytest.param(app, names, id=app)
        for app, names in {server.app: server.endpoints for server in SERVERS.values()}.items()
        if app not in {"falcon_app", "blacksheep_app", "sanic_app"}
    ],
)
async def test_each_app_answers_right(app: str, names: tuple[str, ...]) -> None:
    async with running(importlib.import_module(f"benchmarks.apps.{app}").app) as client:
        for name in names:
            endpoint, before = ENDPOINTS[name], work.ran
            answer = await client(
                endpoint.method, endpoint.target, body=endpoint.sent, headers=endpoint.headers
            )
            content_type = answer.headers["content-type"]
            assert endpoint.fault(answer.status, content_type, answer.body) is None, name
            await wait_all_tasks_blocked()
            assert work.ran == before + endpoint.tasks, name


async def test_the_app_with_tasks_says_how_many_run(autojump_clock: MockClock) -> None:
    async with running(importlib.import_module("benchmarks.apps.latency_app").app) as client:
        assert (await client("POST", "/sleep")).json() == {"added": 1}
        await wait_all_tasks_blocked()
        assert (await client("GET", "/running")).json() == {"running": 1}
        assert (await client("GET", "/items/42")).json() == ENDPOINTS["path"].answer


@pytest.mark.parametrize(
    ("status", "content_type", "body", "fault"),
    [
        (200, "application/json; charset=utf-8", b'{"hello": "Ada"}', None),
        (404, "application/json", b"{}", "status 404: b'{}'"),
        (200, "text/plain", b'{"hello": "Ada"}', "content type 'text/plain'"),
        (200, "application/json", b'{"hello": "ada"}', "another answer"),
    ],
)
def test_what_is_wrong_with_an_answer(
    status: int, content_type: str, body: bytes, fault: str | None
) -> None:
    found = ENDPOINTS["dependency"].fault(status, content_type, body)
    assert found is None if fault is None else found is not None and found.startswith(fault)


def test_peers_that_are_not_installed_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_wrk, "require_wrk", lambda: None)
    monkeypatch.setattr(compare, "move", lambda pid, cores: None)
    monkeypatch.setitem(SERVERS, "A", Server("a", (), (), ("no-such-a", "trio")))
    assert [*compare.installed(["A", "trioweb, h11"])] == ["trioweb, h11"]
    assert capsys.readouterr().out == "left out: A (pip install no-such-a)\n"
    with pytest.raises(SystemExit, match="None of them is installed"):
        compare.run(1, 1, 1, [], ["A"])


def test_the_bench_group_has_what_the_servers_need() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    listed = {str(requirement).partition(">")[0] for requirement in groups["bench"]}
    assert {name for server in SERVERS.values() for name in server.needs} <= listed


# A real server, and load for it


def test_a_constant_rate_on_few_connections() -> None:
    with servers.started(latency.SERVER) as server, server.at_work():
        with endpoints.Asker(server.port) as asker:
            asker.check(latency.ENDPOINT)
        # Each connection is closed by the server after a thousand requests.
        latencies = _open_loop.offer(server.port, latency.ENDPOINT, 10_000, 0.25, 2)
        assert len(latencies) == 2_500
        assert latencies == sorted(latencies)
        with pytest.raises(WrongAnswer, match="404"):
            _open_loop.offer(server.port, Endpoint("none", "GET", "/nowhere", {}), 100, 0.1, 1)


def test_a_server_that_does_not_start() -> None:
    server = Server("no_such_app", servers.EMBEDDED, (), ())
    with ExitStack() as stack, pytest.raises(SystemExit, match=r"doesn't listen: .*no_such_app"):
        stack.enter_context(servers.started(server))


def test_wrk_is_told_the_request() -> None:
    script = _wrk.script(ENDPOINTS["body"])
    assert 'wrk.method = "POST"\nwrk.body = "{\\"name\\": \\"lamp\\"' in script
    assert 'headers["content-type"] = "application/json"' in script
    assert "wrk.body = nil" in _wrk.script(ENDPOINTS["path"])
    assert "x-request-id" not in _wrk.script(ENDPOINTS["path"])
    assert "x-request-id" in _wrk.script(ENDPOINTS["ids"])


def test_what_wrk_tells() -> None:
    summary = {"requests": 300, "microseconds": 2_000_000, "failed": 0}
    assert _wrk.read(f"Running 2s test\n{json.dumps(summary)}").rate == 150
    for spoilt in ({"failed": 1}, {"requests": 0}):
        with pytest.raises(WrongAnswer, match="under load: Running"):
            _wrk.read(f"Running 2s test\n{json.dumps(summary | spoilt)}")


def test_without_wrk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="apt install wrk"):
        _wrk.require_wrk()


# What is made of figures


def test_another_server_is_first_in_each_round() -> None:
    assert [compare.rotated("abc", number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_a_round_goes_over_all_servers_that_have_an_endpoint() -> None:
    both = {"a": Server("a", (), ("path", "body"), ()), "b": Server("b", (), ("path",), ())}
    assert [*compare.pairs(both, ["path", "body"], ["b", "a"])] == [
        ("path", "b"),
        ("path", "a"),
        ("body", "a"),
    ]


def test_ratios_are_pairs() -> None:
    assert compare.ratios([10, 20], [5, 40]) == [2, 0.5]


def test_a_table_of_an_endpoint() -> None:
    table = compare.endpoint_table(RATES["path"]).splitlines()
    assert table[2:] == [
        "| A | 60 | 40–80 | 0.50 | 0.50–0.50 |",
        "| trioweb, httptools | 30 | 20–40 | 1.00 | 1.00–1.00 |",
        "| Sanic | 20 | 20–25 | 1.50 | 0.80–2.00 |",
    ]
    alone = compare.endpoint_table({"A": [1.0]}).splitlines()
    assert alone[2:] == ["| A | 1 | 1–1 |"]


def test_a_bar_is_judged_by_the_best_of_the_others() -> None:
    def verdict(**bar: Any) -> tuple[Any, ...]:
        found = compare.judge(Bar("what", REFERENCE, **bar), RATES)
        return found.against, found.ratio, found.words

    assert verdict(others=["Sanic"], at_least=1.5) == ("Sanic", 1.5, "reached")
    assert verdict(others=["Sanic", "A"], at_least=1) == ("A", 0.5, "not reached")
    assert verdict(others=["Sanic", "A"], at_least=2, endpoint="one-task")[1] == 2
    assert verdict(others=["B"], at_least=1) == (None, None, "not measured")
    assert verdict(others=["A"], at_least=1, endpoint="body")[2] == "not measured"


def test_every_bar_names_servers_that_there_are() -> None:
    for bar in compare.BARS:
        assert {bar.ours, *bar.others} <= SERVERS.keys()
        assert bar.others


def test_losses_are_named() -> None:
    rates = {"path": {REFERENCE: [1.0], "Sanic": [2.0], "bare ASGI on Uvicorn": [3.0]}}
    assert compare.losses(rates) == ["- a path parameter to JSON: Sanic, 0.50 (0.50–0.50)"]
    assert "behind none" in compare.losses({"one-task": RATES["one-task"]})[0]
    for nothing in ({}, {"path": {"Sanic": [2.0]}}, {"path": {REFERENCE: [1.0]}}):
        assert compare.losses(nothing) == ["- nothing was measured beside it"]


def test_there_is_no_winner_where_pairs_contradict_each_other() -> None:
    rates = {"path": {REFERENCE: [1.0, 1.0, 4.0], "Sanic": [2.0, 2.0, 2.0]}}
    [line] = compare.losses(rates)
    assert line.endswith("Sanic, 0.50 (0.50–2.00): no winner")


def test_a_look_is_not_written_down(capsys: pytest.CaptureFixture[str]) -> None:
    assert _results.are_kept(5)
    assert capsys.readouterr().out == ""
    assert not _results.are_kept(4)
    assert not _results.are_kept(5, is_whole=False)
    assert capsys.readouterr().out.count("Not written down") == 2


@pytest.mark.parametrize("bad", ["0", "-1", "1.5", "many"])
def test_numbers_below_one_are_refused(
    bad: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "compare", "--rounds", bad])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "argument --rounds" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_what_was_started(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    def run(**arguments: object) -> None:
        try:
            signal.raise_signal(number)
        finally:
            ended.append("what was started")

    monkeypatch.setattr(internals, "run", run)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "internals"])
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as left:
            main()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert (left.value.code, ended) == (128 + number, ["what was started"])


def test_a_run_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(_results, "STATIC", tmp_path)
    text = compare.report(RATES, "Made up.")
    compare.write(RATES, text, "Made up.")
    kept = json.loads((tmp_path / "results" / "compare.json").read_text("utf-8"))
    assert kept["versions"]["trioweb"]
    assert kept["machine"]["cores"]
    assert kept["results"]["rates"] == RATES
    assert (tmp_path / "compare.md").read_text("utf-8") == text
    assert "| one background task, best peer that has them | trioweb, httptools | Sanic |" in text
    assert "not measured" in text


LATENCIES = {
    name: {percentile: [percentile * (number + 1)] * 3 for percentile in latency.PERCENTILES}
    for number, name in enumerate(latency.MEANWHILE)
}


def test_latencies_are_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(_results, "STATIC", tmp_path)
    text = latency.report(LATENCIES, "Made up.")
    latency.write(LATENCIES, 1000.0, text, "Made up.")
    kept = json.loads((tmp_path / "results" / "latency.json").read_text("utf-8"))
    assert kept["results"]["milliseconds"]["no tasks"]["50.0"] == [50, 50, 50]
    assert "against none: 3.000, bar: at most 1.5, not reached" in text
    assert "bar: at most 1.5, reached" in latency.report({**LATENCIES, **_as_calm()}, "")
    assert "one request in so many" in (tmp_path / "latency.svg").read_text("utf-8")


def _as_calm() -> dict[str, dict[float, list[float]]]:
    return {latency.MANY_TASKS: LATENCIES[latency.NO_TASKS]}


def test_percentiles() -> None:
    values = [*range(1, 1001)]
    assert [latency.at(percentile, values) for percentile in (0, 50, 99, 99.9, 100)] == [
        1,
        500,
        990,
        999,
        1000,
    ]


# Tables and plots


def test_a_table() -> None:
    assert _results.table(["a", "b"], [["c", "1"]]) == "| a | b |\n| --- | ---: |\n| c | 1 |"


def _texts(svg: str) -> list[str]:
    """What can be read in it; also that it is XML."""
    root = xml.etree.ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter() if element.tag.endswith("text")]


def test_bars() -> None:
    svg = _plots.bars("Speed", "m/s", {"trioweb": 36_300.0, "<others>": 12.5})
    assert _texts(svg) == ["Speed, m/s", "trioweb", "36,300", "<others>", "12.5"]
    assert svg.count('class="ours"') == svg.count('class="theirs"') == 1


def test_lines() -> None:
    svg = _plots.lines("T", "size", "ms", {"a": [(1, 20), (100, 30)], "b": [(1, 50)]})
    assert _texts(svg) == ["T", "1", "10", "100", "10", "100", "a", "b", "size", "ms"]
    assert svg.count("<circle") == 3


def test_a_zero_stands_a_decade_below() -> None:
    svg = _plots.lines("T", "size", "ms", {"a": [(0, 1), (10, 1), (100, 0.1)]})
    assert _texts(svg)[1:4] == ["0", "10", "100"]
    assert "0" in _texts(_plots.lines("T", "x", "y", {"a": [(0, 1)]}))
