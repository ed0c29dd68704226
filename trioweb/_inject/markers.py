"""What an author writes in a signature: Path, Query, Header, Cookie, Body, Depends.

Rules of this module:

* They are functions that return Any for the type checker's sake, so that
  `limit: int = Query(10)` is as good as `Annotated[int, Query()]`.
* What is wrong with one is said where it is written.
* No default is `...` in their signatures, as in FastAPI, so that `help()` shows that
  it may be left out; inside it is `REQUIRED`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack, cast

import msgspec

from .. import _callables
from .._concurrency.exits import LASTS, DependencyScope
from .._errors import RegistrationError

REQUIRED: Any = inspect.Parameter.empty


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
class Dependency:
    dependency: Callable[..., Any] | None
    use_cache: bool
    scope: DependencyScope

    def __repr__(self) -> str:
        return f"Depends({shown(self.dependency)})"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a parameter's value comes from, as its author wrote it."""

    kind: Literal["path", "query", "header", "cookie", "body"]
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
    is required.
    """
    return Source("query", _given(default), alias, _meta("Query", constraints))


def Header(
    default: Any = ...,
    *,
    alias: str | None = None,
    convert_underscores: bool = True,
    **constraints: Unpack[Constraints],
) -> Any:
    """A header field; `user_agent` is `user-agent`.  Constraints as for `Query`."""
    return Source(
        "header", _given(default), alias, _meta("Header", constraints), convert_underscores
    )


def Cookie(
    default: Any = ..., *, alias: str | None = None, **constraints: Unpack[Constraints]
) -> Any:
    """A cookie.  Constraints as for `Query`."""
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


def Depends(
    dependency: Callable[..., Any] | None = None,
    *,
    use_cache: bool = True,
    scope: DependencyScope = "request",
) -> Any:
    """The value that `dependency` returns or yields; by default that of the annotated class.

    It takes parameters as a handler does.  Called once for a request, unless
    `use_cache` is False.  What stands after its `yield` runs, on the task that
    ran what stands before it, after the tasks (`scope="request"`), after the
    response (`"response"`), or before it (`"function"`).
    """
    if scope not in LASTS:
        raise RegistrationError(
            f"{scope!r} is no scope of a dependency",
            wrong=f"Depends(..., scope={scope!r})",
            right=f"Depends(..., scope=...) with one of {', '.join(map(repr, LASTS))}",
        )
    return Dependency(dependency, use_cache, scope)


def _given(default: Any) -> Any:
    return REQUIRED if default is ... else default


def _meta(marker: str, constraints: Constraints) -> msgspec.Meta | None:
    try:
        # Its overloads can't say what the TypedDict does; it checks by itself.
        return msgspec.Meta(**cast(Any, constraints)) if constraints else None
    except (TypeError, ValueError) as exc:
        given = ", ".join(f"{name}={value!r}" for name, value in constraints.items())
        raise RegistrationError(
            f"{marker}: {exc}",
            wrong=f"{marker}({given})",
            right=f"{marker}(...) with some of {', '.join(Constraints.__annotations__)}",
        ) from None


def shown(thing: Any) -> str:
    """A part of a wrong line: a function by its name."""
    return _callables.name(thing) if callable(thing) else repr(thing)


def checked_dependencies(dependencies: Sequence[Any]) -> tuple[Any, ...]:
    """The `dependencies` of a route or router, if each is a `Depends(...)`."""
    given = (dependencies,) if not isinstance(dependencies, Sequence) else dependencies
    if given is not dependencies or not all(isinstance(d, Dependency) for d in given):
        written = ", ".join(map(shown, given))
        raise RegistrationError(
            "dependencies is a list of Depends(...)",
            wrong=f"dependencies={f'[{written}]' if given is dependencies else written}",
            right="dependencies=[Depends(check_token)]",
        )
    return tuple(given)
