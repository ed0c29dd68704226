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
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from benchmarks import _open_loop, _plots, _results, _wrk, compare, internals, latency
from benchmarks.__main__ import main
from benchmarks.apps import endpoints, servers, work
from benchmarks.apps.endpoints import ENDPOINTS, Endpoint, WrongAnswer
from benchmarks.apps.servers import SERVERS, Server
from benchmarks.compare import FASTAPI, REFERENCE, Bar

from ..support.asgi import running

ROOT = Path(__file__).parents[2]

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
        (["instructions"], "--against ../main"),
        (["balance"], "apt install nginx-light"),
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


@pytest.mark.slow
@pytest.mark.processes
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


@pytest.mark.slow
@pytest.mark.processes
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


def test_a_bar_is_judged_by_the_best_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SERVERS, "A", Server("a", (), ("path",), ()))

    def verdict(**bar: Any) -> tuple[Any, ...]:
        found = compare.judge(Bar("what", REFERENCE, **bar), RATES)
        return found.against, found.ratio, found.words

    assert verdict(others=["Sanic"], at_least=1.5) == ("Sanic", 1.5, "reached")
    without = verdict(others=["Sanic", FASTAPI], at_least=1.5)[2]
    assert without == "reached, without FastAPI on Uvicorn"
    assert verdict(others=["Sanic", "A"], at_least=1) == ("A", 0.5, "not reached")
    assert verdict(others=["Sanic", "A"], at_least=2, endpoint="one-task")[1:] == (2, "reached")
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


def test_nothing_to_measure() -> None:
    with pytest.raises(SystemExit, match="nothing to measure: dependency of Sanic"):
        compare.measure({"Sanic": SERVERS["Sanic"]}, ["dependency"], 1, 1, 1)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run is written to, in place of the checkout; its page has marks for `compare`."""
    monkeypatch.setattr(_results, "ROOT", tmp_path)
    for name in ("RESULTS", "LOOKS", "PLOTS"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setattr(_results, name, folder)
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n<!-- compare -->\nold\n<!-- end of compare -->\n\nThe end.\n", "utf-8"
    )
    monkeypatch.setattr(_results, "PAGE", page)
    return tmp_path


FOUND = _results.Found("compare", {"a": 1}, "new\n", {"plot": "<svg>"})


def test_a_whole_run_takes_the_place_of_what_is_shown(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        _results.keep(FOUND, 5)
        page = (kept / "page.md").read_text("utf-8")
        assert page == (
            "# Page\n\n<!-- compare -->\n\nnew\n\n<!-- end of compare -->\n\nThe end.\n"
        )
    whole = json.loads((kept / "results" / "compare.json").read_text("utf-8"))
    assert whole["results"] == {"a": 1}
    assert whole["versions"]["trioweb"]
    assert whole["machine"]["cores"]
    assert (kept / "plots" / "plot.svg").read_text("utf-8") == "<svg>"
    assert not [*(kept / "looks").iterdir()]
    said = capsys.readouterr().out
    assert "look" not in said
    assert said.endswith("  page.md\n  results/compare.json\n  plots/plot.svg\n")


@pytest.mark.parametrize(("rounds", "lacks"), [(4, []), (5, ["no wheels"]), (1, ["no wheels"])])
def test_a_look_is_kept_beside(
    rounds: int, lacks: list[str], kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (kept / "page.md").read_text("utf-8")
    _results.keep(FOUND, rounds, lacks)
    assert (kept / "page.md").read_text("utf-8") == before
    assert not [*(kept / "results").iterdir(), *(kept / "plots").iterdir()]
    looks = {path.name for path in (kept / "looks").iterdir()}
    assert looks == {"compare.json", "compare.md", "plot.svg"}
    said = capsys.readouterr().out
    assert ("no wheels" in said) == bool(lacks)
    assert ("less than 5 rounds" in said) == (rounds < 5)


def test_a_load_that_is_cut_short() -> None:
    assert _wrk.is_less(2, 2, _wrk.CONNECTIONS) == []
    assert len(_wrk.is_less(1, 2, _wrk.CONNECTIONS)) == len(_wrk.is_less(2, 2, 1)) == 1


def test_the_page_has_a_place_for_each_command() -> None:
    page = _results.PAGE.read_text("utf-8")
    for name in ("compare", "latency", "internals", "scale"):
        _, _, rest = page.partition(f"<!-- {name} -->\n")
        tables, end, _ = rest.partition(f"<!-- end of {name} -->")
        assert "Machine: " in tables
        assert end


@pytest.mark.parametrize("bad", ["0", "-1", "1.5", "many"])
def test_numbers_below_one_are_refused(
    bad: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "compare", "--rounds", bad])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"argument --rounds: {bad!r} is no whole number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("is_in_trio", [False, True], ids=["plain", "trio"])
def test_a_signal_ends_what_was_started(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, *, is_in_trio: bool
) -> None:
    ended: list[str] = []

    def be_ended() -> None:
        try:
            signal.raise_signal(number)
        finally:
            ended.append("what was started")

    async def be_ended_in_trio() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            be_ended()

    def run(**arguments: object) -> None:
        if is_in_trio:
            trio.run(be_ended_in_trio)
        be_ended()

    monkeypatch.setattr(internals, "run", run)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "internals"])
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGTERM, signal.SIGHUP)}
    # What starts tests in the background has them ignore it.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as left:
            main()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert (left.value.code, ended) == (128 + number, ["what was started"])


def test_what_compare_found() -> None:
    found = compare.as_found(RATES, "Made up.")
    assert found.results["rates"] == RATES
    assert "| one background task, best peer that has them | trioweb, httptools | Sanic |" in (
        found.text
    )
    assert "not measured" in found.text
    assert "A path parameter to JSON, requests a second" in found.plots["compare"]


LATENCIES = {
    name: {percentile: [percentile * (number + 1)] * 3 for percentile in latency.PERCENTILES}
    for number, name in enumerate(latency.MEANWHILE)
}


def test_what_latency_found() -> None:
    found = latency.as_found(LATENCIES, 1000.0, "Made up.")
    assert found.results["milliseconds"]["no tasks"][50.0] == [50, 50, 50]
    assert "ratio of medians: 3.000 (pairs: 3.00 (3.00–3.00)), bar: at most 1.5, not" in found.text
    assert "one request in so many" in found.plots["latency"]


def test_latency_is_judged_by_the_ratio_of_medians() -> None:
    calm = {percentile: [1.0, 2.0, 9.0] for percentile in latency.PERCENTILES}
    many = {percentile: [4.0, 2.0, 1.0] for percentile in latency.PERCENTILES}
    text = latency.report({latency.NO_TASKS: calm, latency.MANY_TASKS: many}, "")
    assert "1.000 (pairs: 1.00 (0.11–4.00)), bar: at most 1.5, reached" in text


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
