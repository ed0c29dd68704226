"""What counters say is read right, and what they can't count is found out."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import pytest

from benchmarks._counters import CALLGRIND, PERF, Counter, count_all, find_counter

PERF_SAYS = "1179820894,,instructions:u,2048623,100.00,,\n"
PERF_CANNOT = "<not supported>,,instructions:u,0,100.00,,\n"
CALLGRIND_SAYS = "==9== Events    : Ir\n==9== Collected : 1179820894\n==9== \n"

# Stands for a tool: what it is told to run costs 1,000 instructions, and 7 for each time.
COUNTS = "import sys; print('counted', 1000 + 7 * int(sys.argv[-1] or 0), file=sys.stderr)"
FAKE = Counter((sys.executable, "-c", COUNTS), re.compile(r"counted (\d+)"))
MISSING = Counter(("no-such-tool",), re.compile(""))


@pytest.mark.parametrize(
    ("counter", "said", "count"),
    [
        (PERF, PERF_SAYS, 1_179_820_894),
        (PERF, PERF_CANNOT, None),
        (CALLGRIND, CALLGRIND_SAYS, 1_179_820_894),
        (CALLGRIND, "", None),
    ],
)
def test_a_counter_reads_what_its_tool_says(counter: Counter, said: str, count: int | None) -> None:
    assert counter.read(said) == count


def test_what_a_command_costs_however_little_it_does_isnt_counted() -> None:
    def one(times: int) -> Sequence[str]:
        return ["one", str(times)]

    assert FAKE.count_each(one, 5) == 7
    assert count_all(FAKE, {"this": one, "that": one}, 5) == {"this": 7, "that": 7}


def test_a_tool_that_cannot_count_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Counter((sys.executable, "-c", ""), re.compile(r"counted (\d+)"))
    assert FAKE.can_count()
    assert not silent.can_count()
    assert not MISSING.can_count()
    with pytest.raises(RuntimeError, match="didn't count something 3"):
        silent.count(["something", "3"])
    for counter in ("PERF", "CALLGRIND"):
        monkeypatch.setattr(f"benchmarks._counters.{counter}", MISSING)
    assert find_counter() is None
    monkeypatch.setattr("benchmarks._counters.CALLGRIND", FAKE)
    assert find_counter() is FAKE


# Says so of each number that it is told, and then of itself.
COUNTS_FORKS = """
import sys
for number in sys.argv[2:]:
    print('counted', 1000 + int(number), file=sys.stderr)
print('counted', 1000, file=sys.stderr)
"""
APART = Counter((sys.executable, "-c", COUNTS_FORKS), FAKE.says, tells_forks_apart=True)


def test_works_are_counted_in_one_process_or_in_one_for_each() -> None:
    assert APART.count_forks(["command"], ["7", "21"]) == [1007, 1021]
    assert FAKE.count_forks(["command"], ["7", "21"]) == [1049, 1147]
