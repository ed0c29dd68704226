"""Why a JSON body doesn't fit its annotation: all the problems, each with its place.

Rules of this module:

* An explanation is small and soon found however large the input: `MAX_PROBLEMS`
  of them, `MAX_DEPTH` deep, after `MAX_VISITS`, with texts and keys clipped.
* A message never echoes more than a few words of the input.

msgspec stops at the first problem.  So when it refuses a body, the body is
decoded again without a type, and `_Walk` visits that value together with the
tree that `msgspec.inspect` makes of the annotation:

* A leaf is judged by `msgspec.convert` and then by its limits (`ge`, `pattern`,
  …), each of which has its own word.
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

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import inspect as shapes

from .._errors import Problem

MAX_PROBLEMS = 100
"""The most problems that one answer lists."""
MAX_DEPTH = 32
"""Members nested deeper than this are not explained one by one."""
MAX_VISITS = 20_000
"""Only so many of a body's values are looked at for problems, some 50 ms."""
MAX_TEXT = 200
"""The most characters of a message, or of a key in a place, that are sent back."""

_INVALID: Any = object()

# What msgspec and hooks of user classes raise for bad input.  TypeError: a JSON list in a
# `set[Any]` can't be hashed.  ArithmeticError: a Decimal's exponent is beyond what it can hold.
# AssertionError: what an author of a `__post_init__` may say it with, as pydantic's do.
REFUSALS = (ValueError, TypeError, ArithmeticError, RecursionError, AssertionError)


class _Scalar(NamedTuple):
    type: Any
    word: str  # the problem's type is this and "_type", or "_parsing" when text can't be read
    noun: str


_SCALARS: dict[type[shapes.Type], _Scalar] = {
    shapes.StrType: _Scalar(str, "string", "string"),
    shapes.IntType: _Scalar(int, "int", "integer"),
    shapes.FloatType: _Scalar(float, "float", "number"),
    shapes.BoolType: _Scalar(bool, "bool", "boolean"),
    shapes.DecimalType: _Scalar(Decimal, "decimal", "decimal number"),
    shapes.UUIDType: _Scalar(UUID, "uuid", "UUID"),
    shapes.DateType: _Scalar(date, "date", "date"),
    shapes.DateTimeType: _Scalar(datetime, "datetime", "datetime"),
    shapes.TimeType: _Scalar(time, "time", "time"),
    shapes.TimeDeltaType: _Scalar(timedelta, "time_delta", "duration"),
    shapes.BytesType: _Scalar(bytes, "bytes", "base64 string"),
    shapes.NoneType: _Scalar(None, "none", "null"),
}
COLLECTIONS: dict[type[shapes.Type], type[Any]] = {
    shapes.ListType: list,
    shapes.SetType: set,
    shapes.FrozenSetType: frozenset,
    shapes.VarTupleType: tuple,
}
_LEAVES: set[type[shapes.Type]] = {*_SCALARS, shapes.EnumType, shapes.LiteralType}
TEXTS = (_LEAVES | {shapes.AnyType}) - {shapes.BytesType, shapes.NoneType}

_OBJECTS = (shapes.StructType, shapes.DataclassType, shapes.TypedDictType, shapes.DictType)
_ARRAYS = (shapes.CollectionType, shapes.TupleType, shapes.NamedTupleType)


class _Limit(NamedTuple):
    bound: Any
    holds: Callable[[Any, Any], bool]
    word: str
    message: str


_LIMITS: dict[str, tuple[Callable[[Any, Any], bool], str, str]] = {
    "gt": (operator.gt, "greater_than", "Input should be greater than {}"),
    "ge": (operator.ge, "greater_than_equal", "Input should be greater than or equal to {}"),
    "lt": (operator.lt, "less_than", "Input should be less than {}"),
    "le": (operator.le, "less_than_equal", "Input should be less than or equal to {}"),
    "multiple_of": (lambda v, n: v % n == 0, "multiple_of", "Input should be a multiple of {}"),
    "min_length": (lambda v, n: len(v) >= n, "too_short", "Input should have at least {} {unit}"),
    "max_length": (lambda v, n: len(v) <= n, "too_long", "Input should have at most {} {unit}"),
    "pattern": (
        lambda v, pattern: re.search(pattern, v) is not None,
        "pattern_mismatch",
        "Input should match pattern '{}'",
    ),
    "tz": (
        lambda v, aware: (v.tzinfo is not None) == aware,
        "timezone",
        "Input should be timezone-aware: {}",
    ),
}


# Types


