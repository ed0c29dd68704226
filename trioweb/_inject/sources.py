"""Sources: where values of parameters come from, what an author writes for it, how it is read.

Rules of this module:

* A source is a function that an author writes (`Query()`) and a row of the table `SOURCES`; nobody
  else knows one source from another.
* The functions return Any for the type checker's sake, so that
  `limit: int = Query(10)` is as good as `Annotated[int, Query()]`.
* What is wrong with one is said where it is written.
* No default is `...` in their signatures, as in FastAPI, so that `help()` shows that
  it may be left out; inside it is `REQUIRED`.
* A row makes a closure at registration that takes the value out of an exchange; nothing asks for
  each request what kind of parameter it is.
* No request changes what the next one gets: a mutable default is copied.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack, cast

import msgspec
import trio

from .. import _callables
from .._asgi import RawFields
from .._errors import Invalid, RegistrationError, describe
from .._http.exchange import Exchange
from .._http.headers import is_sent_with_any
from .._http.request import Request, request_of
from .._instead import right_line
from .._shapes.annotations import is_optional, shape_of
from .._shapes.codecs import Codecs
from .._shapes.json import body_decoder
from .._shapes.text import text_decoder, texts_decoder
from .._tasks.list import BackgroundTasks

REQUIRED: Any = inspect.Parameter.empty

Values = dict[object, Any]  # of the dependencies by their key, of the body by BODY
Extract = Callable[[Exchange, Values], Any]
Read = Callable[[Exchange], list[str]]

BODY = "body"


# What an author writes


class Constraints(TypedDict, total=False):
    """What a value has to keep to, as in `msgspec.Meta`; the last three are for readers."""

    gt: float
    ge: float
    lt: float
    le: float
    multiple_of: float
    pattern: str
    min_length: int
    max_length: int
    title: str
    description: str
    examples: list[Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a parameter's value comes from, as its author wrote it."""

    kind: str
    default: Any = REQUIRED
    alias: str | None = None
    meta: msgspec.Meta | None = None
    convert_underscores: bool = True
    embed: bool = False

    def __repr__(self) -> str:
        """As much of what its author wrote as tells it from others."""
        default = "" if self.default is REQUIRED else repr(self.default)
        alias = "" if self.alias is None else f"alias={self.alias!r}"
        return f"{self.kind.title()}({', '.join(filter(None, (default, alias)))})"


def Path(
    default: Any = ..., *, alias: str | None = None, **constraints: Unpack[Constraints]
) -> Any:
    """The value of a name in the path template.  Constraints as for `Query`.

    It has no default: `...` says so, as in FastAPI, and may be left out.
    """
    if _given(default) is not REQUIRED:
        raise RegistrationError(
            "a path parameter is always there, so it has no default",
            wrong=f"Path({default!r})",
            right="Path()",
        )
    return Source("path", alias=alias, meta=_meta("Path", constraints))


def Query(
    default: Any = ..., *, alias: str | None = None, **constraints: Unpack[Constraints]
) -> Any:
    """A field of the query string.

    Constraints are those of `msgspec.Meta`: `gt`, `ge`, `lt`, `le`,
    `multiple_of`, `pattern`, `min_length`, `max_length`; `title`, `description`
    and `examples` are for readers, and change nothing.  Without `default` the field
    is required.  Of a class, each member is a field.
    """
    return Source("query", _given(default), alias, _meta("Query", constraints))


def Header(
    default: Any = ...,
    *,
    alias: str | None = None,
    convert_underscores: bool = True,
    **constraints: Unpack[Constraints],
) -> Any:
    """A header field, or a class of them; `user_agent` is `user-agent`.

    Constraints as for `Query`.
    """
    return Source(
        "header", _given(default), alias, _meta("Header", constraints), convert_underscores
    )


def Cookie(
    default: Any = ..., *, alias: str | None = None, **constraints: Unpack[Constraints]
) -> Any:
    """A cookie, or a class of them.  Constraints as for `Query`."""
    return Source("cookie", _given(default), alias, _meta("Cookie", constraints))


def Body(
    default: Any = ...,
    *,
    alias: str | None = None,
    embed: bool = False,
    **constraints: Unpack[Constraints],
) -> Any:
    """The JSON body, or with `embed`, or beside other body parameters, one member of it."""
    return Source("body", _given(default), alias, _meta("Body", constraints), embed=embed)


