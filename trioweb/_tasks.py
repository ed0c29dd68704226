"""How a task is run: `@task`, `Retry`, and for which outcomes of its request.

Rules of this module:

* Options belong to the function: they hold wherever it is added, and calling it
  directly is as before.
* Time and randomness come from outside: seconds are Trio's clock's, and `Retry`
  takes its random numbers from whom it is told.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

import trio

from . import _callables
from ._errors import RegistrationError

F = TypeVar("F", bound=Callable[..., Any])

When = Literal["success", "sent", "error", "always"]
WHENS: tuple[When, ...] = ("success", "sent", "error", "always")


class TaskTimeout(trio.TooSlowError):
    """A task took longer than its `@task(timeout=…)`."""


_ATTRIBUTE = "__trioweb_task__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a failing task is tried, and how long between.

    `attempts` counts the first one.  Before the second one passes `backoff`
    seconds, before each further one twice the time of the one before; up to the
    fraction `jitter` of it is added, so that what failed together isn't tried
    together again.  Only exceptions of the classes in `on` are tried again.
    `random` gives numbers from 0 to 1.
    """

    attempts: int
    backoff: float = 1.0
    jitter: float = 0.1
    on: tuple[type[Exception], ...] = (Exception,)
    random: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise ValueError(
                f"Retry(attempts={self.attempts!r}): the first one counts, so 1 or more"
            )
        if self.backoff < 0 or self.jitter < 0:
            raise ValueError(f"{self!r}: backoff and jitter are not negative")

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failed attempts."""
        return float(self.backoff * 2 ** (failures - 1) * (1 + self.jitter * self.random()))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
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
    timed out.  `retry`: what happens after a failure.  `when`: for which outcomes
    of the request it runs: `"success"` (the handler returned), `"sent"` (and the
    whole response was delivered), `"error"` (handler or response failed) or
    `"always"`.  `name`: for the log.  Raises RegistrationError.
    """
    options = TaskOptions(timeout=timeout, retry=retry, when=when, name=name)

    def mark(func: F) -> F:
        _check(func, options)
        setattr(func, _ATTRIBUTE, options)
        return func

    return mark if func is None else mark(func)


def options_of(func: Callable[..., Any]) -> TaskOptions:
    options: TaskOptions = getattr(_callables.target(func), _ATTRIBUTE, DEFAULTS)
    return options


def _check(func: Callable[..., Any], options: TaskOptions) -> None:
    name = _callables.name(func)
    if options.when not in WHENS:
        raise RegistrationError(
            f"{name}: {options.when!r} is no outcome",
            wrong=f"@task(when={options.when!r})",
            right=f"@task(when=...) with one of {', '.join(map(repr, WHENS))}",
        )
    if options.timeout is not None and not _callables.is_async(func):
        raise RegistrationError(
            f"{name} runs in a thread, which no timeout can end",
            wrong=f"@task(timeout={options.timeout!r}) on def {name}",
            right=f"@task(timeout={options.timeout!r}) on async def {name}",
        )
    if options.timeout is not None and not options.timeout > 0:
        raise RegistrationError(
            f"{name}: a timeout is a number of seconds",
            wrong=f"@task(timeout={options.timeout!r})",
            right="@task(timeout=30.0)",
        )
