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
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

import msgspec
from msgspec import inspect as mi

from .._errors import Invalid
from .annotations import constrained, node_of, parts, undecodable
from .collisions import refusing_collisions
from .constraints import meta_to_the_end
from .explain import REFUSALS, explain
from .models import decode_model, is_model, model_problems
from .nodes import all_nodes
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
    typed = msgspec.json.Decoder(annotation, dec_hook=decode_model)
    has_defaults = any(map(_has_defaults, parts(annotation)))
    return refusing_collisions(node, _explaining(node, typed.decode, has_defaults=has_defaults))


def _model_decoder(model: Any) -> Decoder:
    def decode(data: bytes) -> Any:
        try:
            return model.model_validate_json(data)
        except ValueError as exc:
            problems = model_problems(exc) if data else [make_problem([], *MISSING)]
            raise Invalid(problems) from None

    return decode


def _explaining(node: mi.Type, decode_typed: Decoder, *, has_defaults: bool = False) -> Decoder:
    """msgspec's decoder for `node`, whose refusals are explained."""

    def decode(data: bytes) -> Any:
        try:
            return decode_typed(data)
        except REFUSALS as exc:
            raise Invalid(explain(node, data, exc)) from None

    def decode_with_defaults(data: bytes) -> Any:
        try:
            return _fill_defaults(decode_typed(data))
        except REFUSALS as exc:
            raise Invalid(explain(node, data, exc)) from None

    return decode_with_defaults if has_defaults else decode


raw_body_members: Callable[[bytes], dict[str, msgspec.Raw]] = _explaining(
    mi.type_info(dict[str, Any]), msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
)
"""The members of a JSON object, undecoded: one for each of several body parameters."""


# Defaults of dataclasses.  msgspec leaves them to the class, and its own encoder looks only into
# the instance.


def _has_defaults(annotation: Any) -> bool:
    return (
        isinstance(annotation, type)
        and dataclasses.is_dataclass(annotation)
        and any(
            field.default is not dataclasses.MISSING for field in dataclasses.fields(annotation)
        )
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
