"""Signatures: what a function's author says of each of its parameters.

Rules of this module:

* A parameter is what `parameters` makes of it; what its annotation and its default mean is
  decided here.
* What would be passed over in silence is refused: another library's markers and
  constraints, a second default, a marker hidden deep within a type.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from .. import _callables
from .._errors import RegistrationError, describe
from .._http.response import Response
from .._imports import INSTEAD
from .._shapes.annotations import parts, shape_of
from .._shapes.codecs import Codecs
from .._shapes.members import members_of
from .._tasks.task import BackgroundTask
from .markers import Dependency, Depends
from .sources import MARKERS, REQUIRED, SPECIAL, Source


def marker_of(
    func: Callable[..., Any], parameter: inspect.Parameter
) -> tuple[Any, Dependency | Source | None]:
    """The annotation without our markers, and the marker that stands in it or is the default."""
    annotation = str if parameter.annotation is parameter.empty else parameter.annotation
    annotation, metadata = _unwrapped(annotation)
    markers = [m for m in (parameter.default, *metadata) if isinstance(m, (Dependency, Source))]
    for part in (parameter.default, *metadata, None if markers else annotation):
        _refuse_lookalike(func, parameter, part)
    others = [m for m in metadata if not isinstance(m, (Dependency, Source))]
    if len(markers) > 1:
        raise RegistrationError(
            f"{_callables.name(func)}: {parameter.name!r} says twice where its value comes from",
            wrong=f"{parameter}",
            right=f"one of {', '.join(marker.__name__ for marker in MARKERS)} and Depends",
        )
    for marker in markers:
        if parameter.default is not parameter.empty and parameter.default is not marker:
            _refuse_second_default(func, parameter, annotation, marker)
    if not any(isinstance(marker, Dependency) for marker in markers):
        _refuse_hidden_marker(func, parameter, annotation)
    if isinstance(annotation, type) and annotation in SPECIAL:
        others = []  # a request is one, whatever is said of it
    return (
        Annotated[(annotation, *others)] if others else annotation,
        markers[0] if markers else None,
    )


def _unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """What an annotation says, through `Annotated` and names given by `type`, and its metadata."""
    metadata: list[Any] = []
    seen: list[Any] = []
    while True:
        # Known by its name: typing has it since 3.12, typing_extensions one of its own.
        if type(annotation).__name__ == "TypeAliasType" and annotation not in seen:
            if isinstance(annotation.__value__, str):
                return annotation, metadata  # nobody knows what it means there
            seen.append(annotation)  # `type X = X`
            annotation = annotation.__value__
        elif get_origin(annotation) is Annotated:
            annotation, *found = get_args(annotation)
            metadata = [*found, *metadata]
        else:
            return annotation, metadata


def _refuse_hidden_marker(
    func: Callable[..., Any], parameter: inspect.Parameter, annotation: Any
) -> None:
    """Refuse `Annotated[str, Depends(user)] | None`: the client would say who the user is."""
    for part in parts(annotation):
        for marker in getattr(part, "__metadata__", ()):
            if isinstance(marker, (Dependency, Source)):
                raise RegistrationError(
                    f"{_callables.name(func)}: {marker} within {parameter.name!r}"
                    " would be passed over",
                    wrong=f"{parameter}",
                    right=f"{parameter.name}: Annotated[..., {marker}]  # around all of its type",
                )


_MARKERS: dict[Any, str] = {marker: marker.__name__ for marker in (*MARKERS, Depends)}


def _refuse_lookalike(func: Callable[..., Any], parameter: inspect.Parameter, part: Any) -> None:
    """Refuse what would be passed over in silence: `Query` for `Query()`, FastAPI's `Query()`."""
    if inspect.isfunction(part) and part in _MARKERS:
        raise RegistrationError(
            f"{_callables.name(func)}: {part.__name__} is to be called",
            wrong=f"{parameter.name}: Annotated[..., {part.__name__}]",
            right=f"{parameter.name}: Annotated[..., {part.__name__}()]",
        )
    kind = part if isinstance(part, type) else type(part)
    if part is parameter.default and kind.__name__ == "FieldInfo":
        raise RegistrationError(
            f"{_callables.name(func)}: {parameter.name!r} isn't a field of a pydantic model",
            wrong=f"{parameter}",
            right=f"{parameter.name}: Annotated[..., Query(ge=1)], and its default behind it",
        )
    if kind.__module__.partition(".")[0] in ("fastapi", "starlette"):
        raise _theirs(func, parameter, kind)


def _theirs(
    func: Callable[..., Any], parameter: inspect.Parameter, kind: type
) -> RegistrationError:
    name, package = kind.__name__, kind.__module__.partition(".")[0]
    wrong = f"from {'fastapi' if package == 'fastapi' else kind.__module__} import {name}"
    right = _ours_for(name)
    if getattr(func, "__module__", "").startswith("fastapi.security"):  # a class as it came
        wrong, right = f"Depends({_callables.name(func)})", INSTEAD["security"]
    problem = f"{_callables.name(func)}: {parameter.name!r} uses {name} of {package}"
    return RegistrationError(problem, wrong=wrong, right=right)


def _ours_for(name: str) -> str:
    if name in {*_MARKERS.values(), *(special.__name__ for special in SPECIAL)}:
        return f"from trioweb import {name}"
    if name.endswith("Response"):
        return _BY_TYPE["response"]
    return INSTEAD.get(name, "from trioweb import Request")


