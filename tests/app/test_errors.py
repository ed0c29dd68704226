"""Errors: each becomes one response or one record in the log, and none is dropped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
import trio

from trioweb import (
    App,
    HTMLResponse,
    HTTPException,
    Request,
    RequestValidationError,
    Response,
    _errors,
)

from ..support.asgi import Client, Exchange, running
from ..support.log_records import messages

SERVER_ERROR = {"detail": "Internal Server Error"}


class AppError(Exception):
    pass


class CloserError(AppError):
    pass


class OtherError(Exception):
    pass


class StopEverything(BaseException):
    """Neither a failure nor anything that Python or Trio knows."""


def raising(exc: BaseException, app: App | None = None) -> App:
    """An app whose handler of every path raises `exc`."""
    app = app or App()

    @app.route("/{path:path}", methods=["GET", "POST"])
    async def handler(path: str) -> None:
        raise exc

    return app


async def answer(exc: BaseException, app: App | None = None) -> Exchange:
    return await Client(raising(exc, app))("GET", "/x")


def handling(*kinds: type[BaseException]) -> App:
    """An app with a handler for each; it answers 418 with the exception's text."""
    app = App()
    for kind in kinds:

        async def handler(request: Request, exc: BaseException, kind: type = kind) -> HTMLResponse:
            return HTMLResponse(f"{kind.__name__}: {exc}", 418)

        app.exception_handler(kind)(handler)
    return app


def logged(caplog: pytest.LogCaptureFixture) -> list[BaseException]:
    """The exceptions in the log, each of a record that names the request."""
    assert {record.getMessage() for record in caplog.records} <= {"GET /x failed"}
    assert {record.levelno for record in caplog.records} <= {logging.ERROR}
    found = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert len(found) == len(caplog.records)
    return [exc for exc in found if exc is not None]


# HTTPException


@pytest.mark.parametrize(
    ("exc", "status", "detail"),
    [
        (HTTPException(404), 404, "Not Found"),
        (HTTPException(404, "no such item"), 404, "no such item"),
        (HTTPException(400, {"why": [1]}), 400, {"why": [1]}),
        (HTTPException(400, ""), 400, ""),
        (HTTPException(599), 599, "Unknown"),
        (HTTPException(503), 503, "Service Unavailable"),
    ],
)
async def test_an_http_exception_is_its_response_and_no_error(
    exc: HTTPException, status: int, detail: object, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = await answer(exc)
    assert exchange.status == status
    assert exchange.json() == {"detail": detail}
    assert caplog.records == []


async def test_an_http_exception_has_header_fields() -> None:
    exchange = await answer(HTTPException(401, headers={"WWW-Authenticate": "Basic"}))
    assert exchange.headers["www-authenticate"] == "Basic"
    assert exchange.headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_http_exception_may_be_one_without_a_body(status: int) -> None:
    exchange = await answer(HTTPException(status, headers={"etag": "x"}))
    assert (exchange.status, exchange.body) == (status, b"")
    assert exchange.raw_headers == [(b"etag", b"x")]


def test_the_text_of_an_http_exception_says_both() -> None:
    assert str(HTTPException(404, "no such item")) == "404: no such item"
    assert HTTPException(404).headers == {}


@pytest.mark.parametrize("status", [0, 99, 101, 600])
def test_an_http_exception_with_no_status_of_a_response_is_refused_where_it_is_made(
    status: int,
) -> None:
    with pytest.raises(ValueError, match=f"^{status} isn't the status of a response"):
        HTTPException(status)


async def test_header_fields_of_an_http_exception_may_be_whole_numbers() -> None:
    exc = HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": 5})
    assert exc.headers == {"Retry-After": "5"}
    exchange = await answer(exc)
    assert exchange.status == 503
    assert exchange.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    "headers", [{"x": 1.5}, {"x": None}, {"x": b"a"}, {"x": "a\r\nb: c"}, {"a b": "c"}, {5: "a"}]
)
def test_header_fields_that_no_response_can_have_are_refused_where_they_are_given(
    headers: Any,
) -> None:
    with pytest.raises((TypeError, ValueError), match="header"):
        HTTPException(401, headers=headers)


