"""The page of `App(debug=True)`: it shows all, and nothing on it is code."""

from __future__ import annotations

import html
import logging
import re

import pytest

from trioweb import App

from ..support.asgi import Client, Exchange

HTML = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
SCRIPT = "<script>alert('&')</script>"
ESCAPED = "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def failing(exc: BaseException, *, debug: bool = True) -> Client:
    """A client of an app whose only handler raises `exc`."""
    app = App(debug=debug)

    @app.get("/{path:path}")
    async def fail(path: str) -> None:
        raise exc

    return Client(app)


def nested(depth: int, exc: Exception) -> Exception:
    for level in range(depth):
        exc = ExceptionGroup(f"level {level}", [exc])
    return exc


def from_cause() -> Exception:
    cause = KeyError("the cause")
    cause.__context__ = OSError("before the cause")
    exc = ValueError("the error")
    exc.__cause__ = cause
    return exc


def compiled_wrong() -> Exception:
    with pytest.raises(SyntaxError) as caught:
        compile("a b", "template", "eval")
    return caught.value


def title(exchange: Exchange) -> str:
    found = re.search(r"<h1>(.*)</h1>", exchange.text)
    assert found is not None
    return found[1]


async def test_a_browser_gets_a_page_that_names_the_error_the_request_and_the_line() -> None:
    exchange = await failing(ValueError("went wrong"))("GET", "/items/3", headers=HTML)
    assert exchange.status == 500
    assert exchange.headers["content-type"] == "text/html; charset=utf-8"
    assert title(exchange) == "ValueError: went wrong"
    assert "<code>GET /items/3</code>" in exchange.text
    assert "raise exc" in exchange.text
    assert "<li>" not in exchange.text


@pytest.mark.parametrize("headers", [{}, {"accept": "application/json"}, {"accept": "*/*"}])
async def test_others_get_the_same_as_json(headers: dict[str, str]) -> None:
    exchange = await failing(ValueError("went wrong"))("GET", "/", headers=headers)
    assert exchange.status == 500
    answer = exchange.json()
    assert answer["detail"] == "Internal Server Error"
    assert answer["errors"] == ["ValueError: went wrong"]
    assert answer["traceback"][0] == "Traceback (most recent call last):"
    assert answer["traceback"][-1] == "ValueError: went wrong"


async def test_without_debug_nothing_is_shown() -> None:
    exchange = await failing(ValueError("secret"), debug=False)("GET", "/", headers=HTML)
    assert exchange.status == 500
    assert exchange.json() == {"detail": "Internal Server Error"}


@pytest.mark.parametrize(
    "exc",
    [
        ValueError(SCRIPT),
        ExceptionGroup(SCRIPT, [ValueError(SCRIPT), KeyError("other")]),
        type(SCRIPT, (Exception,), {})("text"),
    ],
)
async def test_what_an_exception_says_is_escaped(exc: Exception) -> None:
    exc.add_note(SCRIPT)
    exchange = await failing(exc)("GET", "/", headers=HTML)
    assert ESCAPED in exchange.text
    assert "<script" not in exchange.text


async def test_what_the_client_asked_for_is_escaped() -> None:
    client = failing(ValueError("x"))
    exchange = await client("GET", "/<script>&", headers=HTML)
    assert "<code>GET /%3Cscript%3E&amp;</code>" in exchange.text


async def test_the_whole_tree_of_a_group_is_shown() -> None:
    leaves: list[Exception] = [ValueError(f"leaf {n}.") for n in range(40)]
    exc = ExceptionGroup("wide", [*leaves, nested(20, KeyError("deep"))])
    exchange = await failing(exc)("GET", "/", headers=HTML)
    assert title(exchange) == "ExceptionGroup: wide (41 sub-exceptions)"
    assert exchange.text.count("<li>") == 41
    trace = exchange.text.partition("<pre>")[2]
    assert all(f"ValueError: leaf {n}." in trace for n in range(40))
    assert all(f"level {n} " in trace for n in range(20))
    assert "KeyError: &#x27;deep&#x27;" in trace


async def test_every_cause_is_shown() -> None:
    exchange = await failing(from_cause())("GET", "/")
    trace = "\n".join(exchange.json()["traceback"])
    assert "OSError: before the cause" in trace
    assert "KeyError: 'the cause'" in trace
    assert "direct cause" in trace


@pytest.mark.parametrize(
    ("exc", "line"),
    [
        (ValueError("two\nlines"), "ValueError: two lines"),
        (compiled_wrong(), "SyntaxError: invalid syntax"),
        (Unspeakable(), f"{__name__}.Unspeakable: <exception str() failed>"),
        (OSError(2, "missing", "a\udcff"), r"FileNotFoundError: [Errno 2] missing: 'a\udcff'"),
        (ValueError("a\udcff"), r"ValueError: a\udcff"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
async def test_any_exception_has_its_page(
    exc: BaseException, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    # What is logged is reported to pytest's main process, which nothing but UTF-8 can be sent to.
    caplog.set_level(logging.CRITICAL + 1, "trioweb")
    client = failing(exc)
    (error,) = (await client("GET", "/")).json()["errors"]
    assert error == line
    page = await client("GET", "/", headers=HTML)
    assert page.status == 500
    assert html.unescape(title(page)) == line


async def test_a_group_nested_too_deeply_to_be_shown_is_answered_all_the_same() -> None:
    two = ExceptionGroup("two", [ValueError("one"), ValueError("other")])
    exchange = await failing(nested(1_500, two))("GET", "/", headers=HTML)
    assert exchange.status == 500
    assert "nested too deeply" in exchange.text
