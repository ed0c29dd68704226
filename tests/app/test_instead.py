"""What FastAPI's users try: each is told what to write instead, and is missing all the same."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio

import trioweb
from trioweb import (
    App,
    BackgroundTasks,
    JSONResponse,
    RegistrationError,
    Request,
    RequestValidationError,
    Router,
)
from trioweb._http.url import URL, QueryParams
from trioweb._imports import INSTEAD

from ..support.exchanges import exchange_of


class Shop(App):
    """A user's own, which brings what others would look for."""

    title = "Shop"


def a_request() -> Request:
    return Request(exchange_of({}, trio.sleep_forever))


MAKERS: dict[str, Callable[[], object]] = {
    "app": App,
    "router": Router,
    "request": a_request,
    "tasks": BackgroundTasks,
    "response": JSONResponse,
    "request.url": lambda: URL("http", "example.org", "/", "/", ""),
    "request.query_params": lambda: QueryParams(b""),
    "exc": lambda: RequestValidationError([]),
}

# What theirs have and ours haven't, of FastAPI 0.165 and Starlette 1.0; a name a word.
THEIRS = {
    "app": """
        add_api_route add_api_websocket_route add_event_handler add_exception_handler
        add_middleware add_route add_websocket_route api_route build_middleware_stack contact
        dependency_overrides description docs_url exception_handlers frontend host license_info
        max_body_size middleware middleware_stack mount on_event openapi openapi_external_docs
        openapi_schema openapi_tags openapi_url openapi_version redoc_url root_path
        root_path_in_servers router separate_input_output_schemas servers setup summary
        swagger_ui_init_oauth swagger_ui_oauth2_redirect_url swagger_ui_parameters
        terms_of_service title trace url_path_for user_middleware version webhooks websocket
        websocket_route
    """,
    "router": """
        add_api_route add_api_websocket_route add_event_handler add_route add_websocket_route
        api_route callbacks default default_response_class dependencies
        dependency_overrides_provider deprecated frontend generate_unique_id_function host
        include_in_schema lifespan lifespan_context max_body_size middleware_stack mount
        not_found on_event on_shutdown on_startup prefix redirect_slashes responses route_class
        tags trace url_path_for websocket websocket_route
    """,
    "request": """
        auth base_url close form get is_disconnected items keys receive send_early_hints
        send_push_promise session user values
    """,
    "tasks": "tasks",
    "response": "charset init_headers raw_headers",
    "request.url": """
        components include_query_params is_secure remove_query_params replace replace_query_params
    """,
    "request.query_params": "multi_items",
    "exc": "body json",
}


@pytest.mark.parametrize(
    ("word", "name"), [(word, name) for word, names in THEIRS.items() for name in names.split()]
)
def test_what_ours_lack_is_told_of(word: str, name: str) -> None:
    ours = MAKERS[word]()
    assert not hasattr(ours, name)
    assert name not in dir(ours)
    with pytest.raises(AttributeError) as missing:
        getattr(ours, name)
    said, wrong, right = str(missing.value).split("\n")
    assert said == f"{type(ours).__name__} has no {name!r}"
    assert wrong == f"    wrong:  {word}.{name}"
    assert right.startswith("    right:  ")
    assert "LookupError" not in right


@pytest.mark.parametrize(
    ("word", "name", "right"),
    [
        ("app", "mount", "async def site(scope, receive, send): await (other if"),
        ("app", "middleware", "app = Class(app, **options)"),
        ("app", "add_exception_handler", "app.exception_handler(ValueError)(answer)"),
        ("app", "dependency_overrides", "an app that is made by a function of what tests replace"),
        ("app", "on_event", "App(lifespan=...)"),
        ("router", "on_event", "App(lifespan=...)"),
        ("router", "mount", "async def site(scope, receive, send): await (other if"),
        ("router", "exception_handler", "@app.exception_handler(ValueError)"),
        ("request", "form", "dict(urllib.parse.parse_qsl((await request.body()).decode()))"),
        ("request", "is_disconnected", "await request.wait_disconnected()"),
        ("tasks", "tasks", "len(tasks), or what add_task returned"),
        ("response", "raw_headers", "response.headers.raw"),
        ("exc", "body", "await request.body(), which can be read again"),
    ],
)
def test_the_right_line_stands_below_the_wrong_one(word: str, name: str, right: str) -> None:
    ours = MAKERS[word]()
    with pytest.raises(AttributeError) as missing:
        getattr(ours, name)
    assert str(missing.value).partition("right:  ")[2].startswith(right)


def test_any_other_name_is_pythons_own_error() -> None:
    with pytest.raises(AttributeError, match=r"^'App' object has no attribute 'rout'$") as missing:
        _ = App().rout  # type: ignore[attr-defined]
    assert missing.value.name == "rout"
    assert isinstance(missing.value.obj, App)
    code = "import trioweb; trioweb.App().rout"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Did you mean: 'route'?" in shown.stderr


def test_what_would_do_nothing_cant_be_set() -> None:
    for ours in (App(), Router()):
        with pytest.raises(AttributeError, match="right:"):
            ours.on_startup = []  # type: ignore[attr-defined]
    app: Any = App()
    with pytest.raises(AttributeError, match="right:  trioweb routes main:app"):
        app.openapi = dict
    with pytest.raises(AttributeError, match="right:  an app that is made"):
        app.dependency_overrides = {}
    app.debug = True
    app.own = 5  # anybody's own names
    assert app.debug
    assert app.own == 5
    shop: Any = Shop()
    shop.title = "Another"
    assert shop.title == "Another"
    with pytest.raises(AttributeError, match=r"^Shop has no 'version'"):
        shop.version = "1"


