"""Registration: which handler answers which method and path.

Rules of this module:

* A route is compiled when it is registered, never later: what is wrong with it
  is raised on the line that is wrong.
* Nothing is registered silently in vain: a router that was included is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypedDict, TypeVar, Unpack

from .. import _callables
from .._errors import RegistrationError
from .._fields import is_token
from .._inject.compiler import compile_plan
from .._inject.markers import checked_dependencies
from .._inject.plan import Plan
from .._instead import MOUNT, right_line, takes_options, tells_instead
from .._shapes.codecs import Codecs
from .templates import Template

H = TypeVar("H", bound=Callable[..., Any])


class RouteOptions(TypedDict, total=False):
    """What any route may say of itself; `Router.route` tells what each means."""

    status_code: int
    name: str | None
    dependencies: Sequence[Any]
    timeout: float | None
    max_body_size: int | None
    cancel_on_disconnect: bool | None


# Those that change nothing (RFC 9110, 9.2.1): who asked is the only one who wants the answer.
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


def _nobody() -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One registered handler.  `timeout` is in seconds, `max_body_size` in bytes."""

    path: str
    methods: tuple[str, ...]
    status_code: int
    dependencies: tuple[Any, ...]
    timeout: float | None
    max_body_size: int | None
    cancel_on_disconnect: bool | None
    # The last to be known: they are what is decorated.
    handler: Callable[..., Any] = _nobody
    name: str = ""

    def compile(self, codecs: Codecs) -> tuple[Template, Plan]:
        is_cancelled = self.cancel_on_disconnect
        if is_cancelled is None:
            is_cancelled = _SAFE_METHODS.issuperset(self.methods)
        template = Template.parse(self.path)
        plan = compile_plan(
            self.handler,
            template.types,
            dependencies=self.dependencies,
            status_code=self.status_code,
            timeout=self.timeout,
            cancel_on_disconnect=is_cancelled,
            codecs=codecs,
        )
        if self.cancel_on_disconnect:
            _refuse_cancelled_thread(self.handler)
        return template, plan


