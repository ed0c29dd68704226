"""Members: what a client may set of a class, by which names, and whether it may send others.

Rules of this module:

* It is one decision, whatever the values come from: a JSON body, a query, header fields, cookies,
  the parameters of a class in `Depends()`.
* A client sets what the constructor of the class takes.  What the class sets by itself, such as
  `field(init=False)`, and what begins with an underscore and has no other name, is never the
  client's: it is as unknown as any name that the class hasn't.
* A member that no client may set and nothing else sets is refused at registration.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NotRequired, Required, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from .._errors import RegistrationError
from .generics import hints_of
from .models import is_model


class Member(msgspec.Struct, frozen=True):
    """What a client may set.

    `argument` is what the constructor calls it; a client calls it by one of `names`, the first of
    which that is there counts.
    """

    argument: str
    names: tuple[str, ...]
    annotation: Any
    required: bool


class Members(msgspec.Struct, frozen=True):
    """What a client may set of `cls`.

    `hidden` are names that msgspec would take though they aren't the client's.  `builds_itself`:
    only its constructor makes of the members what the class means.
    """

    cls: Any
    settable: tuple[Member, ...]
    refuses_unknown: bool = False
    hidden: frozenset[str] = frozenset()
    builds_itself: bool = False

    def names(self) -> set[str]:
        return {name for member in self.settable for name in member.names}


def members_of(annotation: Any) -> Members | None:
    """The members of a class, or None for what isn't one that we know."""
    cls = get_origin(annotation) or annotation
    if not isinstance(cls, type):
        return None
    for is_kind, read in _KINDS:
        if is_kind(cls):
            return read(annotation, cls)
    return None


# The kinds of classes


def _of_model(annotation: Any, model: Any) -> Members:
    settable = tuple(
        Member(name, _names_in_model(model, name), info.rebuild_annotation(), info.is_required())
        for name, info in model.model_fields.items()
    )
    return Members(model, settable, model.model_config.get("extra") == "forbid")


def _names_in_model(model: Any, name: str) -> tuple[str, ...]:
    """A field's aliases, and its own name where the model takes that."""
    alias, config = model.model_fields[name].validation_alias, model.model_config
    paths = [getattr(choice, "path", [choice]) for choice in getattr(alias, "choices", [alias])]
    names = [path[0] for path in paths if path != [None] and len(path) == 1]
    if not config.get("validate_by_alias", True):
        names = []
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    if alias is None or by_name or not config.get("validate_by_alias", True):
        names.append(name)
    return tuple(names)


def _of_struct(annotation: Any, cls: type[msgspec.Struct]) -> Members:
    settable, hidden, config = [], set(), cls.__struct_config__
    for field in msgspec.structs.fields(annotation):
        name = field.name
        if not _is_private(name) or name != field.encode_name:
            settable.append(Member(name, (field.encode_name,), field.type, field.required))
        elif field.required or config.array_like:
            right = f"{name.strip('_')}: ... = field(name={name!r})"
            raise _nobodys(cls, name, right)
        else:
            hidden.add(name)
    return Members(cls, tuple(settable), config.forbid_unknown_fields, frozenset(hidden))


def _of_typed_dict(annotation: Any, cls: Any) -> Members:
    """Its keys are the client's own, whatever they begin with."""
    hints = hints_of(annotation)
    return Members(
        dict,
        tuple(
            Member(name, (name,), _unqualified(hint), _is_required(cls, name, hint))
            for name, hint in hints.items()
        ),
    )


def _is_required(cls: Any, name: str, hint: Any) -> bool:
    if get_origin(hint) in (Required, NotRequired):
        return get_origin(hint) is Required
    return name in cls.__required_keys__


