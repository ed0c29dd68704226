"""Middleware around an app: the command line looks through it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from trioweb import App, BackgroundTasks
from trioweb._cli import routes
from trioweb._cli.survivors import survivors
from trioweb._cli.wrapped import MOST_LAYERS, app_behind
from trioweb.testing import client


class Wrapper:
    def __init__(self, app: Any) -> None:
        self.app = app


class Failing:
    @property
    def app(self) -> App:
        raise RuntimeError("not configured")


def test_an_app_is_found_behind_any_wrappers() -> None:
    app = App()
    assert app_behind(app) is app
    wrapper: Any = Wrapper(app)
    assert app_behind(CORSMiddleware(GZipMiddleware(wrapper), allow_origins=["*"])) is app
    deep: Any = app
    for _ in range(MOST_LAYERS - 1):
        deep = Wrapper(deep)
    assert app_behind(deep) is app


def test_what_wraps_no_app_of_ours_has_none() -> None:
    ring = Wrapper(None)
    ring.app = Wrapper(ring)
    for served in (None, Wrapper(None), ring, Failing(), Wrapper(Failing()), lambda: None):
        assert app_behind(served) is None


def test_the_routes_behind_middleware_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()

    @app.get("/items")
    async def items() -> None: ...

    monkeypatch.setattr(routes, "load_app", lambda name, folder: Wrapper(Wrapper(app)))
    table = routes.show_routes("main:app", as_json=False)
    assert "/items" in table


async def test_the_tasks_behind_middleware_are_named() -> None:
    app = App()

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(trio.sleep_forever)

    async with trio.open_nursery() as nursery, client(app) as c:
        await c.get("/")
        await trio.testing.wait_all_tasks_blocked()
        named = await trio.to_thread.run_sync(survivors, Wrapper(app), None)
        assert named[0] == "task sleep_forever of GET /"
        nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()
