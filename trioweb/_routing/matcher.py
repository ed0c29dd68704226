"""Path templates, and the matcher that finds the route of a request.

Rules of this module:

* A template is split at `/` into segments.  A segment is a literal, or holds one
  parameter, `{name}` or `{name:converter}`, with literal text around it if you like:
  `/v{version:int}/{file}.json`.  A trailing slash counts, and so does an empty segment.
* A malformed template is refused when it is read, an ambiguous one when it is added.
* A path is decoded once, segment by segment: `%2F` never splits a segment, and `%252F`
  is the text `%2F`.
* At each segment, from left to right, the most specific alternative is tried first: a
  literal; a parameter with more literal text around it; then by converter, in the order
  of `_CONVERTERS`.  Where the rest of the path or the method doesn't fit, the next one is.
* Templates with the same beginning share it, in a tree.  A match looks at a node at most
  once, and only at nodes whose template fits the path so far: it is linear in the path and
  grows with the alternatives that fit at each place (a literal, a converter, a pair of
  lengths of literal text before and after), never with the number of routes as such.
  A path with two alternatives at each of d places costs up to 2**d nodes where as many
  routes are registered for them, and no request can make it more.
* Recursion goes as deep as the longest template, whatever the request.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Final, Generic, NoReturn, TypeAlias, TypeVar
from urllib.parse import quote, unquote
from uuid import UUID

import msgspec

from .._errors import HTTPException, RegistrationError
from .._http.paths import decoded_segments

K = TypeVar("K")
T = TypeVar("T")

# A program can lower Python's limit for int() to 640 digits, no further.  The longest
# float that is written without an exponent, a very small one, has 326 characters.
MAX_NUMBER_LENGTH: Final = 400

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

# The most specific first.
_CONVERTERS: Final[Mapping[str, Read]] = {
    "uuid": _read_uuid,
    "int": _read_int,
    "float": _read_float,
    "str": str,
    "path": str,
}
_RANK: Final[Mapping[Read, int]] = {read: rank for rank, read in enumerate(_CONVERTERS.values())}


# Templates

Part: TypeAlias = "str | Parameter"


class Parameter(msgspec.Struct, frozen=True):
    """A segment that holds a parameter, with the literal text before and after it."""

    prefix: str
    name: str
    converter: str
    suffix: str

    def read(self, segment: str) -> object | None:
        """The value that `segment` gives the parameter, None if it doesn't fit."""
        start, end = len(self.prefix), len(segment) - len(self.suffix)
        if start < end and segment.startswith(self.prefix) and segment.endswith(self.suffix):
            return _CONVERTERS[self.converter](segment[start:end])
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

    def _parameters(self) -> list[Parameter]:
        return [part for part in self.segments if isinstance(part, Parameter)]

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
        """Refuses a path parameter that doesn't have the rest of the path to itself."""
        for part in self._parameters():
            alone = part is self.segments[-1] and not part.prefix and not part.suffix
            if part.converter == "path" and not alone:
                inside = f"{{{part.name}:path}}"
                head = self.text.partition(inside)[0].rstrip("/")
                problem = "a path parameter takes all of the rest: nothing shares or follows it"
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
    parameter = Parameter(prefix, name, converter if colon else "str", suffix)
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


def _check_parameter(parameter: Parameter, inside: str, text: str) -> None:
    name, converter = parameter.name, parameter.converter
    if not name.isidentifier():
        identifier = re.sub(r"\W|^(?=\d|$)", "_", name)
        right = text.replace(f"{{{name}", f"{{{identifier}", 1)
        _refuse(f"a parameter's name is an identifier, and {name!r} isn't", text, right)
    if converter not in _CONVERTERS:
        nearest = get_close_matches(converter, _CONVERTERS, n=1, cutoff=0)[0]
        problem = f"there is no converter {converter!r}, only {', '.join(_CONVERTERS)}"
        _refuse(problem, text, text.replace(f"{{{inside}}}", f"{{{name}:{nearest}}}", 1))


# What two templates have in common


def _meet(one: Template, other: Template) -> bool:
    """Whether some path fits both templates."""
    for a, b in zip(one.segments, other.segments, strict=False):
        if _is_path(a) or _is_path(b):
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


def _is_path(part: Part) -> bool:
    return isinstance(part, Parameter) and part.converter == "path"


# The matcher


class _Route(Generic[T]):
    __slots__ = ("names", "target", "template")

    def __init__(self, template: Template, target: T) -> None:
        self.template = template
        self.target = target
        self.names = tuple(template.parameters)


