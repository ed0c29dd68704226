"""Path templates: how they are written, what fits them, and what fits two of them.

Rules of this module:

* A template is split at `/` into segments.  A segment is a literal, or holds one
  parameter, `{name}` or `{name:converter}`, with literal text around it if you like:
  `/v{version:int}/{file}.json`.  A trailing slash counts, and so does an empty segment.
* A malformed template is refused when it is read, with one that works beside it.
* A converter's name, the texts that it takes and the type of its values stand in one table.
* What a template is filled to routes back to the same values, or is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Final, NoReturn, TypeAlias
from urllib.parse import quote, unquote
from uuid import UUID

import msgspec

from .._errors import RegistrationError
from .._limits import MAX_NUMBER_LENGTH

# What RFC 3986 allows in a segment besides letters, digits and "-._~".
_SAFE: Final = "!$&'()*+,;=:@"
# Clients resolve these segments before they send a path, percent-encoded or not.
_DOTS: Final = frozenset({".", ".."})

_FLOAT: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")
_SEGMENT: Final = re.compile(r"([^{}]*)(?:\{([^{}]*)\}([^{}]*))?")


# Converters


def _read_uuid(text: str) -> UUID | None:
    # UUID() alone would also take braces, "urn:uuid:" and underscores.
    return UUID(text) if _UUID.fullmatch(text) else None


def _read_int(text: str) -> int | None:
    if len(text) <= MAX_NUMBER_LENGTH and text.isascii() and text.isdigit():
        return int(text)
    return None


def _read_float(text: str) -> float | None:
    if len(text) > MAX_NUMBER_LENGTH or not _FLOAT.fullmatch(text):
        return None
    value = float(text)
    return None if math.isinf(value) else value


Read: TypeAlias = Callable[[str], object | None]  # None: the text doesn't fit


class Converter(msgspec.Struct, frozen=True):
    """What reads the text of a parameter, and the type of the values that it gives."""

    read: Read
    type: type[Any]


# The most specific first.
CONVERTERS: Final[Mapping[str, Converter]] = {
    "uuid": Converter(_read_uuid, UUID),
    "int": Converter(_read_int, int),
    "float": Converter(_read_float, float),
    "str": Converter(str, str),
    "path": Converter(str, str),
}


# Templates

Part: TypeAlias = "str | PathParameter"


class PathParameter(msgspec.Struct, frozen=True):
    """A segment that holds a parameter, with the literal text before and after it."""

    prefix: str
    name: str
    converter: str
    suffix: str

    def read(self, segment: str) -> object | None:
        """The value that `segment` gives the parameter, None if it doesn't fit."""
        start, end = len(self.prefix), len(segment) - len(self.suffix)
        if start < end and segment.startswith(self.prefix) and segment.endswith(self.suffix):
            return CONVERTERS[self.converter].read(segment[start:end])
        return None

    def fill(self, value: object) -> str:
        """The percent-encoded segment, or segments, that give the parameter this value."""
        text = _number_text(value) if isinstance(value, float) else str(value)
        segment = f"{self.prefix}{text}{self.suffix}"
        if self.converter == "path":
            return "/".join(map(self._encode, segment.split("/")))
        if self.read(segment) is None:
            raise ValueError(f"{value!r} doesn't fit {{{self.name}:{self.converter}}}")
        return self._encode(segment)

    def _encode(self, segment: str) -> str:
        if segment in _DOTS:
            raise ValueError(f"clients resolve {segment!r}, so {{{self.name}}} can't give it")
        return quote(segment, safe=_SAFE)


def _number_text(value: float) -> str:
    """The shortest text that gives `value` back and has no exponent."""
    return format(Decimal(float.__repr__(value)), "f")


