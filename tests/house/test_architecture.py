"""The house stands as the table says, and each check that says so can also say no."""

from __future__ import annotations

import ast
from pathlib import Path

import trioweb

from . import architecture

LONGEST_FUNCTION = 40
LONGEST_FILE = 400
NINETIETH_PERCENTILE = 14
MEDIAN = 6
MOST_FLOORS = 9
ROOF = 6  # from this floor up, modules may use both the framework and the server

# Private names of others that are used all the same, each with its reason.
PRIVATES_OF_OTHERS = {
    "_loggers._getframe": "sys._getframe: who disables a logger",
    "_cli.processes._args_from_interpreter_flags": "as multiprocessing, for a worker's options",
    "_cli.handlers._exit": "os._exit: what the kernel does by default",
    "_cli.signals._exit": "os._exit: the one way out of a process that doesn't end",
    "_cli.survivors._current_frames": "sys._current_frames: where threads are, documented",
    "_concurrency.scopes._cancel_status": "Trio says nowhere else which scopes a task is in",
    "_shapes.members._fields": "what named tuples are known by, documented",
    "_concurrency.scopes._activate_cancel_status": "nor lets anybody leave one that isn't theirs",
}

PACKAGE = Path(trioweb.__file__).parent
SOURCES = architecture.read_package(PACKAGE)
MAP = architecture.read_map(trioweb.__doc__ or "")


def test_the_map_is_true() -> None:
    assert architecture.off_the_map(SOURCES, MAP) == []


def test_the_house_has_few_floors() -> None:
    assert len(architecture.floors(MAP)) <= MOST_FLOORS


def test_imports_only_go_down() -> None:
    assert architecture.upward_imports("trioweb", SOURCES, MAP) == []


def test_server_and_framework_meet_at_asgi_only() -> None:
    assert architecture.meetings_of_the_wings("trioweb", SOURCES, MAP, "_asgi", ROOF) == []


def test_no_cycles() -> None:
    assert architecture.cycle("trioweb", SOURCES) == []


def test_no_module_uses_what_another_keeps_private() -> None:
    assert architecture.foreign_privates(SOURCES, PRIVATES_OF_OTHERS) == []


def test_each_exception_is_needed() -> None:
    without = {entry.split(" uses ")[1] for entry in architecture.foreign_privates(SOURCES, {})}
    assert {name.rpartition(".")[2] for name in PRIVATES_OF_OTHERS} <= without


def test_pydantic_is_never_imported() -> None:
    assert architecture.imports_of_other("trioweb", SOURCES, "pydantic") == []


def test_exception_groups_are_taken_apart_in_errors_only() -> None:
    assert architecture.groups_taken_apart(SOURCES, "_errors", "server._errors") == []


def test_every_module_begins_with_its_rules() -> None:
    assert architecture.without_docstring(SOURCES) == []


def test_a_private_room_opens_to_its_promise_and_imports_nothing() -> None:
    assert architecture.more_than_a_docstring(SOURCES) == []


def test_files_are_short() -> None:
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text("utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_functions_are_short() -> None:
    lengths = architecture.function_lengths(SOURCES)
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}
    assert architecture.percentile(list(lengths.values()), 90) <= NINETIETH_PERCENTILE
    assert architecture.percentile(list(lengths.values()), 50) <= MEDIAN


# --- Each check can say no.


def package(**modules: str) -> dict[str, ast.Module]:
    """The modules of a package named "house"."""
    return {name: ast.parse(source) for name, source in modules.items()}


PLAN = """A house.

The map, where `a > b` says something.

    floor   room         inside

    2       doors/       __init__
    1       _roof/       top > middle  other
                         > low
    0       _cellar/     stone
            _well/       water
    ground  ground/      _words  _earth
    wing    wing/        __init__ > _a > _b
"""
HOUSE = architecture.read_map(PLAN)
ROOMS = {f"{room}.__init__": ast.parse("'A promise.'") for room in ("_roof", "_cellar", "_well")}


def house(**modules: str) -> dict[str, ast.Module]:
    """The modules of the house of that map; `_roof_top` is `_roof.top`."""
    sources = {module: ast.parse("") for module in HOUSE} | ROOMS
    named = {module.replace(".", "_"): module for module in sources}
    return sources | {named.get(name, name): ast.parse(text) for name, text in modules.items()}


def test_a_map_is_read() -> None:
    place = architecture.Place
    assert {name: HOUSE[name] for name in ("__init__", "_roof.low", "_well.water", "_earth")} == {
        "__init__": place("doors", "2", 0),
        "_roof.low": place("_roof", "1", 2),
        "_well.water": place("_well", "0", 0),
        "_earth": place("ground", "ground", 0),
    }
    assert HOUSE["wing._b"] == place("wing", "wing", 2)
    assert architecture.floors(HOUSE) == {"2", "1", "0"}


def test_a_module_off_the_map_is_named_and_so_is_a_map_that_is_not_true() -> None:
    sources = house(_shed="")
    del sources["_well.water"]
    assert architecture.off_the_map(sources, HOUSE) == [
        "_shed isn't on the map",
        "the map has _well.water, which isn't there",
    ]
    assert architecture.off_the_map(house(), HOUSE) == []


def test_every_way_to_import_upwards_is_seen() -> None:
    sources = house(
        _cellar_stone="\n".join(
            [
                "import house._roof.top",
                "from house._roof import top",
                "from house._roof.top import Top",
                "from .._roof import top as t",
                "from .._roof.top import Top",
                "def f():\n    from .._roof import low",
                "if TYPE_CHECKING:\n    import house",
                "from .. import _words",
            ]
        ),
    )
    roof = "_cellar.stone:{} imports _roof.{}, which is not below it"
    assert sorted(architecture.upward_imports("house", sources, HOUSE)) == sorted(
        [
            *(roof.format(line, "top") for line in (1, 2, 3, 4, 5)),
            roof.format(7, "low"),
            "_cellar.stone:9 imports __init__, which is not below it",
        ]
    )


