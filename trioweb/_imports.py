"""What users of FastAPI and Starlette import, and what to import or write here instead.

Rules of this module:

* What is imported works as ever, and costs nothing: the finder is the last one, so it is asked for
  what no other has found.
* It knows names in its table only, below `trioweb`; all else is Python's own error.
* `hasattr` says no, and `dir` doesn't show it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

_RESPONSES = "from trioweb import JSONResponse, HTMLResponse, StreamingResponse  # and others"
_MARKERS = "from trioweb import Body, Cookie, Depends, Header, Path, Query"
_NO_WEBSOCKETS = "return StreamingResponse(events()): there are no WebSockets"
_FORM = "dict(urllib.parse.parse_qsl((await request.body()).decode())): there are no forms"
_FILE = "async for piece in request.stream(): the body is the file, there is no multipart"
_MIDDLEWARE = (
    "from starlette.middleware.cors import CORSMiddleware, and below the routes"
    " app = CORSMiddleware(app, ...)  # pip install starlette"
)
_TEST_CLIENT = "async with trioweb.testing.client(app) as c: ..."
_SECURITY = "a dependency that reads authorization: Annotated[str, Header()]"
_STATUS = "the number: status_code=201, or http.HTTPStatus.CREATED"
_ERRORS = "from trioweb import HTTPException, RequestValidationError"
_TASKS = "from trioweb import BackgroundTask, BackgroundTasks"
_REQUEST = "from trioweb import Request"
_STATIC = "files are the proxy's; or an ASGI app for them beside this one"
_EVENTS = 'StreamingResponse(events(), media_type="text/event-stream")'

INSTEAD = {
    "APIRouter": "from trioweb import Router",
    "AsyncClient": _TEST_CLIENT,
    "CORSMiddleware": _MIDDLEWARE,
    "EventSourceResponse": _EVENTS,
    "FastAPI": "from trioweb import App",
    "File": _FILE,
    "FileResponse": "StreamingResponse(pieces(path)), whose pieces are read by trio.open_file",
    "Form": _FORM,
    "Middleware": _MIDDLEWARE,
    "ORJSONResponse": "from trioweb import JSONResponse",
    "Security": "from trioweb import Depends",
    "Starlette": "from trioweb import App",
    "TestClient": _TEST_CLIENT,
    "UploadFile": _FILE,
    "WebSocket": _NO_WEBSOCKETS,
    "WebSocketDisconnect": _NO_WEBSOCKETS,
    "WebSocketException": _NO_WEBSOCKETS,
    "applications": "from trioweb import App",
    "background": _TASKS,
    "concurrency": "await trio.to_thread.run_sync(func, *args)",
    "encoders": "return the value as it is; elsewhere msgspec.to_builtins(value)",
    "exceptions": _ERRORS,
    "middleware": _MIDDLEWARE,
    "param_functions": _MARKERS,
    "params": _MARKERS,
    "requests": _REQUEST,
    "responses": _RESPONSES,
    "routing": "from trioweb import Router",
    "security": _SECURITY,
    "sse": _EVENTS,
    "staticfiles": _STATIC,
    "status": _STATUS,
    "templating": "return HTMLResponse(template.render(...)), with Jinja's own Environment",
    "testclient": _TEST_CLIENT,
    "testing.AsyncClient": _TEST_CLIENT,
    "testing.TestClient": _TEST_CLIENT,
    "websockets": _NO_WEBSOCKETS,
}


class _Missing:
    """Asked by the import system, after all others: for a module, and for a name of a package."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raises ImportError.

        A ModuleNotFoundError would be passed over where a package is asked for a name.
        """
        name = fullname.removeprefix(f"{self._package}.")
        if name != fullname and name in INSTEAD:
            owner, _, last = fullname.rpartition(".")
            wrong = f"import {fullname}" if last.islower() else f"from {owner} import {last}"
            raise ImportError(_text(owner, last, wrong, name), name=owner)


def tells_imports(package: str) -> Callable[[str], NoReturn]:
    """From now on, of what is below `package`.  Gives its `__getattr__`."""
    sys.meta_path.append(_Missing(package))

    def missing(name: str) -> NoReturn:
        if name in INSTEAD:
            raise AttributeError(_text(package, name, f"{package}.{name}", name))
        text = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(text, name=name, obj=sys.modules[package])

    return missing


def _text(owner: str, name: str, wrong: str, key: str) -> str:
    return f"{owner} has no {name!r}\n    wrong:  {wrong}\n    right:  {INSTEAD[key]}"
