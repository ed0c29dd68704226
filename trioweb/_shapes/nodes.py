"""Nodes: the tree that `msgspec.inspect` makes of an annotation, and what we know of each kind.

Rules of this module:

* It looks at types alone, never at a value's members: decoding and explaining are built on it.
* Titles and descriptions are for readers; `plain` and `union_members` look through them.
* A recursive type makes the tree a graph: whoever goes through all of it uses `all_nodes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
from msgspec import inspect as mi

from .._errors import Problem
from .problems import choices, make_problem


class Scalar(msgspec.Struct, frozen=True):
    type: Any
    word: str  # the problem's type is this and "_type", or "_parsing" when text can't be read
    noun: str


SCALARS: dict[type[mi.Type], Scalar] = {
    mi.StrType: Scalar(str, "string", "string"),
    mi.IntType: Scalar(int, "int", "integer"),
    mi.FloatType: Scalar(float, "float", "number"),
    mi.BoolType: Scalar(bool, "bool", "boolean"),
    mi.DecimalType: Scalar(Decimal, "decimal", "decimal number"),
    mi.UUIDType: Scalar(UUID, "uuid", "UUID"),
    mi.DateType: Scalar(date, "date", "date"),
    mi.DateTimeType: Scalar(datetime, "datetime", "datetime"),
    mi.TimeType: Scalar(time, "time", "time"),
    mi.TimeDeltaType: Scalar(timedelta, "time_delta", "duration"),
    mi.BytesType: Scalar(bytes, "bytes", "base64 string"),
    mi.NoneType: Scalar(None, "none", "null"),
}
COLLECTIONS: dict[type[mi.Type], type[Any]] = {
    mi.ListType: list,
    mi.SetType: set,
    mi.FrozenSetType: frozenset,
    mi.VarTupleType: tuple,
}
# What has no members: judged as a whole.
LEAVES: set[type[mi.Type]] = {*SCALARS, mi.EnumType, mi.LiteralType}
# What can be read from a text.
TEXTS = (LEAVES | {mi.AnyType}) - {mi.BytesType, mi.NoneType}

MOMENTS = (mi.DateTimeType, mi.TimeDeltaType)
_OBJECTS = (mi.StructType, mi.DataclassType, mi.TypedDictType, mi.DictType)
_ARRAYS = (mi.CollectionType, mi.TupleType, mi.NamedTupleType)


def plain(node: mi.Type) -> mi.Type:
    """`node` without its title and description, which are for readers."""
    return plain(node.type) if isinstance(node, mi.Metadata) else node


def union_members(node: mi.Type) -> list[mi.Type]:
    """The members of a union without None; any other node is its own only member."""
    node = plain(node)
    if not isinstance(node, mi.UnionType):
        return [node]
    members = [plain(member) for member in node.types]
    return [member for member in members if not isinstance(member, mi.NoneType)]


def all_nodes(node: mi.Type) -> Iterator[mi.Type]:
    """`node` and all types within it, each once."""
    return _all_nodes(node, set())


def _all_nodes(node: Any, seen: set[int]) -> Iterator[mi.Type]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, mi.Type):
        yield node
    if isinstance(node, (mi.Type, mi.Field)):
        for name in node.__struct_fields__:
            yield from _all_nodes(getattr(node, name), seen)
    elif isinstance(node, tuple):
        for member in node:
            yield from _all_nodes(member, seen)


def python_type(node: mi.Type) -> Any:
    """The type of a leaf, for `msgspec.convert`."""
    if isinstance(node, mi.EnumType):
        return node.cls
    if isinstance(node, mi.LiteralType):
        literal: Any = Literal  # type checkers take only literal values in its brackets
        return literal[node.values]
    return SCALARS[type(node)].type


def json_type(node: mi.Type) -> type[Any]:
    """What JSON writes `node` as: dict, list, or (object) neither."""
    if isinstance(node, _ARRAYS) or getattr(node, "array_like", False):
        return list
    return dict if isinstance(node, _OBJECTS) else object


def mismatch(node: mi.Type, value: Any) -> Problem:
    """Why `value` isn't of a leaf's type, whatever its constraints."""
    if isinstance(node, mi.EnumType):
        return make_problem([], f"Input should be {choices(m.value for m in node.cls)}", "enum")
    if isinstance(node, mi.LiteralType):
        return make_problem([], f"Input should be {choices(node.values)}", "literal_error")
    scalar = SCALARS[type(node)]
    suffix = "parsing" if isinstance(value, str) else "type"
    return make_problem([], f"Input should be a valid {scalar.noun}", f"{scalar.word}_{suffix}")