def test_rooms_of_one_floor_do_not_know_each_other() -> None:
    sources = house(_well_water="from .._cellar.stone import weight")
    assert architecture.upward_imports("house", sources, HOUSE) == [
        "_well.water:1 imports _cellar.stone, which is not below it"
    ]


def test_inside_a_room_imports_go_down_too() -> None:
    sources = house(
        _roof_top="from .middle import a\nfrom . import low",
        _roof_middle="from .other import a\nfrom .low import b",
        _roof_low="from . import top",
        _words="from . import _earth",
    )
    assert sorted(architecture.upward_imports("house", sources, HOUSE)) == [
        "_roof.low:1 imports _roof.top, which is not below it",
        "_roof.middle:1 imports _roof.other, which is not below it",
        "_words:1 imports _earth, which is not below it",
    ]


def test_a_private_room_that_opens_to_more_than_its_promise_is_named() -> None:
    assert architecture.more_than_a_docstring(house()) == []
    opened = house() | {"_roof.__init__": ast.parse("'A promise.'\nfrom .top import a")}
    assert architecture.more_than_a_docstring(opened) == ["_roof.__init__"]
    assert architecture.upward_imports("house", opened, HOUSE) == [
        "_roof.__init__:2 imports _roof.top, which is not below it"
    ]


def test_a_meeting_of_the_wings_is_named() -> None:
    sources = house(
        __init__="from .wing import serve",
        _roof_top="from ..wing import serve\nfrom .._words import a",
        _cellar_stone="from ..wing._a import a",
    ) | {
        "wing._b": ast.parse("from .._words import a\nfrom .._earth import b"),
        "wing.__init__": ast.parse("from ._a import a"),
    }
    assert architecture.meetings_of_the_wings("house", sources, HOUSE, "_words", 1) == [
        "_cellar.stone:1 imports wing._a: they meet at ASGI only",
        "wing._b:2 imports _earth: they meet at ASGI only",
    ]


def test_every_use_of_a_foreign_private_is_seen() -> None:
    sources = package(
        _a="\n".join(
            [
                "class A:",
                "    _mine = 1",
                "    def __init__(self, other):",
                "        self._own = other._own",
                "        other._theirs = 1",
                "        print(other._mine, self._inherited, other.__class__)",
                "from ._b import _secret, open",
                "from . import _b",
                "getattr(_b, '_hidden', None)",
                "getattr(_b, 'shown')",
                "patch.setattr(_b, '_patched', 1)",
                "patch.setattr('house._b._dotted', 1)",
                "patch.setattr('house._b.shown', '_value')",
            ]
        )
    )
    assert sorted(architecture.foreign_privates(sources, {})) == [
        "_a:11 uses _patched",
        "_a:12 uses _dotted",
        "_a:5 uses _theirs",
        "_a:7 uses _secret",
        "_a:9 uses _hidden",
    ]
    allowed = dict.fromkeys(["_a._theirs", "_a._secret", "_a._patched", "_a._dotted"])
    assert architecture.foreign_privates(sources, allowed) == ["_a:9 uses _hidden"]


def test_from_outside_a_private_module_may_be_imported() -> None:
    sources = package(a="from house.rooms import _a, _b\nfrom house.rooms._a import _secret")
    assert architecture.foreign_privates(sources, {}, ["house.rooms._a"]) == [
        "a:1 uses _b",
        "a:2 uses _secret",
    ]


def test_an_import_of_a_test_is_named() -> None:
    sources = package(
        test_a="from .test_b import helper\nfrom . import test_b\nimport tests.x.test_b as b",
        test_b="from ..support.tests import helper\nfrom unittest import TestCase",
    )
    assert architecture.imported_tests(sources) == [
        "test_a:1 imports test_b.helper",
        "test_a:2 imports .test_b",
        "test_a:3 imports tests.x.test_b",
    ]


def test_a_cycle_is_named() -> None:
    sources = package(
        _a="from . import _b", _b="def f():\n    import house._c", _c="from ._a import x"
    )
    assert set(architecture.cycle("house", sources)) == {"_a", "_b", "_c"}


def test_an_import_of_another_package_is_named() -> None:
    sources = package(
        _a="import pydantic.fields", _b="def f():\n    from pydantic import BaseModel"
    )
    assert architecture.imports_of_other("house", sources, "pydantic") == [
        "_a:1 imports pydantic",
        "_b:2 imports pydantic",
    ]


def test_taking_a_group_apart_is_named() -> None:
    star = "try:\n    pass\nexcept* ValueError:\n    pass"
    sources = package(_errors=star, _a=star, _b="group.exceptions\ngroup.subgroup(x)\ntext.split()")
    assert architecture.groups_taken_apart(sources, "_errors") == [
        "_a:1 takes an exception group apart",
        "_b:1 takes an exception group apart",
        "_b:2 takes an exception group apart",
    ]


def test_a_module_without_docstring_is_named() -> None:
    assert architecture.without_docstring(package(_a='"""Rules."""', _b="x = 1")) == ["_b"]


def test_lengths_count_code_not_docstrings() -> None:
    sources = package(
        _a='def f():\n    """One.\n\n    Two.\n    """\n    async def g(): ...\n    return g'
    )
    assert architecture.function_lengths(sources) == {"_a:1 f": 3, "_a:6 g": 1}


def test_percentile() -> None:
    assert [architecture.percentile([3, 1, 2, 5, 4], p) for p in (0, 50, 90, 100)] == [1, 3, 4, 5]