def _plain(node: shapes.Type) -> shapes.Type:
    """`node` without its title and description, which are for readers."""
    return _plain(node.type) if isinstance(node, shapes.Metadata) else node


def union_members(node: shapes.Type) -> list[shapes.Type]:
    """The members of a union without None; a node that is no union is its only member."""
    node = _plain(node)
    if not isinstance(node, shapes.UnionType):
        return [node]
    members = [_plain(member) for member in node.types]
    return [member for member in members if not isinstance(member, shapes.NoneType)]


def python_type(node: shapes.Type) -> Any:
    if isinstance(node, shapes.EnumType):
        return node.cls
    if isinstance(node, shapes.LiteralType):
        literal: Any = Literal  # type checkers take only literal values in its brackets
        return literal[node.values]
    return _SCALARS[type(node)].type


def limits_of(node: shapes.Type | msgspec.Meta) -> list[_Limit]:
    prefix, unit = ("string_", "characters") if isinstance(node, shapes.StrType) else ("", "items")
    found = []
    for name, (holds, word, message) in _LIMITS.items():
        bound = getattr(node, name, None)
        if bound is not None:
            found.append(_Limit(bound, holds, prefix + word, message.format(bound, unit=unit)))
    return found


# Problems

MISSING = ("Field required", "missing")


def make_problem(loc: Sequence[str | int], msg: str, type: str) -> Problem:
    place = [_clip(part) if isinstance(part, str) else part for part in loc[:MAX_DEPTH]]
    return {"loc": place, "msg": _clip(msg), "type": type}


