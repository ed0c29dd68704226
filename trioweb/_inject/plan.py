"""Injection: a function's signature becomes a plan, the plan one call.

Rules of this module:

* Everything is compiled once, at registration.  What can't be is refused then,
  with the wrong line and the right line side by side.
* A plan is a list of calls: the dependencies, each once and after those that it
  needs, then the handler.  A generator that closes later is entered earlier, so
  that they nest; else the order is as written.
* Every parameter has one closure that takes its value out of the request;
  nothing asks for each request what kind of parameter it is.
* Valid input pays nothing for the collecting of problems: only after a first
  one are a call's parameters gone through one by one.  A dependency whose input
  is invalid isn't called, nor is what depends on it; the others are, as in
  FastAPI, so that a 401 comes before a 422.
* The body is read just before the first call that needs it: a dependency that
  refuses the request does so before anybody has to upload.
* No request changes what the next one gets: a mutable default is copied.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import trio
from trio.lowlevel import disable_ki_protection

from .. import _callables
from .._concurrency.exits import LASTS, DependencyScope, Steps
from .._errors import HTTPException, Invalid, Problem, RegistrationError, RequestValidationError
from .._http.request import Request
from .._http.response import JSONResponse, Response
from .._shapes import annotations as _shapes
from .._shapes.json import body_decoder, raw_body_members
from .._shapes.models import checks_itself
from .._shapes.text import text_decoder, texts_decoder
from .._tasks.runner import BackgroundTasks
from .calls import Run, gives_generator, run_dependency, run_plain
from .markers import REQUIRED, Dependency, Source, checked_dependencies
from .signature import (
    marker_of,
    parameters_of,
    refuse_class_as_text,
    refuse_depends_on_nothing,
    refuse_unmarked,
)

Handler = Callable[..., Any]
Values = dict[object, Any]  # of the dependencies by their key, of the body by BODY
Extract = Callable[[Request, Values], Any]
Read = Callable[[Request], list[str]]

BODY = "body"


class _Parameter(msgspec.Struct):
    """One argument of a call: where its value comes from, and its place in a problem."""

    name: str
    extract: Extract
    place: list[str | int] = []
    may_be_left_out: bool = False
    annotation: Any = None


class Input(msgspec.Struct, frozen=True):
    """One value that a call takes out of a request.

    `alias` is its name there; that of a whole body is empty.
    """

    name: str
    source: str
    alias: str
    annotation: Any


class _BodyParameter(msgspec.Struct, frozen=True):
    """A parameter that waits until it is known how many share the body."""

    parameter: _Parameter
    decode: Callable[[bytes], Any]
    source: Source
    alias: str


class _Call(msgspec.Struct, frozen=True):
    """One dependency, or the handler."""

    key: object
    parameters: list[_Parameter]
    needs: tuple[object, ...]
    lasts: float  # the rank of a generator's scope; no other call holds anything open
    reads_body: bool
    run: Run

    def problems(self, request: Request, values: Values) -> list[Problem]:
        """All that is wrong with its input, each with its place from the outside in."""
        found: list[Problem] = []
        for parameter in self.parameters:
            try:
                parameter.extract(request, values)
            except Invalid as exc:
                found += _placed(parameter.place, exc.problems)
        return found

    def problems_of_result(self, problems: Sequence[Problem]) -> list[Problem]:
        """What a class found wrong with its arguments, each at the place its argument is from."""
        places = {parameter.name: parameter.place for parameter in self.parameters}
        found: list[Problem] = []
        for problem in problems:
            name, *rest = problem["loc"] or [""]
            place = places.get(str(name), problem["loc"][:1])
            found += _placed(place, [{**problem, "loc": rest}])
        return found


def _placed(place: Sequence[str | int], problems: Sequence[Problem]) -> list[Problem]:
    return [{**problem, "loc": [*place, *problem["loc"]]} for problem in problems]


class Plan:
    """What a handler needs, compiled; calling it answers a request.

    Raises RequestValidationError with all problems, and what the handler and
    its dependencies raise.
    """

    def __init__(
        self,
        calls: Sequence[_Call],
        *,
        inline: bool,
        needs_nursery: bool,
        waits: bool,
        reads_body: bool,
        takes_tasks: bool,
        cancel_on_disconnect: bool,
        embeds_body: bool,
        status_code: int,
        timeout: float | None,
    ) -> None:
        self.inline = inline
        self.needs_nursery = needs_nursery
        self.waits = waits
        self.reads_body = reads_body
        self.takes_tasks = takes_tasks
        self.cancel_on_disconnect = cancel_on_disconnect
        self._calls = calls
        self._handler = calls[-1]
        # As most are: a handler that needs nothing but what the request's head says.
        self._is_alone = len(calls) == 1 and not reads_body
        self._embeds_body = embeds_body
        self._status_code = status_code
        self.timeout = timeout

    @property
    def inputs(self) -> list[Input]:
        """What the handler and its dependencies take, in the order in which they are called."""
        parameters = [parameter for call in self._calls for parameter in call.parameters]
        return [
            Input(p.name, str(p.place[0]), "".join(map(str, p.place[1:])), p.annotation)
            for p in parameters
            if p.place
        ]

    @disable_ki_protection
    async def __call__(self, request: Request, steps: Steps) -> Response:
        values: Values = {}
        if self._is_alone:
            handler = self._handler
            try:
                arguments = {}
                for p in handler.parameters:  # a comprehension is a call of its own
                    arguments[p.name] = p.extract(request, values)
            except Invalid:
                raise RequestValidationError(handler.problems(request, values)) from None
            return self._as_response(await handler.run(arguments, steps), request)
        failed: set[object] = set()
        problems: list[Problem] = []
        for call in self._calls:
            if call.reads_body and BODY not in values:
                values[BODY] = await self._read_body(request, problems)
            try:
                arguments = {p.name: p.extract(request, values) for p in call.parameters}
            except Invalid:
                problems += call.problems(request, values)
                failed.add(call.key)
                continue
            if failed and (call is self._handler or failed.intersection(call.needs)):
                failed.add(call.key)
                continue
            try:
                values[call.key] = await call.run(arguments, steps)
            except Invalid as exc:  # of a class that checks its arguments itself
                problems += call.problems_of_result(exc.problems)
                failed.add(call.key)
        if problems:
            raise RequestValidationError(problems)
        return self._as_response(values[self._handler.key], request)

    def _as_response(self, result: Any, request: Request) -> Response:
        if isinstance(result, Response):
            result.hand_over_tasks(request)
            return result
        if result is None and self._status_code in (204, 304):
            return Response(None, self._status_code)
        return JSONResponse(result, self._status_code)

    async def _read_body(self, request: Request, problems: list[Problem]) -> Any:
        """The body, or its members where several share it; None if there are none to share."""
        _check_is_json(request)
        data = await request.body()
        if not self._embeds_body:
            return data
        try:
            return raw_body_members(data) if data else {}
        except Invalid as exc:
            problems += _placed(["body"], exc.problems)
            return None


def _check_is_json(request: Request) -> None:
    """Nobody can mean JSON and say something else; saying nothing is taken for JSON."""
    fields = request.headers.getlist("content-type")
    media_type = fields[0].partition(";")[0].strip().lower() if fields else ""
    if media_type and media_type != "application/json" and not media_type.endswith("+json"):
        raise HTTPException(
            415, f"The body must be JSON: send Content-Type: application/json, not {media_type}"
        )


def compile_plan(
    handler: Handler,
    converters: Mapping[str, type[Any]],
    *,
    dependencies: Sequence[Any] = (),
    status_code: int = 200,
    timeout: float | None = None,
    cancel_on_disconnect: bool = False,
) -> Plan:
    """The plan for a handler on a template with these parameters (name to type).

    `dependencies` are called before the handler, and their values dropped;
    `timeout` is in seconds.  `cancel_on_disconnect`: whether it ends with its
    client's stay; a `def` doesn't, as its thread would go on with what was closed.
    Raises RegistrationError.
    """
    _refuse_generator(handler)
    if timeout is not None:
        _refuse_timeout_of_thread(handler)
    compiler = _Compiler(converters)
    for depends in checked_dependencies(dependencies):
        compiler.add_dependency(depends, None, _callables.name(handler), "function")
    compiler.add_call("handler", handler, run_plain(handler), "function")
    return compiler.plan(
        status_code=status_code,
        timeout=timeout,
        cancel_on_disconnect=cancel_on_disconnect and _callables.is_async(handler),
    )


class _Compiler:
    """Goes through a handler and all that it depends on, innermost first."""

    def __init__(self, converters: Mapping[str, type[Any]]) -> None:
        self._converters = converters
        self._calls: dict[object, _Call] = {}
        self._open: list[Callable[..., Any]] = []
        self._body: list[_BodyParameter] = []
        # The generator that closes first of those that a call's value may hold.
        self._closing: dict[object, tuple[DependencyScope, str]] = {}
        self._inline = True
        self._needs_nursery = False
        self._waits = False
        self._reads_body = False
        self._takes_tasks = False

    def plan(self, *, status_code: int, timeout: float | None, cancel_on_disconnect: bool) -> Plan:
        embeds = any(p.source.embed for p in self._body) or len({p.alias for p in self._body}) > 1
        for waiting in self._body:
            _finish_body_parameter(waiting, embeds)
        return Plan(
            _nested(self._calls),
            inline=self._inline and not self._needs_nursery,
            needs_nursery=self._needs_nursery,
            waits=self._waits,
            reads_body=self._reads_body,
            takes_tasks=self._takes_tasks,
            cancel_on_disconnect=cancel_on_disconnect and (self._waits or self._reads_body),
            embeds_body=embeds,
            status_code=status_code,
            timeout=timeout,
        )

    def add_call(
        self,
        key: object,
        func: Callable[..., Any],
        run: Run,
        scope: DependencyScope,
    ) -> None:
        """Add `func` behind all that it needs."""
        if func in self._open:
            raise RegistrationError(
                f"{_callables.name(func)} depends on itself",
                wrong=" -> ".join(_callables.name(f) for f in [*self._open, func]),
                right="take what both need out into a third dependency",
            )
        self._open.append(func)
        needs: list[object] = []
        parameters = [
            self._parameter(func, parameter, scope, needs) for parameter in parameters_of(func)
        ]
        self._open.pop()
        self._inline = self._inline and _callables.is_async(func)
        self._waits = self._waits or _callables.may_wait(func)
        reads_body = any(parameter.extract is _never for parameter in parameters)
        self._reads_body = self._reads_body or reads_body
        if any(parameter.may_be_left_out for parameter in parameters):
            run = _leaving_out(run)
        closing = [self._closing[need] for need in needs if need in self._closing]
        if closing:
            self._closing[key] = min(closing, key=lambda first: LASTS[first[0]])
        lasts = LASTS[scope] if gives_generator(func) else math.inf
        self._calls[key] = _Call(key, parameters, tuple(needs), lasts, reads_body, run)

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
        _refuse_context_manager(func)
        closes = depends.scope if gives_generator(func) else None
        key: object = (_identity(func), closes) if depends.use_cache else object()
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
    ) -> _Parameter:
        annotation, marker = marker_of(func, parameter)
        name = parameter.name
        if isinstance(marker, Dependency):
            refuse_depends_on_nothing(func, parameter, annotation, marker)
            key = self.add_dependency(marker, annotation, _callables.name(func), scope)
            needs.append(key)
            return _Parameter(name, lambda request, values: values.get(key))
        if marker is None and isinstance(annotation, type) and annotation in _SPECIAL:
            self._needs_nursery = self._needs_nursery or annotation is trio.Nursery
            self._takes_tasks = self._takes_tasks or annotation is BackgroundTasks
            return _Parameter(name, _SPECIAL[annotation])
        if marker is None:
            refuse_unmarked(func, parameter, annotation)
        try:
            return self._input(func, parameter, annotation, marker)
        except RegistrationError as exc:
            exc.add_note(f"    where:  {_callables.name(func)}({parameter})")
            exc.add_note("    or:     Annotated[..., Depends(...)], where a dependency is meant")
            raise

    def _input(
        self,
        func: Callable[..., Any],
        parameter: inspect.Parameter,
        annotation: Any,
        marker: Source | None,
    ) -> _Parameter:
        # What a class that checks its arguments says of them isn't ours to refuse.
        if not checks_itself(func):
            _shapes.refuse_ignored(annotation)
        source = marker or Source(self._kind(parameter.name, annotation))
        if source.default is REQUIRED and not isinstance(parameter.default, Source):
            source = dataclasses.replace(source, default=_own_default(parameter))
        alias = source.alias or parameter.name
        if source.kind == "header" and source.convert_underscores and source.alias is None:
            alias = alias.replace("_", "-")
        if source.kind == "body":
            waiting = _Parameter(parameter.name, _never, annotation=annotation)
            decode = body_decoder(annotation, source.meta)
            waiting.may_be_left_out = source.default is _LeftOut
            self._body.append(_BodyParameter(waiting, decode, source, alias))
            return waiting
        if source.kind == "path":
            extract = self._path_extract(func, parameter, annotation, source, alias)
        else:
            refuse_class_as_text(func, parameter, annotation, source)
            extract = _text_extract(annotation, source, alias)
        place: list[str | int] = [source.kind, alias]
        may_be_left_out = source.default is _LeftOut
        return _Parameter(parameter.name, extract, place, may_be_left_out, annotation)

    def _kind(self, name: str, annotation: Any) -> Literal["path", "query", "body"]:
        if name in self._converters:
            return "path"
        return "body" if _shapes.kind(annotation) == "body" else "query"

    def _path_extract(
        self,
        func: Callable[..., Any],
        parameter: inspect.Parameter,
        annotation: Any,
        source: Source,
        alias: str,
    ) -> Extract:
        if alias not in self._converters:
            raise RegistrationError(
                f"{_callables.name(func)} takes {alias!r} from the path, whose template lacks it",
                wrong=f"{parameter} with the template's {sorted(self._converters) or 'no names'}",
                right=f"a template with {{{alias}}} in it",
            )
        if _shapes.kind(annotation) != "text":
            raise RegistrationError(
                f"{_callables.name(func)}: a path parameter is one value",
                wrong=f"{parameter}",
                right=f"{alias}: str",
            )
        converted = self._converters[alias]
        is_annotated = parameter.annotation is not parameter.empty
        if (annotation is converted or not is_annotated) and source.meta is None:
            return lambda request, values: request.path_params[alias]
        decode = text_decoder(annotation, source.meta)
        return lambda request, values: decode(str(request.path_params[alias]))


def _nested(calls: Mapping[object, _Call]) -> list[_Call]:
    """The calls in an order in which they can be made, and left in reverse."""
    order: dict[object, _Call] = {}

    def place(call: _Call) -> None:
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


def _text_extract(annotation: Any, source: Source, alias: str) -> Extract:
    """For a parameter that is one text, or each of several, of a query, header or cookie."""
    read = _READERS[source.kind](alias)
    default = _default(source.default)
    decode: Callable[[Any], Any]
    if _shapes.kind(annotation) == "texts":
        decode = texts_decoder(annotation, source.meta)
    else:
        decode_one = text_decoder(annotation, source.meta)
        # Of a repeated field, the one that `request.headers` and `request.query_params` give.
        index = 0 if source.kind == "header" else -1
        decode = lambda texts: decode_one(texts[index])  # noqa: E731

    def extract(request: Request, values: Values) -> Any:
        texts = read(request)
        return decode(texts) if texts else default()

    return extract


def _default(default: Any) -> Callable[[], Any]:
    """What stands in for a value that isn't there; the same each time, whoever changed it."""
    if default is REQUIRED:
        return _missing
    if copy.deepcopy(default) is default:  # as it is for what can't be changed
        return lambda: default
    return lambda: copy.deepcopy(default)


