"""Parameters: what a callable takes, with its annotations as they were meant where they stand.

Rules of this module:

* A signature is read once, at registration.  What a partial has bound is its author's to say, also
  where a wrapper stands around it: no client can send it.
* Each annotation is evaluated by itself, so that what isn't needed may stay unknown, and in the
  module that it was written in: an inherited field's is that of the base class.
* What the call would fail for, or fill from the query by mistake, is refused.
"""

from __future__ import annotations

import builtins
import contextlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, get_args, get_origin

from .. import _callables
from .._errors import RegistrationError

Names = dict[str, Any]


def parameters_of(func: Callable[..., Any]) -> list[inspect.Parameter]:
    """What has to come from somewhere for a call of `func`.  Raises RegistrationError."""
    name = _callables.name(func)
    _refuse_uncallable(func, name)
    parameters = list(_signature(func, name).parameters.values())
    _refuse_unbound(func, name, parameters[:1])
    for parameter in parameters:
        _refuse_unshowable(name, parameter)
        _refuse_unnamed(name, parameter)
    bound = _callables.bound_names(func)
    arguments = _type_arguments(func)
    return [_evaluated(func, p, arguments) for p in parameters if p.name not in bound]


def _signature(func: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        origin = get_origin(func) or func
        if inspect.isclass(origin) and _is_of_typing(origin.__init__):
            return _signature_behind_protocols(origin)
        return inspect.signature(origin)
    except NameError as exc:  # a Struct resolves all of its annotations
        raise RegistrationError(
            f"{name}: an annotation isn't known when the route is registered: {exc}",
            wrong=f"{exc.name}  # imported under `if TYPE_CHECKING:`, or of an enclosing function",
            right=f"{exc.name}  # which the module imports or defines",
        ) from None
    except Exception:
        raise RegistrationError(
            f"{name}: what it takes isn't known",
            wrong="something that can't be called, or a built-in without a signature",
            right="a function with typed parameters",
        ) from None


def _is_of_typing(thing: Any) -> bool:
    """As is what `Protocol` puts in the place of an `__init__`, which takes anything."""
    return getattr(thing, "__module__", None) in ("typing", "typing_extensions")


def _is_protocol(kind: Any) -> bool:
    return any(
        base.__name__ == "Protocol" and _is_of_typing(base)
        for base in getattr(kind, "__bases__", ())
    )


def _signature_behind_protocols(kind: type[Any]) -> inspect.Signature:
    """That of a class that implements a Protocol, whose `__init__` is put right when it is made."""
    init = _constructor(kind)
    if init is object.__init__:
        return inspect.Signature()
    return inspect.Signature(list(inspect.signature(init).parameters.values())[1:])


def _constructor(kind: type[Any]) -> Any:
    """Its `__init__`, behind what Protocols have put in its place."""
    inits = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    return next(init for init in inits if not _is_of_typing(init))


# What is refused


def _refuse_uncallable(func: Any, name: str) -> None:
    kind = get_origin(func) or func
    what = ""
    if isinstance(func, classmethod):
        name, what = (
            func.__qualname__,
            "what it takes isn't known before it is bound, outside of its class",
        )
    elif not callable(func):
        what = "what it takes isn't known, as it can't be called"
    elif _is_protocol(kind):
        what = "a Protocol has no instances"
    elif inspect.isabstract(kind):
        what = "an abstract class has no instances"
    if what:
        raise RegistrationError(
            f"{name}: {what}",
            wrong=f"Depends() or a route for {name}",
            right="Depends(get_it), with a function or class that gives one",
        )


def _refuse_unbound(func: Callable[..., Any], name: str, first: list[inspect.Parameter]) -> None:
    """Refuse a method without its object: the client would say what `self` is."""
    for parameter in first:
        if parameter.name in ("self", "cls") and parameter.annotation is parameter.empty:
            owner, _, method = name.rpartition(".")
            owner = owner or "Class"
            holder = f"{owner}()" if parameter.name == "self" else owner
            raise RegistrationError(
                f"{name} is a method without its {'object' if holder != owner else 'class'}, which"
                f" would be a query parameter {parameter.name!r}",
                wrong=f"{owner}.{method}, or a decorator on the method inside of the class",
                right=f"{holder}.{method}, as in app.get(...)({holder}.{method})",
            )


def _refuse_unshowable(name: str, parameter: inspect.Parameter) -> None:
    try:
        str(parameter)
    except Exception as exc:
        raise RegistrationError(
            f"{name}: the default or annotation of {parameter.name!r} has a __repr__ that fails:"
            f" {exc!r}",
            wrong=f"{parameter.name}: ... = ...",
            right=f"{parameter.name}: ..., with a default that Python can show",
        ) from None


def _refuse_unnamed(name: str, parameter: inspect.Parameter) -> None:
    if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        return
    slash = ", /" if parameter.kind is parameter.POSITIONAL_ONLY else ""
    raise RegistrationError(
        f"{name}: each parameter has to have a name to be passed by",
        wrong=f"def {name}({parameter}{slash}): ...",
        right=f"def {name}({parameter.name}: str): ..."
        + ("" if slash else "  # or @functools.wraps(func), on a wrapper that passes all on"),
    )


# Annotations


def _evaluated(
    func: Callable[..., Any], parameter: inspect.Parameter, arguments: Mapping[Any, Any]
) -> inspect.Parameter:
    """`parameter` with its annotation, in which all is known."""
    if parameter.annotation is parameter.empty:
        return parameter
    try:
        annotation = _resolved(parameter.annotation, _names_for(func, parameter.name))
        return parameter.replace(annotation=_with_arguments(annotation, arguments))
    except RegistrationError as exc:  # of a marker within the text
        raise RegistrationError(
            f"{_callables.name(func)}: {parameter.name!r}: {exc.problem}",
            wrong=exc.wrong,
            right=exc.right,
        ) from None
    except Exception as exc:
        raise RegistrationError(
            f"{_callables.name(func)}: the annotation of {parameter.name!r} isn't known"
            f" when the route is registered: {exc}",
            wrong=f"{parameter}  # imported under `if TYPE_CHECKING:`, or of an enclosing function",
            right=f"{parameter}  # which the module imports or defines",
        ) from None


def _resolved(annotation: Any, names: Names) -> Any:
    if isinstance(annotation, str):
        annotation = eval(annotation, names)
    # What stands within another type in quotes.
    holder = SimpleNamespace(__annotations__={"value": annotation})
    return typing.get_type_hints(holder, names, include_extras=True)["value"]


def _names_for(func: Callable[..., Any], parameter: str) -> Names:
    """The names that the annotation of this parameter can mean."""
    *_, innermost = _callables.layers(func)
    if not inspect.isclass(innermost):
        return _names_of_function(innermost)
    init = _constructor(innermost)
    maker = inspect.unwrap(init if hasattr(init, "__code__") else innermost.__new__)
    code = getattr(maker, "__code__", None)
    if code is not None and not code.co_filename.startswith("<"):
        return _names_of_function(maker)
    # Generated from fields, of which each is its class's.
    fields = {each.alias: each.name for each in getattr(innermost, "__attrs_attrs__", ())}
    field = fields.get(parameter, parameter)
    definers = (base for base in innermost.__mro__ if field in inspect.get_annotations(base))
    return _names_of_class(next(definers, innermost))


def _names_of_function(func: Any) -> Names:
    code, cells = getattr(func, "__code__", None), getattr(func, "__closure__", None) or ()
    module = getattr(func, "__globals__", {})
    names = {**module, **_enclosing_names(func.__qualname__, module.get("__name__"))}
    for name, cell in zip(code.co_freevars if code else (), cells, strict=False):
        with contextlib.suppress(ValueError):  # not assigned yet
            names[name] = cell.cell_contents
    return names | {each.__name__: each for each in getattr(func, "__type_params__", ())}


def _names_of_class(kind: type[Any]) -> Names:
    module = vars(sys.modules[kind.__module__]) if kind.__module__ in sys.modules else {}
    # Last those of the class: a field `date: date = None` means the module's.
    own = {name: value for name, value in vars(kind).items() if not hasattr(builtins, name)}
    return {**own, **module, **_enclosing_names(kind.__qualname__, kind.__module__)}


def _enclosing_names(qualified: str, module: str | None) -> Names:
    """The variables of the functions around a definition, as far as they still run."""
    names: Names = {}
    frame = inspect.currentframe()
    while frame is not None:
        around = f"{frame.f_code.co_qualname}.<locals>."
        if qualified.startswith(around) and frame.f_globals.get("__name__") == module:
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names


# Generic classes


def _type_arguments(kind: Any) -> dict[Any, Any]:
    """What stands for the type variables of `Repo[User]`, and of the bases of a class."""
    kind = _callables.behind_partials(kind)
    return _arguments_of(get_origin(kind) or kind, get_args(kind))


def _arguments_of(origin: Any, given: Sequence[Any]) -> dict[Any, Any]:
    found = dict(zip(getattr(origin, "__parameters__", ()), given, strict=False))
    for base in getattr(origin, "__orig_bases__", ()):
        arguments = [_with_arguments(each, found) for each in get_args(base)]
        found = _arguments_of(get_origin(base), arguments) | found
    return found


def _with_arguments(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    if isinstance(annotation, typing.TypeVar):
        return arguments.get(annotation, annotation)
    variables = () if inspect.isclass(annotation) else getattr(annotation, "__parameters__", ())
    if not any(variable in arguments for variable in variables):
        return annotation
    return annotation[tuple(arguments.get(variable, variable) for variable in variables)]
