"""What users of FastAPI and Starlette try, and what to write here instead.

Rules of this module:

* One table, for attributes and for arguments.  What works is not in it.
* What is in it is missing all the same: `hasattr` says no, `dir` of an object doesn't show it.
* A right line is code as far as one line can be; its wrong line is what was written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import getattr_static
from typing import Any, NoReturn, TypeVar, cast

from ._errors import RegistrationError, RequestValidationError

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

# In the place of `mount`; of what an app has beside its routes nothing would be left in another.
MOUNT = (
    "async def site(scope, receive, send): await (other if"
    ' scope.get("path", "").startswith("/old/") else app)(scope, receive, send)  # serve site'
)
_LIFESPAN = "App(lifespan=...): what stands before its yield runs at the start, the rest at the end"
_MIDDLEWARE = "app = Class(app, **options)  # below the routes: what is served is the wrapped app"
_HANDLER = "@app.exception_handler(ValueError) above async def answer(request, exc): ..."
_NO_DOCUMENT = "trioweb routes main:app  # shows what is there; there is no OpenAPI document"
_LEAVE_OUT = "leave it out: there is no OpenAPI document"
_NO_WEBSOCKETS = "StreamingResponse(events()): there are no WebSockets"
_ROUTE = '@app.route("/items", methods=["GET"]) above the handler'
_TEST = "an app that is made by a function of what tests replace: create_app(get_db=fake_db)"
_GUARD = "a dependency: Router(dependencies=[Depends(check)])"
_NOT_FOUND = "@app.exception_handler(HTTPException), and in it exc.status_code == 404"
_ROUTES_SIZE = '@router.post("/items", max_body_size=1_000_000)'
_NO_FORMS = "leave it out: there are no forms; max_body_size= bounds each body"
_LEAVE_OUT_CHECK = "leave it out: another Content-Type than JSON is a 415, none is taken for JSON"
_LINK = 'response.headers["link"] = "</app.css>; rel=preload"'
_RESPONSE_CLASS = "return HTMLResponse(...), or whichever response it is"
_SLASH = '@app.get("/items") above @app.get("/items/"): each path is a route of its own'
_FIELDS_OF_DOCUMENT = [
    "title",
    "version",
    "summary",
    "description",
    "docs_url",
    "redoc_url",
    "openapi_url",
    "openapi_prefix",
    "openapi_tags",
    "terms_of_service",
    "contact",
    "license_info",
    "servers",
    "webhooks",
    "swagger_ui_parameters",
    "swagger_ui_init_oauth",
    "swagger_ui_oauth2_redirect_url",
    "separate_input_output_schemas",
    "openapi_external_docs",
    "root_path_in_servers",
]
_ROUTES_DOCUMENT = [
    "tags",
    "summary",
    "description",
    "response_description",
    "responses",
    "deprecated",
    "operation_id",
    "include_in_schema",
    "openapi_extra",
    "callbacks",
    "generate_unique_id_function",
]
_URL = "urllib.parse, with str(request.url)"
_IN_MODEL = "a member of a pydantic model: Field(max_digits=..., decimal_places=...)"
_MODEL = "return a class that has only what the client may see"

# Of objects: what has another name, and what has to be done otherwise.
_ATTRIBUTES: dict[str, dict[str, str]] = {
    "App": {
        "add_exception_handler": "app.exception_handler(ValueError)(answer)",
        "exception_handlers": _HANDLER,
        "errorhandler": _HANDLER,
        "dependency_overrides": _TEST,
        "url_path_for": 'app.url_for("name", id=3)',
        "lifespan": _LIFESPAN,
        "root_path": "trioweb run main:app --root-path /api",
        "router": "app itself: an App is a Router",
        "test_client": "async with trioweb.testing.client(app) as c: ...",
        "run": "trioweb run main:app, or in a program of yours: await trioweb.serve(app)",
        **dict.fromkeys(
            ("middleware", "add_middleware", "user_middleware", "middleware_stack"), _MIDDLEWARE
        ),
        **dict.fromkeys(("openapi", "openapi_schema", "openapi_version", "setup"), _NO_DOCUMENT),
        **dict.fromkeys(_FIELDS_OF_DOCUMENT, _NO_DOCUMENT),
        "build_middleware_stack": _MIDDLEWARE,
        "max_body_size": "app.limits.max_body_size",
    },
    "Router": {
        "mount": MOUNT,
        "host": MOUNT,
        "frontend": MOUNT,
        "middleware": _GUARD,
        "on_event": _LIFESPAN,
        "add_event_handler": _LIFESPAN,
        "on_startup": _LIFESPAN,
        "on_shutdown": _LIFESPAN,
        "lifespan_context": _LIFESPAN,
        "api_route": _ROUTE,
        "trace": '@app.route("/items", methods=["TRACE"]) above the handler',
        "add_api_route": 'app.route("/items", methods=["GET"])(handler)',
        "add_route": 'app.route("/items", methods=["GET"])(handler)',
        "url_path_for": 'app.url_for("name", id=3)',
        "exception_handler": _HANDLER,
        "default_response_class": _RESPONSE_CLASS,
        "dependency_overrides_provider": _TEST,
        "redirect_slashes": _SLASH,
        "lifespan": _LIFESPAN,
        "max_body_size": _ROUTES_SIZE,
        "middleware_stack": _MIDDLEWARE,
        "not_found": _NOT_FOUND,
        "default": _NOT_FOUND,
        "route_class": _GUARD,
        "prefix": 'Router(prefix="/items")  # each of router.routes has its whole path',
        "dependencies": "Router(dependencies=[...])  # each of router.routes has them all",
        **dict.fromkeys(_ROUTES_DOCUMENT, _LEAVE_OUT),
        **dict.fromkeys(
            (
                "websocket",
                "websocket_route",
                "add_websocket_route",
                "add_api_websocket_route",
            ),
            _NO_WEBSOCKETS,
        ),
    },
    "Request": {
        "form": "dict(urllib.parse.parse_qsl((await request.body()).decode()))",
        "session": 'request.scope["session"], which session middleware around the app sets',
        "user": "request.state.user, which a dependency sets",
        "auth": "request.state.auth, which a dependency sets",
        "is_disconnected": "await request.wait_disconnected(), in a nursery of the request",
        "receive": "async for piece in request.stream()",
        "base_url": 'f"{request.url.scheme}://{request.url.netloc}/"',
        "send_push_promise": _LINK,
        "send_early_hints": _LINK,
        "close": "nothing: what a request has open ends with it",
        "keys": "request.scope.keys()",
        "values": "request.scope.values()",
        "items": "request.scope.items()",
        "get": 'request.scope.get("path")',
    },
    "BackgroundTasks": {
        "tasks": "len(tasks), or what add_task returned: a task that says its state",
        "add": "tasks.add_task(send_mail, address)",
    },
    "Response": {
        "raw_headers": "response.headers.raw",
        "charset": 'Response(text, media_type="text/plain; charset=utf-8")',
        "init_headers": "response.headers.update({...})",
    },
    "URL": {
        "is_secure": 'request.url.scheme == "https"',
        "include_query_params": _URL,
        "remove_query_params": _URL,
        "replace_query_params": _URL,
        "replace": _URL,
        "components": "urllib.parse.urlsplit(str(request.url))",
    },
    "QueryParams": {"multi_items": "[(k, v) for k in params for v in params.getlist(k)]"},
    "RequestValidationError": {
        "body": "await request.body(), which can be read again",
        "json": "json.dumps(exc.errors())",
    },
    "Client": {
        "websocket_connect": _NO_WEBSOCKETS,
        "headers": "client(app, headers={...})",
        "base_url": 'client(app, base_url="https://example.org")',
        **dict.fromkeys(("close", "aclose"), "async with client(app) as c: ...  # its end closes"),
    },
    "ClientResponse": {
        **dict.fromkeys(
            ("raise_for_status", "is_success", "is_error", "ok"), "response.status_code == 200"
        ),
        **dict.fromkeys(
            ("is_redirect", "has_redirect_location", "next_request", "history"),
            'response.headers["location"]: nobody follows redirects',
        ),
        **dict.fromkeys(
            ("iter_bytes", "iter_text", "aiter_bytes", "aiter_text", "iter_raw", "aiter_raw"),
            "async for piece in response: ...  # within async with c.stream(...) as response",
        ),
        **dict.fromkeys(("iter_lines", "aiter_lines"), "(await response.read()).splitlines()"),
        "aread": "await response.read()",
        **dict.fromkeys(("body", "data"), "response.content"),
        "reason_phrase": "http.HTTPStatus(response.status_code).phrase",
        "url": "what the test has asked for: nobody follows redirects",
        "elapsed": "trio.current_time(), before and after",
        "encoding": "response.text, or response.content.decode(...)",
        **dict.fromkeys(
            ("close", "aclose"), "async with c.stream(...) as response  # its end closes"
        ),
    },
}

# Of calls, by what is called.
_ARGUMENTS: dict[str, dict[str, str]] = {
    "App": {
        **dict.fromkeys(_FIELDS_OF_DOCUMENT, _LEAVE_OUT),
        **dict.fromkeys(_ROUTES_DOCUMENT, _LEAVE_OUT),
        "root_path": "trioweb run main:app --root-path /api",
        "middleware": _MIDDLEWARE,
        "exception_handlers": _HANDLER,
        "on_startup": _LIFESPAN,
        "on_shutdown": _LIFESPAN,
        "routes": '@app.get("/items") above each handler',
        "default_response_class": _RESPONSE_CLASS,
        "redirect_slashes": _SLASH,
        "prefix": "Router(prefix=...), which the app includes",
        "form_limits": _NO_FORMS,
        "max_body_size": "App(limits=Limits(max_body_size=...))",
        "strict_content_type": _LEAVE_OUT_CHECK,
        "telemetry": "leave it out: there is none",
    },
    "Router": {
        **dict.fromkeys(_ROUTES_DOCUMENT, _LEAVE_OUT),
        "on_startup": _LIFESPAN,
        "on_shutdown": _LIFESPAN,
        "lifespan": _LIFESPAN,
        "routes": '@router.get("/items") above each handler',
        "default_response_class": _RESPONSE_CLASS,
        "redirect_slashes": _SLASH,
        "route_class": _GUARD,
        "default": _NOT_FOUND,
        "dependency_overrides_provider": _TEST,
        "form_limits": _NO_FORMS,
        "max_body_size": _ROUTES_SIZE,
        "strict_content_type": _LEAVE_OUT_CHECK,
    },
    "include_router": {
        **dict.fromkeys(_ROUTES_DOCUMENT, _LEAVE_OUT),
        "default_response_class": _RESPONSE_CLASS,
        "form_limits": _NO_FORMS,
        "max_body_size": _ROUTES_SIZE,
    },
    "route": {
        **dict.fromkeys(_ROUTES_DOCUMENT, _LEAVE_OUT),
        "methods": _ROUTE,
        "form_limits": _NO_FORMS,
        "response_model": _MODEL,
        **{
            f"response_model_{option}": _MODEL
            for option in ("include", "exclude", "by_alias", "exclude_unset")
        },
        "response_model_exclude_defaults": _MODEL,
        "response_model_exclude_none": _MODEL,
        "response_class": _RESPONSE_CLASS,
    },
    "marker": {
        **dict.fromkeys(
            ("deprecated", "include_in_schema", "openapi_examples", "json_schema_extra"), _LEAVE_OUT
        ),
        "regex": 'pattern="^[a-z]+$"',
        "example": "examples=[...]",
        "default_factory": "the default itself, such as []: each request has a copy",
        "validation_alias": 'alias="page-size"',
        "serialization_alias": 'alias="page-size"',
        "convert_underscores": 'Header(convert_underscores=False), or alias="page_size"',
        "strict": "leave it out: texts and JSON are read strictly",
        "allow_inf_nan": "leave it out: numbers are finite",
        "media_type": "await request.body(), with request: Request",
        "max_digits": _IN_MODEL,
        "decimal_places": _IN_MODEL,
        "discriminator": "pydantic's own: Annotated[Cat | Dog, Field(discriminator=...)]",
    },
}


# What a wrong line calls an object of these classes.
_WORDS = {
    "App": "app",
    "Router": "router",
    "Request": "request",
    "BackgroundTasks": "tasks",
    "Response": "response",
    "URL": "request.url",
    "QueryParams": "request.query_params",
    "RequestValidationError": "exc",
    "Client": "c",
    "ClientResponse": "response",
}


class _Missing:
    """In the place of a name that a class hasn't: who asks for it is told what to write instead."""

    def __init__(self, name: str, right: str) -> None:
        self.__doc__ = f"Not there; instead: {right}"
        self._name = name
        self._right = right

    def __get__(self, owner: object, kind: type | None = None) -> NoReturn:
        raise self._error(kind or type(owner))

    def _error(self, kind: type) -> AttributeError:
        names = [base.__name__ for base in kind.__mro__]
        word = next(_WORDS[name] for name in names if name in _WORDS)
        wrong = f"{word}.{self._name}"
        return AttributeError(
            f"{names[0]} has no {self._name!r}\n    wrong:  {wrong}\n    right:  {self._right}"
        )