# What signatures and messages call them.
MARKERS = (Path, Query, Header, Cookie, Body)


def _given(default: Any) -> Any:
    return REQUIRED if default is ... else default


def _meta(marker: str, constraints: Constraints) -> msgspec.Meta | None:
    try:
        # Its overloads can't say what the TypedDict does; it checks by itself.
        return msgspec.Meta(**cast(Any, constraints)) if constraints else None
    except (TypeError, ValueError, re.error) as exc:
        given = ", ".join(f"{name}={value!r}" for name, value in constraints.items())
        known = Constraints.__annotations__
        others = [name for name in constraints if name not in known]
        raise RegistrationError(
            f"{marker}: {f'there is no option {others[0]!r}' if others else exc}",
            wrong=f"{marker}({given})",
            right=right_line("marker", *others) or f"{marker}(...) with some of {', '.join(known)}",
        ) from None


# How each is read


class Wanted(msgspec.Struct, frozen=True):
    """A value that a parameter of `func` takes from a source, by the first of `names` there.

    `path_types` are those that the path template's converters give, by the names of its parameters.
    """

    func: Callable[..., Any]
    parameter: inspect.Parameter
    annotation: Any
    source: Source
    names: tuple[str, ...]
    path_types: Mapping[str, type[Any]]
    codecs: Codecs

    @property
    def alias(self) -> str:
        return self.names[0]


class Texts(msgspec.Struct, frozen=True):
    """What gives texts by their names.

    `read` makes what takes all texts of one name out of an exchange; `names` are those that are
    there; `name_of` is what a parameter's own name is there, `key` a name as it is among `names`.
    `comes_anyway`: whether a name is there whatever the route takes, so that none can mind it.
    """

    read: Callable[[str], Read]
    names: Callable[[Exchange], Iterable[str]]
    name_of: Callable[[Source, str], str] = lambda source, name: name
    key: Callable[[str], str] = str
    comes_anyway: Callable[[str], bool] = lambda name: False

    def reader(self, names: Sequence[str]) -> Read:
        """What takes the texts of the first of these names that is there."""
        reads = [self.read(name) for name in names]
        if len(reads) == 1:
            return reads[0]
        return lambda exchange: next(filter(None, (read(exchange) for read in reads)), [])


class SourceKind(msgspec.Struct, frozen=True):
    """A row of the table.

    `extract` makes what takes the value out of an exchange; of a source that `is_body`, whether its
    members are shared out is known only when all parameters are.  `texts`: what is there is one
    text, or several, so that nothing but these can be made of it.
    """

    extract: Callable[[Wanted, bool], Extract]
    texts: Texts | None = None
    is_body: bool = False

    def names_of(self, source: Source, own: str, names: Sequence[str]) -> tuple[str, ...]:
        """What a parameter is called there: by its alias, else by these names or its own."""
        if source.alias is not None:
            return (source.alias,)
        there = self.texts.name_of(source, own) if self.texts else own
        return tuple(there if name == own else name for name in names or (own,))


def _from_path(wanted: Wanted, is_shared: bool) -> Extract:
    alias, parameter = wanted.alias, wanted.parameter
    if alias not in wanted.path_types:
        raise RegistrationError(
            f"{_callables.name(wanted.func)} takes {alias!r} from the path,"
            " whose template lacks it",
            wrong=f"{parameter} where the template has {sorted(wanted.path_types) or 'no names'}",
            right=f"a template with {{{alias}}} in it",
        )
    if shape_of(wanted.annotation, wanted.codecs) != "text":
        raise RegistrationError(
            f"{_callables.name(wanted.func)}: a path parameter is one value",
            wrong=f"{parameter}",
            right=f"{alias}: str",
        )
    if is_as_converted(wanted):
        return lambda exchange, values: exchange.path_params[alias]
    decode = text_decoder(wanted.annotation, wanted.source.meta, wanted.codecs)
    return lambda exchange, values: decode(str(exchange.path_params[alias]))


def is_as_converted(wanted: Wanted) -> bool:
    """Whether the value is what the matcher has made of a path's segment, as it is."""
    if wanted.source.kind != "path" or wanted.source.meta is not None:
        return False
    is_annotated = wanted.parameter.annotation is not wanted.parameter.empty
    return not is_annotated or wanted.annotation is wanted.path_types[wanted.alias]


