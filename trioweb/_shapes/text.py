"""Text: decoders of what paths, queries, header fields and cookies give.

Rules of this module:

* Text is read as strictly as JSON is, in ASCII and without NaN or infinities, but for three
  freedoms that URLs have by custom: an integer may have leading zeros, a boolean has many
  spellings, and a number may have a plus sign.
* No text is ever None: `int | None` means that the parameter may be absent, and `?limit=null` is
  refused.
* A union tries its members in the order written, `str` last.
* A decoder gives a value or raises `Invalid`, whatever the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from itertools import repeat
from typing import Any

import msgspec
from msgspec import inspect as mi
from msgspec.structs import replace

from .._errors import Invalid, Problem
from .._limits import MAX_PROBLEMS
from .annotations import are_texts, node_of, undecodable
from .codecs import NO_CODECS, REFUSALS, Codecs
from .constraints import broken_constraint, constraints_of, pattern_to_the_end
from .models import model_problems
from .moments import moment_from_number
from .nodes import COLLECTIONS, MOMENTS, mismatch, python_type, union_members
from .problems import make_problem, placed_within

TextDecoder = Callable[[str], Any]


def text_decoder(
    annotation: Any, meta: msgspec.Meta | None = None, codecs: Codecs = NO_CODECS
) -> TextDecoder:
    """The decoder of one string, for a `kind` of "text"."""
    if meta is not None and _is_decimal(annotation):
        return _constrained_decimal(meta)
    return _decoder(node_of(annotation, meta), annotation, codecs)


def texts_decoder(
    annotation: Any, meta: msgspec.Meta | None = None, codecs: Codecs = NO_CODECS
) -> Callable[[list[str]], Any]:
    """The decoder of a list of strings, for a `kind` of "texts"; finds all the bad ones."""
    (node,) = union_members(node_of(annotation, meta))
    if isinstance(node, mi.TupleType):
        return _tuple_decoder(node, annotation, codecs)
    if not isinstance(node, mi.CollectionType):
        raise undecodable(annotation, "it is not a list of scalars")
    decode_text = _decoder(node.item_type, annotation, codecs)
    build, constraints = COLLECTIONS[type(node)], constraints_of(node)

    def decode_texts(texts: list[str]) -> Any:
        built = build(_decoded(repeat(decode_text), texts))
        if problem := broken_constraint(constraints, built):
            raise Invalid([problem])
        return built

    return decode_texts


def _tuple_decoder(
    node: mi.TupleType, annotation: Any, codecs: Codecs
) -> Callable[[list[str]], Any]:
    """Of `tuple[int, str]`: as many texts, each with a type of its own."""
    decoders = [_decoder(item, annotation, codecs) for item in node.item_types]
    count = len(decoders)

    def decode_tuple(texts: list[str]) -> Any:
        if len(texts) != count:
            word = "too_short" if len(texts) < count else "too_long"
            raise Invalid([make_problem([], f"Input should have exactly {count} items", word)])
        return tuple(_decoded(decoders, texts))

    return decode_tuple


def _decoded(decoders: Iterable[TextDecoder], texts: list[str]) -> list[Any]:
    values, problems = [], []
    for index, (decode, text) in enumerate(zip(decoders, texts, strict=False)):
        try:
            values.append(decode(text))
        except Invalid as exc:
            problems += [placed_within([index], problem) for problem in exc.problems]
            if len(problems) >= MAX_PROBLEMS:
                break
    if problems:
        raise Invalid(problems)
    return values


# Types


def _decoder(node: mi.Type, annotation: Any, codecs: Codecs) -> TextDecoder:
    members = union_members(node)
    if not are_texts(members, codecs):
        raise undecodable(annotation, "it has no reading from text")
    members.sort(key=lambda member: isinstance(member, mi.StrType))
    decoders = [
        _custom_decoder(member, codecs)
        if isinstance(member, mi.CustomType)
        else _scalar_decoder(member)
        for member in members
    ]
    return decoders[0] if len(decoders) == 1 else _union_decoder(decoders)


def _custom_decoder(node: mi.CustomType, codecs: Codecs) -> TextDecoder:
    def decode(text: str) -> Any:
        try:
            return codecs.decode(node.cls, text)
        except REFUSALS as exc:
            raise Invalid(model_problems(exc)) from None

    return decode


def _union_decoder(decoders: list[TextDecoder]) -> TextDecoder:
    def decode(text: str) -> Any:
        problems: list[Problem] = []
        for decode_member in decoders:
            try:
                return decode_member(text)
            except Invalid as exc:
                problems += exc.problems
        message = "; or: ".join(problem["msg"] for problem in problems)
        raise Invalid([make_problem([], message, "union")])

    return decode


def _scalar_decoder(node: mi.Type) -> TextDecoder:
    parse = _parser(node)
    constraints = [
        replace(each, bound=pattern_to_the_end(each.bound)) if isinstance(each.bound, str) else each
        for each in constraints_of(node)
    ]

    def decode(text: str) -> Any:
        try:
            return parse(text)
        except (ValueError, ArithmeticError, KeyError):
            raise Invalid([mismatch(node, text)]) from None

    def decode_constrained(text: str) -> Any:
        value = decode(text)
        if problem := broken_constraint(constraints, value):
            raise Invalid([problem])
        return value

    if constraints:
        return decode_constrained
    return parse if parse is _as_it_is else decode


_DECIMAL = mi.DecimalType()


def _is_decimal(annotation: Any) -> bool:
    return all(type(member) is mi.DecimalType for member in union_members(node_of(annotation)))


def _constrained_decimal(meta: msgspec.Meta) -> TextDecoder:
    """msgspec has no constraints for a decimal; ours hold for the number as it is written."""
    node_of(float, meta)  # refuses what doesn't constrain numbers, such as a pattern
    decode_decimal = _scalar_decoder(_DECIMAL)
    constraints = [replace(each, bound=Decimal(str(each.bound))) for each in constraints_of(meta)]

    def decode(text: str) -> Any:
        value = decode_decimal(text)
        try:
            _ = meta.multiple_of and value % Decimal(str(meta.multiple_of))
        except ArithmeticError:  # too many digits, for whoever divides it later too
            raise Invalid([mismatch(_DECIMAL, text)]) from None
        if problem := broken_constraint(constraints, value):
            raise Invalid([problem])
        return value

    return decode


# Parsers.  They raise ValueError, ArithmeticError or KeyError for what they can't read.


def _parser(node: mi.Type) -> TextDecoder:
    if type(node) in _PARSERS:
        return _PARSERS[type(node)]
    if isinstance(node, mi.LiteralType):
        return {_spelling(v): v for v in node.values if v is not None}.__getitem__
    kind = python_type(node)
    if isinstance(node, MOMENTS):
        return partial(_parse_moment, kind)
    return partial(msgspec.convert, type=kind, strict=False)


def _spelling(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_it_is(text: str) -> str:
    return text


# float(), int() and Decimal() would also take underscores, spaces and every script's digits.
_is_integer = re.compile(r"[+-]?[0-9]+").fullmatch
_is_number = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?").fullmatch


def _parse_int(text: str) -> int:
    if _is_integer(text) is None:
        raise ValueError(text)
    return int(text)


def _parse_float(text: str) -> float:
    if _is_number(text) is None or not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _parse_decimal(text: str) -> Decimal:
    if _is_number(text) is None:
        raise ValueError(text)
    return Decimal(text)


def _parse_moment(kind: Any, text: str) -> Any:
    if _is_number(text) is None:
        return msgspec.convert(text, kind)
    return moment_from_number(kind, Decimal(text))


_BOOLEANS = dict.fromkeys(["true", "1", "on", "yes", "t", "y"], True) | dict.fromkeys(
    ["false", "0", "off", "no", "f", "n"], False
)


def _parse_bool(text: str) -> bool:
    return _BOOLEANS[text.lower()]


_PARSERS: dict[type[mi.Type], TextDecoder] = {
    mi.AnyType: _as_it_is,
    mi.StrType: _as_it_is,
    mi.IntType: _parse_int,
    mi.FloatType: _parse_float,
    mi.DecimalType: _parse_decimal,
    mi.BoolType: _parse_bool,
}
