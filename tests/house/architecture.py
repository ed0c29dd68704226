"""Checks of a package's source that need no import of it: the map, imports, privates, sizes.

Each check takes the package's source and returns its complaints, so that a test can feed it a bad
one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

# A module by its path inside the package: "_app.app", "server.__init__", "__init__".
Sources = Mapping[str, ast.Module]

DOOR = "__init__"
# Rooms that are no folders: the modules beside them.
AT_THE_TOP = ("doors", "ground")
GROUND, WING = "ground", "wing"
# The attributes that only a taker-apart of exception groups has a use for.
GROUP_ATTRIBUTES = {"exceptions", "subgroup"}

_BY_NAME = ("getattr", "setattr", "delattr", "hasattr")
_PATCHING = ("setattr", "delattr", "object")  # of pytest's `monkeypatch` and of `mock.patch`

_ROW = re.compile(r" {4}(?P<floor>\d|ground|wing)? +(?P<room>\w+)/ +(?P<inside>\S.*)")
_MORE = re.compile(r" {10,}(?P<inside>\S.*)")


@dataclass(frozen=True)
class Import:
    """One import statement's target: a module of the package, or another package's top name."""

    importer: str
    line: int
    target: str
    internal: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line}"


@dataclass(frozen=True)
class Place:
    """Where a module stands: its room, that room's floor, and how far down it is inside."""

    room: str
    floor: str
    depth: int


Map = Mapping[str, Place]  # by module


def read_package(folder: Path) -> dict[str, ast.Module]:
    """The parsed modules of the package in `folder`."""
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
        for path in sorted(folder.rglob("*.py"))
    }


def read_map(text: str) -> dict[str, Place]:
    """The map in the docstring of a package's door.  A room's `__init__` needs no mention."""
    places: dict[str, Place] = {}
    floor = ""
    for room, row_floor, inside in _rows(text):
        floor = row_floor or floor
        for depth, level in enumerate(inside.split(">")):
            for name in level.split():
                module = name if room in AT_THE_TOP else f"{room}.{name}"
                places[module] = Place(room, floor, depth)
        if room not in AT_THE_TOP:
            places.setdefault(f"{room}.{DOOR}", Place(room, floor, -1))
    return places


def _rows(text: str) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for line in text.splitlines():
        if row := _ROW.fullmatch(line):
            rows.append((row["room"], row["floor"] or "", row["inside"]))
        elif rows and (more := _MORE.fullmatch(line)):
            room, floor, inside = rows.pop()
            rows.append((room, floor, f"{inside} {more['inside']}"))
    return rows


def floors(places: Map) -> set[str]:
    """The floors that rooms stand on; the ground and the wing are none."""
    return {place.floor for place in places.values()} - {GROUND, WING}


def imports(package: str, sources: Sources) -> list[Import]:
    """Every import, also those inside functions and under TYPE_CHECKING."""
    return [
        found
        for module, tree in sources.items()
        for node in ast.walk(tree)
        for found in _imports_of(package, sources, module, node)
    ]


def off_the_map(sources: Sources, places: Map) -> list[str]:
    """The modules that aren't on the map, and what is on the map and isn't there."""
    missing = [f"{module} isn't on the map" for module in sources.keys() - places.keys()]
    invented = [
        f"the map has {module}, which isn't there" for module in places.keys() - sources.keys()
    ]
    return sorted(missing + invented)


def upward_imports(package: str, sources: Sources, places: Map) -> list[str]:
    """Imports that don't go down: to a lower floor, or to a lower place in the same room."""
    return [
        f"{found} imports {found.target}, which is not below it"
        for found in imports(package, sources)
        if found.internal and not _goes_down(places[found.importer], places[found.target])
    ]


def _goes_down(importer: Place, target: Place) -> bool:
    if importer.room == target.room:
        # A room's `__init__` is a door, where the map says so, or imports nothing.
        return 0 <= importer.depth < target.depth
    if WING in (importer.floor, target.floor):
        return True  # another check's matter
    return _height(importer) > _height(target)


def _height(place: Place) -> int:
    return -1 if place.floor == GROUND else int(place.floor)


def meetings_of_the_wings(
    package: str, sources: Sources, places: Map, shared: str, roof: int
) -> list[str]:
    """Imports between the wing and the house, but for the `shared` words and from the roof up."""
    return [
        f"{found} imports {found.target}: they meet at ASGI only"
        for found in imports(package, sources)
        if found.internal and _meet(places[found.importer], places[found.target])
        if found.target != shared and _height_or_wing(places[found.importer]) < roof
    ]


def _meet(importer: Place, target: Place) -> bool:
    return (importer.floor == WING) != (target.floor == WING)


def _height_or_wing(place: Place) -> int:
    return -1 if place.floor == WING else _height(place)


def cycle(package: str, sources: Sources) -> list[str]:
    """The modules of one import cycle, if there is any."""
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for found in imports(package, sources):
        if found.internal and found.target != found.importer:
            graph[found.importer].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def imports_of_other(package: str, sources: Sources, name: str) -> list[str]:
    """Imports of the other package `name`."""
    return [
        f"{found} imports {name}"
        for found in imports(package, sources)
        if not found.internal and found.target == name
    ]