class _MissingAndFixed(_Missing):
    """One that can't be set either: that would do nothing."""

    def __set__(self, owner: object, value: object) -> NoReturn:
        raise self._error(type(owner))


def tells_instead(*, when_set: bool = False) -> Callable[[C], C]:
    """For a class of ours: what others' have and it hasn't is told with what to write instead.

    `when_set`: also where somebody sets it, which would do nothing.  Type checkers see none of it.
    """
    stand_in = _MissingAndFixed if when_set else _Missing

    def decorate(kind: C) -> C:
        # A `__getattr__` would make each access to what is there slower: 3 % of a request.
        for name, right in _ATTRIBUTES[kind.__name__].items():
            assert not hasattr(kind, name), f"{kind.__name__}.{name} is there: it has no entry here"
            setattr(kind, name, stand_in(name, right))
        kind.__dir__ = _dir_without_missing  # type: ignore[method-assign, assignment]
        return kind

    return decorate


def _dir_without_missing(owner: object) -> list[str]:
    """`dir` of an object, of what is there."""
    names = dict.fromkeys(object.__dir__(owner))
    return [name for name in names if not isinstance(getattr_static(owner, name), _Missing)]


def right_line(call: str, *options: str) -> str | None:
    """What to write in place of the first of these options of which that is known."""
    known = _ARGUMENTS[call]
    return next((known[option] for option in options if option in known), None)


def takes_options(call: str) -> Callable[[F], F]:
    """For a function of ours: an option of others is refused with what to write instead."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def checked(*args: Any, **options: Any) -> Any:
            for option in options:
                if option not in known:
                    _refuse(call, option)
            return function(*args, **options)

        code = function.__code__
        known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return cast(F, checked)

    return decorate


def _refuse(call: str, option: str) -> None:
    right = right_line(call, option)
    if right is not None:
        raise RegistrationError(
            f"{call} has no option {option!r}", wrong=f"{call}(..., {option}=...)", right=right
        )


tells_instead()(RequestValidationError)  # which is on a floor below
