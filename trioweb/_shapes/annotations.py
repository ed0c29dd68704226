"""Annotations: which ones can be decoded, where their values can come from, what they consist of.

Rules of this module:

* An annotation is looked at once, at registration.
* One that nobody could decode is refused then, by `RegistrationError`, and so is one whose
  constraints nobody would check.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from contextlib import suppress
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec
from msgspec import inspect as mi

from .._errors import RegistrationError, describe
from .codecs import NO_CODECS, Codecs
from .generics import refuse_open
from .models import checks_itself, is_model
from .nodes import TEXTS, union_members

# What can be decoded


def shape_of(annotation: Any, codecs: Codecs = NO_CODECS) -> Literal["text", "texts", "body"]:
    """Where a parameter can come from: one string, a list of strings, or a JSON body.

    A parameter without annotation (`inspect.Parameter.empty`) is a text; so can be what `codecs`
    have a decoder for.
    """
    if is_for_pydantic(annotation):
        return "body"
    members = union_members(node_of(annotation))
    if are_texts(members, codecs):
        return "text"
    if len(members) == 1 and _are_many_texts(members[0], codecs):
        return "texts"
    return "body"


def is_optional(annotation: Any) -> bool:
    """Whether `null` is one of its values, as the annotation says in so many words."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) in (Union, UnionType) and type(None) in get_args(annotation)


def without_none(annotation: Any) -> Any:
    """`Filters` of `Filters | None`; any other annotation as it is."""
    if not is_optional(annotation):
        return annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = [member for member in get_args(annotation) if member is not type(None)]
    return members[0] if len(members) == 1 else annotation


def are_texts(members: list[mi.Type], codecs: Codecs) -> bool:
    """Whether each of these can be read from a text."""
    return all(
        type(member) in TEXTS
        or (isinstance(member, mi.CustomType) and codecs.has_decoder(member.cls))
        for member in members
    )


def _are_many_texts(node: mi.Type, codecs: Codecs) -> bool:
    if isinstance(node, mi.TupleType):
        return all(are_texts(union_members(item), codecs) for item in node.item_types)
    return isinstance(node, mi.CollectionType) and are_texts(union_members(node.item_type), codecs)


def is_for_pydantic(annotation: Any) -> bool:
    """Whether pydantic has to decode all of it: what msgspec can't, such as a union of models.

    Nothing in it is of a class that pydantic would read in another way than we do.
    """
    found = list(parts(annotation))
    if not any(is_model(part) and checks_itself(part) for part in found):
        return False
    if any(_has_fields(part) and not checks_itself(part) for part in found):
        return False
    if any(_is_ignored(each) for part in found for each in getattr(part, "__metadata__", ())):
        return True
    try:
        mi.type_info(annotation)
    except TypeError:
        return True
    return False


def node_of(annotation: Any, meta: msgspec.Meta | None = None) -> mi.Type:
    """The tree that msgspec makes of an annotation, with a marker's constraints."""
    annotation = constrained(annotation, meta)
    try:
        return mi.type_info(annotation)
    except Exception as exc:  # of any kind: msgspec looks into classes that others wrote
        raise undecodable(annotation, describe(exc), right=_hint(annotation, exc)) from None


def constrained(annotation: Any, meta: msgspec.Meta | None) -> Any:
    """An annotation with the constraints that a marker, such as `Query(ge=1)`, adds to it."""
    if annotation is inspect.Parameter.empty:
        annotation = Any
    if meta is None:
        return annotation
    if get_origin(annotation) not in (Union, UnionType):
        return Annotated[annotation, meta]
    # msgspec takes constraints on the members of a union only.
    members = get_args(annotation)
    return Union[tuple(m if m is type(None) else Annotated[m, meta] for m in members)]  # noqa: UP007


def _hint(annotation: Any, exc: Exception) -> str:
    """A right line, where more is known of what is wrong."""
    if any(isinstance(part, dataclasses.InitVar) for part in parts(annotation)):
        return "the member as a field, and __post_init__ or a pydantic model to use it up"
    if "must be tagged" in str(exc) or "unions may not contain more than one d" in str(exc):
        return "class Cat(msgspec.Struct, tag=True), and so each class of the union"
    if "custom type" in str(exc):
        return (
            "one class in place of the union; or pydantic models alone, in a union that is the"
            " whole body or the field of a model"
        )
    if any(type(part).__name__ == "TypeAliasType" for part in parts(annotation)):
        return (
            "parameter: Annotated[Any, Body()] for any JSON, or a class that has itself as a field;"
            " and what a name that `type` gives stands for, in place of the name"
        )
    return ""