def foreign_privates(
    sources: Sources, allowed: Mapping[str, object], modules: Container[str] = ()
) -> list[str]:
    """Uses of what another module keeps private: its `_names`, and its objects' attributes.

    A module owns the attributes that its classes define or set on themselves.  `allowed` has
    `module._attribute` for each exception.  From outside of a package, its `modules` may be
    imported by their whole names.
    """
    return [
        f"{module}:{line} uses {name}"
        for module, tree in sources.items()
        for line, name in _foreign(tree, modules)
        if f"{module}.{name}" not in allowed
    ]


def _foreign(tree: ast.Module, modules: Container[str]) -> Iterator[tuple[int, str]]:
    own = set(_own_attributes(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if _is_private(node.attr) and not (_is_on_self(node) or node.attr in own):
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # `from . import _module` names a module; `from ._module import _name` doesn't.
            for alias in node.names:
                if _is_private(alias.name) and f"{node.module}.{alias.name}" not in modules:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.Call) and _is_private(name := _named_attribute(node)):
            yield node.lineno, name


def _named_attribute(call: ast.Call) -> str:
    """The name that `getattr` and its like are called with, or what patches a module for a test."""
    if isinstance(call.func, ast.Name) and call.func.id in _BY_NAME:
        names = call.args[1:2]
    elif isinstance(call.func, ast.Attribute) and call.func.attr in _PATCHING:
        names = call.args[:2]  # an object and a name, or one dotted name
    else:
        names = []
    texts = [str(name.value) for name in names if isinstance(name, ast.Constant)]
    return texts[0].rpartition(".")[2] if texts else ""


def _own_attributes(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                yield from _defined_by(statement)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield from [node.attr] if _is_on_self(node) else []


def _defined_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    for target in targets:
        for name in ast.walk(target):
            if isinstance(name, ast.Name):
                yield name.id


def _is_on_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def imported_tests(sources: Sources) -> list[str]:
    """Imports of a module of tests, or of what is in one."""
    return [
        f"{module}:{line} imports {name}"
        for module, tree in sources.items()
        for line, name in _imported_names(tree)
        if any(part.startswith("test_") for part in name.split("."))
    ]


def _imported_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The dotted names of all import statements."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            before = f"{node.module or ''}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                yield node.lineno, before + alias.name


def groups_taken_apart(sources: Sources, *allowed_in: str) -> list[str]:
    """Places outside `allowed_in` that look inside an exception group."""
    return [
        f"{module}:{node.lineno} takes an exception group apart"
        for module, tree in sources.items()
        if module not in allowed_in
        for node in ast.walk(tree)
        if isinstance(node, ast.TryStar)
        or (isinstance(node, ast.Attribute) and node.attr in GROUP_ATTRIBUTES)
    ]


def without_docstring(sources: Sources) -> list[str]:
    """The modules that don't begin with their rules."""
    return [module for module, tree in sources.items() if not ast.get_docstring(tree)]


def more_than_a_docstring(sources: Sources) -> list[str]:
    """The `__init__`s of private rooms that hold more than their room's promise."""
    return [
        module
        for module, tree in sources.items()
        if module.startswith("_") and module.endswith(f".{DOOR}") and len(tree.body) != 1
    ]


def function_lengths(sources: Sources) -> dict[str, int]:
    """Lines of each function without its docstring, which is never too long."""
    return {
        f"{module}:{node.lineno} {node.name}": _length(node)
        for module, tree in sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def percentile(values: list[int], percent: int) -> int:
    """The value that `percent` per cent of `values` don't exceed."""
    return sorted(values)[(len(values) - 1) * percent // 100]


def _imports_of(package: str, sources: Sources, module: str, node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield _resolved(package, sources, module, node.lineno, alias.name)
    elif isinstance(node, ast.ImportFrom):
        base = _from_where(package, module, node)
        for alias in node.names:
            yield _resolved(package, sources, module, node.lineno, f"{base}.{alias.name}")


def _from_where(package: str, module: str, node: ast.ImportFrom) -> str:
    """The absolute name of what stands between `from` and `import`."""
    parts = [package, *module.split(".")][: -node.level] if node.level else []
    return ".".join([*parts, node.module] if node.module else parts)


def _resolved(package: str, sources: Sources, importer: str, line: int, name: str) -> Import:
    """The import of the dotted `name`, whose last parts may be names inside a module."""
    top, *inside = name.split(".")
    if top != package:
        return Import(importer, line, top, internal=False)
    while inside:
        for target in (".".join(inside), ".".join([*inside, DOOR])):
            if target in sources:
                return Import(importer, line, target, internal=True)
        inside.pop()
    return Import(importer, line, DOOR, internal=True)


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = _extent(node)
    if ast.get_docstring(node, clean=False) is not None:
        lines -= _extent(node.body[0])
    return lines


def _extent(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1
