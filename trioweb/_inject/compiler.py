"""The compiler: a function's signature becomes a plan.

Rules of this module:

* Everything is compiled once, at registration.  What can't be is refused then,
  with the wrong line and the right line side by side.
* A generator that closes later is entered earlier, so that they nest; else the order of calls is
  as written.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import trio

from .. import _callables
from .._concurrency.exits import LASTS, DependencyScope
from .._errors import RegistrationError, describe
from .._http.exchange import Exchange
from .._http.response import responder
from .._shapes.annotations import refuse_ignored, shape_of, without_none
from .._shapes.codecs import NO_CODECS, Codecs
from .._shapes.members import Members, settable_members
from .._shapes.models import checks_itself
from .._tasks.list import BackgroundTasks
from .calls import (
    Run,
    gives_generator,
    refuse_context_manager,
    refuse_generator,
    refuse_timeout_of_thread,
    run_dependency,
    run_handler,
)
from .classes import needs_of, with_names
from .markers import Dependency, checked_dependencies
from .models import Taken, extract_model, refuse_unknown
from .plan import Call, Parameter, Plan, Traits, make_plan
from .signature import (
    marker_of,
    named,
    refuse_class_as_text,
    refuse_depends_on_nothing,
    refuse_forgotten_annotation,
    refuse_unmarked,
    unusable,
)
from .sources import REQUIRED, SOURCES, SPECIAL, Source, Texts, Values, Wanted, is_as_converted

Handler = Callable[..., Any]


class _LeftOut:
    """The default of what a class makes anew each time: the argument is left out."""


class _Waiting(msgspec.Struct, frozen=True):
    """A parameter that waits until it is known how many share the body."""

    parameter: Parameter
    wanted: Wanted


def compile_plan(
    handler: Handler,
    path_types: Mapping[str, type[Any]],
    *,
    dependencies: Sequence[Any] = (),
    status_code: int = 200,
    timeout: float | None = None,
    cancel_on_disconnect: bool = False,
    codecs: Codecs = NO_CODECS,
) -> Plan:
    """The plan for a handler on a template with these parameters (name to type).

    `dependencies` are called before the handler, and their values dropped;
    `timeout` is in seconds.  `cancel_on_disconnect`: whether it ends with its
    client's stay; a `def` doesn't, as its thread would go on with what was closed.
    Raises RegistrationError.
    """
    name = _callables.name(handler)
    try:
        refuse_generator(handler)
        if timeout is not None:
            refuse_timeout_of_thread(handler)
        compiler = _Compiler(path_types, codecs)
        for depends in checked_dependencies(dependencies):
            compiler.add_dependency(depends, None, name, "function")
        compiler.add_call("handler", handler, None, "function")
        return compiler.plan(
            handler,
            status_code=status_code,
            timeout=timeout,
            cancel_on_disconnect=cancel_on_disconnect,
        )
    except RegistrationError:
        raise
    except Exception as exc:  # of an object that answers oddly to what is asked of a function
        raise RegistrationError(
            f"{name}: what it takes isn't known: {describe(exc)}",
            wrong=f"a {type(handler).__name__} as a handler, or as its dependency",
            right="a function with typed parameters",
        ) from exc


class _Compiler:
    """Goes through a handler and all that it depends on, innermost first."""

    def __init__(self, path_types: Mapping[str, type[Any]], codecs: Codecs) -> None:
        self._path_types = path_types
        self._codecs = codecs
        self._calls: dict[object, Call] = {}
        self._open: list[Callable[..., Any]] = []
        self._waiting: list[_Waiting] = []
        self._taken: Taken = defaultdict(set)
        # The generator that closes first of those that a call's value may hold.
        self._closing: dict[object, tuple[DependencyScope, str]] = {}
        self._inline = True
        self._needs_nursery = False
        self._waits = False
        self._takes_tasks = False

    def plan(
        self,
        handler: Handler,
        *,
        status_code: int,
        timeout: float | None,
        cancel_on_disconnect: bool,
    ) -> Plan:
        shares_body = self._finish_body()
        reads_body = bool(self._waiting)
        can_wait = _callables.is_async(handler) and (self._waits or reads_body)
        traits = Traits(
            inline=self._inline and not self._needs_nursery,
            needs_nursery=self._needs_nursery,
            waits=self._waits,
            reads_body=reads_body,
            takes_tasks=self._takes_tasks,
            shares_body=shares_body,
            cancel_on_disconnect=cancel_on_disconnect and can_wait,
            stops_with_client=cancel_on_disconnect,
            respond=responder(self._codecs),
            status_code=status_code,
            timeout=timeout,
        )
        return make_plan(_nested(self._calls), traits, set(self._path_types))

    def _finish_body(self) -> bool:
        """Finish the parameters that waited; whether they share the body."""
        wanted = [waiting.wanted for waiting in self._waiting]
        shares = any(w.source.embed for w in wanted) or len({w.alias for w in wanted}) > 1
        for waiting in self._waiting:
            kind, alias = waiting.wanted.source.kind, waiting.wanted.alias
            waiting.parameter.extract = SOURCES[kind].extract(waiting.wanted, shares)
            waiting.parameter.place = [kind, alias] if shares else [kind]
        return shares

    def add_call(
        self,
        key: object,
        func: Callable[..., Any],
        run: Run | None,
        scope: DependencyScope,
    ) -> None:
        """Add `func` behind all that it needs; `run` is None for the handler."""
        if func in self._open:
            raise RegistrationError(
                f"{_callables.name(func)} depends on itself",
                wrong=" -> ".join(_callables.name(f) for f in [*self._open, func]),
                right="take what both need out into a third dependency",
            )
        self._open.append(func)
        needs: list[object] = []
        own = needs_of(func)
        parameters = [
            self._parameter(func, parameter, scope, needs, own.names_of(parameter.name))
            for parameter in own.parameters
        ]
        if own.members is not None:
            parameters += self._checks_of_names(own.members, parameters)
        self._open.pop()
        if run is None:
            run = run_handler(func, is_alone=not self._calls)
        if own.members is not None and own.by_names:
            run = with_names(run, own.members)
        self._inline = self._inline and _callables.is_async(func)
        self._waits = self._waits or _callables.may_wait(func)
        is_direct = _callables.is_async(func) and not checks_itself(func)
        if any(parameter.may_be_left_out for parameter in parameters):
            run, is_direct = _leaving_out(run), False
        closing = [self._closing[need] for need in needs if need in self._closing]
        if closing:
            self._closing[key] = min(closing, key=lambda first: LASTS[first[0]])
        lasts = LASTS[scope] if gives_generator(func) else math.inf
        reads_body = any(parameter.extract is _of_the_body for parameter in parameters)
        direct = func if is_direct else None
        self._calls[key] = Call(key, parameters, tuple(needs), lasts, reads_body, run, direct)

    def add_dependency(
        self, depends: Dependency, annotation: Any, wanted_by: str, scope: DependencyScope
    ) -> object:
        """Add a dependency, once for all that share it; returns the key of its value."""
        func = annotation if depends.dependency is None else depends.dependency
        if not callable(func):
            raise RegistrationError(
                f"{wanted_by}: Depends() needs something to call",
                wrong=f"Depends({func!r})",
                right="Depends(get_session)  # the function, not its result",
            )
        refuse_context_manager(func)
        closes = depends.scope if gives_generator(func) else None
        key: object = (_callables.identity(func), closes) if depends.use_cache else object()
        if key not in self._calls:
            self.add_call(key, func, run_dependency(func, depends.scope), closes or "function")
            if closes is not None:
                self._closing[key] = closes, _callables.name(func)
        self._refuse_shorter_scope(key, wanted_by, scope)
        return key

    def _refuse_shorter_scope(self, key: object, wanted_by: str, scope: DependencyScope) -> None:
        """A generator may only use what is open for as long as itself."""
        closes, name = self._closing.get(key, (scope, ""))
        if LASTS[closes] < LASTS[scope]:
            raise RegistrationError(
                f"{wanted_by} (scope={scope!r}) would outlive {name}, which it uses",
                wrong=f'Depends({name}, scope="{closes}")',
                right=f'Depends({name}, scope="{scope}")',
            )

    def _parameter(
        self,
        func: Callable[..., Any],
        parameter: inspect.Parameter,
        scope: DependencyScope,
        needs: list[object],
        names: tuple[str, ...],
    ) -> Parameter:
        try:
            return self._found(func, parameter, scope, needs, names)
        except RegistrationError:
            raise
        except Exception as exc:  # of an annotation or default that others wrote
            raise named(unusable(parameter, exc), func, parameter) from exc

    def _found(
        self,
        func: Callable[..., Any],
        parameter: inspect.Parameter,
        scope: DependencyScope,
        needs: list[object],
        names: tuple[str, ...],
    ) -> Parameter:
        annotation, marker = marker_of(func, parameter)
        name = parameter.name
        if isinstance(marker, Dependency):
            refuse_depends_on_nothing(func, parameter, annotation, marker)
            key = self.add_dependency(marker, annotation, _callables.name(func), scope)
            needs.append(key)
            return Parameter(name, lambda exchange, values: values.get(key))
        if marker is None and isinstance(annotation, type) and annotation in SPECIAL:
            self._needs_nursery = self._needs_nursery or annotation is trio.Nursery
            self._takes_tasks = self._takes_tasks or annotation is BackgroundTasks
            return Parameter(name, SPECIAL[annotation])
        if marker is None:
            if name not in self._path_types:
                refuse_forgotten_annotation(func, parameter)
            refuse_unmarked(func, parameter, annotation)
        try:
            return self._input(func, parameter, annotation, marker, names)
        except RegistrationError as exc:
            raise named(exc, func, parameter) from None

    def _input(
        self,
        func: Callable[..., Any],
        parameter: inspect.Parameter,
        annotation: Any,
        marker: Source | None,
        names: tuple[str, ...],
    ) -> Parameter:
        """A parameter whose value is in the request, under the first of `names` that is there."""
        # What a class that checks its arguments says of them isn't ours to refuse.
        if not checks_itself(_callables.behind_partials(func)):
            refuse_ignored(annotation)
        source = marker or Source(self._kind(names or (parameter.name,), annotation))
        if source.default is REQUIRED and not isinstance(parameter.default, Source):
            source = dataclasses.replace(source, default=_own_default(parameter))
        kind = SOURCES[source.kind]
        names = kind.names_of(source, parameter.name, names)
        wanted = Wanted(func, parameter, annotation, source, names, self._path_types, self._codecs)
        found = Parameter(
            parameter.name,
            _of_the_body,
            [source.kind, wanted.alias],
            may_be_left_out=source.default is _LeftOut,
            annotation=annotation,
        )
        if kind.is_body:
            # Refused now, if it is to be; made when it is known how many share the body.
            kind.extract(wanted, False)
            self._waiting.append(_Waiting(found, wanted))
        elif kind.texts is not None:
            self._take_texts(found, wanted, kind.texts)
        else:
            found.extract = kind.extract(wanted, False)
            found.is_as_matched = wanted.alias == parameter.name and is_as_converted(wanted)
        return found

    def _take_texts(self, found: Parameter, wanted: Wanted, texts: Texts) -> None:
        """Finish a parameter that is read from texts, or whose members are."""
        source = wanted.source
        members = settable_members(without_none(wanted.annotation))
        if members is not None:
            found.extract = extract_model(wanted, texts, members, self._taken)
            found.place = [source.kind]
            return
        refuse_class_as_text(wanted.func, wanted.parameter, wanted.annotation, source, self._codecs)
        self._taken[source.kind].update(map(texts.key, wanted.names))
        found.extract = SOURCES[source.kind].extract(wanted, False)

    def _checks_of_names(
        self, members: Members, parameters: Sequence[Parameter]
    ) -> list[Parameter]:
        """What a class that refuses unknown names checks, of each source that it takes."""
        if not members.refuses_unknown:
            return []
        kinds = {str(parameter.place[0]): None for parameter in parameters if parameter.place}
        return [
            Parameter(
                f"others of the {kind}",
                refuse_unknown(kind, texts, self._taken, _LeftOut),
                may_be_left_out=True,
            )
            for kind in kinds
            if (texts := SOURCES[kind].texts) is not None
        ]

    def _kind(self, names: Sequence[str], annotation: Any) -> str:
        """The source of what its author has given none."""
        if not self._path_types.keys().isdisjoint(names):
            return "path"
        return "body" if shape_of(annotation) == "body" else "query"


def _of_the_body(exchange: Exchange, values: Values) -> Any:
    """In the place of what reads a part of the body, until `_finish_body`."""


def _nested(calls: Mapping[object, Call]) -> list[Call]:
    """The calls in an order in which they can be made, and left in reverse."""
    order: dict[object, Call] = {}

    def place(call: Call) -> None:
        if call.key not in order:
            for before in calls.values():
                if call.lasts < before.lasts < math.inf:
                    place(before)
            for need in call.needs:
                place(calls[need])
            order[call.key] = call

    for call in calls.values():
        place(call)
    return list(order.values())


def _own_default(parameter: inspect.Parameter) -> Any:
    # So dataclasses, msgspec and pydantic show a default_factory; the dataclass alone
    # would know its mark if it were passed, and only the very same object.
    return _LeftOut if repr(parameter.default) == "<factory>" else parameter.default


def _leaving_out(
    run: Run,
) -> Run:
    return lambda arguments, steps: run(
        {name: value for name, value in arguments.items() if value is not _LeftOut}, steps
    )
