"""Preparing: what msgspec would take or make otherwise than we promise, seen to before it decodes.

Rules of this module:

* It is compiled once, and an untyped value is looked at only where its type has within it what
  needs it; what else doesn't fit is left as it is, for msgspec to refuse.
* A class that builds itself is built by its constructor, from the members that a client may set.
  An instance passes through msgspec as it is when what is around it is built.
* A number is finite: no text stands for NaN or an infinity, as a `Decimal` or as a key.
* A union goes by the JSON kind of the value, and by the tag of its structs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, TypedDict

import msgspec
from msgspec import inspect as mi

from .codecs import Codecs
from .members import Member, Members, settable_members
from .nodes import all_nodes, json_type, plain, union_members
from .problems import NOT_FINITE

# Of a value and of the same value with its numbers as Decimals, the value as msgspec takes it.
Prepare = Callable[[Any, Any], Any]


class ByMembers(msgspec.Struct, frozen=True):
    """A class whose members are to be looked at: what it takes, each member with its node.

    `given` is the type of an object that has some of them, under the names that clients use.
    """

    members: Members
    nodes: Mapping[str, mi.Type]
    given: Any
    codecs: Codecs

    def build(self, value: Mapping[str, Any]) -> Any:
        """The instance, from an object in which its members' own classes are built."""
        try:
            given = msgspec.convert(value, self.given, str_keys=True, dec_hook=self.codecs.decode)
        except msgspec.ValidationError as exc:  # whose place is only that within the class
            message = str(exc).partition(" - at `")[0]
            raise msgspec.ValidationError(message) from exc.__cause__
        arguments = {}
        for member in self.members.settable:
            name = name_given(member, given)
            if name is not None:
                arguments[member.argument] = given[name]
        return self.members.cls(**arguments)


def by_members(members: Members, codecs: Codecs) -> ByMembers:
    nodes: dict[str, mi.Type] = {}
    hints: dict[str, Any] = {}
    for member in members.settable:
        nodes[member.argument] = mi.type_info(member.annotation)
        hints |= dict.fromkeys(member.names, member.annotation)
    make_type: Any = TypedDict  # which type checkers don't let be called with what they don't see
    return ByMembers(members, nodes, make_type("Given", hints, total=False), codecs)


def name_given(member: Member, given: Mapping[str, Any]) -> str | None:
    """The name by which a member is there."""
    return next((name for name in member.names if name in given), None)


class Preparation(msgspec.Struct, frozen=True):
    """What is to be done to values of a type before msgspec decodes them.

    `classes` are those that msgspec would take or build otherwise; without any, `prepare` only
    refuses.  `nodes` are all that are within the type, and what only constructors take.
    """

    prepare: Prepare
    classes: Mapping[Any, ByMembers]
    nodes: Sequence[mi.Type]

    @property
    def has_decimals(self) -> bool:
        return any(isinstance(node, mi.DecimalType) for node in self.nodes)


NO_CLASSES: Mapping[Any, ByMembers] = {}


def preparation(node: mi.Type, codecs: Codecs) -> Preparation | None:
    """What is to be done to values of `node`; None where that is nothing."""
    compiler = _Compiler(node, codecs)
    prepare = compiler.compiled(node)
    if prepare is None:
        return None
    return Preparation(prepare, compiler.classes, compiler.nodes)


