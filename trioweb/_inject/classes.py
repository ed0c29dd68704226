"""Classes in `Depends()`: each of their members is a parameter.

Rules of this module:

* What a client may set of a class, and by which names, is what `_shapes.members` says, as it is of
  a body and of a parameter model.  A class that says nothing of its members is a function.
* A pydantic class gets its members under the names that it reads, and makes its own defaults.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from .._concurrency.exits import RequestExits
from .._errors import Invalid, Problem, RegistrationError
from .._shapes.members import Member, Members, lacks, members_of
from .._shapes.models import checks_itself
from .calls import Run
from .markers import Dependency
from .signature import marker_of, parameters_of
from .sources import SPECIAL, Source


class _MadeByClass:
    """The default of a member that its class makes, shown as dataclasses show theirs."""

    def __repr__(self) -> str:
        return "<factory>"


def members_of_callable(func: Callable[..., Any]) -> Members | None:
    """The members of a class that is a dependency."""
    return members_of(func) if isinstance(func, type) else None


def reads_names(func: Callable[..., Any], members: Members | None) -> bool:
    """Whether it is called with the names that its client uses: a class of pydantic, whose
    signature doesn't show each alias.  One with a constructor of its own is as any other.
    """
    if members is None or not checks_itself(func):
        return False
    constructor: Any = func.__init__
    return str(constructor.__module__).startswith("pydantic.")


def members_as_parameters(
    func: Callable[..., Any], members: Members | None
) -> list[inspect.Parameter]:
    """The parameters of a function, or of a class with these members."""
    if members is None:
        return parameters_of(func)
    if reads_names(func, members):
        return [_parameter_of_model(func, member) for member in members.settable]
    return [_unwrapped(p) for p in parameters_of(func) if _is_given(func, members, p)]


def _parameter_of_model(model: Any, member: Member) -> inspect.Parameter:
    if not member.names:
        raise RegistrationError(
            f"{model.__name__}: {member.argument!r} is within something else, not a parameter",
            wrong=f"{member.argument}: ... = Field(validation_alias=AliasPath(...))",
            right=f"{member.argument}: ... = Field(alias=...)",
        )
    default = model.__pydantic_fields__[member.argument].default
    if not isinstance(default, (Source, Dependency)):
        default = inspect.Parameter.empty if member.required else _MadeByClass()
    return inspect.Parameter(
        member.argument,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=member.annotation,
    )


def _unwrapped(parameter: inspect.Parameter) -> inspect.Parameter:
    annotation = parameter.annotation
    is_init_var = isinstance(annotation, dataclasses.InitVar)
    return parameter.replace(annotation=annotation.type) if is_init_var else parameter


def _is_given(func: Any, members: Members, parameter: inspect.Parameter) -> bool:
    """Whether a member is given to the constructor: not if it is private, and nothing is said."""
    name = parameter.name
    if name not in members.hidden and name not in members.lacking:
        return True
    annotation, marker = marker_of(func, parameter)
    if marker is not None or (isinstance(annotation, type) and annotation in SPECIAL):
        return True
    if name in members.lacking:
        raise lacks(func, name)
    return False


def names_of(members: Members | None, argument: str) -> tuple[str, ...]:
    """The names that a client uses for a parameter; none where its own name will do."""
    for member in members.settable if members else ():
        if member.argument == argument:
            return member.names
    return ()


def with_names(run: Run, members: Members) -> Run:
    """`run`, which calls a class by the names that its client uses, from its own."""
    names = {member.argument: member.names[0] for member in members.settable}
    arguments_of = {name: argument for argument, name in names.items()}

    async def run_with_names(arguments: dict[str, Any], exits: RequestExits) -> Any:
        try:
            return await run({names[key]: value for key, value in arguments.items()}, exits)
        except Invalid as exc:
            raise Invalid([_as_argument(arguments_of, each) for each in exc.problems]) from None

    return run_with_names


def _as_argument(arguments_of: dict[str, str], problem: Problem) -> Problem:
    first = [arguments_of.get(str(name), name) for name in problem["loc"][:1]]
    return {**problem, "loc": [*first, *problem["loc"][1:]]}
