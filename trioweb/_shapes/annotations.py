"""From annotation to decoder and encoder: what comes from the network gets its type here.

Rules of this module:

* Everything that depends on the annotation happens once, at registration.  An
  annotation that nobody could decode is refused then, by `RegistrationError`, and
  so is one whose constraints nobody would look at.
* A decoder gives a value or raises `Invalid`, whatever the peer sent.  Places
  are relative to the decoded value; the caller puts `"body"` or `"query"` and
  a name in front.
* Valid input pays for one pass of msgspec (or pydantic, which is recognised by
  its methods and never imported).  Only invalid input pays for its explanation.

Text (path, query, header, cookie) is read as strictly as JSON is, in ASCII and
without NaN or infinities, but for three freedoms that URLs have by custom: an
integer may have leading zeros, a boolean has many spellings, and a datetime or
timedelta may be a number of seconds.  No text is ever None: `int | None` means
that the parameter may be absent, and `?limit=null` is refused.  A union tries
its members in the order written, `str` last.

JSON is msgspec's, in its strict mode: `"5"` is no integer.  What a pydantic
model takes is pydantic's to say, NaN included.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import PurePath
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
from uuid import UUID

import msgspec
from msgspec import inspect as shapes

from .._errors import Invalid, Problem, RegistrationError
from .explain import (
    COLLECTIONS,
    MAX_PROBLEMS,
    MISSING,
    REFUSALS,
    TEXTS,
    broken_limit,
    checks_itself,
    decode_model,
    explain,
    is_model,
    limits_of,
    make_problem,
    mismatch,
    model_problems,
    placed_within,
    python_type,
    union_members,
)

# Annotations


def kind(annotation: Any) -> Literal["text", "texts", "body"]:
    """Where a parameter can come from: one string, a list of strings, or a JSON body.

    A parameter without annotation (`inspect.Parameter.empty`) is a text.
    """
    node = _inspect(annotation)
    members = union_members(node)
    if all(type(member) in TEXTS for member in members):
        return "text"
    if len(members) == 1 and _is_texts(members[0]):
        return "texts"
    return "body"


def _is_texts(node: shapes.Type) -> bool:
    return isinstance(node, shapes.CollectionType) and all(
        type(member) in TEXTS for member in union_members(node.item_type)
    )


def _inspect(annotation: Any, meta: msgspec.Meta | None = None) -> shapes.Type:
    annotation = _annotated(annotation, meta)
    try:
        return shapes.type_info(annotation)
    except TypeError as exc:
        raise _unsupported(annotation, str(exc)) from None


def _annotated(annotation: Any, meta: msgspec.Meta | None) -> Any:
    if annotation is inspect.Parameter.empty:
        annotation = Any
    if meta is None:
        return annotation
    if get_origin(annotation) not in (Union, UnionType):
        return Annotated[annotation, meta]
    # msgspec takes limits on the members of a union only.
    members = get_args(annotation)
    return Union[tuple(m if m is type(None) else Annotated[m, meta] for m in members)]  # noqa: UP007


def _unsupported(annotation: Any, reason: str) -> RegistrationError:
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return RegistrationError(
        f"The annotation can't be decoded: {reason}",
        wrong=f"parameter: {name}",
        right="parameter: str  (a scalar, a list of scalars, a msgspec.Struct, dataclass,"
        " TypedDict, attrs class or pydantic model, or a list or dict of those)",
    )


def refuse_ignored(annotation: Any) -> None:
    """Refuse an annotation whose constraints msgspec would pass over in silence."""
    for part in parts(annotation):
        if checks_itself(part) and not is_model(part):
            raise RegistrationError(
                f"{part.__name__} is a dataclass of pydantic, whose checks would be ignored",
                wrong=f"@pydantic.dataclasses.dataclass above class {part.__name__}",
                right=f"class {part.__name__}(pydantic.BaseModel), or @dataclasses.dataclass",
            )
        for metadata in getattr(part, "__metadata__", ()):
            _refuse_metadata(part, metadata)


def _refuse_metadata(annotation: Any, metadata: Any) -> None:
    kind = metadata if isinstance(metadata, type) else type(metadata)
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        if package in _IGNORED_PACKAGES:
            inner = inspect.formatannotation(annotation.__origin__)
            raise RegistrationError(
                f"{kind.__name__} of {package} would be ignored",
                wrong=f"Annotated[{inner}, {metadata!r}]",
                right=f"Annotated[{inner}, Query(ge=1)], or Annotated[{inner}, msgspec.Meta(ge=1)]"
                " within another type  (also gt, le, min_length, pattern, …)",
            )


_IGNORED_PACKAGES = ("pydantic", "pydantic_core", "annotated_types")


def parts(annotation: Any) -> Iterator[Any]:
    """An annotation and all that it is made of, into the fields of classes that msgspec decodes."""
    return _parts(annotation, {})


def _parts(annotation: Any, seen: dict[int, Any]) -> Iterator[Any]:
    if id(annotation) in seen:
        return
    seen[id(annotation)] = annotation  # held, so that no other gets the same id
    yield annotation
    origin = get_origin(annotation)
    inner = [origin, *get_args(annotation), *_fields(annotation)]
    inner += [getattr(annotation, name, None) for name in ("__value__", "__supertype__")]
    for part in inner:
        yield from _parts(part, seen)


def _fields(annotation: Any) -> list[Any]:
    marks = ("__struct_fields__", "__attrs_attrs__", "_fields")
    has_fields = (
        dataclasses.is_dataclass(annotation)
        or is_typeddict(annotation)
        or any(hasattr(annotation, mark) for mark in marks)
    )
    if not (isinstance(annotation, type) and has_fields) or checks_itself(annotation):
        return []
    try:
        return list(get_type_hints(annotation, include_extras=True).values())
    except Exception:  # msgspec says better what is wrong with them
        return []


# Text


def text_decoder(annotation: Any, meta: msgspec.Meta | None = None) -> Callable[[str], Any]:
    """The decoder of one string, for a `kind` of "text"."""
    if meta is not None and _is_decimal(annotation):
        return _limited_decimal(meta)
    return _text_decoder(_inspect(annotation, meta), annotation)


def _is_decimal(annotation: Any) -> bool:
    return all(type(m) is shapes.DecimalType for m in union_members(_inspect(annotation)))


def _limited_decimal(meta: msgspec.Meta) -> Callable[[str], Any]:
    """msgspec has no limits for this type; ours hold for the number as it is written."""
    _inspect(float, meta)  # refuses what is no limit of a number
    decode_decimal = _scalar_decoder(_DECIMAL)
    limits = [limit._replace(bound=Decimal(str(limit.bound))) for limit in limits_of(meta)]

    def decode(text: str) -> Any:
        value = decode_decimal(text)
        try:
            problem = broken_limit(limits, value)
        except ArithmeticError:  # a remainder that would have too many digits
            problem = mismatch(_DECIMAL, text)
        if problem:
            raise Invalid([problem])
        return value

    return decode


_DECIMAL = shapes.DecimalType()


def texts_decoder(annotation: Any, meta: msgspec.Meta | None = None) -> Callable[[list[str]], Any]:
    """The decoder of a list of strings, for a `kind` of "texts"; finds all the bad ones."""
    (node,) = union_members(_inspect(annotation, meta))
    if not isinstance(node, shapes.CollectionType):
        raise _unsupported(annotation, "it is not a list of scalars")
    decode_text = _text_decoder(node.item_type, annotation)
    build, limits = COLLECTIONS[type(node)], limits_of(node)

    def decode_texts(texts: list[str]) -> Any:
        values, problems = [], []
        for index, text in enumerate(texts):
            try:
                values.append(decode_text(text))
            except Invalid as exc:
                problems += [placed_within([index], problem) for problem in exc.problems]
                if len(problems) >= MAX_PROBLEMS:
                    break
        if problems:
            raise Invalid(problems)
        built = build(values)
        if problem := broken_limit(limits, built):
            raise Invalid([problem])
        return built

    return decode_texts


def _text_decoder(node: shapes.Type, annotation: Any) -> Callable[[str], Any]:
    members = union_members(node)
    if not all(type(member) in TEXTS for member in members):
        raise _unsupported(annotation, "it has no reading from text")
    if len(members) == 1:
        return _scalar_decoder(members[0])
    members.sort(key=lambda member: isinstance(member, shapes.StrType))
    return _union_decoder([_scalar_decoder(member) for member in members])


def _scalar_decoder(node: shapes.Type) -> Callable[[str], Any]:
    parse = _parser(node)
    limits = [
        limit._replace(bound=_to_the_end(limit.bound)) if isinstance(limit.bound, str) else limit
        for limit in limits_of(node)
    ]

    def decode(text: str) -> Any:
        try:
            return parse(text)
        except (ValueError, ArithmeticError, KeyError):
            raise Invalid([mismatch(node, text)]) from None

    def decode_within_limits(text: str) -> Any:
        value = decode(text)
        if problem := broken_limit(limits, value):
            raise Invalid([problem])
        return value

    if limits:
        return decode_within_limits
    return parse if parse is _same else decode


_DOLLAR = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|\$", re.DOTALL)


def _to_the_end(pattern: str) -> str:
    """`pattern` with `$` as it is elsewhere: the end, not also before a last line break."""
    if re.compile(pattern).flags & re.MULTILINE:
        return pattern
    return _DOLLAR.sub(lambda found: found[1] or r"\Z", pattern)


def _meta_to_the_end(meta: msgspec.Meta | None) -> msgspec.Meta | None:
    if meta is None or meta.pattern is None:
        return meta
    return msgspec.Meta(
        pattern=_to_the_end(meta.pattern),
        min_length=meta.min_length,
        max_length=meta.max_length,
    )


def _union_decoder(decoders: list[Callable[[str], Any]]) -> Callable[[str], Any]:
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


def _same(text: str) -> str:
    return text


# float(), int() and Decimal() take underscores, spaces and every script's digits.
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


_BOOLEANS = dict.fromkeys(["true", "1", "on", "yes", "t", "y"], True) | dict.fromkeys(
    ["false", "0", "off", "no", "f", "n"], False
)


def _parse_bool(text: str) -> bool:
    return _BOOLEANS[text.lower()]


_PARSERS: dict[type[shapes.Type], Callable[[str], Any]] = {
    shapes.AnyType: _same,
    shapes.StrType: _same,
    shapes.IntType: _parse_int,
    shapes.FloatType: _parse_float,
    shapes.DecimalType: _parse_decimal,
    shapes.BoolType: _parse_bool,
}


def _parser(node: shapes.Type) -> Callable[[str], Any]:
    if type(node) in _PARSERS:
        return _PARSERS[type(node)]
    if isinstance(node, shapes.LiteralType):
        return {_spelling(v): v for v in node.values if v is not None}.__getitem__
    return partial(msgspec.convert, type=python_type(node), strict=False)


def _spelling(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# Bodies


def body_decoder(annotation: Any, meta: msgspec.Meta | None = None) -> Callable[[bytes], Any]:
    """The decoder of a JSON body; finds all the problems of a bad one."""
    if is_model(annotation):
        return _model_decoder(annotation)
    annotation = _annotated(annotation, _meta_to_the_end(meta))
    node = _inspect(annotation)
    for custom in _nodes(node, set()):
        if isinstance(custom, shapes.CustomType) and not is_model(custom.cls):
            raise _unsupported(annotation, f"nothing is known about {custom.cls.__name__}")
    typed = msgspec.json.Decoder(annotation, dec_hook=decode_model)
    hashed = _hashed(node)
    finish = _fill_defaults if any(map(_has_defaults, parts(annotation))) else _same

    def decode(data: bytes) -> Any:
        if hashed and len(data) > _MANY:
            _refuse_crowd(hashed, data)
        try:
            return finish(typed.decode(data))
        except REFUSALS as exc:
            raise Invalid(explain(node, data, exc)) from None

    return decode


def raw_body_members(data: bytes) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, undecoded: one for each of several body parameters."""
    try:
        return _raw_members.decode(data)
    except REFUSALS as exc:
        raise Invalid(explain(_OBJECT, data, exc)) from None