# Invalid input


async def test_all_that_is_wrong_with_the_input_is_told() -> None:
    app = App()

    @app.get("/")
    async def handler(a: int, b: int) -> None: ...

    exchange = await Client(app)("GET", "/?a=x")
    assert exchange.status == 422
    assert [problem["loc"] for problem in exchange.json()["detail"]] == [
        ["query", "a"],
        ["query", "b"],
    ]


async def test_the_answer_to_invalid_input_is_yours_to_write() -> None:
    app = App()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exc: RequestValidationError) -> Response:
        return HTMLResponse(f"{exc}", 400)

    @app.get("/")
    async def handler(a: int, b: int) -> None: ...

    exchange = await Client(app)("GET", "/?a=x")
    assert exchange.status == 400
    assert exchange.text.startswith("query.a: ")
    assert "; query.b: Field required" in exchange.text


# Handlers of exceptions


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (AppError("1"), "AppError: 1"),
        (CloserError("2"), "CloserError: 2"),
        (OtherError("3"), "Exception: 3"),
        (HTTPException(404), None),
        (SystemExit(4), "SystemExit: 4"),
    ],
)
async def test_the_closest_class_wins(exc: BaseException, text: str | None) -> None:
    app = handling(Exception, AppError, CloserError, SystemExit)
    exchange = await answer(exc, app)
    if text is None:
        assert exchange.status == 404
    else:
        assert (exchange.status, exchange.text) == (418, text)


async def test_an_exception_with_a_handler_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    await answer(AppError(), handling(AppError))
    assert caplog.records == []


async def test_a_plain_handler_of_exceptions_runs_in_a_thread() -> None:
    app = App()
    threads: list[int] = []

    @app.exception_handler(AppError)
    def handle(request: Request, exc: AppError) -> Response:
        threads.append(threading.get_ident())
        return HTMLResponse("handled", 418)

    assert (await answer(AppError(), app)).status == 418
    assert threads
    assert threads[0] != threading.get_ident()


@pytest.mark.parametrize(
    ("kind", "exc", "status"),
    [(AppError, AppError("x"), 500), (HTTPException, HTTPException(404), 404)],
)
async def test_what_a_handler_of_exceptions_returns_is_sent_as_json(
    kind: type[Exception], exc: Exception, status: int
) -> None:
    app = App()

    @app.exception_handler(kind)
    async def handle(request: Request, exc: Exception) -> dict[str, str]:
        return {"method": request.method, "error": f"{exc}"}

    exchange = await answer(exc, app)
    assert exchange.status == status
    assert exchange.json() == {"method": "GET", "error": f"{exc}"}


