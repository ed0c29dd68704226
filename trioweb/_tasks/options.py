"""How a task is run: `@task`, `Retry`, and for which outcomes of its request.

Rules of this module:

* Options belong to the function: they hold wherever it is added, and calling it
  directly is as before.
* What is wrong with them is raised where they are written, with the right line; so
  is what would be passed over in silence.
* Time and randomness come from outside: seconds are Trio's clock's, and `Retry`
  takes its random numbers from whom it is told.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import random as random_number
from typing import Any, Literal, TypeVar, cast, overload

import msgspec
import trio

from .. import _callables
from .._errors import RegistrationError

F = TypeVar("F", bound=Callable[..., Any])

When = Literal["success", "sent", "error", "always"]
WHENS: tuple[When, ...] = ("success", "sent", "error", "always")


class TaskTimeout(trio.TooSlowError):
    """A task took longer than its `@task(timeout=…)`."""


_ATTRIBUTE = "__trioweb_task__"


def _by_keyword(init: F) -> F:
    """`Retry(3)` could be three attempts or three more: it has to say which."""

    @functools.wraps(init)
    def checked(retry: object, /, *positional: object, **options: object) -> None:
        for value in positional:
            raise RegistrationError(
                "Retry takes its options by name",
                wrong=f"Retry({value!r})",
                right=f"Retry(attempts={value!r})  # the first one counts",
            )
        init(retry, **options)

    return cast(F, checked)


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """How often a failing task is tried, and how long between.

    `attempts` counts the first one.  Before the second one passes `backoff`
    seconds, before each further one twice the time of the one before; up to the
    fraction `jitter` of it is added, so that what failed together isn't tried
    together again.  Only exceptions of the class, or the classes, in `on` are tried again.
    `random` gives numbers from 0 to 1.  Raises ValueError for numbers that make no
    sense, RegistrationError for what isn't a class.
    """

    attempts: int
    backoff: float
    jitter: float
    on: tuple[type[Exception], ...]
    random: Callable[[], float]

    @_by_keyword
    def __init__(
        self,
        *,
        attempts: int,
        backoff: float = 1.0,
        jitter: float = 0.1,
        on: type[Exception] | Iterable[type[Exception]] = (Exception,),
        random: Callable[[], float] = random_number,
    ) -> None:
        set_field = functools.partial(object.__setattr__, self)  # as a frozen dataclass does
        set_field("attempts", attempts)
        set_field("backoff", backoff)
        set_field("jitter", jitter)
        set_field("on", _checked_classes(on))
        set_field("random", random)
        if not isinstance(attempts, int) or attempts < 1:
            raise ValueError(f"Retry(attempts={attempts!r}): the first one counts, so 1 or more")
        if not (callable(random) and _callables.takes(random, 0)):
            raise RegistrationError(
                "Retry: random is a function that gives a number from 0 to 1",
                wrong=f"Retry(random={random!r})",
                right="Retry(attempts=3, random=random.random)",
            )
        for name, value in (("backoff", backoff), ("jitter", jitter)):
            if not (_is_number(value) and value >= 0):
                raise ValueError(f"Retry({name}={value!r}): a number, not negative")

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failed attempts."""
        doubled = min(failures - 1, 60)  # past that no number of seconds means anything
        return float(self.backoff * 2**doubled * (1 + self.jitter * self.random()))


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `@task` says of a function."""

    timeout: float | None = None
    retry: Retry | None = None
    when: When = "success"
    name: str | None = None


DEFAULTS = TaskOptions()


@overload
def task(func: F, /) -> F: ...


@overload
def task(
    *,
    timeout: float | None = None,
    retry: Retry | None = None,
    when: When = "success",
    name: str | None = None,
) -> Callable[[F], F]: ...


def task(
    func: Any = None,
    /,
    *,
    timeout: float | None = None,
    retry: Retry | None = None,
    when: When = "success",
    name: str | None = None,
) -> Any:
    """Say how a function is run whenever it is added to a task list.

    `timeout`: seconds for each attempt, past which it is cancelled and counted as
    timed out; one that returns all the same is done.  `retry`: what happens after
    a failure.  `when`: for which outcomes of the request it runs: `"success"` (the
    handler returned), `"sent"` (and the whole response was delivered), `"error"`
    (handler or response failed) or `"always"`.  `name`: for the log.  Raises
    RegistrationError.
    """
    options = TaskOptions(timeout=timeout, retry=retry, when=when, name=name)

    def mark(func: F) -> F:
        _check(func, options)
        setattr(func, _ATTRIBUTE, options)
        return func

    if func is not None and not callable(func):
        _refuse_positional(func)
    return mark if func is None else mark(func)


def options_of(own: Callable[..., Any]) -> TaskOptions:
    """What `@task` said of a function, the target of a task's."""
    options: TaskOptions = getattr(own, _ATTRIBUTE, DEFAULTS)
    return options


