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
import sys
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, Required, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from .._errors import RegistrationError
from .generics import hints_of


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
    """What a client may set of `cls`, and whether it refuses or keeps what it doesn't know.

    `hidden` are names that msgspec would take though they aren't the client's; `lacking` is what
    the constructor requires and no client may set.  `builds_itself`: only its constructor
    makes of the members what the class means.
    """

    cls: Any
    settable: tuple[Member, ...]
    refuses_unknown: bool = False
    keeps_unknown: bool = False
    hidden: frozenset[str] = frozenset()
    lacking: tuple[str, ...] = ()
    builds_itself: bool = False

    def is_withheld(self, argument: str) -> bool:
        """Whether it is the class's, and no client may set what its constructor would take."""
        if issubclass(self.cls, msgspec.Struct):
            return all(member.argument != argument for member in self.settable)
        return argument in self.hidden or argument in self.lacking


def members_of(annotation: Any) -> Members | None:
    """The members of a class, or None for what isn't one that we know."""
    cls = get_origin(annotation) or annotation
    if not isinstance(cls, type):
        return None
    for is_kind, read in _KINDS:
        if is_kind(cls):
            return read(annotation, cls)
    return None


def settable_members(annotation: Any) -> Members | None:
    """`members_of` a class of which a client may set all that nothing else sets."""
    members = members_of(annotation)
    for name in members.lacking if members else ():
        raise lacks(annotation, name)
    return members


def lacks(annotation: Any, name: str) -> RegistrationError:
    cls = get_origin(annotation) or annotation
    is_struct = issubclass(cls, msgspec.Struct)
    public = name.strip("_")
    right = f"{public}: ... = field(name={name!r})" if is_struct else f"{public}: ..."
    reason = "is private" if _is_private(name) else "has no name to be passed by"
    return RegistrationError(
        f"{cls.__name__}: {name!r} {reason}, so no client may set it, and nothing else does",
        wrong=f"{name}: ... in class {cls.__name__}",
        right=f"{right}, or a default for {name}",
    )


def _is_private(name: str) -> bool:
    return name.startswith("_")


# Of pydantic


def _is_of_pydantic(cls: Any) -> bool:
    """A model or dataclass, but not a model that is a list, or a dict, or the like."""
    is_root = getattr(cls, "__pydantic_root_model__", False)
    return hasattr(cls, "__pydantic_fields__") and not is_root


def _of_pydantic(annotation: Any, model: Any) -> Members:
    config = getattr(model, "model_config", None) or getattr(model, "__pydantic_config__", {})
    settable = tuple(
        Member(name, _names(info, name, config), info.rebuild_annotation(), info.is_required())
        for name, info in model.__pydantic_fields__.items()
        if info.init is not False
    )
    extra = config.get("extra")
    return Members(model, settable, extra == "forbid", extra == "allow")


