"""JSON: decoders of bodies.

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
import sys
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect as mi

from .._errors import Invalid, RegistrationError, describe
from .annotations import constrained, is_for_pydantic, node_of, parts, undecodable
from .codecs import NO_CODECS, REFUSALS, Codecs
from .collisions import refusing_collisions
from .constraints import constraints_of, meta_to_the_end
from .explain import explain
from .lenient import is_lenient, second_reading
from .models import is_model, model_problems
from .nodes import all_nodes
from .problems import MISSING, make_problem

Decoder = Callable[[bytes], Any]

# Decoding


def body_decoder(
    annotation: Any, meta: msgspec.Meta | None = None, codecs: Codecs = NO_CODECS
) -> Decoder:
    """The decoder of a JSON body; finds all the problems of a bad one."""
    if is_model(annotation):
        return _model_decoder(annotation.model_validate_json)
    if is_for_pydantic(annotation):
        return _model_decoder(_adapted(annotation, meta))
    annotation = constrained(annotation, meta_to_the_end(meta))
    node = node_of(annotation)
    for custom in all_nodes(node):
        if isinstance(custom, mi.CustomType) and not codecs.can_decode(custom.cls):
            raise _unknown(annotation, custom.cls)
    typed = msgspec.json.Decoder(annotation, dec_hook=codecs.decode)
    has_defaults = any(map(_has_defaults, parts(annotation)))
    decode = _explaining(node, typed.decode, codecs, has_defaults=has_defaults)
    return refusing_collisions(node, decode)


def _unknown(annotation: Any, kind: Any) -> RegistrationError:
    """For a class that is none of those that hold data."""
    name = getattr(kind, "__name__", str(kind))
    return undecodable(
        annotation,
        f"nothing is known about {name}",
        right=f"parameter: Annotated[{name}, Depends(...)], where a dependency is meant;"
        " a msgspec.Struct, dataclass, attrs class or pydantic model in its place;"
        f" or App(decoders={{{name}: {name.lower()}_from_json}})",
    )


def _adapted(annotation: Any, meta: msgspec.Meta | None) -> Decoder:
    """Pydantic's own decoder, in the mode that FastAPI has; who has models has imported it."""
    ours = [meta, *(m for part in parts(annotation) for m in getattr(part, "__metadata__", ()))]
    if any(constraints_of(each) for each in ours if isinstance(each, msgspec.Meta)):
        raise undecodable(
            annotation,
            "pydantic decodes it, and would pass over constraints of ours",
            right="parameter: Annotated[..., pydantic.Field(max_length=3)]",
        )
    try:
        decode: Decoder = sys.modules["pydantic"].TypeAdapter(annotation).validate_json
    except Exception as exc:
        raise undecodable(annotation, describe(exc)) from None
    return decode


def _model_decoder(validate_json: Decoder) -> Decoder:
    def decode(data: bytes) -> Any:
        try:
            return validate_json(data)
        except ValueError as exc:
            problems = model_problems(exc) if data else [make_problem([], *MISSING)]
            raise Invalid(problems) from None

    return decode


def _explaining(
    node: mi.Type,
    decode_typed: Decoder,
    codecs: Codecs = NO_CODECS,
    *,
    has_defaults: bool = False,
) -> Decoder:
    """msgspec's decoder for `node`, whose refusals are explained."""

    def decode(data: bytes) -> Any:
        try:
            return decode_typed(data)
        except REFUSALS as exc:
            raise Invalid(explain(node, data, exc, codecs)) from None

    def decode_leniently(data: bytes) -> Any:
        try:
            value = decode_typed(data)
            return _fill_defaults(value) if has_defaults else value
        except REFUSALS:
            try:
                return read_again(data)
            except REFUSALS as exc:
                raise Invalid(explain(node, data, exc, codecs)) from None

    def decode_with_defaults(data: bytes) -> Any:
        try:
            return _fill_defaults(decode_typed(data))
        except REFUSALS as exc:
            raise Invalid(explain(node, data, exc, codecs)) from None

    if is_lenient(node):
        read_again = second_reading(node, codecs)
        return decode_leniently
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
