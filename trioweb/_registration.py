"""Registration: which handler answers which method and path.

Rules of this module:

* A route is compiled when it is registered, never later: what is wrong with it
  is raised on the line that is wrong.
* Nothing is registered silently in vain: a router that was included is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from . import _callables
from ._errors import RegistrationError
from ._inject import Plan, compile_plan
from ._routing import Template

H = TypeVar("H", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One registered handler.  `timeout` is in seconds, `max_body_size` in bytes."""

    path: str
    methods: tuple[str, ...]
    handler: Callable[..., Any]
    name: str
    status_code: int
    dependencies: tuple[Any, ...]
    timeout: float | None
    max_body_size: int | None

    def compile(self) -> tuple[Template, Plan]:
        template = Template.parse(self.path)
        plan = compile_plan(
            self.handler,
            template.parameters,
            dependencies=self.dependencies,
            status_code=self.status_code,
            timeout=self.timeout,
        )
        return template, plan


class Router:
    """Routes under a common prefix, to be included in an app or another router.

    `dependencies` are those of each route.  Include it when all its routes are
    registered.
    """

    def __init__(self, prefix: str = "", *, dependencies: Sequence[Any] = ()) -> None:
        if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
            raise RegistrationError(
                "a prefix begins with a slash and doesn't end with one",
                wrong=f"Router({prefix!r})",
                right=f"Router({'/' + prefix.strip('/')!r})",
            )
        self._prefix = prefix
        self._dependencies = tuple(dependencies)
        self._routes: list[Route] = []
        self._included = False

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
    ) -> Callable[[H], H]:
        """Register a handler for these methods.

        `status_code` is that of what the handler returns, unless it returns a
        Response; `name` is for `url_for`, by default the function's; `timeout`
        (seconds) cancels the handler and answers 503; `max_body_size` (bytes)
        goes before the app's limit.  Raises RegistrationError.
        """

        def register(handler: H) -> H:
            self._register(
                Route(
                    path=self._prefix + path,
                    methods=_checked_methods(methods),
                    handler=handler,
                    name=name or _callables.name(handler).rpartition(".")[2],
                    status_code=status_code,
                    dependencies=(*self._dependencies, *dependencies),
                    timeout=timeout,
                    max_body_size=max_body_size,
                )
            )
            return handler

        return register

    def get(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler for GET, and with it HEAD.  Options as for `route`."""
        return self.route(path, methods=["GET"], **options)

    def post(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler for POST.  Options as for `route`."""
        return self.route(path, methods=["POST"], **options)

    def put(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler for PUT.  Options as for `route`."""
        return self.route(path, methods=["PUT"], **options)

    def patch(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler for PATCH.  Options as for `route`."""
        return self.route(path, methods=["PATCH"], **options)

    def delete(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler for DELETE.  Options as for `route`."""
        return self.route(path, methods=["DELETE"], **options)

    def options(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler for OPTIONS.  Options as for `route`."""
        return self.route(path, methods=["OPTIONS"], **options)

    def head(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler for HEAD alone.  Options as for `route`."""
        return self.route(path, methods=["HEAD"], **options)

    def include_router(self, router: Router, *, prefix: str = "") -> None:
        """Take over all routes of `router`, under `prefix` and this router's own."""
        router._included = True
        for route in router._routes:
            self._register(
                replace(
                    route,
                    path=self._prefix + prefix + route.path,
                    dependencies=(*self._dependencies, *route.dependencies),
                )
            )

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


def _checked_methods(methods: Iterable[str]) -> tuple[str, ...]:
    given = None if isinstance(methods, str) else tuple(methods)
    if not given or not all(isinstance(m, str) and m.isalpha() for m in given):
        raise RegistrationError(
            "methods is a list of method names",
            wrong=f"methods={methods!r}",
            right="methods=['GET', 'POST']",
        )
    return tuple(method.upper() for method in given)
