"""What is wrong with a route is raised where it is written; what isn't is found by its path."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
)

import annotated_types
import attrs
import msgspec
import pydantic
import pytest
import trio
import trio.testing
from fastapi.security import OAuth2PasswordBearer

from trioweb import (
    App,
    BackgroundTask,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    Header,
    HTMLResponse,
    JSONResponse,
    Path,
    Query,
    Request,
    Response,
    Router,
)
from trioweb._errors import RegistrationError
from trioweb._routing.router import RouteOptions

from ..support.asgi import running

T = TypeVar("T")

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")


class Opaque:
    """A class that nobody can decode."""

    def __init__(self, name: str) -> None: ...


class Item(msgspec.Struct):
    name: str


def refused() -> AbstractContextManager[pytest.ExceptionInfo[RegistrationError]]:
    return pytest.raises(RegistrationError)


def lines(refusal: pytest.ExceptionInfo[RegistrationError]) -> tuple[str, str, str]:
    """Its text: what the problem is, the wrong line and the right one."""
    problem, wrong, right = str(refusal.value).split("\n")
    assert wrong.startswith("    wrong:  ")
    assert right.startswith("    right:  ")
    return problem, wrong[12:], right[12:]


def refusal_of(handler: Callable[..., Any], path: str = "/{id}", **options: Any) -> tuple[str, ...]:
    app = App()
    with refused() as refusal:
        app.get(path, **options)(handler)
    with pytest.raises(LookupError):  # nothing stays behind
        app.url_for("handler", id=1)
    return lines(refusal)


# Signatures


WRAPS = "  # or @functools.wraps(func), on a wrapper that passes all on"


def test_any_number_of_arguments() -> None:
    def positional(*args: str) -> None: ...
    def keywords(**kwargs: str) -> None: ...
    def by_position(name: str, /) -> None: ...

    problem = "each parameter has to have a name to be passed by"
    assert refusal_of(positional) == (
        f"test_any_number_of_arguments.<locals>.positional: {problem}".rpartition("<locals>.")[2],
        "def positional(*args: str): ...",
        "def positional(args: str): ..." + WRAPS,
    )
    assert refusal_of(keywords)[1:] == (
        "def keywords(**kwargs: str): ...",
        "def keywords(kwargs: str): ..." + WRAPS,
    )
    assert refusal_of(by_position)[1:] == (
        "def by_position(name: str, /): ...",
        "def by_position(name: str): ...",
    )


@pytest.mark.parametrize(
    "annotation", [Opaque, Opaque | None, list[Opaque], Annotated[Opaque, Body()], complex]
)
def test_annotation_that_cannot_be_decoded_is_named_with_its_handler(annotation: Any) -> None:
    def handler(repo: Any) -> None: ...

    handler.__annotations__["repo"] = annotation
    problem, wrong, right = refusal_of(handler, "/")
    assert problem.startswith("handler: 'repo': The annotation can't be decoded: ")
    assert wrong.startswith("repo: ")
    name = "complex" if annotation is complex else "Opaque"
    assert "nothing is known about" in problem
    assert right.startswith(f"repo: Annotated[{name}, Depends(...)], where ")
    assert right.endswith(f"or App(decoders={{{name}: {name.lower()}_from_json}})")


MEMBERS = "a parameter for each member, such as limit: Annotated[int, {}()]"


@pytest.mark.parametrize(
    ("kind", "marker", "right"),
    [
        (Opaque, Cookie, MEMBERS.format("Cookie")),
        (dict[str, int], Header, MEMBERS.format("Header")),
        (dict, Cookie, MEMBERS.format("Cookie")),
        (bytes, Query, MEMBERS.format("Query")),
        (list[Item], Query, "item: Annotated[Item, Query()]  # whose members may have defaults"),
    ],
)
def test_class_has_no_reading_from_text(kind: Any, marker: Any, right: str) -> None:
    def handler(item: Any) -> None: ...

    handler.__annotations__["item"] = Annotated[kind, marker()]
    problem, wrong, shown = refusal_of(handler)
    source = marker.__name__.lower()
    asked = "neither a text nor a list of texts"
    assert problem == f"handler: 'item' is {asked}, as a {source} gives them"
    written = kind.__name__ if isinstance(kind, type) else inspect.formatannotation(kind)
    assert wrong == f"item: Annotated[{written}, {marker.__name__}()]"
    assert shown.startswith(right)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Request, "Request"), (BackgroundTasks, "BackgroundTasks"), (trio.Nursery, "Nursery")],
)
@pytest.mark.parametrize(
    "optional",
    [lambda kind: kind | None, lambda kind: Optional[kind]],  # noqa: UP045  both are written
)
def test_what_is_always_there_is_never_none(kind: Any, name: str, optional: Any) -> None:
    def handler(x: Any = None) -> None: ...

    handler.__annotations__["x"] = optional(kind)
    problem, wrong, right = refusal_of(handler)
    assert problem == "handler: 'x' is there for each request, so it is never None"
    assert wrong.endswith(" = None")
    assert right == f"x: {name}"


@pytest.mark.parametrize("annotation", [bytes, bytes | None])
def test_bytes_need_a_marker(annotation: Any) -> None:
    def handler(x: Any) -> None: ...

    handler.__annotations__["x"] = annotation
    problem, wrong, right = refusal_of(handler)
    assert problem == "handler: bytes as a parameter would be a base64 string in a JSON body"
    assert wrong.startswith("x: bytes")
    assert right.startswith("await request.body(), with request: Request")


def test_two_defaults() -> None:
    def query(x: Annotated[int, Query(5)] = 6) -> None: ...
    def body(x: Annotated[list[int], Body([])] = [1]) -> None: ...  # noqa: B006

    assert refusal_of(query) == (
        "query: 'x' has two defaults",
        "x: typing.Annotated[int, Query(5)] = 6",
        "x: Annotated[int, Query()] = 6",
    )
    assert refusal_of(body)[2] == "x: Annotated[list[int], Body()] = [1]"


@pytest.mark.parametrize("marker", [Path, Query, Header, Cookie, Body])
def test_signature_of_a_marker_shows_that_its_default_may_be_left_out(marker: Any) -> None:
    assert inspect.signature(marker).parameters["default"].default is ...


@dataclasses.dataclass
class Constrained:
    n: Annotated[int, annotated_types.Ge(1)]
    next: "Constrained | None" = None


class ConstrainedStruct(msgspec.Struct):
    ns: list[Annotated[int, pydantic.Field(ge=1)]]


class ConstrainedDict(TypedDict):
    n: pydantic.PositiveInt


class ConstrainedPair(NamedTuple):
    n: pydantic.PositiveInt


@attrs.define
class ConstrainedAttrs:
    n: pydantic.PositiveInt


class Wrapped(msgspec.Struct, Generic[T]):
    value: T


class OwnGe(annotated_types.Ge):
    """A subclass of theirs is as much passed over."""


Positive = NewType("Positive", pydantic.PositiveInt)


@pytest.mark.parametrize(
    ("annotation", "name", "package"),
    [
        (Annotated[int, pydantic.Field(ge=1)], "FieldInfo", "pydantic"),
        (pydantic.PositiveInt, "Gt", "annotated_types"),
        (pydantic.conint(ge=1), "Interval", "annotated_types"),
        (Annotated[str, pydantic.StringConstraints(min_length=1)], "StringConstraints", "pydantic"),
        (Annotated[int, pydantic.AfterValidator(abs)], "AfterValidator", "pydantic"),
        (Annotated[int, annotated_types.Ge(1)], "Ge", "annotated_types"),
        (Annotated[int, annotated_types.Ge], "Ge", "annotated_types"),
        (Annotated[int, OwnGe(1)], "OwnGe", "annotated_types"),
        (Annotated[int, Query(), pydantic.Field(ge=1)], "FieldInfo", "pydantic"),
        (Annotated[int, Body(), pydantic.Field(ge=1)], "FieldInfo", "pydantic"),
        (pydantic.PositiveInt | None, "Gt", "annotated_types"),
        (list[pydantic.PositiveInt], "Gt", "annotated_types"),
        (dict[str, list[pydantic.PositiveInt]], "Gt", "annotated_types"),
        (Positive, "Gt", "annotated_types"),
        (Constrained, "Ge", "annotated_types"),
        (list[Constrained], "Ge", "annotated_types"),
        (ConstrainedStruct, "FieldInfo", "pydantic"),
        (ConstrainedDict, "Gt", "annotated_types"),
        (ConstrainedPair, "Gt", "annotated_types"),
        (ConstrainedAttrs, "Gt", "annotated_types"),
        (Wrapped[pydantic.PositiveInt], "Gt", "annotated_types"),
    ],
)
def test_constraint_that_would_be_ignored(annotation: Any, name: str, package: str) -> None:
    def handler(n: Any) -> None: ...
    def get_n(n: Any) -> None: ...
    def dependent(n: Annotated[None, Depends(get_n)]) -> None: ...

    handler.__annotations__["n"] = get_n.__annotations__["n"] = annotation
    for refused_handler in (handler, dependent):
        problem, wrong, right = refusal_of(refused_handler)
        called = "get_n" if refused_handler is dependent else "handler"
        assert problem == f"{called}: 'n': {name} of {package} would be ignored"
        assert wrong.startswith("Annotated[")
        assert right.startswith("Annotated[")
        assert "msgspec.Meta(ge=1)]" in right


def test_field_of_pydantic_as_default() -> None:
    def handler(n: int = pydantic.Field(ge=1)) -> None: ...

    problem, wrong, right = refusal_of(handler)
    assert problem == "handler: 'n' isn't a field of a pydantic model"
    assert wrong.startswith("n: int = FieldInfo(")
    assert right.startswith("n: Annotated[..., Query(ge=1)]")


@pydantic.dataclasses.dataclass
class CheckedPoint:
    x: int


@pytest.mark.parametrize("annotation", [CheckedPoint, list[CheckedPoint], CheckedPoint | None])
def test_dataclass_of_pydantic_as_body(annotation: Any) -> None:
    def handler(point: Any) -> None: ...

    handler.__annotations__["point"] = annotation
    assert refusal_of(handler) == (
        "handler: 'point': CheckedPoint is a dataclass of pydantic, whose checks would be ignored",
        "@pydantic.dataclasses.dataclass above class CheckedPoint",
        "class CheckedPoint(pydantic.BaseModel), or @dataclasses.dataclass",
    )


class Unknowing(msgspec.Struct):
    x: "Unknown"  # type: ignore[name-defined] # noqa: F821


def test_class_with_a_field_that_is_not_known() -> None:
    def handler(x: Unknowing) -> None: ...

    problem, wrong, _ = refusal_of(handler)
    assert problem.startswith("handler: 'x': ")
    assert "name 'Unknown' is not defined" in problem
    assert wrong == "x: Unknowing"


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[int, "a remark"],
        Annotated[int, msgspec.Meta(ge=1)],
        list[Annotated[int, msgspec.Meta(ge=1), object()]],
        pydantic.create_model("Model", n=(pydantic.PositiveInt, 1)),
    ],
)
def test_metadata_that_nobody_misses(annotation: Any) -> None:
    def handler(x: Any) -> None: ...

    handler.__annotations__["x"] = annotation
    app = App()
    app.post("/")(handler)
    assert app.url_for("handler") == "/"


def test_path_parameter_that_the_template_lacks() -> None:
    def handler(user_id: Annotated[int, Path()]) -> None: ...

    problem, wrong, right = refusal_of(handler, "/{id}")
    assert problem == "handler takes 'user_id' from the path, whose template lacks it"
    assert wrong.startswith("user_id: ")
    assert wrong.endswith("where the template has ['id']")
    assert right == "a template with {user_id} in it"
    assert refusal_of(handler, "/")[1].endswith("where the template has no names")


@pytest.mark.parametrize("annotation", [list[int], Item, dict[str, int]])
def test_path_parameter_is_one_value(annotation: Any) -> None:
    def handler(id: Any) -> None: ...

    handler.__annotations__["id"] = annotation
    problem, wrong, right = refusal_of(handler)
    assert problem == "handler: a path parameter is one value"
    assert wrong.startswith("id: ")
    assert right == "id: str"


def test_two_markers() -> None:
    def both(q: Annotated[str, Query(), Header(alias="x-q")]) -> None: ...
    def twice(q: Annotated[str, Query()] = Cookie("x")) -> None: ...
    def injected(q: Annotated[str, Depends(str), Body()]) -> None: ...

    texts = {
        both: "q: Annotated[str, Query(), Header(alias='x-q')]",
        twice: "q: Annotated[str, Query()] = Cookie('x')",
        injected: "q: Annotated[str, Depends(str), Body()]",
    }
    for handler in texts:
        problem, wrong, right = refusal_of(handler)
        assert problem == f"{handler.__name__}: 'q' says twice where its value comes from"
        assert wrong.replace("typing.", "") == texts[handler]
        assert right == "one of Path, Query, Header, Cookie, Body and Depends"


@pytest.mark.parametrize("marker", [Path, Query, Header, Cookie, Body, Depends])
def test_marker_that_is_not_called(marker: Any) -> None:
    def annotated(q: Any) -> None: ...
    def default(q: str = marker) -> None: ...

    annotated.__annotations__["q"] = Annotated[str, marker]
    for handler in (annotated, default):
        assert refusal_of(handler) == (
            f"{handler.__name__}: {marker.__name__} is to be called",
            f"q: Annotated[..., {marker.__name__}]",
            f"q: Annotated[..., {marker.__name__}()]",
        )


@pytest.mark.parametrize(
    ("package", "name", "right"),
    [
        ("fastapi.params", "Depends", "from trioweb import Depends"),
        ("fastapi.params", "Query", "from trioweb import Query"),
        ("starlette.requests", "Request", "from trioweb import Request"),
        ("starlette.requests", "HTTPConnection", "from trioweb import Request"),
        ("fastapi.background", "BackgroundTasks", "from trioweb import BackgroundTasks"),
        ("fastapi.datastructures", "UploadFile", "async for piece in request.stream(): the body"),
        ("fastapi.params", "Form", "dict(urllib.parse.parse_qsl("),
        ("starlette.websockets", "WebSocket", "return StreamingResponse(events()): there are no"),
        ("starlette.responses", "JSONResponse", "return JSONResponse(content, headers={...})"),
    ],
)
def test_what_an_import_left_over_from_fastapi_names(package: str, name: str, right: str) -> None:
    theirs = type(name, (), {"__module__": package})

    def annotation(x: Any) -> None: ...
    def marked(x: Any) -> None: ...
    def default(x: Any = theirs()) -> None: ...  # noqa: B008

    annotation.__annotations__["x"] = theirs
    marked.__annotations__["x"] = Annotated[str, theirs()]
    of = package.partition(".")[0]
    for handler in (annotation, marked, default):
        problem, wrong, shown = refusal_of(handler)
        assert problem == f"{handler.__name__}: 'x' uses {name} of {of}"
        assert wrong == f"from {'fastapi' if of == 'fastapi' else package} import {name}"
        assert shown.startswith(right)


def test_a_security_class_of_fastapis_is_told_of() -> None:
    def handler(token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="token"))]) -> None: ...

    problem, wrong, right = refusal_of(handler)
    assert problem.startswith("OAuth2PasswordBearer: 'request' uses ")
    assert wrong == "Depends(OAuth2PasswordBearer)"
    assert right == "a dependency that reads authorization: Annotated[str, Header()]"


def test_class_of_another_package_may_be_what_a_dependency_gives() -> None:
    theirs: Any = type("State", (), {"__module__": "starlette.datastructures"})

    def handler(state: Any) -> None: ...

    handler.__annotations__["state"] = Annotated[theirs, Depends(theirs)]
    app = App()
    app.get("/")(handler)
    assert app.url_for("handler") == "/"


@pytest.mark.parametrize("kind", [Response, JSONResponse, HTMLResponse])
def test_response_parameter(kind: Any) -> None:
    def handler(response: Any) -> None: ...

    handler.__annotations__["response"] = kind
    problem, wrong, right = refusal_of(handler)
    assert problem == "handler takes a response, but responses are returned"
    assert wrong == f"def handler(response: trioweb.{kind.__name__}): ..."
    assert right == "return JSONResponse(content, headers={...})"


@pytest.mark.parametrize("kind", [BackgroundTask, BackgroundTask | None])
def test_task_parameter(kind: Any) -> None:
    def handler(x: Any) -> None: ...

    handler.__annotations__["x"] = kind
    problem, wrong, right = refusal_of(handler)
    assert problem == "handler takes a task, but what a request has is a list of them"
    assert wrong.startswith("x: ")
    assert right == "x: BackgroundTasks"


def test_annotation_that_is_not_known_yet() -> None:
    def unknown(x: "Unknown") -> None: ...  # type: ignore[name-defined] # noqa: F821
    def no_attribute(x: "trio.Unknown") -> None: ...  # type: ignore[name-defined]
    def no_syntax(x: Any) -> None: ...

    no_syntax.__annotations__["x"] = "list["

    for handler in (unknown, no_attribute, no_syntax):
        problem, wrong, right = refusal_of(handler)
        assert problem.startswith(f"{handler.__name__}: the annotation of 'x' isn't known when")
        assert "if TYPE_CHECKING" in wrong
        assert right.startswith("x: ")
        assert right.endswith("which the module imports or defines")


@pytest.mark.parametrize("handler", [None, 5, "handler", Item("x")])
def test_handler_that_is_not_callable(handler: Any) -> None:
    assert "isn't known" in refusal_of(handler)[0]


def test_built_in_without_a_signature_as_dependency() -> None:
    def handler(q: Annotated[Any, Depends(dict)]) -> None: ...

    problem, _, right = refusal_of(handler)
    assert problem == "dict: what it takes isn't known"
    assert right == "a function with typed parameters"


def test_handler_that_yields() -> None:
    handlers: Any = (resource, async_resource, functools.partial(resource))
    for handler in handlers:
        problem, wrong, right = refusal_of(handler)
        assert problem.endswith(" yields, but a handler returns its response")
        assert wrong.startswith("yield ... in ")
        assert right.startswith("return StreamingResponse(...)")


# Markers


@pytest.mark.parametrize(
    ("marker", "arguments", "wrong"),
    [
        (Query, {"gte": 5}, "Query(gte=5)"),
        (Header, {"ge": "5"}, "Header(ge='5')"),
        (Cookie, {"gt": 1, "ge": 2}, "Cookie(gt=1, ge=2)"),
    ],
)
def test_constraint_that_does_not_exist(marker: Any, arguments: Any, wrong: str) -> None:
    with refused() as refusal:
        marker(**arguments)
    problem, shown, right = lines(refusal)
    assert problem.startswith(f"{marker.__name__}: ")
    assert "Meta" not in problem
    assert shown == wrong
    assert right.startswith(f"{marker.__name__}(...) with some of gt, ge, lt, le, ")


@pytest.mark.parametrize(
    ("marker", "arguments", "right"),
    [
        (Query, {"max_length": 5, "regex": "^a"}, 'pattern="^[a-z]+$"'),
        (Body, {"default_factory": list}, "the default itself, such as []"),
        (Path, {"deprecated": True}, "leave it out: there is no OpenAPI document"),
        (Cookie, {"example": 5, "include_in_schema": False}, "examples=[...]"),
        (Query, {"convert_underscores": False}, "Header(convert_underscores=False)"),
        (Header, {"validation_alias": "a-b"}, 'alias="page-size"'),
    ],
)
def test_constraint_of_fastapis(marker: Any, arguments: Any, right: str) -> None:
    with refused() as refusal:
        marker(**arguments)
    problem, wrong, shown = lines(refusal)
    assert problem.startswith(f"{marker.__name__}: there is no option ")
    assert wrong.startswith(f"{marker.__name__}({next(iter(arguments))}=")
    assert shown.startswith(right)


def test_constraint_that_does_not_fit_its_annotation() -> None:
    def handler(q: Annotated[str, Query(ge=5)]) -> None: ...
    def body(q: Annotated[int, Body(max_length=5)]) -> None: ...

    assert "can't be decoded" in refusal_of(handler)[0]
    assert "can't be decoded" in refusal_of(body)[0]


def test_path_with_a_default() -> None:
    with refused() as refusal:
        Path(5)
    assert lines(refusal)[1:] == ("Path(5)", "Path()")


def test_scope_that_does_not_exist() -> None:
    scope: Any = "app"
    with refused() as refusal:
        Depends(str, scope=scope)
    problem, wrong, right = lines(refusal)
    assert problem == "'app' isn't a scope of a dependency"
    assert wrong == "Depends(..., scope='app')"
    assert right.endswith("one of 'function', 'response', 'request'")


# Dependencies


@pytest.mark.parametrize("called", ["session", 5, Item("x")])
def test_dependency_that_is_not_callable(called: Any) -> None:
    def handler(q: Annotated[str, Depends(called)]) -> None: ...

    assert refusal_of(handler) == (
        "handler: Depends() needs something to call",
        f"Depends({called!r})",
        "Depends(get_session)  # the function, not its result",
    )


def test_empty_depends_without_a_class_to_call() -> None:
    def union(q: Annotated[int | None, Depends()]) -> None: ...
    def of_route() -> None: ...

    assert refusal_of(union)[1] == "Depends(int | None)"
    assert refusal_of(of_route, dependencies=[Depends()])[1] == "Depends(None)"


def test_empty_depends_without_an_annotation() -> None:
    def handler(page=Depends()) -> None: ...  # type: ignore[no-untyped-def] # noqa: B008
    def built_in(page: Annotated[str, Depends()]) -> None: ...

    assert refusal_of(built_in)[1] == "page: typing.Annotated[str, Depends(None)]"

    assert refusal_of(handler) == (
        "handler: 'page' doesn't say on what it depends",
        "page=Depends(None)",
        "page=Depends(get_page), or page: Annotated[SomeClass, Depends()]",
    )


def test_context_manager_as_dependency() -> None:
    def wrapped(x: Annotated[int, Depends(contextmanager(resource))]) -> None: ...
    def wrapped_async(x: Annotated[int, Depends(asynccontextmanager(async_resource))]) -> None: ...
    def bound(x: Annotated[int, Depends(functools.partial(contextmanager(resource)))]) -> None: ...

    assert refusal_of(wrapped) == (
        "resource would give its context manager, not what it yields",
        "@contextmanager above def resource",
        "def resource without the decorator, in Depends(resource)",
    )
    assert refusal_of(wrapped_async) == (
        "async_resource would give its context manager, not what it yields",
        "@asynccontextmanager above async def async_resource",
        "async def async_resource without the decorator, in Depends(async_resource)",
    )
    assert refusal_of(bound)[0].startswith("resource would give its context manager")


def test_dependencies_that_need_each_other() -> None:
    def first(x: Any) -> None: ...
    def second(x: Annotated[None, Depends(first)]) -> None: ...
    def handler(x: Annotated[None, Depends(first)]) -> None: ...

    first.__annotations__["x"] = Annotated[None, Depends(second)]
    assert refusal_of(handler) == (
        "first depends on itself",
        "handler -> first -> second -> first",
        "take what both need out into a third dependency",
    )


def test_handler_that_depends_on_itself() -> None:
    def handler(x: Any) -> None: ...

    handler.__annotations__["x"] = Annotated[None, Depends(handler)]
    assert refusal_of(handler)[1] == "handler -> handler"


def resource() -> Iterator[int]:
    yield 1


async def async_resource() -> AsyncIterator[int]:
    yield 1


def generator_using(dependency: Any) -> Callable[..., AsyncIterator[int]]:
    async def lasting(x: int = dependency) -> AsyncIterator[int]:
        yield x

    return lasting


@pytest.mark.parametrize("used", [resource, async_resource])
@pytest.mark.parametrize(
    ("short", "long"), [("function", "response"), ("function", "request"), ("response", "request")]
)
@pytest.mark.parametrize("between", [0, 2])
@pytest.mark.parametrize("cached", [True, False])
def test_generator_that_would_outlive_what_it_uses(
    used: Any, short: Any, long: Any, between: int, cached: bool
) -> None:
    dependency: Any = Depends(used, scope=short)
    for _ in range(between):  # functions that hand it on

        def hand_on(x: Annotated[int, dependency]) -> None: ...

        dependency = Depends(hand_on)

    lasting = generator_using(dependency)

    def first(lasting: Annotated[None, Depends(lasting, scope=long)]) -> None: ...
    def after(
        x: Annotated[int, dependency], lasting: Annotated[None, Depends(lasting, scope=long)]
    ) -> None: ...

    assert refusal_of(after if cached else first) == (
        f"lasting (scope={long!r}) would outlive {used.__name__}, which it uses",
        f'Depends({used.__name__}, scope="{short}")',
        f'Depends({used.__name__}, scope="{long}")',
    )


@pytest.mark.parametrize("used", [resource, async_resource])
@pytest.mark.parametrize(
    ("short", "long"),
    [("function", "function"), ("response", "request"), ("function", "request")],
)
async def test_generator_may_close_before_what_it_uses(used: Any, short: Any, long: Any) -> None:
    def hand_on(x: Annotated[int, Depends(used, scope=long)]) -> int:
        return x

    user = generator_using(Depends(hand_on))
    app = App()

    @app.get("/")
    def handler(x: Annotated[int, Depends(user, scope=short)]) -> int:
        return x

    async with running(app) as client:
        assert (await client("GET", "/")).json() == 1


@pytest.mark.parametrize(
    ("dependencies", "wrong"),
    [
        ([resource], "dependencies=[resource]"),
        ([Depends(resource), Item], "dependencies=[Depends(resource), Item]"),
        (Depends(resource), "dependencies=Depends(resource)"),
        (resource, "dependencies=resource"),
        ([Query()], "dependencies=[Query()]"),
    ],
)
def test_dependencies_that_are_no_list_of_depends(dependencies: Any, wrong: str) -> None:
    expected = (
        "dependencies is a list of Depends(...)",
        wrong,
        "dependencies=[Depends(check_token)]",
    )
    with refused() as refusal:
        App().get("/", dependencies=dependencies)
    assert lines(refusal) == expected
    with refused() as refusal:
        Router(dependencies=dependencies)
    assert lines(refusal) == expected


# Options


def test_timeout_on_a_function_that_runs_in_a_thread() -> None:
    def handler() -> None: ...

    assert refusal_of(handler, "/", timeout=1) == (
        "handler runs in a thread, which no timeout can end",
        "timeout=… on def handler",
        "timeout=… on async def handler",
    )


def test_a_thread_is_not_cancelled_with_its_client() -> None:
    def handler() -> None: ...

    assert refusal_of(handler, "/", cancel_on_disconnect=True) == (
        "handler runs in a thread, which can't be cancelled when its client leaves",
        "cancel_on_disconnect=True on def handler",
        "cancel_on_disconnect=True on async def handler",
    )


@pytest.mark.parametrize("value", [None, False])
def test_a_thread_goes_on_without_its_client(value: bool | None) -> None:
    def handler() -> None: ...

    app = App()
    app.get("/", cancel_on_disconnect=value)(handler)
    assert app.url_for("handler") == "/"


@pytest.mark.parametrize("value", ["yes", 2, []])
def test_a_flag_that_is_neither_true_nor_false(value: Any) -> None:
    with refused() as refusal:
        App().get("/", cancel_on_disconnect=value)
    assert lines(refusal) == (
        "cancel_on_disconnect is True or False",
        f"cancel_on_disconnect={value!r}",
        "cancel_on_disconnect=True",
    )


@pytest.mark.parametrize(
    "options",
    [
        *({"timeout": value} for value in (0, -1, float("nan"), "5")),
        *({"status_code": value} for value in (0, 100, 600, "201", None)),
        *({"max_body_size": value} for value in (-1, 1.5, "1 MiB")),
    ],
    ids=str,
)
def test_number_that_makes_no_sense(options: dict[str, Any]) -> None:
    with refused() as refusal:
        App().get("/", **options)
    ((name, value),) = options.items()
    problem, wrong, right = lines(refusal)
    assert problem.startswith(f"{name} is ")
    assert wrong == f"{name}={value!r}"
    assert right.startswith(f"{name}=")


def test_option_that_does_not_exist() -> None:
    options: Any = {"response_model": Item}, {"response_class": HTMLResponse}, {"tag": ["a"]}
    rights = [
        "return a class that has only what the client may see",
        "return HTMLResponse(...), or whichever response it is",
        f"@app.post('/x') with some of {', '.join(RouteOptions.__annotations__)}",
    ]
    for option, right in zip(options, rights, strict=True):
        (name,) = option
        with refused() as refusal:
            App().post("/x", **option)
        assert lines(refusal) == (
            f"a route has no option {name!r}",
            f"@app.post('/x', {name}=...)",
            right,
        )


@pytest.mark.parametrize("methods", ["GET", [], [5], ["GET POST"], [""], None])
def test_methods_that_are_no_list_of_names(methods: Any) -> None:
    with refused() as refusal:
        App().route("/", methods=methods)
    assert lines(refusal) == (
        "methods is a list of method names",
        f"methods={methods!r}",
        "methods=['GET', 'POST']",
    )


def test_decorator_without_its_path() -> None:
    app = App()
    get: Any = app.get
    with refused() as refusal:

        @get  # type: ignore[untyped-decorator]
        async def items() -> None: ...

    assert lines(refusal) == (
        "a route begins with its path",
        "@app.get above def items",
        '@app.get("/items") above def items',
    )


@pytest.mark.parametrize("router", [App(), Router("/v1")])
def test_path_without_a_slash(router: Router) -> None:
    with refused() as refusal:
        router.get("items")
    assert lines(refusal) == (
        "a path begins with a slash, after a prefix too",
        "'items'",
        "'/items'",
    )


@pytest.mark.parametrize(
    ("prefix", "right"), [("v1", "'/v1'"), ("/v1/", "'/v1'"), ("/", "''"), ("a/b/", "'/a/b'")]
)
def test_prefix_without_a_slash_or_with_one_too_many(prefix: str, right: str) -> None:
    expected = (
        "a prefix begins with a slash and doesn't end with one",
        f"prefix={prefix!r}",
        f"prefix={right}",
    )
    with refused() as refusal:
        Router(prefix)
    assert lines(refusal) == expected
    with refused() as refusal:
        App().include_router(Router(), prefix=prefix)
    assert lines(refusal) == expected


def test_route_that_comes_after_its_router_was_included() -> None:
    app, router = App(), Router()
    app.include_router(router)
    for late in (router.get("/x"), router.route("/x", methods=["POST"])):
        with refused() as refusal:
            late(resource_handler)
        assert lines(refusal) == (
            "resource_handler comes too late: its router is included already",
            "app.include_router(router), then @router.get(...)",
            "@router.get(...), then app.include_router(router)",
        )
    inner = Router()
    inner.get("/x")(resource_handler)
    with refused():
        router.include_router(inner)

    with refused() as refusal:
        router.include_router(Router())  # it may get routes
    assert lines(refusal) == (
        "what a router includes comes too late: it is included itself already",
        "app.include_router(router), then router.include_router(inner)",
        "router.include_router(inner), then app.include_router(router)",
    )


def resource_handler() -> None: ...


def test_what_an_app_has_beside_its_routes_is_not_dropped_in_silence() -> None:
    for included in (App(), App(debug=True)):
        with refused() as refusal:
            App().include_router(included)
        problem, wrong, right = lines(refusal)
        assert problem.startswith("an app is included in none: its lifespan, handlers and limits")
        assert wrong == "app.include_router(App())"
        assert right.startswith("app.include_router(Router()), or for a whole app async def site(")
    app = App()
    with refused():
        app.include_router(app)
    with refused():
        Router().include_router(app)


@pytest.mark.parametrize(
    ("given", "kind", "wrong", "right"),
    [
        (None, "NoneType", "None", "Router()"),
        (Router, "type", "<class 'trioweb.Router'>", "Router()"),
        (typing, "module", "typing", "typing.router"),
        (trio.testing, "module", "testing", "testing.router"),
    ],
)
def test_what_is_no_router(given: Any, kind: str, wrong: str, right: str) -> None:
    with refused() as refusal:
        App().include_router(given)
    assert lines(refusal) == (
        f"include_router takes a Router, not {kind}",
        f"app.include_router({wrong})",
        f"app.include_router({right})",
    )


def test_routers_that_include_each_other() -> None:
    first, second = Router("/first"), Router("/second")
    first.get("/x")(resource_handler)
    with refused() as refusal:
        first.include_router(first)
    assert lines(refusal) == (
        "a router can't include itself",
        "router.include_router(router)",
        "app.include_router(router)",
    )
    second.include_router(first)
    with refused():
        first.include_router(second)
    assert [route.path for route in second.routes] == ["/second/first/x"]
    app = App()
    app.include_router(second)
    assert [route.path for route in app.routes] == ["/second/first/x"]


async def test_dependencies_of_an_app_and_of_an_inclusion_come_in_order() -> None:
    seen: list[str] = []

    def note(name: str) -> list[Any]:
        async def noting() -> None:
            seen.append(name)

        return [Depends(noting)]

    app = App(dependencies=note("app"))
    outer = Router("/o", dependencies=note("outer"))
    inner = Router("/i", dependencies=note("inner"))
    inner.get("/", dependencies=note("route"))(resource_handler)
    outer.include_router(inner, dependencies=note("within outer"))
    app.include_router(outer, dependencies=note("within app"))
    app.get("/")(resource_handler)
    async with running(app) as client:
        assert (await client("GET", "/o/i/")).status == 200
        assert seen == ["app", "within app", "outer", "within outer", "inner", "route"]
        seen.clear()
        assert (await client("GET", "/")).status == 200
        assert seen == ["app"]
        seen.clear()
        assert (await client("GET", "/nowhere")).status == 404
        assert seen == []


def test_same_route_twice() -> None:
    app = App()
    app.get("/x/{a}")(resource_handler)
    app.post("/x/{a}")(resource_handler)
    with refused() as refusal:
        app.route("/x/{a}", methods=["PUT", "GET"])(resource_handler)
    problem, wrong, right = lines(refusal)
    assert problem == "GET /x/{a} is registered twice"
    assert wrong == "GET '/x/{a}' and GET '/x/{a}'"
    assert right == "GET '/x/{a}' once, or with another method"
    with refused() as refusal:
        app.get("/x/{b}")(resource_handler)
    assert lines(refusal)[1] == "GET '/x/{a}' and GET '/x/{b}'"
    app.put("/x/{a}")(resource_handler)  # nothing of the refused route stayed behind


def test_a_mistake_in_an_included_route_is_found_when_it_gets_its_whole_path() -> None:
    router = Router()

    @router.get("/x")
    def handler(name: Annotated[str, Path()]) -> None: ...

    with refused() as refusal:
        App().include_router(router)
    assert lines(refusal)[0] == "handler takes 'name' from the path, whose template lacks it"


# What is registered is found


@pytest.mark.parametrize("router", [App(), Router()])
def test_decorators_return_the_function_as_it_is(router: Router) -> None:
    def handler() -> None: ...

    for method in METHODS:
        assert getattr(router, method.lower())(f"/{method}")(handler) is handler
    assert router.route("/x", methods=["GET", "POST"])(handler) is handler


async def test_each_decorator_registers_its_own_method() -> None:
    app = App()
    for method in METHODS:
        getattr(app, method.lower())(f"/{method}")(lambda needed: needed)

    @app.route("/many", methods=["get", "Post"])
    async def many(request: Request) -> str:
        return request.method

    async with running(app) as client:
        for decorated in METHODS:
            allowed = {decorated, "HEAD"} if decorated == "GET" else {decorated}
            for method in METHODS:
                answer = await client(method, f"/{decorated}")
                assert answer.status == (422 if method in allowed else 405)
                if method not in allowed:
                    assert answer.headers["allow"] == ", ".join(sorted(allowed))
        assert (await client("GET", "/many")).json() == "GET"
        assert (await client("POST", "/many")).json() == "POST"
        assert (await client("PUT", "/many")).headers["allow"] == "GET, HEAD, POST"


async def test_head_is_answered_by_get_without_the_body() -> None:
    app = App()

    @app.get("/x")
    async def handler(tasks: BackgroundTasks, request: Request) -> Any:
        tasks.add_task(done.append, request.method)
        return {"a": 1}

    done: list[str] = []
    async with running(app) as client:
        got, head = await client("GET", "/x"), await client("HEAD", "/x")
    assert (head.status, head.body) == (200, b"")
    assert head.raw_headers == got.raw_headers
    assert head.headers["content-length"] == str(len(got.body)) == "7"
    assert sorted(done) == ["GET", "HEAD"]  # each in a thread of its own


async def test_own_head_goes_before_that_of_get() -> None:
    app = App()
    app.get("/x")(lambda: "get")
    app.head("/x", status_code=202)(lambda: "head")
    async with running(app) as client:
        assert (await client("HEAD", "/x")).status == 202
        assert (await client("GET", "/x")).status == 200


async def test_routers_in_routers_add_their_prefixes_and_parameters() -> None:
    leaf = Router("/items")

    @leaf.get("")
    async def items(tenant: str, year: int) -> Any:
        return ["all", tenant, year]

    @leaf.get("/{item_id}")
    async def item(tenant: str, year: int, item_id: int) -> Any:
        return [item_id, tenant, year]

    branch = Router("/{year}")
    branch.include_router(leaf, prefix="/in")
    app = App()
    app.include_router(branch, prefix="/{tenant}")
    async with running(app) as client:
        assert (await client("GET", "/acme/2026/in/items")).json() == ["all", "acme", 2026]
        assert (await client("GET", "/acme/2026/in/items/7")).json() == [7, "acme", 2026]
        assert (await client("GET", "/acme/2026/items/7")).status == 404
    assert app.url_for("item", tenant="a b", year=1, item_id=2) == "/a%20b/1/in/items/2"


async def test_one_router_under_two_prefixes() -> None:
    router = Router()
    router.get("/x", status_code=201)(lambda: "x")
    app = App()
    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    async with running(app) as client:
        assert (await client("GET", "/v1/x")).status == 201
        assert (await client("GET", "/v2/x")).status == 201


async def test_options_of_a_route_survive_its_inclusion() -> None:
    router = Router()

    @router.post("/x", status_code=202, name="other", timeout=1, max_body_size=10)
    async def handler(item: Item) -> None: ...

    app = App()
    app.include_router(router, prefix="/v1")
    async with running(app) as client:
        assert (await client("POST", "/v1/x", json={"name": ""})).status == 413
        small = await client("POST", "/v1/x", body=b'{"name":1}')
        assert small.status == 422
    assert app.url_for("other") == "/v1/x"


# url_for


@dataclasses.dataclass
class Show:
    """A callable object: its name is that of its class."""

    async def __call__(self) -> None: ...


async def test_url_for_fills_the_first_route_with_these_parameters() -> None:
    app = App()

    @app.get("/")
    @app.get("/by-name/{name}")
    @app.get("/again/{name}")
    async def show(request: Request, name: str = "") -> Any:
        return [request.url_for("show", name="ä/b"), request.url_for("show")]

    assert app.url_for("show", name="ä/b c?") == "/again/%C3%A4%2Fb%20c%3F"
    assert app.url_for("show") == "/"
    async with running(app) as client:
        answer = await client("GET", "/", headers={"host": "example.org:8000"}, scheme="https")
        assert answer.json() == [
            "https://example.org:8000/again/%C3%A4%2Fb",
            "https://example.org:8000/",
        ]
        below = await client("GET", "/api/", headers={"host": "h"}, root_path="/api")
        assert below.json()[1] == "http://h/api/"
        echoed = await client("GET", answer.json()[0].removeprefix("https://example.org:8000"))
        assert echoed.status == 200


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("nobody", {}, "no route 'nobody' with parameters []; known: ['item', 'items']"),
        ("item", {}, "no route 'item' with parameters []; known: ['/items/{id:int}']"),
        ("item", {"id": 1, "x": 2}, "no route 'item' with parameters ['id', 'x']; known: "),
    ],
)
def test_url_for_what_is_not_there(name: str, parameters: Any, text: str) -> None:
    app = App()
    app.get("/items", name="items")(resource_handler)
    app.get("/items/{id:int}", name="item")(resource_handler)
    with pytest.raises(LookupError) as raised:
        app.url_for(name, **parameters)
    assert text in str(raised.value)


def test_url_for_a_value_that_would_not_arrive() -> None:
    app = App()
    app.get("/items/{id:int}", name="item")(resource_handler)
    with pytest.raises(ValueError, match="doesn't fit"):
        app.url_for("item", id="x")


def test_names_of_routes_are_those_of_their_functions() -> None:
    app = App()
    app.get("/object")(Show())
    app.get("/partial")(functools.partial(resource_handler))
    app.get("/given", name="another")(resource_handler)
    assert app.url_for("Show") == "/object"
    assert app.url_for("resource_handler") == "/partial"
    assert app.url_for("another") == "/given"


def test_literal_annotations_are_no_text_to_be_read() -> None:
    async def handler(kind: Literal["a", "b"], other: "Literal['a b']") -> None: ...

    app = App()
    app.get("/{kind}")(handler)
    assert app.url_for("handler", kind="a") == "/a"