@tells_instead(when_set=True)
class Router:
    """Routes under a common prefix, to be included in an app or another router.

    `dependencies` are those of each route.  Include it when all its routes are
    registered.
    """

    @takes_options("Router")
    def __init__(self, prefix: str = "", *, dependencies: Sequence[Any] = ()) -> None:
        self._prefix = _checked_prefix(prefix)
        self._dependencies = checked_dependencies(dependencies)
        self._routes: list[Route] = []
        self._included = False

    @property
    def routes(self) -> tuple[Route, ...]:
        """What is registered, in that order; an app's includes that of its routers."""
        return tuple(self._routes)

    @takes_options("route")
    def route(
        self,
        path: str,
        *,
        methods: Iterable[str],
        status_code: int = 200,
        name: str | None = None,
        dependencies: Sequence[Any] = (),
        timeout: float | None = None,
        max_body_size: int | None = None,
        cancel_on_disconnect: bool | None = None,
    ) -> Callable[[H], H]:
        """Register a handler for these methods.

        `status_code` is that of what the handler returns, unless it returns a
        Response; `name` is for `url_for`, by default the function's; `timeout`
        (seconds) cancels the handler and answers 503; `max_body_size` (bytes)
        goes before the app's limit; `cancel_on_disconnect` cancels the handler when
        its client leaves, by default where all methods are safe (GET, HEAD,
        OPTIONS) and the handler is an `async def`.  Raises RegistrationError.
        """
        _check_numbers(status_code, timeout, max_body_size)
        _check_flag(cancel_on_disconnect)
        route = Route(
            path=self._prefix + _checked_path(path),
            methods=_checked_methods(methods),
            name=name or "",
            status_code=status_code,
            dependencies=(*self._dependencies, *checked_dependencies(dependencies)),
            timeout=timeout,
            max_body_size=max_body_size,
            cancel_on_disconnect=cancel_on_disconnect,
        )
        return lambda handler: self._register_handler(route, handler)

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Register a handler for GET, and with it HEAD.  Options as for `route`."""
        return self._route("get", path, options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Register a handler for POST.  Options as for `route`."""
        return self._route("post", path, options)

    def put(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Register a handler for PUT.  Options as for `route`."""
        return self._route("put", path, options)

    def patch(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Register a handler for PATCH.  Options as for `route`."""
        return self._route("patch", path, options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Register a handler for DELETE.  Options as for `route`."""
        return self._route("delete", path, options)

    def options(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Register a handler for OPTIONS.  Options as for `route`."""
        return self._route("options", path, options)

    def head(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Register a handler for HEAD alone.  Options as for `route`."""
        return self._route("head", path, options)

    def _route(self, method: str, path: str, options: RouteOptions) -> Callable[[H], H]:
        for option in options.keys() - RouteOptions.__annotations__.keys():
            known = ", ".join(RouteOptions.__annotations__)
            raise RegistrationError(
                f"a route has no option {option!r}",
                wrong=f"@app.{method}({path!r}, {option}=...)",
                right=right_line("route", option)
                or f"@app.{method}({path!r}) with some of {known}",
            )
        return self.route(path, methods=[method.upper()], **options)

    @takes_options("include_router")
    def include_router(
        self, router: Router, *, prefix: str = "", dependencies: Sequence[Any] = ()
    ) -> None:
        """Take over all routes of `router`, under `prefix` and this router's own.

        `dependencies` go before those of `router`, and after those of this one.
        """
        path = self._prefix + _checked_prefix(prefix)
        first = (*self._dependencies, *checked_dependencies(dependencies))
        self._check_included(router)
        router._included = True
        for route in router._routes:
            self._register(
                replace(route, path=path + route.path, dependencies=(*first, *route.dependencies))
            )

    def _check_included(self, router: Any) -> None:
        if not isinstance(router, Router) or callable(router):  # an app is a Router that is called
            raise _not_a_router(router)
        if router is self:
            raise RegistrationError(
                "a router can't include itself",
                wrong="router.include_router(router)",
                right="app.include_router(router)",
            )
        if self._included:
            raise RegistrationError(
                "what a router includes comes too late: it is included itself already",
                wrong="app.include_router(router), then router.include_router(inner)",
                right="router.include_router(inner), then app.include_router(router)",
            )

    def _register_handler(self, route: Route, handler: H) -> H:
        name = route.name or _callables.name(handler).rpartition(".")[2]
        self._register(replace(route, handler=handler, name=name))
        return handler

    def _register(self, route: Route) -> None:
        if self._included:
            raise RegistrationError(
                f"{route.name} comes too late: its router is included already",
                wrong="app.include_router(router), then @router.get(...)",
                right="@router.get(...), then app.include_router(router)",
            )
        # A path parameter may come from the prefix of whoever includes us, so
        # only the whole template is compiled, in the app.
        self._routes.append(route)


def _not_a_router(router: Any) -> RegistrationError:
    if isinstance(router, Router):
        return RegistrationError(
            "an app is included in none: its lifespan, handlers and limits would be dropped",
            wrong="app.include_router(App())",
            right=f"app.include_router(Router()), or for a whole app {MOUNT}",
        )
    wrong, right = repr(router), "Router()"
    if isinstance(router, ModuleType):
        wrong = router.__name__.rpartition(".")[2]
        right = f"{wrong}.router"
    return RegistrationError(
        f"include_router takes a Router, not {type(router).__name__}",
        wrong=f"app.include_router({wrong})",
        right=f"app.include_router({right})",
    )


def _checked_prefix(prefix: str) -> str:
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise RegistrationError(
            "a prefix begins with a slash and doesn't end with one",
            wrong=f"prefix={prefix!r}",
            right=f"prefix={prefix.strip('/') and '/' + prefix.strip('/')!r}",
        )
    return prefix


def _checked_path(path: Any) -> str:
    if not isinstance(path, str):
        name = _callables.name(path)
        raise RegistrationError(
            "a route begins with its path",
            wrong=f"@app.get above def {name}",
            right=f'@app.get("/{name.rpartition(".")[2]}") above def {name}',
        )
    if path and not path.startswith("/"):
        raise RegistrationError(
            "a path begins with a slash, after a prefix too",
            wrong=repr(path),
            right=repr("/" + path),
        )
    return path


def _check_numbers(status_code: Any, timeout: Any, max_body_size: Any) -> None:
    if not (isinstance(status_code, int) and 200 <= status_code <= 599):
        raise RegistrationError(
            "status_code is that of a final response",
            wrong=f"status_code={status_code!r}",
            right="status_code=201  # 200 to 599",
        )
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
        raise RegistrationError(
            "timeout is a number of seconds", wrong=f"timeout={timeout!r}", right="timeout=5.0"
        )
    if max_body_size is not None and not (isinstance(max_body_size, int) and max_body_size >= 0):
        raise RegistrationError(
            "max_body_size is a number of bytes",
            wrong=f"max_body_size={max_body_size!r}",
            right="max_body_size=10 * 1024 * 1024",
        )


def _check_flag(cancel_on_disconnect: Any) -> None:
    if cancel_on_disconnect not in (None, True, False):
        raise RegistrationError(
            "cancel_on_disconnect is True or False",
            wrong=f"cancel_on_disconnect={cancel_on_disconnect!r}",
            right="cancel_on_disconnect=True",
        )


def _refuse_cancelled_thread(handler: Callable[..., Any]) -> None:
    if not _callables.is_async(handler):
        name = _callables.name(handler)
        raise RegistrationError(
            f"{name} runs in a thread, which can't be cancelled when its client leaves",
            wrong=f"cancel_on_disconnect=True on def {name}",
            right=f"cancel_on_disconnect=True on async def {name}",
        )


def _checked_methods(methods: Iterable[str]) -> tuple[str, ...]:
    is_list = isinstance(methods, Iterable) and not isinstance(methods, str)
    given = tuple(methods) if is_list else ()
    if not given or not all(isinstance(m, str) and is_token(m) for m in given):
        raise RegistrationError(
            "methods is a list of method names",
            wrong=f"methods={methods!r}",
            right="methods=['GET', 'POST']",
        )
    return tuple(method.upper() for method in given)
