"""What server and app tell each other as the app starts: its times, its limits, who drains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioweb._asgi import APP_SETTINGS, SERVER_SETTINGS, AppSettings, ServerSettings
from trioweb.server import ServerLimits, StartupFailed

from ..support.server_driver import GET, Running, echo, serving


class Stranger:
    """An app that isn't ours; `answer` is what it says with `lifespan.startup.complete`."""

    def __init__(self, **answer: object) -> None:
        self.told: ServerSettings | None = None
        self.ended_at = 0.0
        self._answer = answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await echo(scope, receive, send)
            return
        self.told = scope[SERVER_SETTINGS]
        await receive()
        await send({"type": "lifespan.startup.complete", **self._answer})
        await receive()
        self.ended_at = trio.current_time()
        await send({"type": "lifespan.shutdown.complete"})


async def status_of_long_target(running: Running) -> int:
    head = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 99)
    return (await running.connect().ask(head)).status


def said_by_an_app(limits: object) -> dict[str, object]:
    settings = AppSettings(drain_timeout=3.0, cleanup_timeout=1.5, limits=limits)
    return {APP_SETTINGS: settings}


async def test_the_app_is_told_what_the_server_was_told_of_it(autojump_clock: MockClock) -> None:
    app = Stranger()
    overrides = {"max_fields": 7}
    async with serving(
        app, drain_timeout=4, cleanup_timeout=2, debug=True, limit_overrides=overrides
    ):
        told = app.told
    assert told is not None
    assert (told.drain_timeout, told.cleanup_timeout, told.debug) == (4, 2, True)
    assert told.limits == overrides


async def test_what_was_not_given_is_the_apps_to_say(autojump_clock: MockClock) -> None:
    app = Stranger()
    async with serving(app):
        told = app.told
    assert told is not None
    assert (told.drain_timeout, told.cleanup_timeout, told.debug) == (None, None, False)
    assert told.limits == {}


async def test_the_times_of_an_app_that_drains_by_itself_are_its_own(
    autojump_clock: MockClock,
) -> None:
    app = Stranger(**said_by_an_app(None))
    async with serving(app, drain_timeout=9) as running:
        assert (running.server.drain_timeout, running.server.cleanup_timeout) == (3.0, 1.5)
    async with serving(Stranger(), drain_timeout=9) as running:
        assert (running.server.drain_timeout, running.server.cleanup_timeout) == (9, None)
    async with serving(Stranger()) as running:
        assert running.server.drain_timeout == 20


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 414),
        ({"limits": ServerLimits()}, 200),
        ({"limit_overrides": {"max_target_size": 100}}, 200),
        ({"limits": ServerLimits(), "limit_overrides": {"max_target_size": 99}}, 414),
        ({"limit_overrides": {"max_fields": 9}}, 414),
    ],
)
async def test_single_limits_go_before_the_servers_and_these_before_the_apps(
    options: Mapping[str, Any], status: int, autojump_clock: MockClock
) -> None:
    own = ServerLimits(max_target_size=50)
    app = Stranger(**said_by_an_app(own))
    bare = Stranger()
    bare.limits = own  # type: ignore[attr-defined]
    for each in (app, bare):
        async with serving(each, **options) as running:
            assert await status_of_long_target(running) == status


async def test_what_is_no_limits_of_an_app_is_not_heeded(autojump_clock: MockClock) -> None:
    async with serving(Stranger(**said_by_an_app({"max_target_size": 9}))) as running:
        assert await status_of_long_target(running) == 200


async def test_a_limit_that_nobody_keeps_ends_the_start(autojump_clock: MockClock) -> None:
    told = r"only a trioweb\.App keeps max_body_size, max_pending_tasks, and this is another kind"
    overrides = {"max_pending_tasks": 3, "max_body_size": 3, "max_requests": 3}
    for app in (Stranger(), echo):
        with pytest.RaisesGroup(pytest.RaisesExc(StartupFailed, match=told)):
            async with serving(app, limit_overrides=overrides):
                pytest.fail("it was served")  # pragma: no cover
    async with serving(Stranger(**said_by_an_app(None)), limit_overrides=overrides) as running:
        assert (await running.connect().ask(GET)).status == 200


async def test_what_can_be_no_limit_is_refused(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match=r"max_requests=0\): needs a whole")):
        async with serving(echo, limit_overrides={"max_requests": 0}):
            pytest.fail("it was served")  # pragma: no cover
