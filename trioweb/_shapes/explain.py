"""Why a JSON body doesn't fit its annotation: all the problems, each with its place.

Rules of this module:

* An explanation is small and soon found however large the input: `MAX_PROBLEMS`
  of them, `MAX_PROBLEM_DEPTH` deep, after `MAX_PROBLEM_VISITS`.
* A message never echoes more than a few words of the input.

msgspec stops at the first problem.  So when it refuses a body, the body is
decoded again without a type, and `Walk` visits that value together with the
tree that `msgspec.inspect` makes of the annotation:

* A leaf is judged by `msgspec.convert` and then by its constraints (`ge`,
  `pattern`, …), each of which has its own word.
* A container visits its members even if some are bad, so that siblings' problems
  are all found.
* A visit returns the value, or `_INVALID`.  A class whose members are all valid
  is built at once, which is how problems that only its `__post_init__` sees are
  found.  An instance passes through msgspec as it is when the class around it
  is built, so nothing is built twice and the walk is linear in the input.
* A union goes by the JSON kind of the value and by the tag.  A value that fits
  none of several scalars is one problem, at the union's own place.
* The walk may leave something unjudged (past a maximum, or a rare type), but it
  never invents a problem.  If it found none, msgspec's own message stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any

import msgspec
from msgspec import inspect as mi

from .._errors import Problem
from .._limits import MAX_PROBLEM_DEPTH, MAX_PROBLEM_VISITS, MAX_PROBLEMS
from .codecs import REFUSALS, Codecs
from .collisions import is_hashable
from .constraints import broken_constraint, constraints_of
from .lenient import is_lenient
from .models import model_problems
from .moments import moment_from_number
from .nodes import LEAVES, MOMENTS, json_type, mismatch, plain, python_type, union_members
from .preparing import NO_CLASSES, ByMembers, is_finite, name_given
from .problems import EXTRA, MISSING, NOT_FINITE, choices, make_problem, placed_within

_INVALID: Any = object()


def explain(
    node: mi.Type,
    data: bytes,
    refusal: BaseException,
    codecs: Codecs,
    classes: Mapping[Any, ByMembers] = NO_CLASSES,
) -> list[Problem]:
    """The problems of a body that was refused with `refusal`.

    `classes` are those that msgspec would take or build otherwise than they are meant.
    """
    if not data:
        return [make_problem([], *MISSING)]
    try:
        value = msgspec.json.decode(data)
    except REFUSALS as exc:
        return [make_problem([], f"Invalid JSON: {exc}", "json_invalid")]
    walk = Walk(codecs, classes)
    walk.visit(node, value)
    return walk.problems or _from_refusal(refusal)


_STEP = re.compile(r"\.([^.\[`]+)|\[(\d+|\.\.\.)\]")


def _from_refusal(exc: BaseException) -> list[Problem]:
    """In msgspec's own words, such as ``Expected `int` - at `$.items[3].price```.

    What a model within has found is asked of the model, whose text quotes the input.
    """
    text, found, path = str(exc).rpartition(" - at `")
    steps = _STEP.findall(path) if found else []
    loc = [name or (int(index) if index.isdigit() else index) for name, index in steps]
    if callable(getattr(exc.__cause__, "errors", None)):
        return [placed_within(loc, problem) for problem in model_problems(exc.__cause__)]
    message = (text if found else str(exc)) or "Assertion failed"
    return [make_problem(loc, message, "value_error")]


# The walk


class Walk:
    """One visit to an untyped value along its type; see the module's text."""

    def __init__(self, codecs: Codecs, classes: Mapping[Any, ByMembers] = NO_CLASSES) -> None:
        self._codecs = codecs
        self.problems: list[Problem] = []
        self._classes = classes
        self._loc: list[str | int] = []
        self._visits = 0

    def visit(self, node: mi.Type, value: Any) -> Any:
        """The value with its classes built, or `_INVALID`; what is wrong goes to `problems`."""
        self._visits += 1
        is_over = self._visits > MAX_PROBLEM_VISITS or len(self.problems) >= MAX_PROBLEMS
        if is_over or len(self._loc) >= MAX_PROBLEM_DEPTH:
            return _INVALID
        node = plain(node)
        judge = _VISITS.get(type(node))
        return judge(self, node, value) if judge else value

    def _visit_at(self, place: str | int, node: mi.Type, value: Any) -> Any:
        self._loc.append(place)
        try:
            return self.visit(node, value)
        finally:
            self._loc.pop()

    def _report(self, problem: Problem) -> Any:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(placed_within(self._loc, problem))
        return _INVALID

    def _raw(self, node: mi.RawType, value: Any) -> Any:
        return msgspec.Raw(msgspec.json.encode(value))

    def _leaf(self, node: mi.Type, value: Any, *, strict: bool = True) -> Any:
        try:
            if isinstance(node, MOMENTS) and type(value) in (int, float):
                typed = moment_from_number(python_type(node), Decimal(str(value)))
            else:
                typed = msgspec.convert(value, python_type(node), strict=strict)
        except REFUSALS:
            return self._report(mismatch(node, value))
        if not is_finite(typed):
            return self._report(make_problem([], *NOT_FINITE))
        # Not `typed`: when a class is built from it, msgspec takes no ready member of an Enum.
        return self._constrained(node, typed, value)

    def _constrained(self, node: mi.Type, typed: Any, value: Any) -> Any:
        problem = broken_constraint(constraints_of(node), typed)
        return self._report(problem) if problem else value

    def _collection(self, node: mi.CollectionType, value: Any) -> Any:
        items = self._items(node, value)
        return items if items is _INVALID else self._constrained(node, items, items)

    def _set(self, node: mi.CollectionType, value: Any) -> Any:
        items = self._hashable_items(node, value)
        # Equal items count once, and but for these types only msgspec knows which are equal.
        if items is _INVALID or type(plain(node.item_type)) not in _EQUAL_AS_WRITTEN:
            return items
        return self._constrained(node, set(items), items)

    def _hashable_items(self, node: mi.CollectionType, value: Any) -> Any:
        """The items, of which a set can hold each; msgspec 0.22 doesn't say which ones it can't."""
        items = self._items(node, value)
        if items is _INVALID:
            return _INVALID
        for index, item in enumerate(items):
            if not is_hashable(node.item_type, item):
                self._report(make_problem([index], *_UNHASHABLE))
                items = _INVALID
        return items

    def _items(self, node: mi.CollectionType, value: Any) -> Any:
        if not isinstance(value, list):
            return self._report(make_problem([], *_NO_LIST))
        items = enumerate(_first(value))
        return _whole([self._visit_at(index, node.item_type, item) for index, item in items])

    def _tuple(self, node: mi.TupleType, value: Any) -> Any:
        if not isinstance(value, list):
            return self._report(make_problem([], *_NO_LIST))
        count = len(node.item_types)
        pairs = enumerate(zip(node.item_types, value, strict=False))
        items = [self._visit_at(index, member, item) for index, (member, item) in pairs]
        if len(value) != count:
            word = "too_short" if len(value) < count else "too_long"
            return self._report(make_problem([], f"Input should have exactly {count} items", word))
        return _whole(items)

    def _dict(self, node: mi.DictType, value: Any) -> Any:
        if not isinstance(value, dict):
            return self._report(make_problem([], *_NO_DICT))
        keys = [self._key(plain(node.key_type), key) for key in _first(value)]
        members = {key: self._visit_at(key, node.value_type, value[key]) for key in _first(value)}
        if _INVALID in (_whole(keys), _whole(members)):
            return _INVALID
        return self._constrained(node, members, members)

    def _key(self, node: mi.Type, key: str) -> Any:
        if type(node) not in LEAVES:
            return key
        self._loc += [key, "[key]"]
        try:
            return self._leaf(node, key, strict=False)  # JSON writes every key as a string
        finally:
            del self._loc[-2:]

    def _class(self, node: _Class, value: Any) -> Any:
        """A struct, dataclass or attrs class."""
        by_members = self._classes.get(node.cls)
        if by_members is not None and by_members.members.builds_itself:
            return self._built(node, by_members.build, self._settable(by_members, value))
        as_list = isinstance(node, mi.StructType) and node.array_like
        members = self._positions(node, value) if as_list else self._fields(node, value)
        convert = partial(
            msgspec.convert, type=node.cls, str_keys=True, dec_hook=self._codecs.decode
        )
        return self._built(node, convert, members)

    def _built(self, node: _Class, build: Callable[[Any], Any], members: Any) -> Any:
        if members is _INVALID:
            return _INVALID
        try:
            return build(members)
        except REFUSALS as exc:
            if is_lenient(node) and isinstance(exc, msgspec.ValidationError) and not exc.__cause__:
                return members  # msgspec's own word, on what is taken all the same
            for problem in _from_refusal(exc):
                self._report(problem)
            return _INVALID

    def _settable(self, by_members: ByMembers, value: Any) -> Any:
        """The members that a client may set of a class that builds itself."""
        if not isinstance(value, dict):
            return self._report(make_problem([], *_NO_DICT))
        members = {}
        for member in by_members.members.settable:
            name = name_given(member, value)
            if name is not None:
                node = by_members.nodes[member.argument]
                members[name] = self._visit_at(name, node, value[name])
            elif member.required:
                name = member.names[0]
                members[name] = self._report(make_problem([name], *MISSING))
        return _whole(members)

    def _fields(self, node: _Class | mi.TypedDictType, value: Any) -> Any:
        if not isinstance(value, dict):
            return self._report(make_problem([], *_NO_DICT))
        members = {}
        fields = self._fields_of_client(node)
        for field in fields:
            name = field.encode_name
            if name in value:
                members[name] = self._visit_at(name, field.type, value[name])
            elif field.required:
                members[name] = self._report(make_problem([name], *MISSING))
        if isinstance(node, mi.StructType):
            members |= self._others(node, {field.encode_name for field in fields}, value)
        return _whole(members)

    def _fields_of_client(self, node: Any) -> list[mi.Field]:
        by_members = self._classes.get(getattr(node, "cls", None))
        hidden = by_members.members.hidden if by_members else ()
        return [field for field in node.fields if field.encode_name not in hidden]

    def _others(
        self, node: mi.StructType, fields: set[str], value: dict[str, Any]
    ) -> dict[str, Any]:
        """The members that aren't `fields` of the struct: its tag, and those that it forbids."""
        others = {}
        tag = node.tag_field
        if tag is not None and tag in value:
            others[tag] = self._tag(node, tag, value[tag])
        if node.forbid_unknown_fields:
            unknown = (name for name in value if name != tag and name not in fields)
            for name in islice(unknown, MAX_PROBLEMS):
                others[name] = self._report(make_problem([name], *EXTRA))
        return others

    def _positions(self, node: _Class | mi.NamedTupleType, value: Any) -> Any:
        """The members of a class that JSON writes as a list, a struct's tag first."""
        if not isinstance(value, list):
            return self._report(make_problem([], *_NO_LIST))
        tagged = getattr(node, "tag", None) is not None
        members = [self._tag(node, 0, tag) for tag in value[:1] if tagged]
        for index, field in enumerate(node.fields, start=int(tagged)):
            if index < len(value):
                members.append(self._visit_at(index, field.type, value[index]))
            elif field.required:
                members.append(self._report(make_problem([index], *MISSING)))
        # A NamedTuple, which has no such setting, takes no more items than fields.
        if len(value) > len(members) and getattr(node, "forbid_unknown_fields", True):
            message = f"Input should have at most {len(members)} items"
            return self._report(make_problem([], message, "too_long"))
        return _whole(members)

    def _tag(self, node: Any, place: str | int, tag: Any) -> Any:
        if tag == node.tag:
            return tag
        return self._report(make_problem([place], f"Input should be {node.tag!r}", "literal_error"))

    def _custom(self, node: mi.CustomType, value: Any) -> Any:
        try:
            return self._codecs.decode(node.cls, value)
        except REFUSALS as exc:
            for problem in model_problems(exc):
                self._report(problem)
            return _INVALID

    def _union(self, node: mi.UnionType, value: Any) -> Any:
        members = union_members(node)
        if value is None and len(members) < len(node.types):
            return None
        if len(members) > 1:
            members = [member for member in members if json_type(member) is _json_type_of(value)]
        if len(members) == 1:
            return self.visit(members[0], value)
        if members and isinstance(value, (dict, list)):
            return self._tagged(members, value)
        if any(self._may_fit(member, value) for member in members):
            return value
        return self._report(make_problem([], "Input should be one of the allowed types", "union"))

    def _may_fit(self, node: mi.Type, value: Any) -> bool:
        walk = Walk(self._codecs)
        walk.visit(node, value)
        return not walk.problems

    def _tagged(self, structs: list[Any], value: Any) -> Any:
        """A union of structs, which msgspec takes only if all have tags."""
        place = 0 if structs[0].array_like else structs[0].tag_field
        try:
            tag = value[place]
        except LookupError:
            return self._report(make_problem([place], *MISSING))
        for struct in structs:
            if struct.tag == tag:
                return self.visit(struct, value)
        message = f"Input should be {choices(struct.tag for struct in structs)}"
        return self._report(make_problem([place], message, "literal_error"))


