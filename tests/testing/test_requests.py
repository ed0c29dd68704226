"""What the client sends for what a test asks for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trioweb import App, Request

from ..support.client_apps import METHODS, client, echo


@pytest.mark.parametrize("method", METHODS)
async def test_a_method_for_each_method(method: str) -> None:
    async with client(echo()) as c:
        response = await getattr(c, method.lower())("/a")
        assert response.json()["method"] == method
        assert (await c.request(method, "/a")).json()["method"] == method


async def test_head_has_fields_and_no_body() -> None:
    async with client(echo()) as c:
        response = await c.head("/")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Length"] == "10"
    assert response.is_complete


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("/", "http://testserver/"),
        ("/a?b=1", "http://testserver/a?b=1"),
        ("/a?b=1#fragment", "http://testserver/a?b=1"),
        ("/grün/a b?q=ü&r=a b", "http://testserver/gr%C3%BCn/a%20b?q=%C3%BC&r=a%20b"),
        ("/a%20b?q=%20", "http://testserver/a%20b?q=%20"),
        ("//evil/a", "http://testserver//evil/a"),
        ("http://testserver/a?b", "http://testserver/a?b"),
        ("https://example.org:8443", "https://example.org:8443/"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
    ],
)
async def test_urls(url: str, seen: str) -> None:
    async with client(echo()) as c:
        assert (await c.get(url)).json()["url"] == seen


async def test_the_path_is_decoded_as_servers_do() -> None:
    async with client(echo()) as c:
        assert (await c.get("/gr%C3%BCn/ß")).json()["path"] == "/grün/ß"


@pytest.mark.parametrize("url", ["a", "", "ftp://testserver/", "http:///a"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    async with client(echo()) as c:
        with pytest.raises(ValueError, match="neither a path nor an absolute URL") as caught:
            await c.get(url)
    assert "wrong:  await c.get(" in str(caught.value)


async def test_the_server_is_the_one_of_the_url() -> None:
    app = App()

    @app.get("/")
    async def server(request: Request) -> list[Any]:
        return [*request.scope["server"], request.scope["scheme"]]

    async with client(app, base_url="https://example.org/") as c:
        assert (await c.get("/")).json() == ["example.org", 443, "https"]
        assert (await c.get("http://localhost:8000/")).json() == ["localhost", 8000, "http"]
        assert (await c.get("http://localhost/")).json() == ["localhost", 80, "http"]


async def test_params() -> None:
    params = {"n": 3, "tags": ["a", "b&c"], "yes": True, "none": None, "ü": "ß"}
    seen = {"n": ["3"], "tags": ["a", "b&c"], "yes": ["true"], "ü": ["ß"]}
    async with client(echo()) as c:
        assert (await c.get("/", params=params)).json()["query"] == seen
        assert (await c.get("/?x=1", params=[("x", 2), ("y", (3, 4))])).json()["query"] == {
            "x": ["1", "2"],
            "y": ["3", "4"],
        }


async def test_headers_of_the_request_replace_those_of_the_client() -> None:
    async with client(echo(), headers={"X-One": "1", "X-Two": "2"}) as c:
        fields = (await c.get("/", headers=[("x-two", "3"), ("X-Two", "4")])).json()["headers"]
        assert fields == [
            ["host", "testserver"],
            ["x-one", "1"],
            ["x-two", "3"],
            ["x-two", "4"],
        ]
        [host, *_] = (await c.get("/", headers={"Host": "example.org"})).json()["headers"]
    assert host == ["x-one", "1"]


@pytest.mark.parametrize("headers", [{"x": "a\r\nb: c"}, {"x": "€"}, {"ü": "1"}])
async def test_header_fields_that_no_client_can_send_are_refused(headers: dict[str, str]) -> None:
    async with client(echo()) as c:
        with pytest.raises(ValueError, match=r"header|ascii"):
            await c.get("/", headers=headers)


class Item(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("options", "body", "fields"),
    [
        ({}, "", [["content-length", "0"]]),
        ({"content": b"abc"}, "abc", [["content-length", "3"]]),
        ({"content": "ü"}, "ü", [["content-length", "2"]]),
        (
            {"json": None},
            "null",
            [["content-type", "application/json"], ["content-length", "4"]],
        ),
        (
            {"json": Item("a"), "headers": {"content-type": "text/json"}},
            '{"name":"a"}',
            [["content-length", "12"], ["content-type", "text/json"]],
        ),
    ],
)
async def test_bodies(options: dict[str, Any], body: str, fields: list[list[str]]) -> None:
    async with client(echo()) as c:
        seen = (await c.post("/", **options)).json()
    assert seen["body"] == body
    assert seen["headers"] == [["host", "testserver"], *fields]


async def test_one_body_only() -> None:
    async with client(echo()) as c:
        with pytest.raises(ValueError, match="json= or content="):
            await c.post("/", json=1, content=b"1")


@pytest.mark.parametrize(
    ("option", "right"),
    [
        ("data", "content=, as in content=urlencode({...}) with its content-type, or json="),
        ("jsn", "json="),
        ("header", "headers="),
        ("follow_redirects", 'await c.get(response.headers["location"])'),
        ("timeout", "with trio.fail_after(5): await c.get(...)"),
        (
            "verify",
            "some of params, headers, cookies, json, content, disconnect_after",
        ),
    ],
)
async def test_an_option_that_does_not_exist(option: str, right: str) -> None:
    options: Any = {option: 1}
    async with client(echo()) as c:
        with pytest.raises(TypeError) as raised:
            await c.post("/", **options)
    assert str(raised.value) == (
        f"a request has no option {option!r}\n"
        f"    wrong:  await c.post(..., {option}=...)\n    right:  {right}"
    )


async def test_a_request_without_body_declares_none() -> None:
    async with client(echo()) as c:
        assert (await c.get("/")).json()["headers"] == [["host", "testserver"]]