def _missing() -> Any:
    raise Invalid([{"loc": [], "msg": "Field required", "type": "missing"}])


def _finish_body_parameter(waiting: _BodyParameter, embeds: bool) -> None:
    decode, alias = waiting.decode, waiting.alias
    default = _default(waiting.source.default)

    def extract_whole(request: Request, values: Values) -> Any:
        data = values[BODY]
        return decode(data) if data else default()

    def extract_member(request: Request, values: Values) -> Any:
        members = values[BODY]
        if members is None:
            raise Invalid([])  # why there are none is among the problems already
        raw = members.get(alias)
        return default() if raw is None else decode(bytes(raw))

    waiting.parameter.extract = extract_member if embeds else extract_whole
    waiting.parameter.place = ["body", alias] if embeds else ["body"]


def _never(request: Request, values: Values) -> Any:
    """In the place of what reads a part of the body, until `_finish_body_parameter`."""


_SPECIAL: dict[type, Extract] = {
    Request: lambda request, values: request,
    BackgroundTasks: lambda request, values: request.tasks,
    trio.Nursery: lambda request, values: request._nursery,
}


def _read_query(alias: str) -> Read:
    return lambda request: request.query_params.getlist(alias)


def _read_header(alias: str) -> Read:
    return lambda request: request.headers.getlist(alias)