def _unqualified(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint


def _of_named_tuple(annotation: Any, cls: Any) -> Members:
    hints = hints_of(annotation)
    return Members(
        cls,
        tuple(
            Member(name, (name,), hints.get(name, Any), name not in cls._field_defaults)
            for name in cls._fields
        ),
    )


def _of_dataclass(annotation: Any, cls: Any) -> Members:
    hints = hints_of(annotation)
    arguments = {
        name: hint.type if isinstance(hint, dataclasses.InitVar) else hint
        for name, hint in hints.items()
    }
    return _of_constructor(cls, arguments, {field.name for field in dataclasses.fields(cls)})


def _of_attrs(annotation: Any, cls: Any) -> Members:
    hints = hints_of(annotation)
    arguments = {
        each.alias: _annotation_of_attribute(cls, each, hints.get(each.name, each.type or Any))
        for each in cls.__attrs_attrs__
    }
    members = _of_constructor(cls, arguments, {each.name for each in cls.__attrs_attrs__})
    if any(each.converter is not None for each in cls.__attrs_attrs__):
        return msgspec.structs.replace(members, builds_itself=True)
    return members


def _of_constructor(cls: Any, arguments: dict[str, Any], fields: set[str]) -> Members:
    """A class whose constructor takes some of these arguments, and whose fields msgspec takes."""
    settable = []
    others = _annotations_of_constructor(cls)
    for parameter in inspect.signature(cls).parameters.values():
        is_keyword = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        required = parameter.default is parameter.empty
        name = parameter.name
        if is_keyword and not _is_private(name):
            annotation = arguments.get(name, others.get(name, Any))
            settable.append(Member(name, (name,), annotation, required))
        elif required and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise _nobodys(cls, name, f"{name.strip('_')}: ..., or a default for it")
    hidden = frozenset(fields - {member.argument for member in settable})
    builds_itself = bool(hidden) or not _is_generated(cls.__init__)
    return Members(cls, tuple(settable), False, hidden, builds_itself)


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any], Members]], ...] = (
    (is_model, _of_model),
    (lambda cls: issubclass(cls, msgspec.Struct), _of_struct),
    (is_typeddict, _of_typed_dict),
    (lambda cls: issubclass(cls, tuple) and hasattr(cls, "_fields"), _of_named_tuple),
    (dataclasses.is_dataclass, _of_dataclass),
    (lambda cls: hasattr(cls, "__attrs_attrs__"), _of_attrs),
)


# Constructors


def _is_private(name: str) -> bool:
    return name.startswith("_")


def _nobodys(cls: Any, name: str, right: str) -> RegistrationError:
    return RegistrationError(
        f"{cls.__name__}: {name!r} is private, so no client may set it, and nothing else does",
        wrong=f"{name}: ... in class {cls.__name__}",
        right=right,
    )


def _is_generated(constructor: Any) -> bool:
    """Whether dataclasses or attrs have written it, so that it does what msgspec does."""
    code = getattr(constructor, "__code__", None)
    return code is not None and code.co_filename.startswith("<")


def _annotations_of_constructor(cls: Any) -> dict[str, Any]:
    if _is_generated(cls.__init__):
        return {}
    return get_type_hints(cls.__init__, include_extras=True)


def _annotation_of_attribute(cls: Any, attribute: Any, hint: Any) -> Any:
    """What the constructor of an attrs class takes: what the field's converter does, if any."""
    if attribute.converter is None:
        return hint
    converter = getattr(attribute.converter, "converter", attribute.converter)
    taken = _first_annotation(converter)
    if taken is not inspect.Parameter.empty:
        return taken
    # Such as set of a set[str], and str.strip of a str.
    if (get_origin(hint) or hint) in (converter, getattr(converter, "__objclass__", None)):
        return hint
    name = attribute.name
    raise RegistrationError(
        f"{cls.__name__}: what the converter of {name!r} takes isn't known",
        wrong=f"{name} = field(converter={getattr(converter, '__name__', converter)})",
        right=f"{name} = field(converter=convert), with def convert(value: str) -> ...",
    )


def _first_annotation(converter: Any) -> Any:
    try:
        parameters = inspect.signature(converter, eval_str=True).parameters.values()
    except (TypeError, ValueError, NameError):  # built in, or with unknown names
        return inspect.Parameter.empty
    return next((p.annotation for p in parameters), inspect.Parameter.empty)
