"""The house stands as the table says, and each check that says so can also say no."""

from __future__ import annotations

import ast
from pathlib import Path

import trioweb

from . import architecture

# Imports go to a strictly lower floor.
FLOORS = {
    "__init__": 15,
    "__main__": 15,
    "_cli": 14,
    "_reload": 13,
    "_workers": 13,
    "_processes": 12,
    "_run": 11,
    "_routes": 11,
    "testing": 10,
    "_importing": 10,
    "_options": 10,
    "_survivors": 10,
    "_wire": 9,
    "_app": 9,
    "_settings": 8,
    "_debug": 7,
    "_registration": 7,
    "_inject": 6,
    "_calls": 5,
    "_lifetime": 5,
    "_signature": 5,
    "_departure": 4,
    "_report": 4,
    "_response": 4,
    "_request": 3,
    # A request carries its task list, so the list is below the request.
    "_background": 2,
    "_shapes": 2,
    "_exits": 2,
    "_grace": 1,
    "_markers": 1,
    "_routing": 1,
    "_tasks": 1,
    "_ending": 1,
    "_logs": 1,
    "_starter": 1,
    "_explain": 1,
    "_callables": 0,
    "_context": 0,
    "_errors": 0,
    "_headers": 0,
    "_ledger": 0,
    "_scopes": 0,
    "_limits": 0,
    "server": 0,
}
# The server is a wing of its own: from this floor up, modules may use both it and the framework.
ASGI = FLOORS["_settings"]

LONGEST_FUNCTION = 60
NINETIETH_PERCENTILE = 30
MEDIAN = 6

SOURCES = architecture.read_package(Path(trioweb.__file__).parent)


def test_every_module_has_a_floor() -> None:
    assert architecture.outside_the_table(SOURCES, FLOORS) == []


def test_imports_only_go_down() -> None:
    assert architecture.upward_imports("trioweb", SOURCES, FLOORS) == []


def test_server_and_framework_meet_at_asgi_only() -> None:
    assert architecture.meetings_of_the_wings("trioweb", SOURCES, FLOORS, "server", ASGI) == []


def test_no_cycles() -> None:
    assert architecture.cycle("trioweb", SOURCES) == []


def test_pydantic_is_never_imported() -> None:
    assert architecture.imports_of_other("trioweb", SOURCES, "pydantic") == []


def test_exception_groups_are_taken_apart_in_errors_only() -> None:
    assert architecture.groups_taken_apart(SOURCES, "_errors", "server._errors") == []


def test_every_module_begins_with_its_rules() -> None:
    assert architecture.without_docstring(SOURCES) == []


def test_functions_are_short() -> None:
    lengths = architecture.function_lengths(SOURCES)
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}
    assert architecture.percentile(list(lengths.values()), 90) <= NINETIETH_PERCENTILE
    assert architecture.percentile(list(lengths.values()), 50) <= MEDIAN


# --- Each check can say no.


def package(**modules: str) -> dict[str, ast.Module]:
    """The modules of a package named "house"."""
    return {name: ast.parse(source) for name, source in modules.items()}


HOUSE = {"__init__": 2, "_roof": 1, "wing": 1, "_ground": 0}


def test_a_module_without_a_floor_is_named() -> None:
    sources = package(_roof="", _shed="") | {"wing._a": ast.parse("")}
    assert architecture.outside_the_table(sources, HOUSE) == ["_shed"]


def test_every_way_to_import_upwards_is_seen() -> None:
    sources = package(
        __init__="from ._roof import Roof as Roof",
        _roof="from ._ground import stone\nimport wing",
        _ground="\n".join(
            [
                "import house._roof",
                "from house import _roof",
                "from house._roof import Roof",
                "from . import _roof as r, Roof",
                "from ._roof import Roof",
                "def f():\n    from ._ground2 import x",
                "if TYPE_CHECKING:\n    import house",
            ]
        ),
    )
    roof = "_ground:{} imports _roof, which is not below it"
    door = "_ground:{} imports __init__, which is not below it"
    assert sorted(architecture.upward_imports("house", sources, HOUSE)) == sorted(
        [
            *(roof.format(line) for line in (1, 2, 3, 4, 5)),
            *(door.format(line) for line in (4, 7, 9)),
        ]
    )


def test_imports_inside_a_subpackage_are_its_own_affair() -> None:
    sources = package(_ground="") | {
        "wing.__init__": ast.parse("from ._a import A"),
        "wing._a": ast.parse("from .._ground import stone\nfrom . import _b"),
        "wing._b": ast.parse("import house.wing._c"),
    }
    assert architecture.upward_imports("house", sources, HOUSE) == []
    assert [(found.importer, found.target) for found in architecture.imports("house", sources)] == [
        ("wing.__init__", "wing._a"),
        ("wing._a", "_ground"),
        ("wing._a", "wing._b"),
        ("wing._b", "wing.__init__"),
    ]


def test_a_meeting_of_the_wings_is_named() -> None:
    sources = package(
        __init__="from .wing import serve\nfrom ._ground import stone",
        _roof="from .wing import serve",
        wing="from ._ground import stone",
        _ground="",
    )
    assert architecture.meetings_of_the_wings("house", sources, HOUSE, "wing", 2) == [
        "_roof:1 imports wing: they meet at ASGI only",
        "wing:1 imports _ground: they meet at ASGI only",
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
