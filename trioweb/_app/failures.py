"""Failures: what a handler raised becomes a response or a log record, exactly once.

Rules of this module:

* The closest class in an exception's MRO that has a handler answers for it; what has none is a 500.
* Cancellation and Ctrl-C go through.  The rest of a group is always logged, never dropped.
* A handler that fails is a failure like any other, and isn't asked again.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

import trio
from trio.lowlevel import disable_ki_protection

from .. import _callables, _errors
from .._concurrency.grace import Grace
from .._errors import (
    ClientDisconnect,
    HTTPException,
    RegistrationError,
    RequestValidationError,
)
from .._hints import add_hints
from .._http.exchange import Exchange
from .._http.request import Request, request_of
from .._http.response import JSONResponse, Respond, Response
from .._inject.calls import in_thread
from .debug import debug_response
from .inner import Inner

logger = logging.getLogger("trioweb")

ExceptionHandler = Callable[[Request, Any], Any]


class Failures:
    """The exception handlers of one app, and what they make of what was raised."""

    def __init__(self, inner: Inner, respond: Respond) -> None:
        self._inner = inner
        self._respond = respond
        self._handlers: dict[type[BaseException], ExceptionHandler] = {
            HTTPException: _http_exception,
            RequestValidationError: _validation_error,
            ClientDisconnect: _client_disconnect,
        }
        self._replaceable = set(self._handlers)  # ours give way to the first one of the app's

    def add(self, exception: type[BaseException], handler: ExceptionHandler) -> None:
        """Raises RegistrationError."""
        kind = exception.__name__
        _check_handler(
            handler, "request, exc", f"@app.exception_handler({kind})", "exception_handler"
        )
        earlier = self._handlers.get(exception)
        if earlier is not None and exception not in self._replaceable:
            first, second = _callables.name(earlier), _callables.name(handler)
            raise RegistrationError(
                f"{kind} has a handler: {first}; the second one would silence it",
                wrong=f"@app.exception_handler({kind}) above {first} and above {second}",
                right=f"@app.exception_handler({kind}) above one of them",
            )
        self._replaceable.discard(exception)
        self._handlers[exception] = handler

    async def respond(
        self, exchange: Exchange, exc: BaseException, grace: Grace | None
    ) -> Response:
        """The response for what a handler raised; what isn't a failure goes on."""
        log = functools.partial(_log_failure, exchange)
        if not _errors.is_failure(exc):
            _errors.raise_rest(exc, log)
        chosen, others = _errors.select(exc, self._has_handler_of_its_own)
        if others is not None:
            log(others)
        handler = self._handler_for(chosen)
        if handler is None:
            log(chosen)
            return self._server_error(exchange, chosen)
        try:
            return await self._handled(handler, exchange, chosen, grace)
        except BaseException as broken:
            broken = _errors.strays_as_failure(broken)
            _errors.raise_rest(broken, log)
            return self._server_error(exchange, broken)

    @disable_ki_protection
    async def _handled(
        self, handler: ExceptionHandler, exchange: Exchange, exc: BaseException, grace: Grace | None
    ) -> Response:
        call = functools.partial(handler, request_of(exchange), exc)
        if _callables.is_async(handler):
            result = await call()
        elif grace is not None:
            result = await in_thread(call, grace)
        else:
            # In the server's call, where nobody says when cleanup has to be over.
            result = await self._inner.run_sync(call, abandon_on_cancel=True)
        return self._respond(result, getattr(exc, "status_code", 500), exchange)

    def _server_error(self, exchange: Exchange, exc: BaseException) -> Response:
        if self._inner.is_debugged:
            return debug_response(exchange, exc)
        return JSONResponse({"detail": _errors.phrase(500)}, 500)

    def _handler_for(self, exc: BaseException) -> ExceptionHandler | None:
        handlers = self._handlers
        return next((handlers[kind] for kind in type(exc).__mro__ if kind in handlers), None)

    def _has_handler_of_its_own(self, exc: BaseException) -> bool:
        catch_alls = (Exception, BaseException)
        return any(kind in self._handlers and kind not in catch_alls for kind in type(exc).__mro__)


# Of statuses that the framework answers by itself, without an HTTPException.
_BY_STATUS = {
    422: "@app.exception_handler(RequestValidationError)",
    500: "@app.exception_handler(Exception)",
}


def check_exception_class(exception: Any) -> None:
    """Raises RegistrationError for what isn't one, or is no failure: nothing would come of it."""
    right = "@app.exception_handler(LookupError)"
    if isinstance(exception, int):
        is_it = f"@app.exception_handler(HTTPException), and in it exc.status_code == {exception}"
        right = _BY_STATUS.get(exception, is_it)
    elif isinstance(exception, (tuple, list)):
        right = "@app.exception_handler(...) once for each of them, one above the other"
    elif isinstance(exception, type) and issubclass(exception, BaseException):
        if not issubclass(exception, (trio.Cancelled, KeyboardInterrupt, GeneratorExit)):
            return
        right = "try: ... finally: ... in the handler; this is no failure, and is never answered"
    shown = getattr(exception, "__name__", None) or repr(exception)
    raise RegistrationError(
        "exception_handler takes an exception class",
        wrong=f"@app.exception_handler({shown})",
        right=right,
    )


def check_task_error_handler(handler: Any) -> None:
    """Raises RegistrationError."""
    _check_handler(handler, "task, exc", "@app.on_task_error", "on_task_error")


def _check_handler(handler: Any, parameters: str, decorator: str, what: str) -> None:
    """Whether it can be called with these, both by position, and does something when it is."""
    problem = _problem_with(handler, parameters, what)
    if problem is not None:
        wrong = f"{decorator[1:]}({handler!r})"
        if callable(handler):
            wrong = f"{decorator} above def {_callables.name(handler)}{_shown_parameters(handler)}"
        right = f"{decorator} above async def report({parameters}): ..."
        raise RegistrationError(problem, wrong=wrong, right=right)


def _problem_with(handler: Any, parameters: str, what: str) -> str | None:
    if not callable(handler):
        return f"{what} takes a function"
    name = _callables.name(handler)
    if _callables.is_generator(handler):
        return f"{name} yields: as a handler its body would never run"
    if not _callables.takes(handler, 2):
        return f"{name} is called with {parameters.replace(', ', ' and ')}, by position"
    return None


def _shown_parameters(func: Callable[..., Any]) -> str:
    return str(inspect.signature(func).replace(return_annotation=inspect.Signature.empty))


async def _http_exception(request: Request, exc: HTTPException) -> Response:
    if exc.status_code in (204, 304):
        return Response(None, exc.status_code, exc.headers)
    return JSONResponse({"detail": exc.detail}, exc.status_code, exc.headers)


async def _validation_error(request: Request, exc: RequestValidationError) -> Response:
    return JSONResponse({"detail": exc.errors()}, 422)


async def _client_disconnect(request: Request, exc: ClientDisconnect) -> Response:
    """For the record only: nobody is there to read it."""
    return Response(None, 400)


def _log_failure(exchange: Exchange, failure: BaseException) -> None:
    add_hints(failure)
    logger.error("%s failed", exchange.label, exc_info=failure)