class Template(msgspec.Struct, frozen=True):
    """A path with parameters, such as `/users/{id:int}`."""

    text: str
    segments: tuple[Part, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Reads a template; raises nothing but `RegistrationError`."""
        if not text.startswith("/"):
            _refuse("a template begins with a slash", text, f"/{text}")
        if text.startswith("//"):
            _refuse("after two slashes clients expect a host", text, "/" + text.lstrip("/"))
        template = cls(text, tuple(_parse_segment(part, text) for part in text[1:].split("/")))
        template._check_names()
        template._check_path()
        return template

    @property
    def parameters(self) -> Mapping[str, str]:
        """The parameters' names, each with the name of its converter."""
        return {parameter.name: parameter.converter for parameter in self._parameters()}

    @property
    def types(self) -> Mapping[str, type[Any]]:
        """The parameters' names, each with the type of its values."""
        return {name: CONVERTERS[converter].type for name, converter in self.parameters.items()}

    def fill(self, /, **values: object) -> str:
        """The percent-encoded path that routes back to `values`.

        Raises `TypeError` for a parameter that is missing or unknown, `ValueError` for
        a value that doesn't fit its converter or wouldn't arrive as it is.
        """
        self._check_complete(values)
        filled = [
            quote(part, safe=_SAFE) if isinstance(part, str) else part.fill(values[part.name])
            for part in self.segments
        ]
        path = "/" + "/".join(filled)
        if path.startswith("//"):
            raise ValueError(f"{path!r}: after two slashes clients expect a host")
        return path

    def _parameters(self) -> list[PathParameter]:
        return [part for part in self.segments if isinstance(part, PathParameter)]

    def _check_complete(self, values: Mapping[str, object]) -> None:
        names = self.parameters.keys()
        faults = [f"{name!r} is missing" for name in names if name not in values]
        faults += [f"{name!r} is unexpected" for name in values if name not in names]
        if faults:
            raise TypeError(f"{self.text}: {', '.join(faults)}")

    def _check_names(self) -> None:
        names = [parameter.name for parameter in self._parameters()]
        for name in names:
            if names.count(name) > 1:
                right = re.sub(rf"\{{{name}(?=[:}}])", f"{{{name}_1", self.text, count=1)
                _refuse(f"two parameters are named {name!r}", self.text, right)

    def _check_path(self) -> None:
        """Refuses a `path` parameter that doesn't have the rest of the path to itself."""
        for part in self._parameters():
            alone = part is self.segments[-1] and not part.prefix and not part.suffix
            if part.converter == "path" and not alone:
                inside = f"{{{part.name}:path}}"
                head = self.text.partition(inside)[0].rstrip("/")
                problem = f"{inside} takes all of the rest, so nothing stands beside or after it"
                _refuse(problem, self.text, f"{head}/{inside}")


def _parse_segment(segment: str, text: str) -> Part:
    match = _SEGMENT.fullmatch(segment)
    if match is None:
        _refuse_braces(segment, text)
    prefix, inside, suffix = match.groups(default="")
    _check_literal(prefix + suffix, text)
    if match[2] is None:
        _check_not_dots(segment, text)
        return segment
    name, colon, converter = inside.partition(":")
    parameter = PathParameter(prefix, name, converter if colon else "str", suffix)
    _check_parameter(parameter, inside, text)
    return parameter


def _refuse(problem: str, wrong: str, right: str) -> NoReturn:
    raise RegistrationError(problem, wrong=repr(wrong), right=repr(right))


def _refuse_braces(segment: str, text: str) -> NoReturn:
    parameters = re.findall(r"\{[^{}]+\}", segment)
    if len(parameters) > 1:
        problem = "a segment holds one parameter: it would be a guess where the first one ends"
        _refuse(problem, text, text.replace(segment, "/".join(parameters), 1))
    repaired = "{" + re.sub(r"[{}]", "", segment) + "}"
    _refuse("braces come in pairs, within a segment", text, text.replace(segment, repaired, 1))


def _check_literal(literal: str, text: str) -> None:
    if not all(map(_is_literal, literal)):
        # A query or fragment is cut off, and the rest is written as the matcher sees it.
        path = unquote(re.split("[?#]", text, maxsplit=1)[0])
        right = "".join(char if _is_literal(char) or char in "/{}" else "-" for char in path)
        _refuse("a template is a decoded path, of printable characters", text, right)


def _is_literal(char: str) -> bool:
    # Clients send a backslash as a slash.
    return char.isprintable() and char not in " ?#%\\"


def _check_not_dots(segment: str, text: str) -> None:
    if segment in _DOTS:
        right = "/".join(part for part in text.split("/") if part not in _DOTS)
        _refuse(f"clients resolve {segment!r}, so it never arrives", text, right or "/")


def _check_parameter(parameter: PathParameter, inside: str, text: str) -> None:
    name, converter = parameter.name, parameter.converter
    if not name.isidentifier():
        identifier = re.sub(r"\W|^(?=\d|$)", "_", name)
        right = text.replace(f"{{{name}", f"{{{identifier}", 1)
        _refuse(f"a parameter's name is an identifier, and {name!r} isn't", text, right)
    if converter not in CONVERTERS:
        nearest = get_close_matches(converter, CONVERTERS, n=1, cutoff=0)[0]
        problem = f"there is no converter {converter!r}, only {', '.join(CONVERTERS)}"
        _refuse(problem, text, text.replace(f"{{{inside}}}", f"{{{name}:{nearest}}}", 1))


# What two templates have in common


def meet(one: Template, other: Template) -> bool:
    """Whether some path fits both templates."""
    for a, b in zip(one.segments, other.segments, strict=False):
        if takes_rest(a) or takes_rest(b):
            return True
        if not any(_fits(a, segment) and _fits(b, segment) for segment in _samples(a, b)):
            return False
    return len(one.segments) == len(other.segments)


def _samples(a: Part, b: Part) -> list[str]:
    """Segments of which at least one fits both, if any segment does.

    Literal text that could be a part of the other template's UUID is overlooked: such
    templates aren't refused, and the one with more literal text is tried first.
    """
    if isinstance(a, str):
        return [a]
    if isinstance(b, str):
        return [b]
    prefix, suffix = max(a.prefix, b.prefix, key=len), max(a.suffix, b.suffix, key=len)
    return [f"{prefix}{value}{suffix}" for value in ("0", "0" * 32)]


def _fits(part: Part, segment: str) -> bool:
    return segment == part if isinstance(part, str) else part.read(segment) is not None


def takes_rest(part: Part) -> bool:
    return isinstance(part, PathParameter) and part.converter == "path"
