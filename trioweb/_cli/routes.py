"""The table of routes: `trioweb routes`.

Rules of this module:

* It shows what registration has compiled, not what a signature seems to say.
* The table is for people; `--json` has the same for programs.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from .. import _callables
from .._app.app import plans_of
from .._errors import CommandError
from .._inject.plan import Input, Plan
from .._routing.router import Route
from .importing import load_app
from .wrapped import app_behind

_HEADINGS = ("METHODS", "PATH", "NAME", "HANDLER", "TASKS", "PARAMETERS")


@dataclass(frozen=True, slots=True)
class Parameter:
    """`source`: path, query, header, cookie or body; `alias`: its name there."""

    name: str
    type: str
    source: str
    alias: str


@dataclass(frozen=True, slots=True)
class Line:
    """One route.  `tasks`: whether a parameter of it is the list of background tasks."""

    methods: tuple[str, ...]
    path: str
    name: str
    handler: str
    tasks: bool
    parameters: tuple[Parameter, ...]


def show_routes(import_string: str | None, folder: str | None = None, *, as_json: bool) -> str:
    """The routes of the app, which `load_app` finds; raises CommandError."""
    served = load_app(import_string, folder)
    app = app_behind(served)
    if app is None:
        raise CommandError(
            f"only a trioweb.App can tell its routes, and this is another kind of app: {served!r}",
            wrong=f"trioweb routes {import_string or ''}".rstrip(),
            right="trioweb routes MODULE:NAME, where NAME is the App that this one calls",
        )
    lines = [_line(route, plan) for route, plan in plans_of(app)]
    if as_json:
        return msgspec.json.format(msgspec.json.encode(lines), indent=2).decode()
    return _table(lines)


def _line(route: Route, plan: Plan) -> Line:
    handler = f"{_module(route.handler)}:{_callables.name(route.handler)}"
    parameters = tuple(map(_parameter, plan.inputs))
    return Line(route.methods, route.path, route.name, handler, plan.takes_tasks, parameters)


def _module(handler: Any) -> str:
    return str(getattr(_callables.target(handler), "__module__", "?"))


def _parameter(taken: Input) -> Parameter:
    kind = inspect.formatannotation(taken.annotation).removeprefix("typing.")
    return Parameter(taken.name, kind, taken.source, taken.alias)


def _table(lines: Sequence[Line]) -> str:
    rows = [_HEADINGS, *map(_row, lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(line: Line) -> tuple[str, ...]:
    parameters = ", ".join(map(_shown, line.parameters))
    tasks = "yes" if line.tasks else "-"
    methods = ",".join(line.methods)
    return (methods, line.path, line.name, line.handler, tasks, parameters or "-")


def _shown(parameter: Parameter) -> str:
    alias = "" if parameter.alias in ("", parameter.name) else f" {parameter.alias}"
    return f"{parameter.name}: {parameter.type} ({parameter.source}{alias})"