_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECT = shapes.type_info(dict[str, Any])


def _nodes(node: Any, seen: set[int]) -> Iterator[shapes.Type]:
    """All types in the tree.  Recursive types make it a graph."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, shapes.Type):
        yield node
    if isinstance(node, (shapes.Type, shapes.Field)):
        for name in node.__struct_fields__:
            yield from _nodes(getattr(node, name), seen)
    elif isinstance(node, tuple):
        for member in node:
            yield from _nodes(member, seen)


# Python hashes numbers, and a UUID is one, modulo 2**61 - 1 and without a secret: whoever
# wants to sends many with one hash, and a set of n of those takes n**2 steps to make.  So
# a body that is long enough for it to matter is searched for them, as they are written.
# Of integers within 64 bits no more than nine have one hash.
_MANY = 16 * 1024  # bytes
_MAX_CROWD = 100
_Hashed = list[tuple[re.Pattern[str], Callable[[str], Any]]]
_WRITTEN: dict[type[shapes.Type], tuple[re.Pattern[str], Callable[[str], Any]]] = {
    shapes.IntType: (re.compile(r"-?[0-9]{19,}"), int),
    shapes.DecimalType: (re.compile(r"[-+0-9.][-+0-9.eE]{4,}"), Decimal),
    shapes.UUIDType: (re.compile(r"(?:[0-9a-fA-F]-?){32}"), UUID),
}


def _hashed(node: shapes.Type) -> _Hashed:
    """How what becomes members of sets and keys of dicts is found in a body, where it matters."""
    found = set()
    for outer in _nodes(node, set()):
        if isinstance(outer, (shapes.SetType, shapes.FrozenSetType)):
            found |= set(map(type, _nodes(outer.item_type, set())))
        elif isinstance(outer, shapes.DictType):
            found |= set(map(type, _nodes(outer.key_type, set())))
    if shapes.AnyType in found:
        found.add(shapes.IntType)
    return [_WRITTEN[kind] for kind in _WRITTEN if kind in found]


def _refuse_crowd(hashed: _Hashed, data: bytes) -> None:
    text = data.decode("latin-1")
    for pattern, make in hashed:
        crowds: Counter[int] = Counter()
        for written in set(pattern.findall(text)):
            with suppress(ValueError, ArithmeticError):  # it only looks like one
                crowds[hash(make(written))] += 1
        if max(crowds.values(), default=0) > _MAX_CROWD:
            raise Invalid([make_problem([], "Input has too many values of one hash", "collision")])


def _has_defaults(annotation: Any) -> bool:
    return (
        isinstance(annotation, type)
        and dataclasses.is_dataclass(annotation)
        and any(
            field.default is not dataclasses.MISSING for field in dataclasses.fields(annotation)
        )
    )


def _fill_defaults(whole: Any) -> Any:
    """What msgspec leaves to a dataclass' class, for its own encoder looks into the instance."""
    waiting = [whole]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
        elif isinstance(value, msgspec.Struct):
            waiting += msgspec.structs.astuple(value)
        elif hasattr(value, "__dataclass_fields__") or hasattr(value, "__attrs_attrs__"):
            waiting += _members(value)
    return whole


