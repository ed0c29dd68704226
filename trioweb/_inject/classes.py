"""Classes in `Depends()`: each of their members is a parameter.

Rules of this module:

* What a client may set of a class, and by which names, is what `_shapes.members` says, as it is of
  a body and of a parameter model.  A class that says nothing of its members is a function.
* A pydantic class gets its members under the names that it reads, and makes its own defaults.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from .. import _callables
from .._concurrency.exits import RequestExits
from .._errors import Invalid, Problem, RegistrationError
from .._shapes.members import Member, Members, lacks, members_of
from .._shapes.models import checks_itself
from .calls import Run
from .markers import Dependency
from .parameters import parameters_of
from .signature import marker_of
from .sources import SPECIAL, Source


class Needs(msgspec.Struct, frozen=True):
    """What a call needs from a request: its parameters, and a class' members, which they are.

    `by_names`: it is called by the names that its client uses.
    """

    parameters: list[inspect.Parameter]
    members: Members | None = None
    by_names: bool = False

    def names_of(self, argument: str) -> tuple[str, ...]:
        """The names that a client uses for a parameter; none where its own name will do."""
        settable = self.members.settable if self.members else ()
        return next((member.names for member in settable if member.argument == argument), ())


def needs_of(func: Callable[..., Any]) -> Needs:
    """What a function needs, or a class, be it behind a partial."""
    kind = _callables.behind_partials(func)
    if _is_called_by_names(kind):
        members = members_of(kind)
        if members is not None:
            free = _without_bound(func, members.settable)
            return Needs([_parameter_of_model(kind, each) for each in free], members, by_names=True)
    parameters = parameters_of(func)
    members = members_of(kind)
    if members is None:
        return Needs(parameters)
    given = [p for p in parameters if _is_given(func, members, p)]
    annotations = {member.argument: member.annotation for member in members.settable}
    return Needs([_annotated(p, annotations) for p in given], members)


def _without_bound(func: Any, settable: Iterable[Member]) -> list[Member]:
    """Those of a class that a partial around it has left open."""
    bound = _callables.bound_names(func)
    return [each for each in settable if bound.isdisjoint((each.argument, *each.names))]


def _is_called_by_names(func: Any) -> bool:
    """Whether it is a class of pydantic, whose signature doesn't show each alias.

    One with a constructor of its own is as any other class.
    """
    return checks_itself(func) and str(func.__init__.__module__).startswith("pydantic.")


class _MadeByClass:
    """The default of a member that its class makes, shown as dataclasses show theirs."""

    def __repr__(self) -> str:
        return "<factory>"


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


def _is_given(func: Any, members: Members, parameter: inspect.Parameter) -> bool:
    """Whether a member is given to the constructor: not if it is private, and nothing is said."""
    name = parameter.name
    if not members.is_withheld(name):
        return True
    annotation, marker = marker_of(func, parameter)
    if marker is not None or (isinstance(annotation, type) and annotation in SPECIAL):
        return True
    if name in members.lacking:
        raise lacks(members.cls, name)
    return False


def _annotated(parameter: inspect.Parameter, annotations: Mapping[str, Any]) -> inspect.Parameter:
    """A parameter with the annotation of its member, where the constructor shows none."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        annotation = annotations.get(parameter.name, annotation)
    elif isinstance(annotation, dataclasses.InitVar):
        annotation = annotation.type
    return parameter.replace(annotation=annotation)


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


def _as_argument(arguments_of: Mapping[str, str], problem: Problem) -> Problem:
    first = [arguments_of.get(str(name), name) for name in problem["loc"][:1]]
    return {**problem, "loc": [*first, *problem["loc"][1:]]}
