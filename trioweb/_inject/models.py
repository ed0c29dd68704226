"""Parameter models: a class whose members are fields of the query, header fields or cookies.

Rules of this module:

* What a client may set of a class, and by which names, is what `_shapes.members` says.
* All that is wrong is found at once, each problem with the name that a client sends as its place.
* A pydantic model judges its texts itself, as it does in FastAPI; of other classes each member is
  read as a parameter of its own would be, and the class' constructor called.
* One that has a default, or may be None, is made once a client sends one of its names.
* A class that refuses what it doesn't know refuses names that no parameter of the route takes,
  but for the header fields that clients and proxies send with any request.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from .. import _callables
from .._errors import Invalid, Problem, RegistrationError
from .._http.exchange import Exchange
from .._limits import MAX_PROBLEMS
from .._shapes.annotations import is_optional, shape_of
from .._shapes.codecs import REFUSALS
from .._shapes.members import Member, Members, members_of
from .._shapes.models import checks_itself, model_problems
from .._shapes.problems import EXTRA, MISSING, make_problem, placed_within
from .markers import Dependency
from .sources import (
    REQUIRED,
    SOURCES,
    Extract,
    Read,
    Source,
    Texts,
    Values,
    Wanted,
    decoder_of_texts,
    default_of,
)

# The names that a route's parameters take, by their source: complete when all are compiled.
Taken = dict[str, set[str]]


class _Field(msgspec.Struct, frozen=True):
    """A member, what takes its texts by each of its names, and their decoder.

    `sent` is what the client calls it by each of its names: of `x_token` it is `x-token`.
    """

    member: Member
    sent: Mapping[str, str]
    reads: Mapping[str, Read]
    decode: Callable[[list[str]], Any]

    def texts(self, exchange: Exchange) -> list[str]:
        return next(filter(None, (read(exchange) for read in self.reads.values())), [])


def extract_model(wanted: Wanted, texts: Texts, members: Members, taken: Taken) -> Extract:
    """What makes an instance of a class with these members out of `texts`.

    Raises RegistrationError.  Adds the members' names to those that are `taken`.
    """
    _refuse_alias(wanted)
    fields = []
    for member in members.settable:
        decode = _decoder(wanted, members, member)
        there = SOURCES[wanted.source.kind].names_of(wanted.source, member.argument, member.names)
        sent = dict(zip(member.names, there, strict=True))
        reads = {name: texts.read(sent[name]) for name in sent}
        fields.append(_Field(member, sent, reads, decode))
        taken[wanted.source.kind].update(map(texts.key, there))
    find_unknown = _unknown(wanted.source.kind, texts, taken)
    make = _checked if checks_itself(members.cls) else _constructed
    build = make(members, fields, texts, find_unknown)
    if wanted.source.default is REQUIRED and not is_optional(wanted.annotation):
        return lambda exchange, values: build(exchange)
    make_default = default_of(wanted.source.default)

    def extract(exchange: Exchange, values: Values) -> Any:
        is_there = any(field.texts(exchange) for field in fields)
        if is_there or (members.refuses_unknown and find_unknown(exchange)):
            return build(exchange)
        return make_default()

    return extract


Build = Callable[[Exchange], Any]
FindUnknown = Callable[[Exchange], list[str]]


def _constructed(
    members: Members, fields: Sequence[_Field], texts: Texts, find_unknown: FindUnknown
) -> Build:
    """For a class whose members are read one by one."""

    def build(exchange: Exchange) -> Any:
        arguments: dict[str, Any] = {}
        problems: list[Problem] = []
        for field in fields:
            place = field.sent[field.member.names[0]]
            found = field.texts(exchange)
            try:
                if found:
                    arguments[field.member.argument] = field.decode(found)
                elif field.member.required:
                    problems.append(make_problem([place], *MISSING))
            except Invalid as exc:
                problems += [placed_within([place], problem) for problem in exc.problems]
        if members.refuses_unknown:
            problems += [make_problem([name], *EXTRA) for name in find_unknown(exchange)]
        if problems:
            raise Invalid(problems)
        try:
            return members.cls(**arguments)
        except REFUSALS as exc:
            raise Invalid([make_problem([], str(exc), "value_error")]) from None

    return build


def _checked(
    members: Members, fields: Sequence[_Field], texts: Texts, find_unknown: FindUnknown
) -> Build:
    """For a pydantic model, which judges texts itself."""
    sent = {name: field.sent[name] for field in fields for name in field.sent}
    known = set(map(texts.key, sent.values()))

    def build(exchange: Exchange) -> Any:
        given: dict[str, Any] = {}
        for field in fields:
            for name, read in field.reads.items():
                if found := read(exchange):
                    given[name] = field.decode(found)
        if members.refuses_unknown:
            others = find_unknown(exchange)
        else:
            others = list(texts.names(exchange)) if members.keeps_unknown else []
        for name in others:
            if name not in known:
                found = texts.read(name)(exchange)
                given[name] = found if len(found) > 1 else found[0]
        try:
            return members.cls.model_validate(given)
        except ValueError as exc:
            raise Invalid([_as_sent(sent, each) for each in model_problems(exc)]) from None

    return build


def _as_sent(sent: Mapping[str, str], problem: Problem) -> Problem:
    first = [sent.get(str(name), name) for name in problem["loc"][:1]]
    return {**problem, "loc": [*first, *problem["loc"][1:]]}


def _unknown(kind: str, texts: Texts, taken: Taken) -> FindUnknown:
    """What finds the names that no parameter of the route takes."""

    def find_unknown(exchange: Exchange) -> list[str]:
        known = taken[kind]
        names = (name for name in texts.names(exchange) if name not in known)
        return [name for name in names if not texts.comes_anyway(name)][:MAX_PROBLEMS]

    return find_unknown


def refuse_unknown(kind: str, texts: Texts, taken: Taken, value: Any) -> Extract:
    """What refuses names that no parameter of the route takes, and otherwise gives `value`."""
    find_unknown = _unknown(kind, texts, taken)

    def extract(exchange: Exchange, values: Values) -> Any:
        unknown = find_unknown(exchange)
        if unknown:
            raise Invalid([make_problem([kind, name], *EXTRA) for name in unknown])
        return value

    return extract


# How a member is read


def _decoder(wanted: Wanted, members: Members, member: Member) -> Callable[[list[str]], Any]:
    annotation, codecs = member.annotation, wanted.codecs
    _refuse_marker(members, member)
    is_checked = checks_itself(members.cls)
    if is_checked:
        is_text = _is_text_of_model(annotation)
    else:
        is_text = shape_of(annotation, codecs) != "body"
    if not member.names or not is_text:
        raise RegistrationError(
            f"{members.cls.__name__}: {member.argument!r} is neither a text nor a list of texts,"
            f" as a {wanted.source.kind} gives them",
            wrong=f"{member.argument}: {inspect.formatannotation(annotation)}",
            right=f"{member.argument}: str, or list[str], or another type that texts are read as",
        )
    if not is_checked:
        return decoder_of_texts(annotation, None, codecs)
    if _takes_several(annotation):
        return lambda texts: texts
    return lambda texts: texts[-1]


def _bare(annotation: Any) -> Iterator[Any]:
    """The members of a union, without what `Annotated` says of them."""
    if get_origin(annotation) is Annotated:
        yield from _bare(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _bare(member)
    else:
        yield get_origin(annotation) or annotation


def _is_text_of_model(annotation: Any) -> bool:
    return not any(
        members_of(kind) or (isinstance(kind, type) and issubclass(kind, Mapping))
        for kind in _bare(annotation)
    )


def _takes_several(annotation: Any) -> bool:
    return any(
        isinstance(kind, type)
        and issubclass(kind, Collection)
        and not issubclass(kind, (str, bytes))
        for kind in _bare(annotation)
    )


def _refuse_marker(members: Members, member: Member) -> None:
    for marker in getattr(member.annotation, "__metadata__", ()):
        if isinstance(marker, (Source, Dependency)):
            raise RegistrationError(
                f"{members.cls.__name__}: {marker} of {member.argument!r} would be passed over",
                wrong=f"{member.argument}: {inspect.formatannotation(member.annotation)}",
                right=f"Annotated[{members.cls.__name__}, Depends()], whose members may be marked",
            )


def _refuse_alias(wanted: Wanted) -> None:
    if wanted.source.alias is not None:
        marker, name = wanted.source.kind.title(), wanted.parameter.name
        raise RegistrationError(
            f"{_callables.name(wanted.func)}: each member of {name!r} has a name of its own",
            wrong=f"{wanted.parameter}",
            right=f"{name}: Annotated[..., {marker}()], and aliases in its class",
        )
