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
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, get_origin

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
from .preparing import NO_CLASSES, ByMembers, Preparation, Prepare, preparation
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
    prepared = preparation(node, codecs)
    nodes = prepared.nodes if prepared else list(all_nodes(node))
    for custom in nodes:
        if isinstance(custom, mi.CustomType) and not codecs.can_decode(custom.cls):
            raise _unknown(annotation, custom.cls)
    decode = _decoder(annotation, codecs, prepared)
    has_defaults = any(map(_has_defaults, parts(annotation)))
    classes = prepared.classes if prepared else {}
    explaining = _explaining(node, decode, codecs, classes, has_defaults=has_defaults)
    return refusing_collisions(nodes, explaining)


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


def _decoder(annotation: Any, codecs: Codecs, prepared: Preparation | None) -> Decoder:
    if prepared is not None and prepared.classes:
        return _building(annotation, codecs, prepared)
    typed = msgspec.json.Decoder(annotation, dec_hook=codecs.decode).decode
    return _refusing_infinite(typed, prepared.prepare) if prepared is not None else typed


def _building(annotation: Any, codecs: Codecs, prepared: Preparation) -> Decoder:
    """A decoder for what has classes in it that msgspec would take or build otherwise."""
    plain = msgspec.json.Decoder().decode
    exact = msgspec.json.Decoder(float_hook=Decimal).decode if prepared.has_decimals else None

    def decode(data: bytes) -> Any:
        value = plain(data)
        value = prepared.prepare(value, exact(data) if exact else value)
        return msgspec.convert(value, annotation, str_keys=True, dec_hook=codecs.decode)

    return decode


def _maybe_infinite(data: bytes) -> bool:
    """Whether a text of NaN or an infinity may be in it, with some of its letters escaped or not.

    A pattern would take ten times as long.
    """
    lower = data.lower()
    return b"nan" in lower or b"inf" in lower or b"\\u" in lower


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
    classes: Mapping[Any, ByMembers] = NO_CLASSES,
    *,
    has_defaults: bool = False,
) -> Decoder:
    """A decoder for `node`, whose refusals are explained."""

    def decode(data: bytes) -> Any:
        try:
            return decode_typed(data)
        except REFUSALS as exc:
            raise Invalid(explain(node, data, exc, codecs, classes)) from None

    def decode_leniently(data: bytes) -> Any:
        try:
            value = decode_typed(data)
            return _fill_defaults(value) if has_defaults else value
        except REFUSALS:
            try:
                return read_again(data)
            except REFUSALS as exc:
                raise Invalid(explain(node, data, exc, codecs, classes)) from None

    def decode_with_defaults(data: bytes) -> Any:
        try:
            return _fill_defaults(decode_typed(data))
        except REFUSALS as exc:
            raise Invalid(explain(node, data, exc, codecs, classes)) from None

    if is_lenient(node):
        read_again = second_reading(node, codecs, classes)
        return decode_leniently
    return decode_with_defaults if has_defaults else decode


raw_body_members: Callable[[bytes], dict[str, msgspec.Raw]] = _explaining(
    mi.type_info(dict[str, Any]), msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
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
