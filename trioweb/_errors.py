"""Every exception of trioweb, and the only place where exception groups are taken apart.

Rules of this module:

* An exception's base says whose fault it is.  `RegistrationError`: the author
  of the application, found before the first request.  `CommandError`: whoever
  typed a command.  `HTTPException`: whoever the handler says.
  `RequestValidationError`, `ClientDisconnect`: the peer.
* `trio.Cancelled` and `KeyboardInterrupt` are never an error of a request or a
  task: whoever catches widely asks `is_failure` first and lets the rest pass.
* A group is never flattened silently.  `select` takes one exception out of it
  and hands back what remains, and its caller logs what remains.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypedDict, cast

import trio
from trio.lowlevel import current_task, in_trio_task

from ._fields import as_text, checked_field

logger = logging.getLogger("trioweb")


class Problem(TypedDict):
    """One thing that is wrong with a request's input, in FastAPI's shape.

    `loc` is the place from the outside in, such as `["body", "items", 3, "price"]`;
    `msg` is for people; `type` is a word for programs, such as `"missing"`.
    """

    loc: list[str | int]
    msg: str
    type: str


class RegistrationError(TypeError):
    """A route, handler or dependency can't be registered as it is written.

    The text shows the wrong line and, below it, the right one.
    """

    def __init__(self, problem: str, *, wrong: str, right: str) -> None:
        super().__init__(f"{problem}\n    wrong:  {wrong}\n    right:  {right}")
        self.problem: str = problem
        self.wrong: str = wrong
        self.right: str = right


class CommandError(Exception):
    """A command can't be carried out as it was typed, or as the environment completes it.

    The text is for whoever typed it; where there is a right line, it is shown below
    the wrong one.
    """

    def __init__(self, problem: str, *, wrong: str = "", right: str = "") -> None:
        lines = f"\n    wrong:  {wrong}\n    right:  {right}" if right else ""
        super().__init__(problem + lines)


class HTTPException(Exception):
    """Ends the handler; becomes a response with this status and `{"detail": detail}`.

    `detail` is anything that can be encoded as JSON; without one it is the
    status' standard phrase.  `headers` are added to the response.  Raises TypeError or
    ValueError for what no response can have.
    """

    def __init__(
        self, status_code: int, detail: Any = None, headers: Mapping[str, str | int] | None = None
    ) -> None:
        if not isinstance(status_code, int):
            raise TypeError(
                "HTTPException takes the status first, a number:"
                f" HTTPException(404, {status_code!r}), not HTTPException({status_code!r})"
            )
        if not 200 <= status_code <= 599:
            raise ValueError(f"{status_code!r} isn't the status of a response: 200 to 599")
        super().__init__(status_code, detail)
        self.status_code = status_code
        self.detail: Any = phrase(status_code) if detail is None else detail
        self.headers: dict[str, str] = _checked_headers(headers) if headers else {}

    def __str__(self) -> str:
        return f"{self.status_code}: {self.detail}"


class RequestValidationError(Exception):
    """The request's input doesn't fit the handler's signature; becomes a 422.

    `errors()` gives all the problems at once, each with its place.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self._problems = list(problems)

    def errors(self) -> list[Problem]:
        return self._problems

    def __str__(self) -> str:
        return "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in self._problems)


class ClientDisconnect(Exception):
    """The client left: before its request's body was complete, or within a streamed response."""