@pytest.mark.parametrize("word", ["app", "router", "response"])
def test_an_object_can_be_copied(word: str) -> None:
    ours: Any = MAKERS[word]()
    assert vars(copy.copy(ours)) == vars(ours)


# Arguments


DOCUMENTS = """
    callbacks deprecated generate_unique_id_function include_in_schema responses tags
"""
CALLS: dict[str, tuple[Callable[..., object], str]] = {
    "App": (
        App,
        f"""{DOCUMENTS} contact default_response_class description docs_url exception_handlers
        form_limits license_info max_body_size middleware on_shutdown on_startup
        openapi_external_docs openapi_tags openapi_url redirect_slashes redoc_url root_path
        root_path_in_servers routes separate_input_output_schemas servers strict_content_type
        summary swagger_ui_init_oauth swagger_ui_oauth2_redirect_url swagger_ui_parameters
        telemetry terms_of_service title version webhooks prefix""",
    ),
    "Router": (
        Router,
        f"""{DOCUMENTS} default default_response_class dependency_overrides_provider form_limits
        lifespan max_body_size on_shutdown on_startup redirect_slashes route_class routes
        strict_content_type""",
    ),
    "include_router": (
        lambda **options: App().include_router(Router(), **options),
        f"{DOCUMENTS} default_response_class form_limits max_body_size",
    ),
    "get": (
        lambda **options: App().get("/", **options),
        f"""{DOCUMENTS} description form_limits methods openapi_extra operation_id response_class
        response_description response_model response_model_by_alias response_model_exclude
        response_model_exclude_defaults response_model_exclude_none
        response_model_exclude_unset response_model_include summary""",
    ),
    "route": (
        lambda **options: App().route("/", methods=["GET"], **options),
        f"{DOCUMENTS} description operation_id response_class response_model summary",
    ),
}


@pytest.mark.parametrize(
    ("call", "option"),
    [(call, option) for call, (_, options) in CALLS.items() for option in options.split()],
)
def test_an_option_of_theirs_is_told_of(call: str, option: str) -> None:
    with pytest.raises(RegistrationError, match=f"has no option {option!r}") as refused:
        CALLS[call][0](**{option: None})
    _, wrong, right = str(refused.value).split("\n")
    assert f"{option}=..." in wrong
    assert right.startswith("    right:  ")
    assert "LookupError" not in right


def test_a_misspelt_option_is_pythons_own_error() -> None:
    app: Any = App
    with pytest.raises(TypeError, match=r"App.__init__\(\) got an unexpected keyword .*'tile'"):
        app(tile="Shop")


def test_signatures_are_as_they_are_written() -> None:
    assert list(inspect.signature(App).parameters)[:3] == ["lifespan", "dependencies", "debug"]
    assert list(inspect.signature(Router).parameters) == ["prefix", "dependencies"]
    assert "timeout" in inspect.signature(Router.route).parameters


# Imports


NAMES = """
    APIRouter FastAPI File FileResponse Form Security TestClient UploadFile WebSocket
    WebSocketDisconnect status
"""
MODULES = """
    applications background concurrency encoders exceptions middleware middleware.cors params
    requests responses routing security staticfiles status templating testclient websockets
"""


@pytest.mark.parametrize("name", [*NAMES.split(), *MODULES.split()])
def test_an_import_of_theirs_is_told_of(name: str) -> None:
    first = name.partition(".")[0]
    for line in (f"from trioweb import {first}", f"import trioweb.{name}"):
        with pytest.raises(ImportError, match=f"^trioweb has no '{first}'") as missing:
            exec(line, {})
        _, wrong, right = str(missing.value).split("\n")
        assert wrong.endswith((f"import {first}", f"import trioweb.{first}"))
        assert right.startswith("    right:  ")
    assert not hasattr(trioweb, first)
    with pytest.raises(AttributeError, match=f"wrong:  trioweb.{first}\n"):
        getattr(trioweb, first)


def test_the_test_client_is_told_of_where_it_is_looked_for() -> None:
    with pytest.raises(ImportError, match=r"wrong:  from trioweb\.testing import TestClient\n"):
        exec("from trioweb.testing import TestClient", {})


def test_what_is_imported_instead_is_there() -> None:
    lines = [right.partition("  #")[0] for right in INSTEAD.values()]
    for line in lines:
        if line.startswith("from trioweb import"):
            exec(line, {})
    assert sum(line.startswith("from trioweb import") for line in lines) > 5


def test_an_import_that_nobody_knows_is_pythons_own_error() -> None:
    with pytest.raises(ImportError, match=r"^cannot import name 'Rout' from 'trioweb'"):
        exec("from trioweb import Rout", {})
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'trioweb.rout'$"):
        exec("import trioweb.rout", {})
    with pytest.raises(
        AttributeError, match=r"^module 'trioweb' has no attribute 'Rout'$"
    ) as other:
        getattr(trioweb, "Rout")  # noqa: B009
    assert (other.value.name, other.value.obj) == ("Rout", trioweb)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'responses'$"):
        exec("import responses", {})
