"""What `internals` and `scale` make of their measurements; how fast is not for tests to say."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

import trioweb
from benchmarks import _results, internals, scale
from benchmarks._counters import PERF
from benchmarks.scale import ALL_ROUTES, ONE_LIST, OWN_REQUEST, SAME_ROUTES

COSTS = {
    "trioweb": [10.0, 20.0, 30.0],
    "trioweb, 1 task": [15.0, 26.0, 37.0],
    "trioweb, many": [35.0, 56.0, 77.0],
    "trioweb, body": [14.0, 24.0, 34.0],
    "starlette": [20.0, 20.0, 60.0],
    "starlette, 1 task": [21.0, 21.0, 61.0],
    "starlette, many": [31.0, 31.0, 71.0],
    "msgspec": [2.0, 2.0, 2.0],
    "nursery": [1_000.0, 1_200.0, 1_400.0],
}
IMPORTS = {"trio and msgspec": [100.0], "trioweb": [51.0]}


def test_differences_and_ratios_are_taken_inside_a_round() -> None:
    assert internals.first_task(COSTS, "trioweb") == [5, 6, 7]
    assert internals.further_task(COSTS, "trioweb") == [2, 3, 4]
    assert internals.body(COSTS) == [4, 4, 4]
    assert internals.ratios(COSTS, "trioweb", "starlette") == [0.5, 1, 0.5]


def test_what_isnt_installed_is_not_in_the_report() -> None:
    report = internals.report(COSTS, "µs")
    assert "| trioweb | 20.0 | 10.0–30.0 | 1.00 |" in report
    assert "| starlette | 20.0 | 20.0–60.0 | 0.50 |" in report
    assert "| trioweb, add_task | 6.0 | 5.0–7.0 | 3.0 | 2.0–4.0 |" in report
    assert "| a nursery, opened and closed | 1,200 | 1,000–1,400 |" in report
    assert "fastapi" not in report
    assert "plain Trio" not in report


def test_without_rounds_there_is_no_spread() -> None:
    report = internals.report({name: cost[:1] for name, cost in COSTS.items()}, "instructions")
    assert "| one call | instructions | trioweb's, of its |" in report
    assert "| trioweb, add_task | 5.0 | 2.0 |" in report
    assert internals.report_imports(IMPORTS, "ms").splitlines() == [
        "| import | ms |",
        "| --- | ---: |",
        "| import trio and msgspec | 100.0 |",
        "| import trioweb | 51.0 |",
    ]


def test_bars_are_judged() -> None:
    assert internals.judged(internals.bars(COSTS, IMPORTS)).splitlines()[2:] == [
        "| one ASGI call, of Starlette's time | 0.7 | 0.5 | reached |",
        "| one added task, µs | 15 | 6 | reached |",
        "| each further task, µs | 5 | 3 | reached |",
        "| import over trio and msgspec, ms | 50 | 51 | not reached |",
    ]


def test_without_starlette_its_bar_is_left_out() -> None:
    costs = {name: cost for name, cost in COSTS.items() if not name.startswith("starlette")}
    assert "Starlette" not in internals.judged(internals.bars(costs, IMPORTS))


async def test_every_subject_gives_the_right_answers_and_runs_its_tasks() -> None:
    for make in internals.SUBJECTS.values():
        async with make() as turn:
            await turn(2)


async def test_wrong_answers_and_tasks_that_did_not_run_arent_measured() -> None:
    app = internals.trioweb_app_with_tasks(1)
    with pytest.raises(RuntimeError, match="1 of 2 tasks have run"):
        await internals.take_turn(app, 2, internals.wait_for_started, 1)
    with pytest.raises(RuntimeError, match="another answer"):
        await internals.take_turn(trioweb.App(), 0, internals.wait_for_started, 1)
    with pytest.raises(RuntimeError, match="another answer"):
        await scale.asking_routes(scale.app_with_routes(1), [1])


def test_figures_are_medians_and_a_table_has_a_row_for_each_size() -> None:
    costs = {("a", 10): [3.0, 1.0, 2.0], ("b", 10): [5.0], ("a", 1000): [7.0], ("b", 1000): [1e6]}
    series = scale.medians(costs)
    assert series == {"a": [(10, 2.0), (1000, 7.0)], "b": [(10, 5.0), (1000, 1e6)]}
    figure = scale.Figure("name", "title", "tasks", "µs", series)
    assert list(scale.rows(figure)) == [("10", "2.0", "5.0"), ("1,000", "7.0", "1,000,000.0")]


def test_some_of_all_are_evenly_spread() -> None:
    assert scale.evenly(10, 10) == list(range(10))
    assert scale.evenly(3, 10) == [0, 1, 2]
    assert scale.evenly(1000, 4) == [0, 250, 500, 750]
    assert len(scale.evenly(1999, 10)) == 10


def test_more_connections_than_there_may_be_files_are_left_out() -> None:
    assert scale.within([10, 100, 1000], 1110) == [10, 100, 1000]
    assert scale.within([10, 100, 1000], 1109) == [10, 100]


def test_bars_compare_sizes_inside_a_round() -> None:
    routes = {(SAME_ROUTES, 10): [10.0, 20.0, 40.0], (SAME_ROUTES, 10_000): [11.0, 24.0, 60.0]}
    memory = {(ONE_LIST, 100_000): [300.0], (OWN_REQUEST, 100_000): [2000.0]}
    found = [bar.found for bar in scale.bars(routes, memory)]
    assert found == [1.2, 300.0, 2000.0]


async def test_each_size_of_each_line_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "CALLS", 2)
    monkeypatch.setattr(scale, "TASKS_IN_A_ROUND", 2)
    routes = await scale.measure_routes([1, 12], 1)
    assert list(routes) == [
        (SAME_ROUTES, 1),
        (ALL_ROUTES, 1),
        (SAME_ROUTES, 12),
        (ALL_ROUTES, 12),
    ]
    others = await scale.measure_others([0, 2], 1)
    assert list(others) == [(ONE_LIST, 0), (ONE_LIST, 2), (OWN_REQUEST, 0), (OWN_REQUEST, 2)]
    tasks = await scale.measure_tasks([1, 200], 1)
    assert tasks["for each task", 200] == [cost / 200 for cost in tasks["request and tasks", 200]]


@pytest.mark.slow
async def test_memory_is_for_each_task() -> None:
    memory = await scale.measure_memory([20])
    assert 100 < memory[ONE_LIST, 20][0] < memory[OWN_REQUEST, 20][0] < 100_000


async def test_a_place_with_other_tasks_than_asked_for_isnt_measured() -> None:
    async with scale.parking(3) as place, place.parked(1, ONE_LIST):
        with pytest.raises(RuntimeError, match="3 tasks are pending, not 2"):
            await place.parked(2, ONE_LIST).__aenter__()


def test_an_answer_is_read_to_its_end_and_checked() -> None:
    ours, servers = socket.socketpair()
    with ours, servers:
        servers.sendall(b"HTTP/1.1 200 \r\ncontent-length: 4\r\n\r\n1024")
        scale.read_answer(ours, b"1024")
        servers.sendall(b"HTTP/1.1 200 \r\ncontent-length: 1\r\n\r\n1")
        servers.close()
        with pytest.raises(RuntimeError, match="not the right answer"):
            scale.read_answer(ours, b"1024")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run writes to, in place of the checkout."""
    monkeypatch.setattr(_results, "ROOT", tmp_path)
    for name in ("RESULTS", "PLOTS"):
        monkeypatch.setattr(_results, name, tmp_path)
    page = tmp_path / "page.md"
    page.write_text("<!-- internals -->\n<!-- end of internals --><!-- scale -->\n", "utf-8")
    monkeypatch.setattr(_results, "PAGE", page)
    return tmp_path


