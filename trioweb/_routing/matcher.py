"""The matcher: from a method and a path to the target that was added for them.

Rules of this module:

* An ambiguous template is refused when it is added.
* A path is decoded once, segment by segment: `%2F` never splits a segment, and `%252F`
  is the text `%2F`.
* At each segment, from left to right, the most specific alternative is tried first: a
  literal; a parameter with more literal text around it; then by converter, in the order
  of `CONVERTERS`.  Where the rest of the path or the method doesn't fit, the next one is.
* Templates with the same beginning share it, in a tree.  A match looks at a node at most
  once, and only at nodes whose template fits the path so far: it is linear in the path and
  grows with the alternatives that fit at each place (a literal, a converter, a pair of
  lengths of literal text before and after), never with the number of templates as such.
  A path with two alternatives at each of d places costs up to 2**d nodes where as many
  templates were added for them, and no request can make it more.
* Recursion goes as deep as the longest template, whatever the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, NoReturn, TypeVar

from .._errors import HTTPException, RegistrationError
from .._http.paths import decoded_segments
from .templates import CONVERTERS, Part, PathParameter, Read, Template, meet, takes_rest

K = TypeVar("K")
T = TypeVar("T")

_RANK: Final[Mapping[Read, int]] = {
    converter.read: rank for rank, converter in enumerate(CONVERTERS.values())
}


class _Entry(Generic[T]):
    """A target, the template that it was added for, and the names of the values it gives."""

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

    def choose(self, entries: Mapping[str, _Entry[T]]) -> _Entry[T] | None:
        entry = entries.get(self.method)
        if entry is None and self.method == "HEAD":
            entry = entries.get("GET")
        if entry is None:
            self.allowed.update(entries)
        return entry

    def follow(self, edges: Mapping[Read, Node[T]], text: str, depth: int) -> _Entry[T] | None:
        """The best entry after a parameter with this text, at the segments from `depth` on."""
        for read, node in edges.items():
            value = read(text)
            if value is not None:
                self.values.append(value)
                if (entry := node.find(self, depth)) is not None:
                    return entry
                self.values.pop()
        return None


class Node(Generic[T]):
    """Where templates that begin alike go on.  The names of their parameters don't matter."""

    __slots__ = ("entries", "literals", "parameters", "patterns", "rest")

    def __init__(self) -> None:
        self.entries: dict[str, _Entry[T]] = {}  # of the templates that end here, by method
        self.literals: dict[str, Node[T]] = {}
        # Parameters with literal text around them: by the lengths of prefix and suffix, then by
        # these two.  A segment is cut once for each pair of lengths, not for each pattern.
        self.patterns: dict[tuple[int, int], dict[tuple[str, str], dict[Read, Node[T]]]] = {}
        self.parameters: dict[Read, Node[T]] = {}
        self.rest: Node[T] | None = None  # after a parameter that takes the rest of the path

    def child(self, part: Part) -> Node[T]:
        """The node after `part`, made if there is none yet."""
        if isinstance(part, str):
            return self.literals.setdefault(part, Node())
        if takes_rest(part):
            self.rest = self.rest or Node()
            return self.rest
        edges = self._edges(part.prefix, part.suffix)
        node = edges.setdefault(CONVERTERS[part.converter].read, Node())
        _sort(edges, _RANK.__getitem__)
        return node

    def _edges(self, prefix: str, suffix: str) -> dict[Read, Node[T]]:
        if not prefix and not suffix:
            return self.parameters
        patterns = self.patterns.setdefault((len(prefix), len(suffix)), {})
        _sort(self.patterns, lambda lengths: -sum(lengths))
        return patterns.setdefault((prefix, suffix), {})

    def rivals(self, part: Part) -> Iterator[Mapping[str, _Entry[T]]]:
        """The entries after patterns that are neither more nor less specific than `part`."""
        if isinstance(part, str):
            return
        for before, after in self.patterns:
            if (before - len(part.prefix)) * (after - len(part.suffix)) < 0:
                for node in self._after_patterns(before, after):
                    yield from node.below()

    def below(self) -> Iterator[Mapping[str, _Entry[T]]]:
        """The entries of this node and of all nodes after it."""
        yield self.entries
        for node in self._children():
            yield from node.below()

    def _children(self) -> Iterator[Node[T]]:
        yield from self.literals.values()
        for before, after in self.patterns:
            yield from self._after_patterns(before, after)
        yield from self.parameters.values()
        if self.rest is not None:
            yield self.rest

    def _after_patterns(self, before: int, after: int) -> Iterator[Node[T]]:
        for edges in self.patterns[before, after].values():
            yield from edges.values()

    def find(self, search: _Search[T], depth: int) -> _Entry[T] | None:
        """The best entry for the segments from `depth` on; without one, `values` is unchanged."""
        if depth == len(search.segments):
            return search.choose(self.entries)
        segment = search.segments[depth]
        node = self.literals.get(segment)
        if node is not None and (entry := node.find(search, depth + 1)) is not None:
            return entry
        if self.patterns and (entry := self._find_pattern(search, segment, depth)) is not None:
            return entry
        if self.parameters and segment:
            entry = search.follow(self.parameters, segment, depth + 1)
            if entry is not None:
                return entry
        if self.rest is not None and (entry := search.choose(self.rest.entries)) is not None:
            search.values.append("/".join(search.segments[depth:]))
            return entry
        return None

    def _find_pattern(self, search: _Search[T], segment: str, depth: int) -> _Entry[T] | None:
        for (before, after), patterns in self.patterns.items():
            end = len(segment) - after
            edges = patterns.get((segment[:before], segment[end:])) if before < end else None
            if edges is not None:
                entry = search.follow(edges, segment[before:end], depth + 1)
                if entry is not None:
                    return entry
        return None