def undecodable(annotation: Any, reason: str, *, right: str = "") -> RegistrationError:
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return RegistrationError(
        f"The annotation can't be decoded: {reason}",
        wrong=f"parameter: {name}",
        right=right
        or "parameter: str  (a scalar, a list of scalars, a msgspec.Struct, dataclass,"
        " TypedDict, attrs class or pydantic model, or a list or dict of those);"
        " or Annotated[..., Depends(...)], where a dependency is meant",
    )


# What would be ignored

_IGNORED_PACKAGES = ("pydantic", "pydantic_core", "annotated_types")


def refuse_ignored(annotation: Any) -> None:
    """Refuse an annotation of which msgspec would pass over something in silence."""
    for model in filter(is_model, parts(annotation)):
        _refuse_uninitialised(model, set())
    if is_for_pydantic(annotation):
        return
    refuse_open(annotation, parts(annotation))
    for part in parts(annotation):
        if checks_itself(part) and not is_model(part):
            raise RegistrationError(
                f"{part.__name__} is a dataclass of pydantic, whose checks would be ignored",
                wrong=f"@pydantic.dataclasses.dataclass above class {part.__name__}",
                right=f"class {part.__name__}(pydantic.BaseModel), or @dataclasses.dataclass",
            )
        for metadata in getattr(part, "__metadata__", ()):
            _refuse_metadata(part, metadata)


def _refuse_uninitialised(model: Any, seen: set[Any]) -> None:
    """Refuse `Field(init=False)` in a model, where it means nothing: the client sets it."""
    if model in seen:
        return
    seen.add(model)
    for name, info in getattr(model, "model_fields", {}).items():
        if getattr(info, "init", None) is False:
            raise RegistrationError(
                f"{model.__name__}: init=False is for dataclasses, so any client may set {name!r}",
                wrong=f"{name}: ... = Field(init=False)",
                right=f"_{name}: ... = PrivateAttr(...)",
            )
        for part in filter(is_model, parts(info.annotation)):
            _refuse_uninitialised(part, seen)


def _is_ignored(metadata: Any) -> bool:
    marker = metadata if isinstance(metadata, type) else type(metadata)
    return any(base.__module__.partition(".")[0] in _IGNORED_PACKAGES for base in marker.__mro__)


def _refuse_metadata(annotation: Any, metadata: Any) -> None:
    marker = metadata if isinstance(metadata, type) else type(metadata)
    for base in marker.__mro__:
        package = base.__module__.partition(".")[0]
        if package in _IGNORED_PACKAGES:
            inner = inspect.formatannotation(annotation.__origin__)
            raise RegistrationError(
                f"{marker.__name__} of {package} would be ignored",
                wrong=f"Annotated[{inner}, {metadata!r}]",
                right=f"Annotated[{inner}, Query(ge=1)], or Annotated[{inner}, msgspec.Meta(ge=1)]"
                " within another type  (also gt, le, min_length, pattern, …)",
            )


# What an annotation consists of


def parts(annotation: Any) -> Iterator[Any]:
    """An annotation and all that it is made of, into the fields of classes that msgspec decodes.

    The class of `Page[int]` is no part beside it.
    """
    return _parts(annotation, {})


def _parts(annotation: Any, seen: dict[int, Any]) -> Iterator[Any]:
    if id(annotation) in seen:
        return
    seen[id(annotation)] = annotation  # held, so that no other gets the same id
    yield annotation
    origin = get_origin(annotation)
    inner = [*get_args(annotation), *_fields(origin or annotation)]
    for name in ("__value__", "__supertype__"):
        with suppress(NameError):  # of what `type` gives a name to
            inner.append(getattr(annotation, name, None))
    for part in inner:
        yield from _parts(part, seen)


def _has_fields(annotation: Any) -> bool:
    marks = ("__struct_fields__", "__attrs_attrs__", "_fields")
    return isinstance(annotation, type) and (
        dataclasses.is_dataclass(annotation)
        or is_typeddict(annotation)
        or any(hasattr(annotation, mark) for mark in marks)
    )


def _fields(annotation: Any) -> list[Any]:
    if not _has_fields(annotation) or checks_itself(annotation):
        return []
    try:
        return list(get_type_hints(annotation, include_extras=True).values())
    except Exception:  # msgspec says better what is wrong with them
        return []