@pytest.mark.parametrize("new", [OtherError("second"), AppError("second"), SystemExit(2)])
async def test_a_handler_of_exceptions_that_raises_is_a_500_logged_with_both(
    new: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.exception_handler(AppError)
    async def handle(request: Request, exc: AppError) -> None:
        raise new

    first = AppError("first")
    exchange = await answer(first, app)
    assert (exchange.status, exchange.json()) == (500, SERVER_ERROR)
    assert logged(caplog) == [new]
    assert new.__context__ is first
    assert "first" in caplog.text
    assert "second" in caplog.text or "SystemExit" in caplog.text


async def test_a_handler_of_exceptions_whose_answer_is_no_json_is_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.exception_handler(AppError)
    async def handle(request: Request, exc: AppError) -> object:
        return exc

    exchange = await answer(AppError(), app)
    assert (exchange.status, exchange.json()) == (500, SERVER_ERROR)
    assert [type(exc) for exc in logged(caplog)] == [TypeError]


# Groups


def group(*members: Exception) -> Exception:
    return ExceptionGroup("group", members)


A, B = OtherError("a"), OtherError("b")


@pytest.mark.parametrize(
    ("exc", "rest"),
    [
        (group(AppError("one")), []),
        (group(group(group(AppError("one")))), []),
        (group(A, AppError("one")), [A]),
        (group(group(A, AppError("one")), group(B)), [A, B]),
    ],
)
async def test_the_one_of_a_group_that_has_a_handler_is_answered_and_the_rest_logged(
    exc: Exception, rest: list[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    exchange = await answer(exc, handling(AppError))
    assert (exchange.status, exchange.text) == (418, "AppError: one")
    found = [leaf for whole in logged(caplog) for leaf in _errors.leaves(whole)]
    assert found == rest
    assert len(caplog.records) == (1 if rest else 0)


@pytest.mark.parametrize(
    "exc",
    [
        group(AppError("one"), AppError("two")),
        group(AppError("one"), group(CloserError("two"))),
        group(AppError("one"), group(HTTPException(404), A)),
        group(A, B),
    ],
)
async def test_a_group_with_more_or_none_is_a_500_logged_as_a_whole(
    exc: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = await answer(exc, handling(AppError))
    assert (exchange.status, exchange.json()) == (500, SERVER_ERROR)
    assert logged(caplog) == [exc]


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (group(AppError("one")), "AppError: one"),
        (group(AppError("one"), A), "AppError: one"),
        (group(AppError("one"), AppError("two")), "ExceptionGroup: group (2 sub-exceptions)"),
        (group(A), "ExceptionGroup: group (1 sub-exception)"),
    ],
)
async def test_a_group_may_have_a_handler_of_its_own(exc: Exception, text: str) -> None:
    assert (await answer(exc, handling(ExceptionGroup, AppError))).text == text


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (group(AppError("one")), "AppError: one"),
        (group(AppError("one"), A), "AppError: one"),
        (group(A), "Exception: a"),
        (group(A, B), "Exception: group (2 sub-exceptions)"),
        (group(HTTPException(404)), '{"detail":"Not Found"}'),
    ],
)
async def test_a_handler_of_everything_takes_no_group_from_a_closer_one(
    exc: Exception, text: str
) -> None:
    assert (await answer(exc, handling(Exception, AppError))).text == text


async def test_what_a_nursery_raises_is_answered_as_what_was_raised_in_it() -> None:
    app = App()

    @app.get("/")
    async def handler(nursery: trio.Nursery) -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            raise HTTPException(409, "taken")

    async with running(app) as client:
        exchange = await client("GET", "/")
    assert (exchange.status, exchange.json()) == (409, {"detail": "taken"})


# What nobody handles