def _names(info: Any, name: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """A field's aliases, and its own name where the model takes that.

    None at all where it is only a path into something else.
    """
    alias = info.validation_alias
    names: list[str] = []
    if alias is not None and config.get("validate_by_alias", True):
        for choice in getattr(alias, "choices", [alias]):
            first, *rest = getattr(choice, "path", [choice])
            names += [] if rest else [first]
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    return (*names, name) if alias is None or by_name else tuple(names)


# Of msgspec


def _of_struct(annotation: Any, cls: type[msgspec.Struct]) -> Members:
    fields, config = msgspec.structs.fields(annotation), cls.__struct_config__
    hidden = [each for each in fields if _is_private(each.name) and not _has_own_name(cls, each)]
    private = {each.name for each in hidden}
    settable = [each for each in fields if each.name not in private]
    return Members(
        cls,
        tuple(
            Member(each.name, (each.encode_name,), each.type, each.required) for each in settable
        ),
        refuses_unknown=config.forbid_unknown_fields,
        hidden=frozenset(each.encode_name for each in hidden),
        # A list has a place for each.
        lacking=tuple(each.name for each in hidden if each.required or config.array_like),
    )


def _has_own_name(cls: type[msgspec.Struct], field: Any) -> bool:
    """Whether a private field is given a public name, and not only by a `rename` of all fields."""
    if _is_private(field.encode_name):
        return False
    longer = f"{field.name}x"  # a new field, whose name can only be what `rename` makes of it
    try:
        probe = msgspec.defstruct("Probe", [(longer, Any, None)], bases=(cls,), kw_only=True)
    except Exception:  # of a class that has its own word about subclasses
        return False
    renamed = {each.name: each.encode_name for each in msgspec.structs.fields(probe)}
    return renamed[longer] != f"{field.encode_name}x"


# Of the standard library and attrs


def _of_typed_dict(annotation: Any, cls: Any) -> Members:
    """Its keys are the client's own, whatever they begin with."""
    settable = []
    for name, hint in hints_of(annotation).items():
        is_required = name in cls.__required_keys__
        if get_origin(hint) in (Required, NotRequired):
            is_required = get_origin(hint) is Required
            (hint,) = get_args(hint)
        settable.append(Member(name, (name,), hint, is_required))
    return Members(dict, tuple(settable))


def _of_named_tuple(annotation: Any, cls: Any) -> Members:
    hints = hints_of(annotation)
    settable = (
        Member(name, (name,), hints.get(name, Any), parameter.default is parameter.empty)
        for name, parameter in inspect.signature(cls).parameters.items()
    )
    return Members(cls, tuple(settable))


def _of_dataclass(annotation: Any, cls: Any) -> Members:
    arguments = {
        name: hint.type if isinstance(hint, dataclasses.InitVar) else hint
        for name, hint in hints_of(annotation).items()
    }
    fields = dataclasses.fields(cls)
    own = {
        field.name: field.default is field.default_factory  # as without both
        for field in fields
        if field.init
    }
    return _of_constructor(cls, arguments, {field.name for field in fields}, own)


def _of_attrs(annotation: Any, cls: Any) -> Members:
    hints, attributes = hints_of(annotation), cls.__attrs_attrs__
    arguments = {
        each.alias: _taken_for_attribute(cls, each, hints.get(each.name, each.type or Any))
        for each in attributes
    }
    nothing = sys.modules["attr"].NOTHING
    own = {each.alias: each.default is nothing for each in attributes if each.init}
    members = _of_constructor(cls, arguments, {each.name for each in attributes}, own)
    if any(each.converter is not None for each in attributes):
        return msgspec.structs.replace(members, builds_itself=True)
    return members


def _of_constructor(
    cls: Any, arguments: Mapping[str, Any], fields: set[str], own: Mapping[str, bool]
) -> Members:
    """A class whose constructor takes some of these arguments, and whose fields msgspec takes.

    `own` are those that a generated constructor takes, and whether it requires them: what takes
    `**kwargs` passes them on.
    """
    settable, lacking = [], []
    others = _annotations_of_constructor(cls)
    parameters = dict(inspect.signature(cls).parameters)
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        parameters = {name: _passed_on(name, own[name]) for name in own} | parameters
    for name, parameter in parameters.items():
        is_required = parameter.default is parameter.empty
        if parameter.kind in _BY_NAME and not _is_private(name):
            annotation = arguments.get(name, others.get(name, Any))
            settable.append(Member(name, (name,), annotation, is_required))
        elif is_required and parameter.kind not in _ANY_NUMBER:
            lacking.append(name)
    hidden = frozenset(fields - {member.argument for member in settable})
    return Members(
        cls,
        tuple(settable),
        hidden=hidden,
        lacking=tuple(lacking),
        builds_itself=bool(hidden) or not _is_generated(cls.__init__),
    )


def _passed_on(name: str, is_required: bool) -> inspect.Parameter:
    default = inspect.Parameter.empty if is_required else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _annotations_of_constructor(cls: Any) -> dict[str, Any]:
    if _is_generated(cls.__init__):
        return {}
    return get_type_hints(cls.__init__, include_extras=True)


def _is_generated(constructor: Any) -> bool:
    """Whether dataclasses or attrs have written it, so that it does what msgspec does."""
    code = getattr(constructor, "__code__", None)
    return code is not None and code.co_filename.startswith("<")


def _taken_for_attribute(cls: Any, attribute: Any, hint: Any) -> Any:
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


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any], Members]], ...] = (
    (_is_of_pydantic, _of_pydantic),
    (lambda cls: issubclass(cls, msgspec.Struct), _of_struct),
    (is_typeddict, _of_typed_dict),
    (lambda cls: issubclass(cls, tuple) and hasattr(cls, "_fields"), _of_named_tuple),
    (dataclasses.is_dataclass, _of_dataclass),
    (lambda cls: hasattr(cls, "__attrs_attrs__"), _of_attrs),
)
