"""Checks of a package's source that need no import of it: floors, cycles, groups, sizes.

Each check takes the package's source and returns its complaints, so that a test can feed it a bad
one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

# A module by its path inside the package: "_app", "server._h11", "server.__init__", "__init__".
Sources = Mapping[str, ast.Module]

DOOR = "__init__"
# The attributes that only a taker-apart of exception groups has a use for.
GROUP_ATTRIBUTES = {"exceptions", "subgroup"}


@dataclass(frozen=True)
class Import:
    """One import statement's target: a module of the package, or another package's top name."""

    importer: str
    line: int
    target: str
    internal: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line}"


def read_package(folder: Path) -> dict[str, ast.Module]:
    """The parsed modules of the package in `folder`."""
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
        for path in sorted(folder.rglob("*.py"))
    }


def unit(module: str) -> str:
    """What stands in the table of floors: a top-level module, or a subpackage as a whole."""
    return module.partition(".")[0]


def imports(package: str, sources: Sources) -> list[Import]:
    """Every import, also those inside functions and under TYPE_CHECKING."""
    return [
        found
        for module, tree in sources.items()
        for node in ast.walk(tree)
        for found in _imports_of(package, sources, module, node)
    ]


def outside_the_table(sources: Sources, floors: Mapping[str, int]) -> list[str]:
    """The modules that nobody has given a floor."""
    return sorted({unit(module) for module in sources} - floors.keys())


def upward_imports(package: str, sources: Sources, floors: Mapping[str, int]) -> list[str]:
    """Imports that don't go to a strictly lower floor.  Inside a subpackage they are free."""
    return [
        f"{found} imports {unit(found.target)}, which is not below it"
        for found in imports(package, sources)
        if found.internal
        and unit(found.target) != unit(found.importer)
        and floors.get(unit(found.target), 0) >= floors.get(unit(found.importer), 0)
    ]


def meetings_of_the_wings(
    package: str, sources: Sources, floors: Mapping[str, int], wing: str, meet_at: int
) -> list[str]:
    """Imports between `wing` and the rest of the package below the floor `meet_at`."""
    return [
        f"{found} imports {unit(found.target)}: they meet at ASGI only"
        for found in imports(package, sources)
        if found.internal
        and floors.get(unit(found.importer), 0) < meet_at
        and (unit(found.importer) == wing) != (unit(found.target) == wing)
    ]


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
