"""Generics: what stands for the type parameters of a class, in it and in its bases.

Rules of this module:

* What a type parameter stands for is asked of the annotation alone, as type checkers do.
* A class whose type parameters have a default or alternatives is written with its arguments:
  msgspec knows neither, and would take anything.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .._errors import RegistrationError

Arguments = dict[Any, Any]


def hints_of(annotation: Any) -> dict[str, Any]:
    """The annotations of a class by name, with what its type parameters stand for put in."""
    cls = get_origin(annotation) or annotation
    hints = get_type_hints(cls, include_extras=True)
    arguments: Arguments = {}
    _collect(annotation, arguments)
    return {name: _filled(hint, arguments) for name, hint in hints.items()}


def _collect(annotation: Any, arguments: Arguments) -> None:
    """What a class and its bases say of their type parameters."""
    cls = get_origin(annotation) or annotation
    given = [_filled(argument, arguments) for argument in get_args(annotation)]
    arguments |= dict(zip(getattr(cls, "__parameters__", ()), given, strict=False))
    for base in _bases(cls):
        _collect(base, arguments)


def _filled(hint: Any, arguments: Arguments) -> Any:
    if isinstance(hint, TypeVar):
        return arguments.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or (isinstance(hint, type) and get_origin(hint) is None):
        return hint
    return hint[tuple(arguments.get(parameter, parameter) for parameter in parameters)]


def _bases(cls: Any) -> tuple[Any, ...]:
    """The bases of one class as they are written."""
    return tuple(vars(cls).get("__orig_bases__", cls.__bases__)) if isinstance(cls, type) else ()


def refuse_open(annotation: Any, parts: Iterable[Any]) -> None:
    """Refuse a type parameter that stands for nothing, in an annotation or one of its parts."""
    _refuse(annotation)
    for part in parts:
        cls = get_origin(part) or part
        _refuse(part if cls is part and not isinstance(part, TypeVar) else None)
        for ancestor in getattr(cls, "__mro__", ()):
            for base in _bases(ancestor):
                _refuse(base if get_origin(base) is None else None)


def _refuse(annotation: Any) -> None:
    is_parameter = isinstance(annotation, TypeVar)
    for parameter in (annotation,) if is_parameter else getattr(annotation, "__parameters__", ()):
        has_default = getattr(parameter, "has_default", bool)()
        stands_for = (parameter.__default__,) if has_default else _constraints(parameter)
        if stands_for:
            written = inspect.formatannotation(annotation)
            meant = inspect.formatannotation(stands_for[0])
            right = meant if is_parameter else f"{written.partition('[')[0]}[{meant}]"
            raise RegistrationError(
                f"{written} doesn't say what {parameter.__name__} is, so anything would be taken",
                wrong=written,
                right=right,
            )


def _constraints(parameter: Any) -> tuple[Any, ...]:
    return tuple(getattr(parameter, "__constraints__", ()))