_Class = mi.StructType | mi.DataclassType

_NO_LIST = ("Input should be a valid list", "list_type")
_NO_DICT = ("Input should be a valid dictionary", "dict_type")
_UNHASHABLE = ("Set items should be hashable", "set_item_not_hashable")

_VISITS: dict[type[mi.Type], Callable[[Walk, Any, Any], Any]] = {
    **dict.fromkeys(LEAVES, Walk._leaf),
    mi.RawType: Walk._raw,
    mi.ListType: Walk._collection,
    mi.VarTupleType: Walk._collection,
    mi.SetType: Walk._set,
    mi.FrozenSetType: Walk._set,
    mi.TupleType: Walk._tuple,
    mi.DictType: Walk._dict,
    mi.StructType: Walk._class,
    mi.DataclassType: Walk._class,
    mi.TypedDictType: Walk._fields,
    mi.NamedTupleType: Walk._positions,
    mi.CustomType: Walk._custom,
    mi.UnionType: Walk._union,
}
_EQUAL_AS_WRITTEN = {mi.StrType, mi.IntType, mi.EnumType}


def _first(members: Iterable[Any]) -> Iterator[Any]:
    """Those that may be looked at, and one more, so that no whole is taken for valid unseen."""
    return islice(members, MAX_PROBLEM_VISITS + 1)


def _whole(members: Any) -> Any:
    """`members`, a list or dict, if all of them are valid."""
    values = members.values() if isinstance(members, dict) else members
    return _INVALID if any(value is _INVALID for value in values) else members


def _json_type_of(value: Any) -> type[Any]:
    return type(value) if isinstance(value, (dict, list)) else object