class _Compiler:
    """Makes what prepares values of a node, of all that is within it."""

    def __init__(self, node: mi.Type, codecs: Codecs) -> None:
        self._codecs = codecs
        self.classes: dict[Any, ByMembers] = {}
        self._steps: dict[Any, Prepare] = {}
        self.nodes: list[mi.Type] = []  # held, too, so that no other gets the same id
        self._collect(node)

    def _collect(self, node: mi.Type) -> None:
        """The classes that need it, also within what only their constructors take."""
        for each in all_nodes(node):
            self.nodes.append(each)
            if isinstance(each, _CLASSES) and each.cls not in self.classes:
                members = settable_members(each.cls)
                if members is not None and (members.hidden or members.builds_itself):
                    found = self.classes[each.cls] = by_members(members, self._codecs)
                    for inner in found.nodes.values():
                        self._collect(inner)

    def compiled(self, node: mi.Type) -> Prepare | None:
        if not any(map(self._is_special, all_nodes(node))):
            return None
        node = plain(node)
        key = getattr(node, "cls", id(node))
        if key not in self._steps:
            # Found by what is within a recursive type, while that type is being compiled.
            self._steps[key] = lambda value, exact: self._steps[key](value, exact)
            compile_node = _COMPILED.get(type(node))
            self._steps[key] = compile_node(self, node) if compile_node else _as_it_is
        return self._steps[key]

    def _is_special(self, node: mi.Type) -> bool:
        if isinstance(node, mi.DictType):
            return _key_check(node.key_type) is not None
        if isinstance(node, mi.RawType):  # which msgspec makes of JSON only
            return bool(self.classes)
        return isinstance(node, mi.DecimalType) or getattr(node, "cls", None) in self.classes

    def _items(self, node: mi.CollectionType) -> Prepare:
        prepare = self.compiled(node.item_type) or _as_it_is
        return _of_lists(lambda value, exact: list(map(prepare, value, exact)))

    def _tuple(self, node: mi.TupleType) -> Prepare:
        return self._positions(node.item_types)

    def _positions(self, types: Iterable[mi.Type], *, start: int = 0) -> Prepare:
        steps = [_as_it_is] * start + [self.compiled(each) or _as_it_is for each in types]

        def prepare(value: list[Any], exact: list[Any]) -> Any:
            known = [step(*both) for step, *both in zip(steps, value, exact, strict=False)]
            return known + value[len(known) :]

        return _of_lists(prepare)

    def _dict(self, node: mi.DictType) -> Prepare:
        check_key = _key_check(node.key_type) or _as_it_is
        prepare = self.compiled(node.value_type) or _as_it_is

        def prepare_members(value: Any, exact: Any) -> Any:
            return {
                check_key(key, key): prepare(member, exact[key]) for key, member in value.items()
            }

        return _of_dicts(prepare_members)

    def _fields(self, node: Any) -> Prepare:
        steps = {field.encode_name: self.compiled(field.type) for field in node.fields}
        return _of_dicts(_of_members({name: step for name, step in steps.items() if step}))

    def _named_tuple(self, node: mi.NamedTupleType) -> Prepare:
        return self._positions(field.type for field in node.fields)

    def _class(self, node: mi.StructType | mi.DataclassType) -> Prepare:
        """A struct, dataclass or attrs class."""
        if isinstance(node, mi.StructType) and node.array_like:
            has_tag = node.tag is not None
            return self._positions((f.type for f in node.fields), start=int(has_tag))
        by_members = self.classes.get(node.cls)
        if by_members is None:
            return self._fields(node)
        if not by_members.members.builds_itself:
            return _of_dicts(_without(by_members.members, self._fields(node)))
        steps: dict[str, Prepare] = {}
        for member in by_members.members.settable:
            step = self.compiled(by_members.nodes[member.argument])
            steps |= dict.fromkeys(member.names, step) if step else {}
        prepare_members = _of_members(steps)
        return _of_dicts(lambda value, exact: by_members.build(prepare_members(value, exact)))

    def _union(self, node: mi.UnionType) -> Prepare:
        by_kind: dict[type[Any], list[mi.Type]] = {dict: [], list: [], object: []}
        for member in union_members(node):
            by_kind[json_type(member)].append(member)
        of_dict, of_list = self._tagged(by_kind[dict]), self._tagged(by_kind[list])
        kinds = set(map(type, by_kind[object]))
        of_text = _finite_decimal if mi.DecimalType in kinds else _as_it_is

        def prepare(value: Any, exact: Any) -> Any:
            if isinstance(value, dict):
                return of_dict(value, exact)
            if isinstance(value, list):
                return of_list(value, exact)
            # A number is a Decimal only where it could be no float.
            return of_text(value, value if mi.FloatType in kinds else exact)

        return prepare

    def _tagged(self, members: list[Any]) -> Prepare:
        """One of several structs, which msgspec takes only if all have tags."""
        steps = [self.compiled(member) or _as_it_is for member in members]
        if len(steps) < 2:
            return steps[0] if steps else _as_it_is
        place = 0 if members[0].array_like else members[0].tag_field
        by_tag = {member.tag: step for member, step in zip(members, steps, strict=True)}

        def prepare(value: Any, exact: Any) -> Any:
            step: Prepare = _as_it_is
            with suppress(LookupError, TypeError):  # no tag, or none that we know
                step = by_tag[value[place]]
            return step(value, exact)

        return prepare