def _read_cookie(alias: str) -> Read:
    def read(request: Request) -> list[str]:
        value = request.cookies.get(alias)
        return [] if value is None else [value]

    return read


_READERS = {"query": _read_query, "header": _read_header, "cookie": _read_cookie}


class _LeftOut:
    """The default of what a class makes anew each time: the argument is left out."""


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


def _identity(func: Callable[..., Any]) -> object:
    """What makes two mentions of a dependency the same one."""
    try:
        hash(func)
    except TypeError:
        return id(func)
    return func


def _refuse_generator(handler: Handler) -> None:
    # Of its own: one that wraps a generator may be what makes a response of it.
    if _callables.is_generator(handler):
        name = _callables.name(handler)
        raise RegistrationError(
            f"{name} yields, but a handler returns its response",
            wrong=f"yield ... in {name}",
            right=f"return StreamingResponse(...) with a generator inside {name}",
        )


def _refuse_context_manager(func: Callable[..., Any]) -> None:
    """Refuse what `@asynccontextmanager` made: it would give the manager, not what is yielded."""
    target = _callables.target(func)
    made = getattr(target, "__globals__", None) is vars(contextlib)
    if made and gives_generator(inspect.unwrap(target)):
        name = _callables.name(func)
        is_async = _callables.is_async_generator(inspect.unwrap(target))
        decorator, keyword = (
            ("asynccontextmanager", "async def") if is_async else ("contextmanager", "def")
        )
        raise RegistrationError(
            f"{name} would give its context manager, not what it yields",
            wrong=f"@{decorator} above {keyword} {name}",
            right=f"{keyword} {name} without the decorator, in Depends({name})",
        )


def _refuse_timeout_of_thread(handler: Handler) -> None:
    if not _callables.is_async(handler):
        name = _callables.name(handler)
        raise RegistrationError(
            f"{name} runs in a thread, which no timeout can end",
            wrong=f"timeout=… on def {name}",
            right=f"timeout=… on async def {name}",
        )