def _members(value: Any) -> list[Any]:
    """Of a dataclass or attrs class, each set on the instance."""
    names = [field.name for field in getattr(value, "__attrs_attrs__", ())]
    for field in getattr(value, "__dataclass_fields__", {}).values():
        if field.default is not dataclasses.MISSING and hasattr(value, "__dict__"):
            vars(value).setdefault(field.name, field.default)
        names.append(field.name)
    return [getattr(value, name, None) for name in names]


def _model_decoder(model: Any) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        try:
            return model.model_validate_json(data)
        except ValueError as exc:
            problems = model_problems(exc) if data else [make_problem([], *MISSING)]
            raise Invalid(problems) from None

    return decode


# JSON out


def encode_json(value: Any) -> bytes:
    """`value` as JSON.  Raises `TypeError`, with the type's name, for one that has no such form."""
    return _encoder.encode(value)


def _encode_other(value: Any) -> Any:
    if is_model(type(value)):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, (deque, range, Iterator)):
        return list(value)
    if isinstance(value, PurePath):
        return str(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if inspect.iscoroutine(value):
        value.close()  # or Python warns that it was never awaited
        raise TypeError(
            f"{name}() was never awaited, so there is nothing to encode: await {name}()"
        )
    if inspect.isasyncgen(value):
        raise TypeError(f"{name}() gives its values one by one: StreamingResponse({name}())")
    raise TypeError(f"{type(value).__qualname__} can't be encoded as JSON")


_encoder = msgspec.json.Encoder(enc_hook=_encode_other)