class _Search(Generic[T]):
    """One request's way through the tree."""

    __slots__ = ("allowed", "method", "segments", "values")

    def __init__(self, method: str, segments: list[str]) -> None:
        self.method = method
        self.segments = segments
        self.values: list[object] = []  # of the parameters on the way to the current node
        self.allowed: set[str] = set()  # the methods of templates that fit the path

    def choose(self, routes: Mapping[str, _Route[T]]) -> _Route[T] | None:
        route = routes.get(self.method)
        if route is None and self.method == "HEAD":
            route = routes.get("GET")
        if route is None:
            self.allowed.update(routes)
        return route

    def follow(self, edges: Mapping[Read, _Node[T]], text: str, depth: int) -> _Route[T] | None:
        """The best route after a parameter with this text, at the segments from `depth` on."""
        for read, node in edges.items():
            value = read(text)
            if value is not None:
                self.values.append(value)
                if (route := node.find(self, depth)) is not None:
                    return route
                self.values.pop()
        return None


class _Node(Generic[T]):
    """Where templates that begin alike go on.  The names of their parameters don't matter."""

    __slots__ = ("literals", "parameters", "patterns", "rest", "routes")

    def __init__(self) -> None:
        self.routes: dict[str, _Route[T]] = {}  # of the templates that end here, by method
        self.literals: dict[str, _Node[T]] = {}
        # Parameters with literal text around them: by the lengths of prefix and suffix, then by
        # these two.  A segment is cut once for each pair of lengths, not for each pattern.
        self.patterns: dict[tuple[int, int], dict[tuple[str, str], dict[Read, _Node[T]]]] = {}
        self.parameters: dict[Read, _Node[T]] = {}
        self.rest: _Node[T] | None = None  # after a path parameter

    def child(self, part: Part) -> _Node[T]:
        """The node after `part`, made if there is none yet."""
        if isinstance(part, str):
            return self.literals.setdefault(part, _Node())
        if _is_path(part):
            self.rest = self.rest or _Node()
            return self.rest
        edges = self._edges(part.prefix, part.suffix)
        node = edges.setdefault(_CONVERTERS[part.converter], _Node())
        _sort(edges, _RANK.__getitem__)
        return node

    def _edges(self, prefix: str, suffix: str) -> dict[Read, _Node[T]]:
        if not prefix and not suffix:
            return self.parameters
        patterns = self.patterns.setdefault((len(prefix), len(suffix)), {})
        _sort(self.patterns, lambda lengths: -sum(lengths))
        return patterns.setdefault((prefix, suffix), {})

    def rivals(self, part: Part) -> Iterator[Mapping[str, _Route[T]]]:
        """The routes after patterns that are neither more nor less specific than `part`."""
        if isinstance(part, str):
            return
        for before, after in self.patterns:
            if (before - len(part.prefix)) * (after - len(part.suffix)) < 0:
                for node in self._after_patterns(before, after):
                    yield from node.below()

    def below(self) -> Iterator[Mapping[str, _Route[T]]]:
        """The routes of this node and of all nodes after it."""
        yield self.routes
        for node in self._children():
            yield from node.below()

    def _children(self) -> Iterator[_Node[T]]:
        yield from self.literals.values()
        for before, after in self.patterns:
            yield from self._after_patterns(before, after)
        yield from self.parameters.values()
        if self.rest is not None:
            yield self.rest

    def _after_patterns(self, before: int, after: int) -> Iterator[_Node[T]]:
        for edges in self.patterns[before, after].values():
            yield from edges.values()

    def find(self, search: _Search[T], depth: int) -> _Route[T] | None:
        """The best route for the segments from `depth` on; without one, `values` is unchanged."""
        if depth == len(search.segments):
            return search.choose(self.routes)
        segment = search.segments[depth]
        node = self.literals.get(segment)
        if node is not None and (route := node.find(search, depth + 1)) is not None:
            return route
        if self.patterns and (route := self._find_pattern(search, segment, depth)) is not None:
            return route
        if self.parameters and segment:
            route = search.follow(self.parameters, segment, depth + 1)
            if route is not None:
                return route
        if self.rest is not None and (route := search.choose(self.rest.routes)) is not None:
            search.values.append("/".join(search.segments[depth:]))
            return route
        return None

    def _find_pattern(self, search: _Search[T], segment: str, depth: int) -> _Route[T] | None:
        for (before, after), patterns in self.patterns.items():
            end = len(segment) - after
            edges = patterns.get((segment[:before], segment[end:])) if before < end else None
            if edges is not None:
                route = search.follow(edges, segment[before:end], depth + 1)
                if route is not None:
                    return route
        return None


