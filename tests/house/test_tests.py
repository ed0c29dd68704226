"""Tests and benchmarks stand on their own, and know of the package what it shows.

Rules of this module:

* Private modules may be imported: what they show each other is theirs to keep.  What they keep to
  themselves nobody else touches, and no test imports another test: what both need is in `support`.
* An exception has its reason, and is gone as soon as nobody needs it.
"""

from __future__ import annotations

from pathlib import Path

from . import architecture

ROOT = Path(__file__).parents[2]

# They break what is private, on purpose, and fail aloud when it has another name.
PLANTS = {"worlds.app.plants", "worlds.server.plants"}

DETERMINISM = "Trio's order, which it lets nobody fix by a public name"
PLANTED = "a fault that is planted, to be found"

PRIVATES_OF_OTHERS = {
    "cli.test_handlers._exit": "os._exit: no test may end",
    "cli.test_signals._exit": "os._exit: no test may end",
    "http.test_cookies._unquote": "of the standard library, and not to be called",
    "http.test_request._making": "a lock that another thread has held",
    "lifetime.test_containment._log_failure": PLANTED,
    "server.fuzz.checks._replace": "of a NamedTuple, documented",
    "server.test_fuzz._CHUNK": PLANTED,
    "server.test_fuzz._TRAILER": PLANTED,
    "server.test_fuzz._length": PLANTED,
    "support.forks._exit": "os._exit: a fork's end isn't the test's",
    "support.server_driver._replace": "of a NamedTuple, documented",
    "worlds.app.program._matcher": "routes that are compiled once for all worlds",
    "worlds.common.runner._ALLOW_DETERMINISTIC_SCHEDULING": DETERMINISM,
    "worlds.common.runner._r": DETERMINISM,
    "_counted._ALLOW_DETERMINISTIC_SCHEDULING": DETERMINISM,
    "_counted._core": DETERMINISM,
    "_counted._exit": "os._exit: a fork's end isn't to be counted",
    "_counted._r": DETERMINISM,
    "_counted._run": DETERMINISM,
    "internals._asdict": "of a NamedTuple, documented",
    "scale._asdict": "of a NamedTuple, documented",
}

TESTS = architecture.read_package(ROOT / "tests")
BENCHMARKS = architecture.read_package(ROOT / "benchmarks")
KEEPERS = {name: tree for name, tree in (TESTS | BENCHMARKS).items() if name not in PLANTS}
MODULES = {
    f"{package}.{module}".removesuffix(f".{architecture.DOOR}")
    for package in ("trioweb", "benchmarks")
    for module in architecture.read_package(ROOT / package)
}


def test_no_test_imports_another_one() -> None:
    assert architecture.imported_tests(TESTS | BENCHMARKS) == []


def test_nobody_uses_what_another_keeps_private() -> None:
    assert architecture.foreign_privates(KEEPERS, PRIVATES_OF_OTHERS, MODULES) == []


def test_each_exception_is_needed() -> None:
    used = architecture.foreign_privates(KEEPERS, {}, MODULES)
    without = {f"{entry.partition(':')[0]}.{entry.rpartition(' ')[2]}" for entry in used}
    assert PRIVATES_OF_OTHERS.keys() == without


def test_each_file_says_what_it_proves() -> None:
    assert architecture.without_docstring(TESTS | BENCHMARKS) == []
