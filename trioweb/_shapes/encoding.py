"""Encoding: what is answered, as JSON.

Rules of this module:

* msgspec's own method does it, with nothing of ours around it; only what msgspec doesn't know
  comes here, piece by piece.
* What has one obvious form in JSON has it: a subclass that of its base, a mapping is an object,
  what has members in an order is a list.  An object of a class that nobody knows is refused, not
  laid open: its attributes may hold what no client is to see.
* An encoder that the app's author gave goes before ours.
"""

from __future__ import annotations

import inspect
import re
from collections import UserString, deque
from collections.abc import (
    Callable,
    ItemsView,
    Iterator,
    Mapping,
    Sequence,
    Set as AbstractSet,
    ValuesView,
)
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import PurePath
from typing import Any

import msgspec

from .._imports import INSTEAD
from .models import checks_itself, is_model, is_of_pydantic

Encode = Callable[[Any], bytes]
Encoders = Mapping[type[Any], Callable[[Any], Any]]

# How what msgspec doesn't know becomes something that it knows; the first class that fits counts.
# For a subclass of what it does know: an instance of the base, whatever the subclass overrides.
_FORMS: list[tuple[type[Any] | tuple[type[Any], ...], Callable[[Any], Any]]] = [
    # msgspec asks for these as keys only.
    (type(None), lambda value: "null"),
    (bool, lambda value: "true" if value else "false"),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: bytes(memoryview(value))),
    (datetime, lambda value: datetime.combine(value, value.timetz())),
    (date, lambda value: date(value.year, value.month, value.day)),
    (time, lambda value: datetime.combine(date.min, value).timetz()),
    (timedelta, lambda value: timedelta(value.days, value.seconds, value.microseconds)),
    (Decimal, Decimal),
    ((PurePath, IPv4Address, IPv4Network, IPv4Interface), str),
    ((IPv6Address, IPv6Network, IPv6Interface, UserString), str),
    (re.Pattern, lambda value: value.pattern),
    (ItemsView, dict),
    ((deque, range, Iterator, AbstractSet, Sequence, ValuesView), list),
]
# What msgspec writes by itself, so that it asks for these as keys only.
_NO_KEYS = (tuple, frozenset)


def encoder_with(encoders: Encoders) -> Encode:
    """`encode_json` of an app that has encoders of its own."""

    def encode_other(value: Any) -> Any:
        kind = type(value)
        encode = _encoder_for(kind, encoders)
        if encode is None:
            if is_model(kind) and checks_itself(kind):
                return value.model_dump(mode="json", by_alias=True, fallback=encode_other)
            return _encode_other(value)
        encoded = encode(value)
        if type(encoded) is kind:
            raise TypeError(f"the encoder of {kind.__qualname__} gives a {kind.__qualname__} again")
        return encoded

    return msgspec.json.Encoder(enc_hook=encode_other).encode


def _encoder_for(kind: type[Any], encoders: Encoders) -> Callable[[Any], Any] | None:
    """That of the class or of its closest base; else of an abstract class that it belongs to."""
    bases = [*kind.__mro__, *(cls for cls in encoders if issubclass(kind, cls))]
    return next((encoders[base] for base in bases if base in encoders), None)


def _encode_other(value: Any) -> Any:
    """What msgspec doesn't know, as something that it knows."""
    kind = type(value)
    if is_model(kind):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, _NO_KEYS):
        raise TypeError(f"{kind.__qualname__} can't be a key in JSON")
    if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):  # any mapping, and sqlite3.Row
        return {key: value[key] for key in value.keys()}  # noqa: SIM118  a Row iterates its values
    for known, form in _FORMS:
        if isinstance(value, known):
            return form(value)
    if is_of_pydantic(kind) and not isinstance(value, type):  # a URL, a hidden secret
        return str(value)
    raise TypeError(_why_not(value))


def _why_not(value: Any) -> str:
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if inspect.iscoroutine(value):
        value.close()  # or Python warns that it was never awaited
        return f"{name}() was never awaited, so there is nothing to encode: await {name}()"
    if inspect.isasyncgen(value):
        return f"{name}() gives its values one by one: StreamingResponse({name}())"
    if inspect.ismethod(value) or inspect.isfunction(value):
        return f"{name} is a function, and nothing to encode: {name}()"
    kind = type(value).__qualname__
    if type(value).__module__.startswith("starlette."):
        right = INSTEAD.get(kind, f"from trioweb import {kind}")
        return f"{kind} is Starlette's, and nothing to encode: {right}"
    return (
        f"{kind} can't be encoded as JSON;"
        f" where a handler returns it, return a dict or a model made of it, or say how in"
        f" App(encoders={{{kind}: ...}})"
    )


encode_json: Encode = msgspec.json.Encoder(enc_hook=_encode_other).encode
"""A value as JSON.  Raises `TypeError`, with the type's name, for what can't be written as JSON.

msgspec's own method, with nothing of ours around it: each response calls it.
"""