def _check(func: Callable[..., Any], options: TaskOptions) -> None:
    name = _callables.name(func)
    _refuse_what_keeps_no_options(func, name)
    if options.when not in WHENS:
        raise RegistrationError(
            f"{name}: {options.when!r} isn't an outcome",
            wrong=f"@task(when={options.when!r})",
            right=f"@task(when=...) with one of {', '.join(map(repr, WHENS))}",
        )
    if options.retry is not None and not isinstance(options.retry, Retry):
        raise RegistrationError(
            f"{name}: retry is a Retry",
            wrong=f"@task(retry={options.retry!r})",
            right="@task(retry=Retry(attempts=3))",
        )
    if options.name is not None and not isinstance(options.name, str):
        raise RegistrationError(
            f"{name}: its name for the log is a text",
            wrong=f"@task(name={options.name!r})",
            right=f'@task(name="{name}")',
        )
    if options.timeout is not None:
        _check_timeout(func, name, options.timeout)


def _check_timeout(func: Callable[..., Any], name: str, timeout: Any) -> None:
    if not _callables.is_async(func):
        raise RegistrationError(
            f"{name} runs in a thread, which no timeout can end",
            wrong=f"@task(timeout={timeout!r}) on def {name}",
            right=f"@task(timeout={timeout!r}) on async def {name}",
        )
    if not (_is_number(timeout) and timeout > 0):
        raise RegistrationError(
            f"{name}: a timeout is a number of seconds",
            wrong=f"@task(timeout={timeout!r})",
            right="@task(timeout=30.0)",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _checked_classes(on: Any) -> tuple[type[Exception], ...]:
    classes = tuple(on) if isinstance(on, Iterable) else (on,)
    for kind in classes:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise RegistrationError(
                f"Retry: {kind!r} isn't a class of exceptions that a task can fail with",
                wrong=f"Retry(on={on!r})",
                right="Retry(attempts=3, on=(OSError,))",
            )
    return classes


def _refuse_positional(given: object) -> None:
    option = "retry" if isinstance(given, Retry) else "timeout" if _is_number(given) else "name"
    raise RegistrationError(
        "task takes its options by name",
        wrong=f"@task({given!r})",
        right=f"@task({option}={given!r})",
    )


def _refuse_what_keeps_no_options(func: Any, name: str) -> None:
    """Refuse what a task list would look through, to a function without these options."""
    if isinstance(func, (staticmethod, classmethod)):
        kind = type(func).__name__
        raise RegistrationError(
            f"{name}: its options would be passed over",
            wrong=f"@task(...) above @{kind}",
            right=f"@{kind} above @task(...)",
        )
    if _callables.target(func) is not func or inspect.ismethod(func) or inspect.isbuiltin(func):
        raise RegistrationError(
            f"{name}: options belong to a function",
            wrong=f"task(...)({func!r})",
            right="@task(...) above a def or async def of your own",
        )
