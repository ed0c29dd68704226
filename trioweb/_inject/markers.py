"""Depends: what an author writes where a parameter's value is another function's.

Rules of this module:

* It is a function that returns Any for the type checker's sake, so that
  `user: User = Depends(get_user)` is as good as `Annotated[User, Depends(get_user)]`.
* What is wrong with it is said where it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import _callables
from .._concurrency.exits import LASTS, DependencyScope
from .._errors import RegistrationError


@dataclass(frozen=True, slots=True)
class Dependency:
    dependency: Callable[..., Any] | None
    use_cache: bool
    scope: DependencyScope

    def __repr__(self) -> str:
        return f"Depends({shown(self.dependency)})"


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
            f"{scope!r} isn't a scope of a dependency",
            wrong=f"Depends(..., scope={scope!r})",
            right=f"Depends(..., scope=...) with one of {', '.join(map(repr, LASTS))}",
        )
    return Dependency(dependency, use_cache, scope)


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
