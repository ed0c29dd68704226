"""Collisions: a body of many values with one hash is refused before it is decoded.

Python hashes numbers, and a UUID is one, modulo 2**61 - 1 and without a secret.  So whoever wants
to can send many with one hash, and a set of n of those takes n**2 steps to make.

Rules of this module:

* Only types that have sets or dicts of such values within them pay for it, and only for bodies
  that are long enough for it to matter.
* Values are searched for as they are written, anywhere in the body: to find what only looks like
  one of them costs a little time, and refuses nothing unless a hundred more have its hash.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import inspect as mi

from .._errors import Invalid
from .._limits import LONG_BODY, MAX_OF_ONE_HASH
from .nodes import all_nodes, union_members
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
    nodes: Iterable[mi.Type], decode: Callable[[bytes], Any]
) -> Callable[[bytes], Any]:
    """`decode`, a decoder of JSON that has `nodes` within it, after a look at a long body.

    It is refused for having many values of one hash.
    """
    written = _hashed(nodes)
    if not written:
        return decode

    def decode_without_collisions(data: bytes) -> Any:
        if len(data) > LONG_BODY:
            _refuse_crowd(written, data)
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
        if max(crowds.values(), default=0) > MAX_OF_ONE_HASH:
            raise Invalid([make_problem([], "Input has too many values of one hash", "collision")])


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
