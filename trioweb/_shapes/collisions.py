"""Collisions: a body of many values with one hash is refused before it is decoded.

Python hashes numbers, and a UUID is one, modulo 2**61 - 1 and without a secret, and tuples of
numbers and what is like them by a formula.  So whoever wants to can send many with one hash, and a
set of n of those takes n**2 steps to make.

Rules of this module:

* Only types that have sets or dicts of such values within them pay for it, and only for bodies
  that are long enough for it to matter.
* Values are searched for as they are written, anywhere in the body: to find what only looks like
  one of them costs a little time, and refuses nothing unless a hundred more have its hash.
* What consists of several values is hashed as it would be, set by set, the innermost first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, Union
from uuid import UUID

import msgspec
from msgspec import inspect as mi

from .._errors import Invalid
from .._limits import LONG_BODY, MAX_OF_ONE_HASH
from .codecs import REFUSALS
from .nodes import LEAVES, all_nodes, plain, python_type, union_members
from .problems import make_problem

# How a value that is hashed without a secret is written, and what reads it.  Integers within
# 64 bits needn't be found: no more than nine of them have one hash.
_Written = tuple[re.Pattern[str], Callable[[str], Any]]
_WRITTEN: dict[type[mi.Type], _Written] = {
    mi.IntType: (re.compile(r"-?[0-9]{19,}"), int),
    mi.DecimalType: (re.compile(r"[-+0-9.][-+0-9.eE]{4,}"), Decimal),
    mi.UUIDType: (re.compile(r"(?:[0-9a-fA-F]-?){32}"), UUID),
}


def refusing_collisions(
    nodes: Sequence[mi.Type], decode: Callable[[bytes], Any]
) -> Callable[[bytes], Any]:
    """`decode`, a decoder of JSON that has `nodes` within it, after a look at a long body.

    It is refused for having many values of one hash.  The first node is that of all of it.
    """
    written, sets = _hashed(nodes), _Sets(nodes)
    if not written and not sets:
        return decode

    def decode_without_collisions(data: bytes) -> Any:
        if len(data) > LONG_BODY:
            _refuse_crowd(written, data)
            sets.refuse_crowds_in(data)
        return decode(data)

    return decode_without_collisions


def _hashed(nodes: Iterable[mi.Type]) -> list[_Written]:
    """How what becomes members of sets and keys of dicts is written, where it can collide."""
    found = set()
    for outer in nodes:
        if isinstance(outer, (mi.SetType, mi.FrozenSetType)):
            found |= set(map(type, all_nodes(outer.item_type)))
        elif isinstance(outer, mi.DictType):
            found |= set(map(type, all_nodes(outer.key_type)))
    if mi.AnyType in found:
        found.add(mi.IntType)
    return [_WRITTEN[kind] for kind in _WRITTEN if kind in found]


def _refuse_crowd(written: list[_Written], data: bytes) -> None:
    text = data.decode("latin-1")
    for pattern, make in written:
        crowds: Counter[int] = Counter()
        for found in set(pattern.findall(text)):
            with suppress(ValueError, ArithmeticError):  # it only looks like one
                crowds[hash(make(found))] += 1
        _refuse_crowded(crowds)


def _refuse_crowded(crowds: Counter[int]) -> None:
    if max(crowds.values(), default=0) > MAX_OF_ONE_HASH:
        raise Invalid([make_problem([], "Input has too many values of one hash", "collision")])


# What consists of several values

_COMPOSITE = (
    *(mi.TupleType, mi.VarTupleType, mi.FrozenSetType, mi.NamedTupleType),
    *(mi.StructType, mi.DataclassType, mi.TimeDeltaType),
)


class _Sets:
    """The sets within a type whose items consist of several values."""

    def __init__(self, nodes: Sequence[mi.Type]) -> None:
        self._whole = nodes[0]
        self._decoders = {
            id(node): msgspec.json.Decoder(_type_of(node.item_type)).decode
            for node in nodes
            if isinstance(node, (mi.SetType, mi.FrozenSetType))
            if any(isinstance(member, _COMPOSITE) for member in union_members(node.item_type))
        }
        # Those that lead to one.
        self._ways = {
            id(node)
            for node in (nodes if self._decoders else ())
            if any(id(each) in self._decoders for each in all_nodes(node))
        }

    def __bool__(self) -> bool:
        return bool(self._decoders)

    def refuse_crowds_in(self, data: bytes) -> None:
        if not self._decoders:
            return
        try:
            value = msgspec.json.decode(data)
        except REFUSALS:  # which is said where it is decoded
            return
        try:
            self._visit(self._whole, value)
        except RecursionError:
            raise Invalid([make_problem([], "Input is nested too deeply", "recursion")]) from None

    def _visit(self, node: mi.Type, value: Any) -> None:
        node = plain(node)
        if id(node) in self._ways:
            for inner, item in _inner(node, value):
                self._visit(inner, item)
            if id(node) in self._decoders and isinstance(value, list):
                _refuse_crowd_of(value, self._decoders[id(node)])


def _refuse_crowd_of(items: list[Any], decode: Callable[[bytes], Any]) -> None:
    crowds: Counter[int] = Counter()
    for text in set(map(msgspec.json.encode, items)):
        with suppress(*REFUSALS):  # it is no such item
            crowds[hash(decode(text))] += 1
    _refuse_crowded(crowds)


def _inner(node: Any, value: Any) -> Iterable[tuple[mi.Type, Any]]:
    """What is within a value, with the nodes that it may be of."""
    if isinstance(node, mi.UnionType):
        return [(member, value) for member in union_members(node)]
    if isinstance(value, list):
        return _inner_of_list(node, value)
    if isinstance(value, dict):
        return _inner_of_dict(node, value)
    return ()


def _inner_of_list(node: Any, value: list[Any]) -> Iterable[tuple[mi.Type, Any]]:
    if isinstance(node, mi.CollectionType):
        return [(node.item_type, item) for item in value]
    fields = getattr(node, "fields", ())
    types = getattr(node, "item_types", None) or [field.type for field in fields]
    tagged = getattr(node, "tag", None) is not None
    return zip(types, value[tagged:], strict=False)


def _inner_of_dict(node: Any, value: dict[str, Any]) -> Iterable[tuple[mi.Type, Any]]:
    if isinstance(node, mi.DictType):
        return [(node.value_type, member) for member in value.values()]
    fields = [each for each in getattr(node, "fields", ()) if each.encode_name in value]
    return [(field.type, value[field.encode_name]) for field in fields]


def _type_of(node: Any) -> Any:
    """The type that a node was made of, as far as it tells hashes."""
    node = plain(node)
    if type(node) in LEAVES:
        return python_type(node)
    if isinstance(node, mi.UnionType):
        return Union[tuple(map(_type_of, node.types))]  # noqa: UP007
    if isinstance(node, mi.TupleType):
        return tuple[tuple(map(_type_of, node.item_types))]  # type: ignore[misc]
    if isinstance(node, mi.VarTupleType):
        return tuple[_type_of(node.item_type), ...]  # type: ignore[misc]
    if isinstance(node, mi.FrozenSetType):
        return frozenset[_type_of(node.item_type)]  # type: ignore[misc]
    return getattr(node, "cls", Any)


# What has a hash at all


def is_hashable(node: mi.Type, value: Any) -> bool:
    """Whether what msgspec makes of this valid value has a hash; a list may become a tuple."""
    if isinstance(value, list):
        return any(_is_hashable_as(member, value) for member in union_members(node))
    try:
        hash(value)
    except TypeError:  # asked of a struct that isn't frozen, too, and of one that holds a list
        return False
    return True


def _is_hashable_as(node: mi.Type, value: list[Any]) -> bool:
    if isinstance(node, (mi.VarTupleType, mi.FrozenSetType)):
        return all(is_hashable(node.item_type, item) for item in value)
    if isinstance(node, mi.TupleType):
        types = list(node.item_types)
    elif isinstance(node, mi.NamedTupleType):
        types = [field.type for field in node.fields]
    else:
        return False
    return all(map(is_hashable, types, value))
