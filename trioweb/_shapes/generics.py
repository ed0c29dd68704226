"""Generics: what stands for the type parameters of a class, in it and in its bases.

Rules of this module:

* What a type parameter stands for is asked of the annotation alone, as type checkers do.
* A class whose type parameters have a default or alternatives is written with its arguments:
  msgspec knows neither, and would take anything.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

from .._errors import RegistrationError
from .models import checks_itself


def hints_of(annotation: Any) -> dict[str, Any]:
    """The annotations of a class by name, with what its type parameters stand for put in."""
    cls = get_origin(annotation) or annotation
    return _hints(annotation, get_type_hints(cls, include_extras=True))


def _hints(annotation: Any, evaluated: Mapping[str, Any]) -> dict[str, Any]:
    cls = get_origin(annotation) or annotation
    arguments = dict(zip(getattr(cls, "__parameters__", ()), get_args(annotation), strict=False))
    hints: dict[str, Any] = {}
    for base in reversed(_bases(cls)):
        if get_origin(base) is not Generic:
            hints |= _hints(_filled(base, arguments), evaluated)
    own = inspect.get_annotations(cls).keys() & evaluated.keys()
    if is_typeddict(cls):  # which has those of its bases, too
        own -= hints.keys()
    return hints | {name: _filled(evaluated[name], arguments) for name in evaluated if name in own}


def _filled(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """A hint with what its type parameters stand for."""
    if isinstance(hint, TypeVar):
        return arguments.get(hint, hint)
    parameters = () if isinstance(hint, type) else getattr(hint, "__parameters__", ())
    if not parameters:
        return hint
    return hint[tuple(arguments.get(parameter, parameter) for parameter in parameters)]


def _bases(cls: Any) -> tuple[Any, ...]:
    """The bases of one class as they are written."""
    return tuple(vars(cls).get("__orig_bases__", cls.__bases__)) if isinstance(cls, type) else ()


def refuse_open(annotation: Any, parts: Iterable[Any]) -> None:
    """Refuse a type parameter that stands for nothing, in an annotation or one of its parts."""
    if not checks_itself(annotation):
        _refuse(annotation)
    for part in parts:
        cls = get_origin(part) or part
        if checks_itself(cls):  # pydantic knows what stands for them
            continue
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
