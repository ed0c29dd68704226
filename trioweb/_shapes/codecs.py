"""Codecs: how an app's author reads and writes types of their own.

Rules of this module:

* They are for types that neither msgspec nor pydantic knows: what one of these reads and writes by
  itself never comes to a codec, so it is refused when the app is made.
* A decoder gets what JSON or a text holds; what it raises as a class's own checks may (`REFUSALS`)
  is the client's mistake.  What isn't of its type is its author's.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any, get_origin
from uuid import UUID

from msgspec import inspect as mi

from .. import _callables
from .._errors import RegistrationError
from .encoding import Encode, encode_json, encoder_with
from .models import decode_model, is_model

# What msgspec or a hook of a user's class raises for bad input.  TypeError: a JSON list in a
# `set[Any]` can't be hashed.  ArithmeticError: a Decimal's exponent is beyond what it can hold.
# AssertionError: what an author of a `__post_init__` may say it with, as pydantic's do.
REFUSALS = (ValueError, TypeError, ArithmeticError, RecursionError, AssertionError)

# Written by msgspec as what they are, subclasses too.
_WRITTEN = (dict, list, tuple, set, frozenset, bytearray, memoryview, UUID, enum.Enum)


class Codecs:
    """The encoders and decoders of one app."""

    def __init__(
        self,
        encoders: Mapping[type[Any], Callable[[Any], Any]] | None = None,
        decoders: Mapping[type[Any], Callable[[Any], Any]] | None = None,
    ) -> None:
        _check("encoders", encoders, _is_written)
        _check("decoders", decoders, _is_read)
        self._decoders = dict(decoders or {})
        self.encode: Encode = encoder_with(dict(encoders)) if encoders else encode_json

    def can_decode(self, kind: Any) -> bool:
        """Whether a type that msgspec doesn't know is a model, or has a decoder."""
        return self.has_decoder(kind) or is_model(kind)

    def has_decoder(self, kind: Any) -> bool:
        return (get_origin(kind) or kind) in self._decoders

    def decode(self, kind: Any, value: Any) -> Any:
        """What msgspec's `dec_hook` is."""
        if not self.has_decoder(kind):
            return decode_model(kind, value)
        kind = get_origin(kind) or kind
        decode = self._decoders[kind]
        if isinstance(value, kind):  # a class that is built from what is decoded already
            return value
        decoded = decode(value)
        if not isinstance(decoded, kind):
            raise RuntimeError(
                f"the decoder of {kind.__qualname__}, {_callables.name(decode)},"
                f" gave a {type(decoded).__qualname__}"
            )
        return decoded


def _check(argument: str, codecs: Any, knows_already: Callable[[type[Any]], bool]) -> None:
    """Refuse what could never be used."""
    verb, suffix = ("write", "to_json") if argument == "encoders" else ("read", "from_json")
    right = f"App({argument}={{Point: point_{suffix}}})"
    if codecs is not None and not isinstance(codecs, Mapping):
        raise RegistrationError(
            f"{argument} is a mapping from types to functions",
            wrong=f"App({argument}={codecs!r})",
            right=right,
        )
    for kind, func in (codecs or {}).items():
        if not isinstance(kind, type) or kind is object or not _can_be_asked(kind):
            raise RegistrationError(
                f"{argument} are for classes, {kind!r} isn't one that tells what belongs to it",
                wrong=f"App({argument}={{{kind!r}: ...}})",
                right=right,
            )
        name = kind.__qualname__
        if not _callables.takes(func, 1) or _is_no_plain_function(func):
            raise RegistrationError(
                f"what is to {verb} {name} isn't a plain function of one argument",
                wrong=f"App({argument}={{{name}: {func!r}}})",
                right=f"App({argument}={{{name}: {name.lower()}_{suffix}}})"
                f" with def {name.lower()}_{suffix}(value): ...",
            )
        if knows_already(kind):
            raise RegistrationError(
                f"msgspec and pydantic {verb} {name} by themselves, so its function would"
                " never be called",
                wrong=f"App({argument}={{{name}: ...}})",
                right="a class that is neither a Struct, dataclass, attrs class, model or Enum, nor"
                " one of Python's own; or another type where it is used",
            )


def _is_no_plain_function(func: Callable[..., Any]) -> bool:
    kinds = (_callables.is_async, _callables.is_async_generator, _callables.is_sync_generator)
    return any(is_kind(func) for is_kind in kinds)


def _can_be_asked(kind: type[Any]) -> bool:
    """Whether `isinstance` takes it; a Protocol has to be `runtime_checkable`."""
    try:
        isinstance(None, kind)
    except TypeError:
        return False
    return True


def _is_written(kind: type[Any]) -> bool:
    return issubclass(kind, _WRITTEN) or _is_read(kind) or dataclasses.is_dataclass(kind)


def _is_read(kind: type[Any]) -> bool:
    if is_model(kind):
        return True
    try:
        return not isinstance(mi.type_info(kind), mi.CustomType)
    except Exception:  # it knows it, and can't read it
        return True


NO_CODECS = Codecs()