class Invalid(Exception):
    """A value doesn't fit its annotation.  `problems` have places relative to the value.

    Internal: the injection catches it, puts `"query"`, `"body"`, … and the
    parameter's name in front of each place, and raises `RequestValidationError`.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def _checked_headers(headers: Mapping[str, str | int]) -> dict[str, str]:
    for name, value in (checked := dict(headers)).items():
        checked_field(name, value)
        checked[name] = as_text(name, value)
    return cast(dict[str, str], checked)


def phrase(status_code: int) -> str:
    """The standard phrase of a status, `"Unknown"` for one without."""
    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return "Unknown"


def is_failure(exc: BaseException) -> bool:
    """Whether `exc` is a failure of user code, to be reported and survived.

    `SystemExit` is, and so is whatever else a library thought out: a handler or
    task mustn't end the server.  Cancellation, Ctrl-C and the closing of a
    coroutine are not, nor a group that holds one of them.
    """
    if isinstance(exc, BaseExceptionGroup):
        return all(is_failure(leaf) for leaf in leaves(exc))
    return not isinstance(exc, (trio.Cancelled, KeyboardInterrupt, GeneratorExit))


def split_failures(
    exc: BaseException,
) -> tuple[BaseException | None, BaseException | None]:
    """What of `exc` is to be reported, and what must go on (cancellation, Ctrl-C)."""
    if is_failure(exc):
        return exc, None
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(lambda leaf: not isinstance(leaf, BaseExceptionGroup) and is_failure(leaf))
    return None, exc


def strays_as_failure(
    exc: BaseException,
    task: trio.lowlevel.Task | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> BaseException:
    """`exc`; what only looks like a cancellation, or a coroutine's closing, as a failure.

    A `Cancelled` that somebody kept and raises again, while nothing is cancelled
    here, would end whatever it meets on its way out.  So would a GeneratorExit, which
    is only told from a real one if `task`, which runs the caller, is known.
    `is_cancelled`: whether the caller is, where that isn't what the current task is: a cancel
    scope may have been left open.
    """
    _, rest = split_failures(exc)
    strays = (trio.Cancelled,) if task is None else (trio.Cancelled, GeneratorExit)
    if rest is None or not is_only(rest, strays):
        return exc
    if task is not None and not (in_trio_task() and current_task() is task):
        return exc  # the coroutine is being closed
    is_cancelled = is_cancelled or is_cancelled_now
    if any(isinstance(leaf, trio.Cancelled) for leaf in leaves(rest)) and is_cancelled():
        return exc
    failure = RuntimeError(f"{describe(rest)}: raised where nothing is cancelled or closed")
    failure.__cause__ = exc
    return failure


def is_cancelled_now() -> bool:
    """Whether the current task's next checkpoint raises Cancelled."""
    return trio.current_effective_deadline() == -math.inf


def raise_rest(exc: BaseException, report: Callable[[BaseException], None]) -> None:
    """Report what of `exc` is a failure; raise what isn't."""
    failure, rest = split_failures(exc)
    if failure is not None:
        report(failure)
    if rest is not None:
        raise rest


def log_bug(failure: BaseException) -> None:
    """For what only a fault of ours can raise."""
    logger.critical("a bug in trioweb, please report it", exc_info=failure)


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions at the ends of a tree of groups, in order; `exc` itself if it is none."""
    waiting = [exc]  # no recursion: a group may be nested deeper than that goes
    while waiting:
        member = waiting.pop()
        if isinstance(member, BaseExceptionGroup):
            waiting += reversed(member.exceptions)
        else:
            yield member


def describe(exc: BaseException) -> str:
    """Its text in one line, even where its own `__str__` fails."""
    return " ".join(traceback.format_exception_only(exc)[-1].split())


def is_only(exc: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether all that `exc` stands for, a group's every leaf, is of these classes."""
    return all(isinstance(leaf, kinds) for leaf in leaves(exc))


def select(
    exc: BaseException, has_handler: Callable[[BaseException], bool]
) -> tuple[BaseException, BaseException | None]:
    """The exception to answer for, and the rest of its group, which is to be logged.

    A group that holds exactly one exception with a handler stands for that one;
    a group of one, unless groups have a handler, for its only member; any other
    is answered for as a whole.  `has_handler` doesn't count a handler of everything.
    """
    members = list(leaves(exc))
    handled = [leaf for leaf in members if has_handler(leaf)]
    if len(handled) == 1:
        [chosen] = handled
        return chosen, _without(exc, chosen)
    if len(members) == 1 and not has_handler(exc):
        return members[0], None
    return exc, None


def _without(exc: BaseException, leaf: BaseException) -> BaseException | None:
    if not isinstance(exc, BaseExceptionGroup):
        return None
    _, rest = exc.split(lambda member: member is leaf)
    return rest


def raise_but_generator_exit(group: BaseExceptionGroup[BaseException]) -> None:
    """Raise what of `group` isn't just a generator being closed: in a nursery that comes so."""
    _, rest = group.split(GeneratorExit)
    if rest is not None:
        raise rest