def _clip(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def placed_within(loc: Sequence[str | int], problem: Problem) -> Problem:
    return make_problem([*loc, *problem["loc"]], problem["msg"], problem["type"])


def mismatch(node: shapes.Type, value: Any) -> Problem:
    """Why a leaf's `value` isn't what `node` says, its limits aside."""
    if isinstance(node, shapes.EnumType):
        return make_problem([], f"Input should be {_choices(m.value for m in node.cls)}", "enum")
    if isinstance(node, shapes.LiteralType):
        return make_problem([], f"Input should be {_choices(node.values)}", "literal_error")
    _, word, noun = _SCALARS[type(node)]
    suffix = "parsing" if isinstance(value, str) else "type"
    return make_problem([], f"Input should be a valid {noun}", f"{word}_{suffix}")


def _choices(values: Iterable[Any]) -> str:
    return " or ".join(map(repr, values))


def broken_limit(limits: list[_Limit], value: Any) -> Problem | None:
    for bound, holds, word, message in limits:
        if not holds(value, bound):
            return make_problem([], message, word)
    return None


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


def explain(node: shapes.Type, data: bytes, refusal: BaseException) -> list[Problem]:
    """The problems of a body that was refused with `refusal`."""
    if not data:
        return [make_problem([], *MISSING)]
    try:
        value = msgspec.json.decode(data)
    except REFUSALS as exc:
        return [make_problem([], f"Invalid JSON: {exc}", "json_invalid")]
    walk = _Walk()
    walk.visit(node, value)
    return walk.problems or _from_refusal(refusal)


class _Walk:
    """One visit to an untyped value along its type; see the module's text."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._loc: list[str | int] = []
        self._visits = 0

    def visit(self, node: shapes.Type, value: Any) -> Any:
        """The value with its classes built, or `_INVALID`; what is wrong goes to `problems`."""
        self._visits += 1
        is_over = self._visits > MAX_VISITS or len(self.problems) >= MAX_PROBLEMS
        if is_over or len(self._loc) >= MAX_DEPTH:
            return _INVALID
        node = _plain(node)
        judge = _VISITS.get(type(node))
        return judge(self, node, value) if judge else value

    def _visit_at(self, place: str | int, node: shapes.Type, value: Any) -> Any:
        self._loc.append(place)
        try:
            return self.visit(node, value)
        finally:
            self._loc.pop()

    def _report(self, problem: Problem) -> Any:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(placed_within(self._loc, problem))
        return _INVALID

    def _raw(self, node: shapes.RawType, value: Any) -> Any:
        return msgspec.Raw(msgspec.json.encode(value))

    def _leaf(self, node: shapes.Type, value: Any, *, strict: bool = True) -> Any:
        try:
            typed = msgspec.convert(value, python_type(node), strict=strict)
        except REFUSALS:
            return self._report(mismatch(node, value))
        # Not `typed`: when a class is built from it, msgspec takes no ready member of an Enum.
        return self._limited(node, typed, value)

    def _limited(self, node: shapes.Type, typed: Any, value: Any) -> Any:
        problem = broken_limit(limits_of(node), typed)
        return self._report(problem) if problem else value

    def _collection(self, node: shapes.CollectionType, value: Any) -> Any:
        items = self._items(node, value)
        return items if items is _INVALID else self._limited(node, items, items)

    def _set(self, node: shapes.CollectionType, value: Any) -> Any:
        items = self._hashable_items(node, value)
        # Equal items count once, and but for these types only msgspec knows which are equal.
        if items is _INVALID or type(_plain(node.item_type)) not in _EQUAL_AS_WRITTEN:
            return items
        return self._limited(node, set(items), items)

    def _hashable_items(self, node: shapes.CollectionType, value: Any) -> Any:
        """As `_items`, each of which a set can hold: msgspec 0.22 says of none where it is."""
        items = self._items(node, value)
        if items is _INVALID:
            return _INVALID
        for index, item in enumerate(items):
            if not _is_hashable(node.item_type, item):
                self._report(make_problem([index], *_UNHASHABLE))
                items = _INVALID
        return items

    def _items(self, node: shapes.CollectionType, value: Any) -> Any:
        if not isinstance(value, list):
            return self._report(make_problem([], *_NO_LIST))
        items = enumerate(_first(value))
        return _whole([self._visit_at(index, node.item_type, item) for index, item in items])

    def _tuple(self, node: shapes.TupleType, value: Any) -> Any:
        if not isinstance(value, list):
            return self._report(make_problem([], *_NO_LIST))
        count = len(node.item_types)
        pairs = enumerate(zip(node.item_types, value, strict=False))
        items = [self._visit_at(index, member, item) for index, (member, item) in pairs]
        if len(value) != count:
            word = "too_short" if len(value) < count else "too_long"
            return self._report(make_problem([], f"Input should have exactly {count} items", word))
        return _whole(items)

    def _dict(self, node: shapes.DictType, value: Any) -> Any:
        if not isinstance(value, dict):
            return self._report(make_problem([], *_NO_DICT))
        keys = [self._key(_plain(node.key_type), key) for key in _first(value)]
        members = {key: self._visit_at(key, node.value_type, value[key]) for key in _first(value)}
        if _INVALID in (_whole(keys), _whole(members)):
            return _INVALID
        return self._limited(node, members, members)

    def _key(self, node: shapes.Type, key: str) -> Any:
        if type(node) not in _LEAVES:
            return key
        self._loc += [key, "[key]"]
        try:
            return self._leaf(node, key, strict=False)  # JSON writes every key as a string
        finally:
            del self._loc[-2:]

    def _class(self, node: _Class, value: Any) -> Any:
        """A struct, dataclass or attrs class."""
        as_list = isinstance(node, shapes.StructType) and node.array_like
        members = self._positions(node, value) if as_list else self._fields(node, value)
        if members is _INVALID:
            return _INVALID
        try:
            return msgspec.convert(members, node.cls, str_keys=True, dec_hook=decode_model)
        except REFUSALS as exc:
            for problem in _from_refusal(exc):
                self._report(problem)
            return _INVALID

    def _fields(self, node: _Class | shapes.TypedDictType, value: Any) -> Any:
        if not isinstance(value, dict):
            return self._report(make_problem([], *_NO_DICT))
        members = {}
        for field in node.fields:
            name = field.encode_name
            if name in value:
                members[name] = self._visit_at(name, field.type, value[name])
            elif field.required:
                members[name] = self._report(make_problem([name], *MISSING))
        if isinstance(node, shapes.StructType):
            members |= self._others(node, value)
        return _whole(members)

    def _others(self, node: shapes.StructType, value: dict[str, Any]) -> dict[str, Any]:
        """What of `value` is no field of the struct: its tag, and what may be forbidden."""
        others = {}
        tag = node.tag_field
        if tag is not None and tag in value:
            others[tag] = self._tag(node, tag, value[tag])
        if node.forbid_unknown_fields:
            known = {tag, *(field.encode_name for field in node.fields)}
            unknown = (name for name in value if name not in known)
            for name in islice(unknown, MAX_PROBLEMS):
                others[name] = self._report(make_problem([name], *_EXTRA))
        return others

    def _positions(self, node: _Class | shapes.NamedTupleType, value: Any) -> Any:
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

    def _custom(self, node: shapes.CustomType, value: Any) -> Any:
        try:
            return decode_model(node.cls, value)
        except ValueError as exc:
            for problem in model_problems(exc):
                self._report(problem)
            return _INVALID

    def _union(self, node: shapes.UnionType, value: Any) -> Any:
        members = union_members(node)
        if value is None and len(members) < len(node.types):
            return None
        if len(members) > 1:
            members = [member for member in members if _json_type(member) is _json_type_of(value)]
        if len(members) == 1:
            return self.visit(members[0], value)
        if members and isinstance(value, (dict, list)):
            return self._tagged(members, value)
        if any(_may_fit(member, value) for member in members):
            return value
        return self._report(make_problem([], "Input should be one of the allowed types", "union"))

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
        message = f"Input should be {_choices(struct.tag for struct in structs)}"
        return self._report(make_problem([place], message, "literal_error"))


_Class = shapes.StructType | shapes.DataclassType

_NO_LIST = ("Input should be a valid list", "list_type")
_NO_DICT = ("Input should be a valid dictionary", "dict_type")
_UNHASHABLE = ("Set items should be hashable", "set_item_not_hashable")
_EXTRA = ("Extra inputs are not permitted", "extra_forbidden")

_VISITS: dict[type[shapes.Type], Callable[[_Walk, Any, Any], Any]] = {
    **dict.fromkeys(_LEAVES, _Walk._leaf),
    shapes.RawType: _Walk._raw,
    shapes.ListType: _Walk._collection,
    shapes.VarTupleType: _Walk._collection,
    shapes.SetType: _Walk._set,
    shapes.FrozenSetType: _Walk._set,
    shapes.TupleType: _Walk._tuple,
    shapes.DictType: _Walk._dict,
    shapes.StructType: _Walk._class,
    shapes.DataclassType: _Walk._class,
    shapes.TypedDictType: _Walk._fields,
    shapes.NamedTupleType: _Walk._positions,
    shapes.CustomType: _Walk._custom,
    shapes.UnionType: _Walk._union,
}
_EQUAL_AS_WRITTEN = {shapes.StrType, shapes.IntType, shapes.EnumType}


def _is_hashable(node: shapes.Type, value: Any) -> bool:
    """Whether what msgspec makes of this valid value has a hash; a list may become a tuple."""
    if isinstance(value, list):
        return any(_is_hashable_as(member, value) for member in union_members(node))
    try:
        hash(value)
    except TypeError:  # asked of a struct that isn't frozen, too, and of one that holds a list
        return False
    return True


def _is_hashable_as(node: shapes.Type, value: list[Any]) -> bool:
    if isinstance(node, (shapes.VarTupleType, shapes.FrozenSetType)):
        return all(_is_hashable(node.item_type, item) for item in value)
    if isinstance(node, shapes.TupleType):
        types = list(node.item_types)
    elif isinstance(node, shapes.NamedTupleType):
        types = [field.type for field in node.fields]
    else:
        return False
    return all(map(_is_hashable, types, value))


def _first(members: Iterable[Any]) -> Iterator[Any]:
    """As many as are looked at, and one that never is, so that the whole isn't taken as valid."""
    return islice(members, MAX_VISITS + 1)


def _whole(members: Any) -> Any:
    """`members`, a list or dict, if all of them are valid."""
    values = members.values() if isinstance(members, dict) else members
    return _INVALID if any(value is _INVALID for value in values) else members


def _json_type(node: shapes.Type) -> type[Any]:
    """What JSON writes `node` as: dict, list, or (object) neither."""
    if isinstance(node, _ARRAYS) or getattr(node, "array_like", False):
        return list
    return dict if isinstance(node, _OBJECTS) else object


def _json_type_of(value: Any) -> type[Any]:
    return type(value) if isinstance(value, (dict, list)) else object


def _may_fit(node: shapes.Type, value: Any) -> bool:
    walk = _Walk()
    walk.visit(node, value)
    return not walk.problems


# Models: pydantic's classes, known by what they can do


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and callable(
        getattr(annotation, "model_validate_json", None)
    )


def checks_itself(func: Any) -> bool:
    """Whether calling this class checks its arguments: a pydantic model or dataclass."""
    return isinstance(func, type) and hasattr(func, "__pydantic_validator__")


def decode_model(model: Any, value: Any) -> Any:
    """A model inside of another type.  By way of JSON, so that its strict mode takes dates."""
    if isinstance(value, model):  # the walk builds a class from models that it has decoded
        return value
    return model.model_validate_json(msgspec.json.encode(value))


def model_problems(exc: BaseException | None) -> list[Problem]:
    errors = getattr(exc, "errors", None)
    if not callable(errors):
        return [make_problem([], str(exc), "value_error")]
    found: Any = errors(include_url=False, include_context=False, include_input=False)
    return [make_problem(each["loc"], each["msg"], each["type"]) for each in found[:MAX_PROBLEMS]]