_CLASSES = (mi.StructType, mi.DataclassType)


def _as_it_is(value: Any, exact: Any) -> Any:
    return value


def _of_lists(prepare: Prepare) -> Prepare:
    return lambda value, exact: prepare(value, exact) if isinstance(value, list) else value


def _of_dicts(prepare: Prepare) -> Prepare:
    return lambda value, exact: prepare(value, exact) if isinstance(value, dict) else value


def _of_members(steps: Mapping[str, Prepare]) -> Prepare:
    """For an object, each of whose members has its own step, if any."""
    return lambda value, exact: {
        name: steps.get(name, _as_it_is)(member, exact[name]) for name, member in value.items()
    }


def _without(members: Members, prepare: Prepare) -> Prepare:
    """For a struct, without the members that aren't the client's."""

    def prepare_known(value: dict[str, Any], exact: dict[str, Any]) -> Any:
        if members.refuses_unknown and not members.hidden.isdisjoint(value):
            raise ValueError("Extra inputs are not permitted")
        known = {name: value[name] for name in value if name not in members.hidden}
        return prepare(known, exact)

    return prepare_known


# Numbers


def is_finite(number: object) -> bool:
    """Whether it is no NaN and no infinity, if it is a number at all."""
    if isinstance(number, Decimal):
        return number.is_finite()
    return not isinstance(number, float) or math.isfinite(number)


def _finite_decimal(value: Any, exact: Any) -> Any:
    if isinstance(value, float):
        return exact
    return _finite_text(value, Decimal) if isinstance(value, str) else value


def _finite_text(text: str, type: Callable[[str], object]) -> str:
    try:
        number = type(text)
    except (ValueError, ArithmeticError):  # none, which msgspec says better
        return text
    if not is_finite(number):
        raise ValueError(NOT_FINITE[0])
    return text


def _key_check(node: mi.Type) -> Prepare | None:
    """What is asked of keys that are numbers, which JSON writes as strings."""
    kinds = set(map(type, union_members(node)))
    if mi.DecimalType in kinds:
        return _finite_decimal
    return (lambda key, exact: _finite_text(key, float)) if mi.FloatType in kinds else None


_COMPILED: dict[type[mi.Type], Callable[[_Compiler, Any], Prepare]] = {
    mi.DecimalType: lambda compiler, node: _finite_decimal,
    mi.RawType: lambda compiler, node: lambda value, exact: msgspec.Raw(msgspec.json.encode(value)),
    mi.ListType: _Compiler._items,
    mi.VarTupleType: _Compiler._items,
    mi.SetType: _Compiler._items,
    mi.FrozenSetType: _Compiler._items,
    mi.TupleType: _Compiler._tuple,
    mi.DictType: _Compiler._dict,
    mi.TypedDictType: _Compiler._fields,
    mi.NamedTupleType: _Compiler._named_tuple,
    mi.StructType: _Compiler._class,
    mi.DataclassType: _Compiler._class,
    mi.UnionType: _Compiler._union,
}
