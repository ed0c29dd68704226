"""Leniency: what msgspec refuses in JSON although it fits.

Rules of this module:

* There is as little of it as can be: a datetime or a timedelta may be a number of seconds, as it
  may be in a text, and a number is a multiple of another as they are written (`multiples`).
* It costs nothing where msgspec takes a body.  One that it refuses is read once more here, member
  by member, if its type has such places, and if it is no longer than `MAX_SECOND_READING`.
* It raises what msgspec and the classes of users raise (`REFUSALS`), or gives what msgspec would,
  after `preparing`: what a client may set and which numbers are finite is no leniency's to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import inspect as mi

from .._limits import MAX_SECOND_READING
from .codecs import Codecs
from .constraints import broken_constraint, constraints_of
from .moments import moment_from_number
from .multiples import is_floats
from .nodes import (
    COLLECTIONS,
    LEAVES,
    MOMENTS,
    all_nodes,
    json_type,
    plain,
    python_type,
    union_members,
)
from .preparing import ByMembers, is_finite, name_given
from .problems import NOT_FINITE

_Read = Callable[[Any], Any]


def is_lenient(node: mi.Type) -> bool:
    """Whether something in this type is to be taken that msgspec refuses."""
    return any(
        isinstance(each, MOMENTS)
        or (isinstance(each, mi.FloatType) and each.multiple_of and not is_floats(each.multiple_of))
        for each in all_nodes(node)
    )


def second_reading(
    node: mi.Type, codecs: Codecs, classes: Mapping[Any, ByMembers]
) -> Callable[[bytes], Any]:
    """A decoder of JSON for `node`, for what msgspec has refused."""
    decode = msgspec.json.Decoder(float_hook=Decimal).decode  # no digit is lost
    reading = _Reading(codecs, classes)

    def read_again(data: bytes) -> Any:
        if len(data) > MAX_SECOND_READING:
            raise ValueError(f"longer than {MAX_SECOND_READING} bytes")
        return reading.read(node, decode(data))

    return read_again


class _Reading:
    """Makes typed values of untyped ones."""

    def __init__(self, codecs: Codecs, classes: Mapping[Any, ByMembers]) -> None:
        self._codecs = codecs
        self._classes = classes

    def read(self, node: mi.Type, value: Any) -> Any:
        node = plain(node)
        read = _READS.get(type(node))
        if read is None:
            raise ValueError(f"{type(node).__name__} isn't read a second time")
        return read(self, node, value)

    def _any(self, node: mi.Type, value: Any) -> Any:
        if isinstance(value, Decimal):
            return float(value)
        if isinstance(value, dict):
            return {key: self._any(node, member) for key, member in value.items()}
        return [self._any(node, item) for item in value] if isinstance(value, list) else value

    def _leaf(self, node: mi.Type, value: Any, *, strict: bool = True) -> Any:
        if isinstance(node, MOMENTS) and type(value) in (int, Decimal):
            typed = moment_from_number(python_type(node), value)
        elif isinstance(node, mi.FloatType) and strict:
            typed = _float(value)
        else:
            typed = msgspec.convert(value, python_type(node), strict=strict)
        if not is_finite(typed):
            raise ValueError(NOT_FINITE[0])
        return _constrained(node, typed)

    def _collection(self, node: Any, value: Any) -> Any:
        items = [self.read(node.item_type, item) for item in _of(list, value)]
        return _constrained(node, COLLECTIONS[type(node)](items))

    def _tuple(self, node: mi.TupleType, value: Any) -> Any:
        return tuple(map(self.read, node.item_types, _of(list, value, len(node.item_types))))

    def _dict(self, node: mi.DictType, value: Any) -> Any:
        key_type, members = plain(node.key_type), _of(dict, value)
        read_key = self._leaf if type(key_type) in LEAVES else self._key
        read = {
            read_key(key_type, key, strict=False): self.read(node.value_type, member)
            for key, member in members.items()
        }
        return _constrained(node, read)

    def _key(self, node: mi.Type, key: str, *, strict: bool) -> Any:
        return self.read(node, key)

    def _fields(self, node: Any, value: Any) -> dict[str, Any]:
        """The members of a class by the names of its fields."""
        members = _of(dict, value)
        found = {}
        for field in self._fields_of_client(node):
            if field.encode_name in members:
                found[field.name] = self.read(field.type, members[field.encode_name])
            elif field.required:
                raise ValueError(f"{field.encode_name} is missing")
        return found

    def _fields_of_client(self, node: Any) -> list[mi.Field]:
        by_members = self._classes.get(getattr(node, "cls", None))
        hidden = by_members.members.hidden if by_members else ()
        return [field for field in node.fields if field.encode_name not in hidden]

    def _settable(self, by_members: ByMembers, value: Any) -> Any:
        """A class whose members are to be looked at."""
        given = _of(dict, value)
        arguments = {}
        for member in by_members.members.settable:
            name = name_given(member, given)
            if name is not None:
                node = by_members.nodes[member.argument]
                arguments[member.argument] = self.read(node, given[name])
        return by_members.members.cls(**arguments)

    def _struct(self, node: mi.StructType, value: Any) -> Any:
        if node.array_like:
            raise ValueError("a Struct that is a list isn't read a second time")
        found = self._fields(node, value)
        known = {node.tag_field, *(field.encode_name for field in self._fields_of_client(node))}
        if node.forbid_unknown_fields and not known.issuperset(value):
            raise ValueError("there are other members")
        if node.tag_field is not None and value.get(node.tag_field, node.tag) != node.tag:
            raise ValueError("the tag is another")
        return node.cls(**found)

    def _dataclass(self, node: mi.DataclassType, value: Any) -> Any:
        if node.cls in self._classes:
            return self._settable(self._classes[node.cls], value)
        return node.cls(**self._fields(node, value))

    def _typed_dict(self, node: mi.TypedDictType, value: Any) -> Any:
        return self._fields(node, value)

    def _named_tuple(self, node: mi.NamedTupleType, value: Any) -> Any:
        items = _of(list, value)
        types = [field.type for field in node.fields]
        if len(items) > len(types):
            raise ValueError("too many items")
        return node.cls(*map(self.read, types, items))

    def _custom(self, node: mi.CustomType, value: Any) -> Any:
        return self._codecs.decode(node.cls, self._any(node, value))

    def _union(self, node: mi.UnionType, value: Any) -> Any:
        members = union_members(node)
        if value is None and len(members) < len(node.types):
            return None
        if len(members) == 1:
            return self.read(members[0], value)
        kind = type(value) if isinstance(value, (dict, list)) else object
        fitting = [m for m in members if json_type(m) is kind or isinstance(m, mi.AnyType)]
        failure: Exception = ValueError("it fits no member of the union")
        for member in sorted(fitting, key=lambda each: isinstance(each, MOMENTS)):
            try:
                return self.read(member, value)
            except (ValueError, TypeError, ArithmeticError) as exc:
                failure = exc
        raise failure


_READS: Mapping[type[mi.Type], Callable[[_Reading, Any, Any], Any]] = {
    **dict.fromkeys(LEAVES, _Reading._leaf),
    **dict.fromkeys(COLLECTIONS, _Reading._collection),
    mi.AnyType: _Reading._any,
    mi.TupleType: _Reading._tuple,
    mi.DictType: _Reading._dict,
    mi.StructType: _Reading._struct,
    mi.DataclassType: _Reading._dataclass,
    mi.TypedDictType: _Reading._typed_dict,
    mi.NamedTupleType: _Reading._named_tuple,
    mi.CustomType: _Reading._custom,
    mi.UnionType: _Reading._union,
}


def _of(kind: type[Any], value: Any, size: int | None = None) -> Any:
    if not isinstance(value, kind) or (size is not None and len(value) != size):
        raise ValueError(f"no {kind.__name__} of that size")
    return value


def _float(value: Any) -> float:
    number = float(value) if type(value) in (int, Decimal) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite number")
    return number


def _constrained(node: mi.Type, value: Any) -> Any:
    if problem := broken_constraint(constraints_of(node), value):
        raise ValueError(problem["msg"])
    return value