class Matcher(Generic[T]):
    """Finds the target that was added for a method and a path."""

    def __init__(self) -> None:
        self._root: Node[T] = Node()
        self._static: dict[str, dict[str, _Entry[T]]] = {}  # whole paths without parameters
        # Where one parameter may end a path that has none before it, by what is before it.
        self._last: dict[str, Node[T]] = {}

    def add(self, template: Template, methods: Iterable[str], target: T) -> None:
        """Adds a target; raises `RegistrationError`, and adds nothing, if that is ambiguous.

        Methods are compared as they are written: upper case is the caller's to see to.
        """
        methods = tuple(methods)
        entries = self._place(template, methods)
        entries.update(dict.fromkeys(methods, _Entry(template, target)))
        if not template.parameters:
            self._static[template.text] = entries
        elif isinstance(template.segments[-1], PathParameter) and len(template.parameters) == 1:
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
            entries = self._static.get(path)
            if entries is not None and method in entries:
                return entries[method].target, {}
            if (found := self.match_last(method, path)) is not None:
                return found
            segments = _segments_of_text(path)
        else:
            segments = _segments_of(raw_path)
        return self._walk(_Search(method, segments))

    def match_last(self, method: str, path: str) -> tuple[T, dict[str, Any]] | None:
        """What the tree holds for most paths, at a third of the cost; None where it may differ.

        Nothing is more specific than text all the way to the last segment.
        """
        cut = path.rfind("/") + 1
        node, last = self._last.get(path[:cut]), path[cut:]
        if node is None or node.patterns or last in node.literals:
            return None
        if not last or not last.isascii():
            return None
        for read, end in node.parameters.items():
            if (value := read(last)) is not None:
                entry = end.entries.get(method)
                return None if entry is None else (entry.target, {entry.names[0]: value})
        return None

    def _place(self, template: Template, methods: Sequence[str]) -> dict[str, _Entry[T]]:
        """The entries that the new one joins, once it is clear that no template rivals its own."""
        node = self._root
        rivals: list[Mapping[str, _Entry[T]]] = []
        for part in template.segments:
            rivals += node.rivals(part)
            node = node.child(part)
        for entries in (node.entries, *rivals):
            for method in entries.keys() & methods:
                if meet(template, entries[method].template):
                    _refuse_rival(method, entries[method].template, template)
        return node.entries

    def _walk(self, search: _Search[T]) -> tuple[T, dict[str, Any]]:
        # A path that doesn't begin with a slash has text here: "*", "http:" and the like.
        if search.segments[0]:
            raise HTTPException(404)
        entry = self._root.find(search, 1)
        if entry is None:
            raise _not_found(search.allowed)
        return entry.target, dict(zip(entry.names, search.values, strict=True))


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


def _not_found(allowed: set[str]) -> HTTPException:
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