class Matcher(Generic[T]):
    """Finds the target that was added for a method and a path."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._static: dict[str, dict[str, _Route[T]]] = {}  # whole paths without parameters
        # Where one parameter may end a path that has none before it, by what is before it.
        self._last: dict[str, _Node[T]] = {}

    def add(self, template: Template, methods: Iterable[str], target: T) -> None:
        """Adds a route; raises `RegistrationError`, and adds nothing, if it is ambiguous.

        Methods are compared as they are written: upper case is the caller's to see to.
        """
        methods = tuple(methods)
        routes = self._place(template, methods)
        routes.update(dict.fromkeys(methods, _Route(template, target)))
        if not template.parameters:
            self._static[template.text] = routes
        elif isinstance(template.segments[-1], Parameter) and len(template.parameters) == 1:
            node = self._root
            for part in template.segments[:-1]:
                node = node.child(part)
            self._last[template.text[: template.text.rindex("/") + 1]] = node

    def match(self, method: str, path: str, raw_path: bytes | None) -> tuple[T, dict[str, Any]]:
        """The target, and the values of the path's parameters.

        `path` is what the server decoded, `raw_path` what it received.  Raises nothing but
        `HTTPException`: 400 for a malformed path, 404, or 405 with `Allow`.
        """
        if raw_path is None or (b"%" not in raw_path and raw_path.isascii()):
            routes = self._static.get(path)
            if routes is not None and method in routes:
                return routes[method].target, {}
            if (found := self._match_last(method, path)) is not None:
                return found
            segments = _segments_of_text(path)
        else:
            segments = _segments_of(raw_path)
        return self._walk(_Search(method, segments))

    def _match_last(self, method: str, path: str) -> tuple[T, dict[str, Any]] | None:
        """What the tree holds for most paths, at a third of the cost; None where it may differ.

        Nothing is more specific than text all the way to the last segment.
        """
        cut = path.rfind("/") + 1
        node, last = self._last.get(path[:cut]), path[cut:]
        if node is None or node.patterns or last in node.literals:
            return None
        if not last or not last.isascii():
            return None
        for read, ending in node.parameters.items():
            if (value := read(last)) is not None:
                route = ending.routes.get(method)
                return None if route is None else (route.target, {route.names[0]: value})
        return None

    def _place(self, template: Template, methods: Sequence[str]) -> dict[str, _Route[T]]:
        """The routes to put the new one among, once it is clear that no other rivals it."""
        node = self._root
        rivals: list[Mapping[str, _Route[T]]] = []
        for part in template.segments:
            rivals += node.rivals(part)
            node = node.child(part)
        for routes in (node.routes, *rivals):
            for method in routes.keys() & methods:
                if _meet(template, routes[method].template):
                    _refuse_rival(method, routes[method].template, template)
        return node.routes

    def _walk(self, search: _Search[T]) -> tuple[T, dict[str, Any]]:
        # A path that doesn't begin with a slash has text here: "*", "http:" and the like.
        if search.segments[0]:
            raise HTTPException(404)
        route = self._root.find(search, 1)
        if route is None:
            raise _no_route(search.allowed)
        return route.target, dict(zip(route.names, search.values, strict=True))


def _segments_of(raw_path: bytes) -> list[str]:
    try:
        return decoded_segments(raw_path)
    except ValueError:
        raise HTTPException(400, "The path is not percent-encoded UTF-8") from None


def _segments_of_text(path: str) -> list[str]:
    if not path.isascii():
        try:
            path.encode()
        except UnicodeEncodeError:  # lone surrogates: what the server couldn't decode
            raise HTTPException(400, "The path is not UTF-8") from None
    return path.split("/")


def _no_route(allowed: set[str]) -> HTTPException:
    if not allowed:
        return HTTPException(404)
    if "GET" in allowed:
        allowed.add("HEAD")
    return HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})


def _refuse_rival(method: str, old: Template, new: Template) -> NoReturn:
    if old.segments == new.segments:
        raise RegistrationError(
            f"{method} {new.text} is registered twice",
            wrong=f"{method} {old.text!r} and {method} {new.text!r}",
            right=f"{method} {new.text!r} once, or with another method",
        )
    place = next(i for i, part in enumerate(new.segments, 1) if part != old.segments[i - 1])
    parts = new.text.split("/")
    parts.insert(place, "other")
    raise RegistrationError(
        f"{method} {new.text} is ambiguous: some paths fit {old.text} as specifically",
        wrong=f"{method} {old.text!r} and {method} {new.text!r}",
        right=f"{method} {old.text!r} and {method} {'/'.join(parts)!r}",
    )


def _sort(mapping: dict[K, Any], rank: Callable[[K], int]) -> None:
    """Sorts in place: a dict is gone through in the order of its insertions."""
    items = sorted(mapping.items(), key=lambda item: rank(item[0]))
    mapping.clear()
    mapping.update(items)
