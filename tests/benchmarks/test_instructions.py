"""The process whose instructions are counted answers, and what is made of counts is right.

Rules of this module:

* The counter is made up: real ones need perf or Valgrind, and minutes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks._counters import Counter
from benchmarks.instructions import CONNECTIONS, REQUESTS

pytestmark = [pytest.mark.slow, pytest.mark.processes]

ROOT = Path(__file__).parents[2]

# Stands for a counter that tells forks apart: each time costs 7, and twice that with a task.
COUNTING = """
import sys
for work in [argument for argument in sys.argv if ":" in argument]:
    name, _, times = work.partition(":")
    print("counted", 1000 + int(times) * (14 if "task" in name else 7), file=sys.stderr)
print("counted 1000", file=sys.stderr)
"""
FAKE = Counter((sys.executable, "-c", COUNTING), re.compile(r"counted (\d+)"), True)


@pytest.mark.parametrize("http", instructions.PARSERS)
def test_it_answers_each_request(
    http: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(instructions, "find_counter", lambda: FAKE)
    instructions.run(http, ROOT)
    said = capsys.readouterr().out
    assert f"{http} parses; {CONNECTIONS} connections" in said
    assert f"| request | instructions | in {ROOT} | ratio |" in said
    for name, words in REQUESTS.items():
        figure = 14 if "task" in name else 7
        assert f"| {words} | {figure} | {figure} | 1.000 |" in said


def test_one_checkout_has_no_ratio() -> None:
    table = instructions.report([dict.fromkeys(REQUESTS, 210_579.4)], None).splitlines()
    assert table[0] == "| request | instructions |"
    assert table[2] == "| GET with a path parameter | 210,579 |"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "there is no trioweb in {folder}"),
        ("raise RuntimeError('too old')", "the trioweb in {folder} doesn't answer.*too old"),
    ],
)
def test_a_folder_whose_trioweb_can_not_be_counted(
    source: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instructions, "find_counter", lambda: FAKE)
    monkeypatch.setattr(instructions, "ROOT", tmp_path)
    if source is not None:
        (tmp_path / "trioweb").mkdir()
        (tmp_path / "trioweb" / "__init__.py").write_text(source, "utf-8")
    with pytest.raises(SystemExit, match=f"(?s){said.format(folder=tmp_path)}"):
        instructions.run("h11", None)


def test_without_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "find_counter", lambda: None)
    with pytest.raises(SystemExit, match=r"by perf or by valgrind"):
        instructions.run("h11", None)