async def test_an_error_nobody_handles_is_a_500_and_one_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exc = OtherError("secret")
    exchange = await answer(exc)
    assert (exchange.status, exchange.json()) == (500, SERVER_ERROR)
    assert "secret" not in f"{exchange.sent}"
    assert logged(caplog) == [exc]
    assert f"raise exc\n{__name__}.OtherError: secret" in caplog.text


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("/items/3?token=secret", "GET /items/3 failed"),
        ("/a%0Ab", "GET /a%0Ab failed"),
        ("/a%0D%0AERROR%20forged", "GET /a%0D%0AERROR%20forged failed"),
        ("/a\nb\x1b[31m", "GET /a%0Ab%1B%5B31m failed"),
    ],
)
async def test_the_record_names_the_request_in_one_line(
    target: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(raising(OtherError()))
    await client("GET", target)
    await client("GET", target, raw_path=None)
    assert messages(caplog) == [text, text]


async def test_an_exit_in_a_handler_ends_the_request_not_the_app(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = raising(SystemExit(3))
    async with running(app) as client:
        for target in ("/x", "/y"):
            exchange = await client("GET", target)
            assert (exchange.status, exchange.json()) == (500, SERVER_ERROR)
    said = messages(caplog)
    assert said == ["GET /x failed", "GET /y failed"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
async def test_what_is_no_failure_passes_through(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    app = raising(kind())
    async with running(app) as client:
        with pytest.raises(kind):
            await client("GET", "/x")
    assert caplog.records == []


async def test_a_cancellation_passes_through(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    sleeping = trio.Event()

    @app.get("/")
    async def handler() -> None:
        sleeping.set()
        await trio.sleep_forever()

    async with running(app) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def request() -> None:
                    await client("GET", "/")
                    raise AssertionError("it must not be answered")  # pragma: no cover

                nursery.start_soon(request)
                await sleeping.wait()
                scope.cancel()
        assert scope.cancelled_caught
    assert caplog.records == []


async def test_what_was_a_failure_beside_an_interrupt_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exc = BaseExceptionGroup("both", [A, KeyboardInterrupt()])
    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        await answer(exc)
    assert [list(_errors.leaves(found)) for found in logged(caplog)] == [[A]]


# Taking groups apart


def test_a_failure_is_what_can_be_survived() -> None:
    failures = [A, SystemExit(), StopEverything(), BaseExceptionGroup("", [SystemExit()])]
    others = [KeyboardInterrupt(), GeneratorExit(), BaseExceptionGroup("", [A, GeneratorExit()])]
    assert all(map(_errors.is_failure, failures))
    assert not any(map(_errors.is_failure, others))


def test_failures_are_split_from_what_must_go_on() -> None:
    interrupt = KeyboardInterrupt()
    assert _errors.split_failures(A) == (A, None)
    assert _errors.split_failures(interrupt) == (None, interrupt)
    mixed = BaseExceptionGroup("outer", [A, BaseExceptionGroup("inner", [interrupt, B])])
    failures, rest = _errors.split_failures(mixed)
    assert failures is not None
    assert rest is not None
    assert list(_errors.leaves(failures)) == [A, B]
    assert list(_errors.leaves(rest)) == [interrupt]


def test_the_rest_is_raised_and_the_failure_reported() -> None:
    reported: list[BaseException] = []
    _errors.raise_rest(A, reported.append)
    assert reported == [A]
    with pytest.raises(KeyboardInterrupt):
        _errors.raise_rest(KeyboardInterrupt(), reported.append)
    assert reported == [A]


@pytest.mark.parametrize(
    ("exc", "chosen", "rest"),
    [
        (A, A, []),
        (group(A), A, []),
        (group(A, KeyError()), A, [KeyError]),
        (group(group(KeyError()), group(A, OSError())), A, [KeyError, OSError]),
    ],
)
def test_one_is_selected_and_nothing_lost(
    exc: Exception, chosen: Exception, rest: list[type[Exception]]
) -> None:
    has_handler: Callable[[BaseException], bool] = lambda exc: isinstance(exc, OtherError)  # noqa: E731
    selected, remaining = _errors.select(exc, has_handler)
    assert selected is chosen
    leaves: list[Any] = [] if remaining is None else list(_errors.leaves(remaining))
    assert list(map(type, leaves)) == rest


def test_a_registration_error_shows_both_lines() -> None:
    error = _errors.RegistrationError("no", wrong="f(1)", right="f(2)")
    assert str(error) == "no\n    wrong:  f(1)\n    right:  f(2)"


def deeply_nested(depth: int, exc: BaseException) -> BaseException:
    for _ in range(depth):
        exc = BaseExceptionGroup("", [exc])
    return exc


@pytest.mark.parametrize(("leaf", "expected"), [(ValueError(), True), (KeyboardInterrupt(), False)])
def test_a_group_may_be_nested_deeper_than_recursion_goes(
    leaf: BaseException, expected: bool
) -> None:
    exc = deeply_nested(1_500, leaf)
    assert list(_errors.leaves(exc)) == [leaf]
    assert _errors.is_failure(exc) is expected
