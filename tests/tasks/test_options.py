"""What is wrong with `@task` and `Retry` is raised where they are written, with the right line."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from trioweb import RegistrationError, Retry, task


async def send() -> None: ...


class Mailer:
    async def send(self) -> None: ...

    async def __call__(self) -> None: ...


def refusal(call: Callable[[], object]) -> tuple[str, str, str]:
    """The text of the error: what the problem is, the wrong line and the right one."""
    with pytest.raises(RegistrationError) as raised:
        call()
    problem, wrong, right = str(raised.value).split("\n")
    assert wrong.startswith("    wrong:  ")
    assert right.startswith("    right:  ")
    return problem, wrong[12:], right[12:]


# @task


@pytest.mark.parametrize(
    ("option", "value", "problem", "right"),
    [
        ("retry", 3, "retry is a Retry", "@task(retry=Retry(attempts=3))"),
        ("timeout", "5", "a timeout is a number of seconds", "@task(timeout=30.0)"),
        ("timeout", True, "a timeout is a number of seconds", "@task(timeout=30.0)"),
        ("timeout", float("nan"), "a timeout is a number of seconds", "@task(timeout=30.0)"),
        ("name", 5, "its name for the log is a text", '@task(name="send")'),
        ("name", send, "its name for the log is a text", '@task(name="send")'),
    ],
)
def test_an_option_that_is_something_else(
    option: str, value: Any, problem: str, right: str
) -> None:
    assert refusal(lambda: task(**{option: value})(send)) == (
        f"send: {problem}",
        f"@task({option}={value!r})",
        right,
    )


@pytest.mark.parametrize(
    ("value", "option"), [(5, "timeout"), ("mail", "name"), (Retry(attempts=3), "retry")]
)
def test_an_option_without_its_name(value: Any, option: str) -> None:
    assert refusal(lambda: task(value)) == (
        "task takes its options by name",
        f"@task({value!r})",
        f"@task({option}={value!r})",
    )


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
def test_a_method_is_marked_below_what_makes_it_static(kind: Any) -> None:
    problem, wrong, right = refusal(lambda: task(name="mail")(kind(send)))
    assert problem == "send: its options would be passed over"
    assert wrong == f"@task(...) above @{kind.__name__}"
    assert right == f"@{kind.__name__} above @task(...)"


@pytest.mark.parametrize("func", [partial(send), Mailer(), Mailer().send, print])
def test_what_is_no_function_of_its_own_keeps_no_options(func: Any) -> None:
    problem, wrong, right = refusal(lambda: task(name="mail")(func))
    assert problem.endswith(": options belong to a function")
    assert wrong == f"task(...)({func!r})"
    assert right == "@task(...) above a def or async def of your own"


# Retry


def test_a_retry_takes_its_options_by_name() -> None:
    retry: Any = Retry
    assert refusal(lambda: retry(3)) == (
        "Retry takes its options by name",
        "Retry(3)",
        "Retry(attempts=3)  # the first one counts",
    )
    with pytest.raises(TypeError, match="attempts"):
        retry()


def test_its_signature_is_shown_as_it_is() -> None:
    attempts, *others = inspect.signature(Retry).parameters.values()
    assert attempts.name == "attempts"
    assert [p.name for p in others] == ["backoff", "jitter", "on", "random"]
    assert {p.kind for p in (attempts, *others)} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    "on",
    [
        (OSError, KeyError),
        [OSError, KeyError],
        (kind for kind in (OSError, KeyError)),
    ],
    ids=["tuple", "list", "iterator"],
)
def test_classes_in_any_iterable(on: Any) -> None:
    assert Retry(attempts=3, on=on).on == (OSError, KeyError)


def test_one_class_by_itself() -> None:
    assert Retry(attempts=3, on=OSError) == Retry(attempts=3, on=(OSError,))


@pytest.mark.parametrize(
    ("on", "stranger"),
    [
        (OSError(), OSError()),
        ([OSError, int], int),
        ((KeyboardInterrupt,), KeyboardInterrupt),
        ((OSError, (KeyError,)), (KeyError,)),
        ("OSError", "O"),
        (None, None),
    ],
    ids=str,
)
def test_what_is_no_class_of_failures(on: Any, stranger: object) -> None:
    assert refusal(lambda: Retry(attempts=3, on=on)) == (
        f"Retry: {stranger!r} isn't a class of exceptions that a task can fail with",
        f"Retry(on={on!r})",
        "Retry(attempts=3, on=(OSError,))",
    )


@pytest.mark.parametrize("name", ["backoff", "jitter"])
@pytest.mark.parametrize("value", ["1", None, float("nan"), -1])
def test_a_pause_is_a_number(name: str, value: Any) -> None:
    options: Any = {name: value}
    with pytest.raises(ValueError, match=rf"^Retry\({name}={value!r}\): a number, not negative$"):
        Retry(attempts=2, **options)


def test_a_retry_stays_as_it_is() -> None:
    retry = Retry(attempts=3, backoff=2, jitter=0, on=(OSError,))
    with pytest.raises(AttributeError, match="attempts"):
        retry.attempts = 5  # type: ignore[misc]
    assert copy.copy(retry) == retry
    assert hash(copy.copy(retry)) == hash(retry)