def test_internals_keeps_what_it_found(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(internals, "CALLS_IN_A_ROUND", 2)
    monkeypatch.setattr(internals, "find_counter", lambda: None)
    monkeypatch.setattr(internals, "measure_imports", lambda times: IMPORTS)
    internals.run(5, instructions=True)
    results = json.loads((kept / "internals.json").read_text("utf-8"))["results"]
    assert results["µs"].keys() == internals.SUBJECTS.keys()
    assert len(results["bars"]) == 4
    printed = capsys.readouterr().out
    assert "| import trioweb | " in printed
    assert "instructions: not available here" in printed
    assert "| one added task, µs | 15 | " in (kept / "page.md").read_text("utf-8")


def test_instructions_are_kept_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    single = {name: cost[:1] for name, cost in COSTS.items()}
    monkeypatch.setattr(internals, "find_counter", lambda: PERF)
    monkeypatch.setattr(internals, "count_instructions", lambda counter, names: single)
    monkeypatch.setattr(internals, "count_imports", lambda counter: IMPORTS)
    counted, text = internals.count([*COSTS])
    assert counted == {"instructions": single, "import, millions of instructions": IMPORTS}
    assert "| one call | instructions | trioweb's, of its |" in text


@pytest.mark.slow
@pytest.mark.processes
def test_scale_keeps_what_it_found(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"ROUTES": (1, 2), "PENDING": (0, 1), "TASKS": (1, 2), "CONNECTIONS": (1, 2)}
    for name, value in {**sizes, "BODIES": (1, 2), "CALLS": 2, "REQUESTS": 4}.items():
        monkeypatch.setattr(scale, name, value)
    monkeypatch.setattr(scale, "allow_files", lambda counts: counts)
    scale.run(5)
    results = json.loads((kept / "scale.json").read_text("utf-8"))["results"]
    names = ["routes", "pending", "memory", "tasks", "connections", "bodies"]
    assert [figure["name"] for figure in results["figures"]] == names
    assert {path.name for path in kept.glob("*.svg")} == {f"scale-{name}.svg" for name in names}
    bar = "| bytes for a pending task, all of one request | 1,024 | "
    assert bar in capsys.readouterr().out
    assert bar in (kept / "page.md").read_text("utf-8")