def _from_texts(texts: Texts) -> SourceKind:
    """For a source of texts, of which the last counts where one is wanted."""

    def make(wanted: Wanted, is_shared: bool) -> Extract:
        read = texts.reader(wanted.names)
        default = default_of(wanted.source.default)
        decode = decoder_of_texts(wanted.annotation, wanted.source.meta, wanted.codecs)

        def extract(exchange: Exchange, values: Values) -> Any:
            found = read(exchange)
            return decode(found) if found else default()

        return extract

    return SourceKind(make, texts)


def decoder_of_texts(
    annotation: Any, meta: msgspec.Meta | None, codecs: Codecs
) -> Callable[[list[str]], Any]:
    if shape_of(annotation, codecs) == "texts":
        return texts_decoder(annotation, meta, codecs)
    decode = text_decoder(annotation, meta, codecs)
    return lambda texts: decode(texts[-1])


def _query_field(alias: str) -> Read:
    return lambda exchange: exchange.query_params.getlist(alias)


def _header_field(alias: str) -> Read:
    return lambda exchange: exchange.headers.getlist(alias)


def _header_name(source: Source, name: str) -> str:
    return name.replace("_", "-") if source.convert_underscores else name


def _cookie(alias: str) -> Read:
    def read(exchange: Exchange) -> list[str]:
        value = exchange.cookies.get(alias)
        return [] if value is None else [value]

    return read


def _from_body(wanted: Wanted, is_shared: bool) -> Extract:
    decode = body_decoder(wanted.annotation, wanted.source.meta, wanted.codecs)
    default = default_of(wanted.source.default)
    alias = wanted.alias
    if wanted.source.default is REQUIRED and is_optional(wanted.annotation):
        default_of_whole: Callable[[], Any] = _null  # to send nothing says as much
    else:
        default_of_whole = default

    def extract_whole(exchange: Exchange, values: Values) -> Any:
        data = values[BODY]
        return decode(data) if data else default_of_whole()

    def extract_member(exchange: Exchange, values: Values) -> Any:
        members = values[BODY]
        if members is None:
            raise Invalid([])  # why there are none is among the problems already
        raw = members.get(alias)
        return default() if raw is None else decode(bytes(raw))

    return extract_member if is_shared else extract_whole


SOURCES: dict[str, SourceKind] = {
    "path": SourceKind(_from_path),
    "query": _from_texts(Texts(_query_field, lambda exchange: exchange.query_params)),
    "header": _from_texts(
        Texts(
            _header_field,
            lambda exchange: exchange.headers,
            name_of=_header_name,
            key=str.lower,
            comes_anyway=is_sent_with_any,
        )
    ),
    "cookie": _from_texts(Texts(_cookie, lambda exchange: exchange.cookies)),
    "body": SourceKind(_from_body, is_body=True),
}

# What is taken by its type alone.
SPECIAL: dict[type, Extract] = {
    Request: lambda exchange, values: request_of(exchange),
    BackgroundTasks: lambda exchange, values: exchange.tasks,
    trio.Nursery: lambda exchange, values: exchange.nursery,
}


def default_of(default: Any) -> Callable[[], Any]:
    """What stands in for a value that isn't there; the same each time, whoever changed it."""
    if default is REQUIRED:
        return _missing
    try:
        copied = copy.deepcopy(default)
    except Exception as exc:
        raise RegistrationError(
            f"a default is copied for each request, and this one can't be: {describe(exc)}",
            wrong=f"parameter: ... = {default!r}",
            right="parameter: ... = None, or Annotated[..., Depends(get_it)] for what requests"
            " share",
        ) from None
    if copied is default:  # as it is for what can't be changed
        return lambda: default
    return lambda: copy.deepcopy(default)


def _null() -> None:
    return None


def _missing() -> Any:
    raise Invalid([{"loc": [], "msg": "Field required", "type": "missing"}])


def other_type(fields: RawFields) -> str | None:
    """The media type that a body says it has, be it in a second field, if it isn't JSON.

    To say nothing is taken for it.
    """
    for name, value in fields:
        if name == b"content-type":
            media_type = value.partition(b";")[0].strip().lower()
            if media_type in (b"application/json", b"") or media_type.endswith(b"+json"):
                continue
            return media_type.decode("latin-1")
    return None