def _refuse_second_default(
    func: Callable[..., Any],
    parameter: inspect.Parameter,
    annotation: Any,
    marker: Dependency | Source,
) -> None:
    """Refuse `Annotated[int, Query(5)] = 6`."""
    if isinstance(marker, Source) and marker.default is not REQUIRED:
        kind = inspect.formatannotation(annotation)
        raise RegistrationError(
            f"{_callables.name(func)}: {parameter.name!r} has two defaults",
            wrong=f"{parameter}",
            right=f"{parameter.name}: Annotated[{kind}, {marker.kind.title()}()]"
            f" = {parameter.default!r}",
        )


_NOBODYS = ("builtins", "typing", "typing_extensions", "collections", "collections.abc")


def refuse_depends_on_nothing(
    func: Callable[..., Any], parameter: inspect.Parameter, annotation: Any, depends: Dependency
) -> None:
    """Refuse `Depends()` for what isn't a class of somebody's own, or without an annotation."""
    kind = get_origin(annotation) or annotation
    is_own = isinstance(kind, type) and kind.__module__ not in _NOBODYS
    if depends.dependency is None and not is_own:
        name = parameter.name
        raise RegistrationError(
            f"{_callables.name(func)}: {name!r} doesn't say on what it depends",
            wrong=f"{parameter}",
            right=f"{name}=Depends(get_{name}), or {name}: Annotated[SomeClass, Depends()]",
        )


# What people call what a request has, and how it is asked for.
_BY_TYPE = {
    "request": "request: Request",
    "req": "req: Request",
    "tasks": "tasks: BackgroundTasks",
    "background_tasks": "background_tasks: BackgroundTasks",
    "nursery": "nursery: trio.Nursery",
    "response": "return JSONResponse(content, headers={...})",
    "websocket": "request: Request; there are no WebSockets",
}


def refuse_forgotten_annotation(func: Callable[..., Any], parameter: inspect.Parameter) -> None:
    """Refuse `async def handler(request):`, which would want a `?request=` of the client."""
    is_bare = parameter.annotation is parameter.empty and parameter.name in _BY_TYPE
    if is_bare:
        raise RegistrationError(
            f"{_callables.name(func)}: {parameter.name!r} has no annotation, so it would be"
            " a query parameter",
            wrong=f"{parameter}",
            right=f"{_BY_TYPE[parameter.name]}  (or {parameter.name}: str, where the query is"
            " meant)",
        )


def unusable(parameter: inspect.Parameter, exc: Exception) -> RegistrationError:
    """For a parameter whose annotation or default raises `exc` when it is looked at."""
    return RegistrationError(
        f"it can't be used: {describe(exc)}",
        wrong=f"{parameter}",
        right="parameter: str  # or another type that can be decoded",
    )


def named(
    refusal: RegistrationError, func: Callable[..., Any], parameter: inspect.Parameter
) -> RegistrationError:
    """`refusal`, from where only types are known, with the names that it is about."""
    name = _callables.name(func)
    if refusal.problem.startswith(name):
        return refusal
    return RegistrationError(
        f"{name}: {parameter.name!r}: {refusal.problem}",
        wrong=refusal.wrong.replace("parameter:", f"{parameter.name}:", 1),
        right=refusal.right.replace("parameter:", f"{parameter.name}:", 1),
    )


def refuse_unmarked(
    func: Callable[..., Any], parameter: inspect.Parameter, annotation: Any
) -> None:
    """Refuse what has no meaning unless a marker gives it one."""
    name = _callables.name(func)
    if isinstance(annotation, type) and issubclass(annotation, Response):
        raise RegistrationError(
            f"{name} takes a response, but responses are returned",
            wrong=f"def {name}({parameter}): ...",
            right="return JSONResponse(content, headers={...})",
        )
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    if BackgroundTask in (annotation, *members):
        raise RegistrationError(
            f"{name} takes a task, but what a request has is a list of them",
            wrong=f"{parameter}",
            right=f"{parameter.name}: BackgroundTasks",
        )
    for special in set(SPECIAL) & set(members):
        raise RegistrationError(
            f"{name}: {parameter.name!r} is there for each request, so it is never None",
            wrong=f"{parameter}",
            right=f"{parameter.name}: {special.__name__}",
        )
    if bytes in (annotation, *members):
        raise RegistrationError(
            f"{name}: bytes as a parameter would be a base64 string in a JSON body",
            wrong=f"{parameter}",
            right="await request.body(), with request: Request"
            "  (or Annotated[bytes, Body()], where base64 is meant)",
        )


def refuse_class_as_text(
    func: Callable[..., Any],
    parameter: inspect.Parameter,
    annotation: Any,
    source: Source,
    codecs: Codecs,
) -> None:
    """Refuse `Annotated[Filters | None, Query()]` and the like, which no text is read as."""
    if shape_of(annotation, codecs) != "body":
        return
    name, marker = parameter.name, source.kind.title()
    models = [part for part in get_args(annotation) if members_of(part) is not None]
    right = f"a parameter for each member, such as limit: Annotated[int, {marker}()]"
    if models:
        right = f"{name}: Annotated[{_written(models[0])}, {marker}()]"
        right += "  # whose members may have defaults"
    raise RegistrationError(
        f"{_callables.name(func)}: {name!r} is neither a text nor a list of texts,"
        f" as a {source.kind} gives them",
        wrong=f"{name}: Annotated[{_written(annotation)}, {marker}()]",
        right=right,
    )


def _written(annotation: Any) -> str:
    is_class = isinstance(annotation, type)
    return annotation.__name__ if is_class else inspect.formatannotation(annotation)
