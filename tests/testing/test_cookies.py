"""The cookies that the client keeps and sends."""

from __future__ import annotations

import pytest

from trioweb import App, JSONResponse, Request, Response

from ..support.client_apps import client


def cookie_app() -> App:
    app = App()

    @app.get("/")
    async def show(request: Request) -> dict[str, str]:
        return dict(request.cookies)

    @app.get("/set")
    async def set_one(name: str, value: str) -> Response:
        response = JSONResponse({})
        response.set_cookie(name, value, max_age=60, path="/elsewhere")
        response.set_cookie("other", "1")
        return response

    @app.get("/raw")
    async def raw(cookie: str) -> Response:
        return JSONResponse({}, headers={"set-cookie": cookie})

    @app.get("/delete")
    async def delete() -> Response:
        response = JSONResponse({})
        response.delete_cookie("a")
        return response

    return app


async def test_cookies_are_kept_and_sent() -> None:
    async with client(cookie_app()) as c:
        response = await c.get("/set", params={"name": "a", "value": 'x; "ü"'})
        assert response.cookies == {"a": 'x; "ü"', "other": "1"}
        assert c.cookies == response.cookies
        assert (await c.get("/")).json() == c.cookies
        assert (await c.get("/", cookies={"a": "2"})).json() == {"a": "2", "other": "1"}
        assert (await c.get("/", headers={"Cookie": "b=3"})).json() == {"b": "3"}
        response = await c.get("/delete")
        assert response.cookies == {}
        assert c.cookies == {"other": "1"}
        c.cookies.clear()
        assert (await c.get("/")).json() == {}


@pytest.mark.parametrize(
    ("attributes", "kept"),
    [
        ("", True),
        ("; Max-Age=1", True),
        ("; max-age=0", False),
        ("; Max-Age=-1; Expires=Fri, 01 Jan 2100 00:00:00 GMT", False),
        ("; Max-Age=soon", True),
        ("; Expires=Thu, 01 Jan 1970 00:00:00 GMT", False),
        ("; Expires=Fri, 01 Jan 2100 00:00:00 GMT", True),
        ("; Expires=soon", True),
    ],
)
async def test_cookies_that_have_expired_are_deleted(attributes: str, kept: bool) -> None:
    async with client(cookie_app()) as c:
        c.cookies["a"] = "0"
        await c.get("/raw", params={"cookie": f"a=1{attributes}"})
        assert c.cookies == ({"a": "1"} if kept else {})
        await c.get("/raw", params={"cookie": "b=1; Max-Age=0"})
        assert "b" not in c.cookies
