"""Limits: what can be set, and that nothing else can."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from trioweb import App, Limits, RegistrationError
from trioweb.testing import client

FIELDS = [field.name for field in fields(Limits)]
TIMEOUTS = [name for name in FIELDS if name.endswith("timeout")]


def test_a_limit_is_what_it_was_set_to() -> None:
    assert Limits(max_body_size=1).max_body_size == 1
    assert Limits().max_body_size == 1024 * 1024


@pytest.mark.parametrize("name", TIMEOUTS)
@pytest.mark.parametrize("value", [0, -1, 0.01, "1", True, math.nan, None])
def test_each_timeout_is_longer_than_the_sweep_takes_to_come_by(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Limits\\({name}={value!r}\\): needs at least 0.1 sec"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", TIMEOUTS)
def test_a_timeout_may_be_infinite(name: str) -> None:
    unlimited: dict[str, Any] = {name: math.inf}
    assert getattr(Limits(**unlimited), name) == math.inf


@pytest.mark.parametrize("name", sorted(set(FIELDS) - set(TIMEOUTS)))
@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True])
def test_each_limit_is_a_whole_number_of_at_least_one(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Limits\\({name}={value!r}\\): needs a whole number"):
        Limits(**{name: value})


def test_none_is_for_what_may_be_unlimited() -> None:
    assert Limits(max_running_tasks=None).max_running_tasks is None
    unlimited: Any = None
    with pytest.raises(ValueError, match="max_pending_tasks=None"):
        Limits(max_pending_tasks=unlimited)


@pytest.mark.parametrize("name", FIELDS)
def test_limits_stay_as_they_are(name: str) -> None:
    limits = Limits()
    with pytest.raises(FrozenInstanceError):
        setattr(limits, name, 5)
    assert limits == Limits()


async def test_limits_and_debug_may_be_set_while_the_app_is_served() -> None:
    app = App(limits=Limits(max_body_size=1))

    @app.post("/")
    async def root(body: dict[str, int]) -> dict[str, int]:
        return body

    @app.get("/fail")
    async def fail() -> None:
        raise OSError("of the test")

    async with client(app) as c:
        assert (await c.post("/", json={"a": 1})).status_code == 413
        app.limits = Limits(max_body_size=100)
        assert (await c.post("/", json={"a": 1})).json() == {"a": 1}
        assert "of the test" not in (await c.get("/fail")).text
        app.debug = True
        assert "of the test" in (await c.get("/fail")).text
    assert (app.limits.max_body_size, app.debug) == (100, True)


def test_limits_are_checked_when_they_are_set() -> None:
    wrong: Any = {"max_body_size": 1}
    with pytest.raises(RegistrationError, match="limits is a Limits"):
        App().limits = wrong
