"""Plans: what a handler needs, compiled; one call of a plan makes a response.

Rules of this module:

* A plan is a list of calls: the dependencies, each once and after those that it
  needs, then the handler.
* Valid input pays nothing for the collecting of problems: only after a first
  one are a call's parameters gone through one by one.  A dependency whose input
  is invalid isn't called, nor is what depends on it; the others are, as in
  FastAPI, so that a 401 comes before a 422.
* The body is read just before the first call that needs it: a dependency that
  refuses the request does so before anybody has to upload.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from trio.lowlevel import disable_ki_protection

from .._concurrency.exits import RequestExits
from .._errors import HTTPException, Invalid, Problem, RequestValidationError
from .._http.exchange import Exchange
from .._http.response import Respond, Response
from .._shapes.json import raw_body_members
from .calls import Run
from .sources import BODY, Extract, Values, other_type


class Parameter(msgspec.Struct):
    """One argument of a call: where its value comes from, and its place in a problem."""

    name: str
    extract: Extract
    place: list[str | int] = []
    may_be_left_out: bool = False
    annotation: Any = None
    # Whether it is what the matcher found, under its own name.
    is_as_matched: bool = False


class Input(msgspec.Struct, frozen=True):
    """One value that a call takes out of a request.

    `alias` is its name there; that of a whole body is empty.
    """

    name: str
    source: str
    alias: str
    annotation: Any


class Call(msgspec.Struct, frozen=True):
    """One dependency, or the handler."""

    key: object
    parameters: list[Parameter]
    needs: tuple[object, ...]
    lasts: float  # the rank of a generator's scope; no other call holds anything open
    reads_body: bool
    run: Run
    # An `async def`, which is awaited as it is: `run` would be a call more.
    func: Callable[..., Awaitable[Any]] | None

    def problems(self, exchange: Exchange, values: Values) -> list[Problem]:
        """All that is wrong with its input, each with its place from the outside in."""
        found: list[Problem] = []
        for parameter in self.parameters:
            try:
                parameter.extract(exchange, values)
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


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every call of a plan.

    `inline`: it leaves nothing open and runs in no thread.  `waits`: it can take time, but for
    reading the body.  `shares_body`: several parameters each take a member of it.  `timeout` is in
    seconds.  `stops_with_client`: whether a stream ends when its client closes its sending side.
    """

    inline: bool
    needs_nursery: bool
    waits: bool
    reads_body: bool
    takes_tasks: bool
    shares_body: bool
    cancel_on_disconnect: bool
    respond: Respond
    stops_with_client: bool
    status_code: int
    timeout: float | None


class Plan:
    """What a handler needs, compiled; calling it answers a request.

    Raises RequestValidationError with all problems, and what the handler and
    its dependencies raise.
    """

    def __init__(self, calls: Sequence[Call], traits: Traits) -> None:
        self.inline = traits.inline
        self.needs_nursery = traits.needs_nursery
        self.waits = traits.waits
        self.reads_body = traits.reads_body
        self.takes_tasks = traits.takes_tasks
        self.cancel_on_disconnect = traits.cancel_on_disconnect
        self.stops_with_client = traits.stops_with_client
        self.timeout = traits.timeout
        self._shares_body = traits.shares_body
        self._respond = traits.respond
        self._status_code = traits.status_code
        self._calls = calls
        self._handler = calls[-1]

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
    async def __call__(self, exchange: Exchange, exits: RequestExits) -> Response:
        values: Values = {}
        failed: set[object] = set()
        problems: list[Problem] = []
        for call in self._calls:
            if call.reads_body and BODY not in values:
                values[BODY] = await self._read_body(exchange, problems)
            try:
                arguments = {}
                for p in call.parameters:  # a comprehension is a call of its own
                    arguments[p.name] = p.extract(exchange, values)
            except Invalid:
                problems += call.problems(exchange, values)
                failed.add(call.key)
                continue
            if failed and (call is self._handler or failed.intersection(call.needs)):
                failed.add(call.key)
                continue
            try:
                func = call.func
                values[call.key] = await (
                    call.run(arguments, exits) if func is None else func(**arguments)
                )
            except Invalid as exc:  # of a class that checks its arguments itself
                problems += call.problems_of_result(exc.problems)
                failed.add(call.key)
        if problems:
            raise RequestValidationError(problems)
        return self._respond(values[self._handler.key], self._status_code, exchange)

    async def _read_body(self, exchange: Exchange, problems: list[Problem]) -> Any:
        """The body, or its members where several share it; None if there are none to share."""
        said = other_type(exchange.scope["headers"])
        # Nobody can mean JSON and say something else; but no body at all is of no type.
        if said is not None and await _has_body(exchange):
            raise HTTPException(
                415, f"The body must be JSON: send Content-Type: application/json, not {said}"
            )
        data = exchange.known_body
        if data is None:
            data = await exchange.body()
        if not self._shares_body:
            return data
        try:
            return raw_body_members(data) if data else {}
        except Invalid as exc:
            problems += _placed(["body"], exc.problems)
            return None


async def _has_body(exchange: Exchange) -> bool:
    """Whether there is a body at all, of which no more than its beginning is read, and lost."""
    if exchange.headers.get("content-length", "0").strip("0"):
        return True
    if exchange.known_body is None and not exchange.has_body_at_once():
        async for _ in exchange.stream():
            return True
        exchange.known_body = b""
    return bool(exchange.known_body)


class HandlerPlan(Plan):
    """As most are: the plan of a handler that needs nothing but what the request's head says.

    `takes_match`: its parameters are what the matcher found, all of it and nothing else.
    """

    def __init__(self, calls: Sequence[Call], traits: Traits, *, takes_match: bool) -> None:
        super().__init__(calls, traits)
        self._takes_match = takes_match

    @disable_ki_protection
    async def __call__(self, exchange: Exchange, exits: RequestExits) -> Response:
        handler = self._handler
        if self._takes_match:
            arguments = exchange.path_params
        else:
            values: Values = {}
            try:
                arguments = {}
                for p in handler.parameters:
                    arguments[p.name] = p.extract(exchange, values)
            except Invalid:
                raise RequestValidationError(handler.problems(exchange, values)) from None
        func = handler.func
        result = await (handler.run(arguments, exits) if func is None else func(**arguments))
        return self._respond(result, self._status_code, exchange)


def make_plan(calls: Sequence[Call], traits: Traits, path_names: set[str]) -> Plan:
    """The plan for these calls, the handler last, on a template with these names."""
    if len(calls) > 1 or traits.reads_body:
        return Plan(calls, traits)
    parameters = calls[0].parameters
    is_all_of_it = {parameter.name for parameter in parameters} == path_names
    takes_match = is_all_of_it and all(parameter.is_as_matched for parameter in parameters)
    return HandlerPlan(calls, traits, takes_match=takes_match)
