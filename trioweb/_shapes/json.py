"""JSON: decoders of bodies, and the encoder of what is answered.

Rules of this module:

* A decoder is made once, at registration.  It gives a value or raises `Invalid`, whatever the
  peer sent.
* Valid input pays for one pass of msgspec (or of the model that it is decoded to) and one call of
  ours around it; only invalid input pays for its explanation.
* JSON is msgspec's, in its strict mode: `"5"` isn't taken for an integer.
* What was decoded can be encoded: nothing that a class has by default is left out.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import Any, get_origin

import msgspec
from msgspec import inspect as mi

from .._errors import Invalid
from .annotations import constrained, node_of, parts, undecodable
from .collisions import refusing_collisions
from .constraints import meta_to_the_end
from .explain import REFUSALS, explain
from .models import decode_model, is_model, model_problems
from .nodes import all_nodes
from .preparing import ByMembers, Preparation, Prepare, preparation
from .problems import MISSING, make_problem

Decoder = Callable[[bytes], Any]

# Decoding


def body_decoder(annotation: Any, meta: msgspec.Meta | None = None) -> Decoder:
    """The decoder of a JSON body; finds all the problems of a bad one."""
    if is_model(annotation):
        return _model_decoder(annotation)
    annotation = constrained(annotation, meta_to_the_end(meta))
    node = node_of(annotation)
    for custom in all_nodes(node):
        if isinstance(custom, mi.CustomType) and not is_model(custom.cls):
            raise undecodable(annotation, f"nothing is known about {custom.cls.__name__}")
    prepared = preparation(node)
    decode = _decoder(annotation, prepared)
    has_defaults = any(map(_has_defaults, parts(annotation)))
    classes = prepared.classes if prepared else {}
    explaining = _explaining(node, decode, classes, has_defaults=has_defaults)
    return refusing_collisions(node, explaining)


def _decoder(annotation: Any, prepared: Preparation | None) -> Decoder:
    if prepared is not None and prepared.classes:
        return _building(annotation, prepared)
    typed = msgspec.json.Decoder(annotation, dec_hook=decode_model).decode
    return _refusing_infinite(typed, prepared.prepare) if prepared is not None else typed


def _building(annotation: Any, prepared: Preparation) -> Decoder:
    """A decoder for what has classes in it that msgspec would take or build otherwise."""
    plain = msgspec.json.Decoder().decode
    exact = msgspec.json.Decoder(float_hook=Decimal).decode if prepared.has_decimals else None

    def decode(data: bytes) -> Any:
        value = plain(data)
        value = prepared.prepare(value, exact(data) if exact else value)
        return msgspec.convert(value, annotation, str_keys=True, dec_hook=decode_model)

    return decode


# Any text of NaN or an infinity has this in it, unless its letters are escaped.
_maybe_infinite = re.compile(rb"nan|inf|\\u", re.IGNORECASE).search


def _refusing_infinite(typed: Decoder, prepare: Prepare) -> Decoder:
    """msgspec's decoder `typed`, for what has decimals or keys in it that might not be finite."""
    untyped = msgspec.json.Decoder(float_hook=Decimal).decode

    def decode(data: bytes) -> Any:
        value = typed(data)
        if _maybe_infinite(data):
            found = untyped(data)
            prepare(found, found)
        return value

    return decode


def _model_decoder(model: Any) -> Decoder:
    def decode(data: bytes) -> Any:
        try:
            return model.model_validate_json(data)
        except ValueError as exc:
            problems = model_problems(exc) if data else [make_problem([], *MISSING)]
            raise Invalid(problems) from None

    return decode


def _explaining(
    node: mi.Type,
    decode_typed: Decoder,
    classes: Mapping[Any, ByMembers],
    *,
    has_defaults: bool = False,
) -> Decoder:
    """A decoder for `node`, whose refusals are explained."""

    def decode(data: bytes) -> Any:
        try:
            return decode_typed(data)
        except REFUSALS as exc:
            raise Invalid(explain(node, data, exc, classes)) from None

    def decode_with_defaults(data: bytes) -> Any:
        try:
            return _fill_defaults(decode_typed(data))
        except REFUSALS as exc:
            raise Invalid(explain(node, data, exc, classes)) from None

    return decode_with_defaults if has_defaults else decode


raw_body_members: Callable[[bytes], dict[str, msgspec.Raw]] = _explaining(
    mi.type_info(dict[str, Any]), msgspec.json.Decoder(dict[str, msgspec.Raw]).decode, {}
)
"""The members of a JSON object, undecoded: one for each of several body parameters."""


# Defaults of dataclasses.  msgspec leaves them to the class, and its own encoder looks only into
# the instance.


def _has_defaults(annotation: Any) -> bool:
    cls = get_origin(annotation) or annotation
    return dataclasses.is_dataclass(cls) and any(
        field.default is not dataclasses.MISSING for field in dataclasses.fields(cls)
    )


def _fill_defaults(whole: Any) -> Any:
    """`whole`, in whose dataclasses each default is set on the instance."""
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
    """The members of a dataclass or attrs class, each of which is set on the instance now."""
    names = [field.name for field in getattr(value, "__attrs_attrs__", ())]
    for field in getattr(value, "__dataclass_fields__", {}).values():
        if field.default is not dataclasses.MISSING and hasattr(value, "__dict__"):
            vars(value).setdefault(field.name, field.default)
        names.append(field.name)
    return [getattr(value, name, None) for name in names]


# Encoding


def _encode_other(value: Any) -> Any:
    """What msgspec doesn't know, as something that it knows."""
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


encode_json: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_encode_other).encode
"""A value as JSON.  Raises `TypeError`, with the type's name, for what can't be written as JSON.

msgspec's own method, with nothing of ours around it: each response calls it.
"""
