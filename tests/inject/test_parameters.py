"""What a callable takes, whatever kind it is of, wherever its annotations were written."""

from __future__ import annotations

import abc
import enum
import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
import pytest

from trioweb import App, BackgroundTasks, Body, Depends, Query, RegistrationError, Request, Router

from ..support.asgi import Exchange, running
from ..support.postponed import base, below

if TYPE_CHECKING:
    from fractions import Fraction as OnlyForTypeCheckers

T = TypeVar("T")


async def ask(handler: Callable[..., Any], target: str = "/", path: str = "/") -> Exchange:
    app = App()
    app.get(path)(handler)
    async with running(app) as client:
        return await client("GET", target)


async def given(dependency: Any, query: str) -> Any:
    """The members of what a dependency is called to."""

    async def handler(made: Any) -> Any:
        names = ("count", "_count", "word", "size", "key", "date")
        found = {name: getattr(made, name) for name in names if hasattr(made, name)}
        return {name.lstrip("_"): value for name, value in found.items()}

    handler.__annotations__["made"] = Annotated[dependency, Depends()]
    exchange = await ask(handler, f"/?{query}")
    if exchange.status == 422:
        return [problem["loc"] for problem in exchange.json()["detail"]]
    assert exchange.status == 200
    return exchange.json()


def refusal_of(handler: Callable[..., Any], path: str = "/") -> tuple[str, str, str]:
    with pytest.raises(RegistrationError) as refusal:
        App().get(path)(handler)
    problem, wrong, right = str(refusal.value).split("\n")
    return problem, wrong.removeprefix("    wrong:  "), right.removeprefix("    right:  ")


# Each annotation in its own module


@pytest.mark.parametrize(
    "kind", [below.Data, below.Attrs, below.Struct, below.Model], ids=lambda kind: kind.__name__
)
async def test_an_inherited_field_is_read_as_its_base_means_it(kind: Any) -> None:
    assert await given(kind, "count=5&size=2&word=ab") == {"count": 5, "size": 2, "word": "ab"}
    assert await given(kind, "count=x&size=y") == [["query", "count"], ["query", "size"]]


@pytest.mark.parametrize(
    "kind",
    [below.DataAsItIs, below.Plain, base.TupleBase, base.DataBase, base.AttrsBase],
    ids=lambda kind: kind.__name__,
)
async def test_an_inherited_signature_is_read_as_its_base_means_it(kind: Any) -> None:
    found = await given(kind, "count=5")
    assert found == {"count": 5, "word": "x"}
    assert await given(kind, "count=5&word=long") == [["query", "word"]]


async def test_a_constructor_of_its_own_is_read_in_its_own_module() -> None:
    assert await given(below.PlainOfItsOwn, "size=7") == {"count": 7, "word": "x"}


async def test_a_field_may_have_the_name_of_its_type() -> None:
    assert await given(below.Dated, "date=2026-05-06") == {"date": "2026-05-06"}


@pytest.mark.parametrize(
    "func",
    [
        base.function,
        base.decorated(base.function),
        base.decorated(base.decorated(base.function)),
        functools.partial(base.function),
        functools.partial(base.decorated(base.function)),
        base.decorated(functools.partial(base.function)),
        below.Called(),
        below.Called().__call__,
        functools.partial(below.Called()),
    ],
)
async def test_functions_of_every_kind_know_what_their_module_knows(func: Any) -> None:
    assert (await ask(func, "/?count=5&word=ab")).json() == [5, "ab"]
    assert (await ask(func, "/?count=x&word=long")).status == 422


async def test_what_only_a_running_function_knows_is_found() -> None:
    class Local(msgspec.Struct):
        size: int

    Limit = Annotated[int, Query(le=9)]

    class Other(enum.IntEnum):
        ONE = 1

    class Page:
        def __init__(self, limit: Limit, other: Other = Other.ONE) -> None:
            self.size = limit

    async def handler(page: Annotated[Page, Depends()]) -> Local:
        return Local(page.size)

    assert (await ask(handler, "/?limit=3")).json() == {"size": 3}
    assert (await ask(handler, "/?limit=33")).status == 422

    def nested() -> Callable[..., Any]:
        async def inner(limit: Limit) -> Any:
            return [limit, Limit is not None]

        return inner

    # `inner` mentions it, so it stays known when `nested` has returned.
    assert (await ask(nested(), "/?limit=3")).json() == [3, True]


def test_what_an_ended_function_knew_is_not_found() -> None:
    def nested() -> Callable[..., Any]:
        Limit = Annotated[int, Query(le=9)]

        async def inner(limit: Limit) -> None: ...

        return inner

    problem, wrong, right = refusal_of(nested())
    assert problem == (
        "inner: the annotation of 'limit' isn't known when the route is registered:"
        " name 'Limit' is not defined"
    )
    assert "of an enclosing function" in wrong
    assert right == "limit: 'Limit'  # which the module imports or defines"


async def late(x: Later, y: list[Later]) -> Any:
    return [x, y]


async def quoted(x: Annotated["Later", Query()], y: "list[Later]") -> Any:  # noqa: UP037
    return [x, y]


Later = int


async def test_what_is_defined_further_down_is_found() -> None:
    assert (await ask(late, "/?x=1&y=2")).json() == [1, [2]]
    assert (await ask(quoted, "/?x=1&y=2")).json() == [1, [2]]


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_imported_for_type_checkers_alone_is_named(wrapped: bool) -> None:
    async def handler(x: OnlyForTypeCheckers) -> None: ...

    async def depends(x: Annotated[None, Depends(handler)]) -> None: ...

    problem, wrong, right = refusal_of(depends if wrapped else handler)
    assert problem == (
        "handler: the annotation of 'x' isn't known when the route is registered:"
        " name 'OnlyForTypeCheckers' is not defined"
    )
    assert wrong.startswith("x: 'OnlyForTypeCheckers'  # imported under `if TYPE_CHECKING:`")
    assert right == "x: 'OnlyForTypeCheckers'  # which the module imports or defines"


class Unready(msgspec.Struct):
    x: OnlyForTypeCheckers


def test_a_struct_that_is_imported_for_type_checkers_alone_is_named() -> None:
    async def handler(x: Annotated[Unready, Depends()]) -> None: ...

    problem, wrong, _ = refusal_of(handler)
    assert problem.startswith("Unready: an annotation isn't known when the route is registered: ")
    assert wrong.startswith("OnlyForTypeCheckers  # imported under `if TYPE_CHECKING:`")


def test_a_bad_marker_in_a_text_has_one_right_line_and_both_names() -> None:
    async def handler(limit: Annotated[int, Query(ge="a")]) -> None: ...
    async def pattern(word: Annotated[str, Query(pattern=r"\p{L}")]) -> None: ...
    async def scope(x: Annotated[None, Depends(late, scope="app")]) -> None: ...

    problem, wrong, right = refusal_of(handler)
    assert problem.startswith("handler: 'limit': Query: ")
    assert wrong == "Query(ge='a')"
    assert right.startswith("Query(...) with some of ")
    problem, wrong, _ = refusal_of(pattern)
    assert problem == r"pattern: 'word': Query: bad escape \p at position 0"
    assert wrong == r"Query(pattern='\\p{L}')"
    assert refusal_of(scope)[0] == "scope: 'x': 'app' isn't a scope of a dependency"


def test_a_bad_pattern_is_refused_where_it_is_written() -> None:
    for pattern in (r"\p{L}", "(", "[a"):
        with pytest.raises(RegistrationError, match=r"right:  Query\(\.\.\.\) with"):
            Query(pattern=pattern)


# What a partial has bound


def add(a: int, b: int = 1, *, c: int = 1) -> Any:
    return [a, b, c]


class Adder:
    def __init__(self, a: int = 1, b: int = 1) -> None:
        self.a, self.b = a, b

    def add(self, a: int, b: int = 1, c: int = 1) -> Any:
        return [a, b, c]

    by_keyword = functools.partialmethod(add, b=5)
    by_position = functools.partialmethod(add, 7, 5)

    @functools.cached_property
    def wrapped(self) -> Any:
        return functools.wraps(self.by_keyword)(lambda **given: self.by_keyword(**given))


def wrapping(func: Any) -> Any:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return wrapper


class Caller:
    def __init__(self, func: Any) -> None:
        functools.update_wrapper(self, func)
        self.func = func

    def __call__(self, **given: Any) -> Any:
        return self.func(**given)


BY_KEYWORD = functools.partial(add, b=5)


@pytest.mark.parametrize(
    ("func", "expected"),
    [
        (BY_KEYWORD, [7, 5, 8]),
        (functools.partial(add, 7, 5), [7, 5, 8]),
        (functools.partial(BY_KEYWORD, a=7), [7, 5, 8]),
        (functools.partial(wrapping(BY_KEYWORD)), [7, 5, 8]),
        (functools.partial(wrapping(BY_KEYWORD), c=3), [7, 5, 3]),
        (wrapping(BY_KEYWORD), [7, 5, 8]),
        (wrapping(wrapping(BY_KEYWORD)), [7, 5, 8]),
        (wrapping(functools.partial(add, 7, 5)), [7, 5, 8]),
        (wrapping(functools.partial(BY_KEYWORD, c=3)), [7, 5, 3]),
        (wrapping(functools.partial(wrapping(BY_KEYWORD), c=3)), [7, 5, 3]),
        (functools.lru_cache(functools.partial(add, b=5)), [7, 5, 8]),
        (Caller(BY_KEYWORD), [7, 5, 8]),
        (Adder().by_keyword, [7, 5, 8]),
        (Adder().by_position, [7, 5, 8]),
        (wrapping(Adder().by_keyword), [7, 5, 8]),
        (Adder().wrapped, [7, 5, 8]),
        (functools.partial(Adder().add, b=5), [7, 5, 8]),
        (functools.partial(Adder.add, Adder(), b=5), [7, 5, 8]),
    ],
)
async def test_what_a_partial_has_bound_is_never_the_clients(func: Any, expected: Any) -> None:
    query = "/?a=7&b=99&c=8"
    assert (await ask(func, query)).json() == expected

    async def handler(value: Annotated[Any, Depends(func)]) -> Any:
        return value

    assert (await ask(handler, query)).json() == expected


@pytest.mark.parametrize(
    "make", [functools.partial(Adder, b=5), wrapping(functools.partial(Adder, b=5))]
)
async def test_what_a_partial_of_a_class_has_bound_is_never_the_clients(make: Any) -> None:
    async def handler(adder: Annotated[Any, Depends(make)]) -> Any:
        return [adder.a, adder.b]

    assert (await ask(handler, "/?a=7&b=99")).json() == [7, 5]


async def test_what_a_partial_has_bound_is_not_taken_from_the_path_either() -> None:
    assert (await ask(BY_KEYWORD, "/9?a=7", "/{b}")).json() == [7, 5, 1]


async def test_a_signature_that_is_given_counts() -> None:
    @functools.wraps(BY_KEYWORD)
    def handler(**given: Any) -> Any:
        return given

    async def asked(b: int) -> None: ...

    handler.__signature__ = __import__("inspect").signature(asked)  # type: ignore[attr-defined]
    assert (await ask(handler, "/?a=7&b=9")).json() == {"b": 9}


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (BY_KEYWORD, "add"),
        (functools.partial(BY_KEYWORD, c=3), "add"),
        (wrapping(BY_KEYWORD), "add"),
        (Adder().by_keyword, "Adder.add"),
        (functools.partial(Adder, b=5), "Adder"),
        (functools.partial(Caller(add)), "add"),
    ],
)
def test_a_partial_has_the_name_of_what_it_calls(func: Any, name: str) -> None:
    app = App()
    app.get("/")(func)
    assert app.routes[0].name == name.rpartition(".")[2]


# Classes: generic, abstract, of a Protocol


async def test_a_generic_class_is_a_dependency_with_its_arguments() -> None:
    assert await given(base.Repo[int], "count=5&key=7") == {"count": 5, "key": 7, "word": "x"}
    assert await given(base.Repo[int], "count=5&key=x") == [["query", "key"]]
    assert await given(base.Repo[str], "count=5&key=x&word=long") == [["query", "word"]]
    assert await given(below.IntRepo, "count=5&key=7") == {"count": 5, "key": 7, "word": "x"}
    assert await given(below.IntRepo, "count=5&key=x") == [["query", "key"]]
    assert await given(below.MiddleRepo[int], "count=5&key=x") == [["query", "key"]]


class Pair(Generic[T]):
    def __init__(self, both: list[T], one: T | None = None, body: Annotated[T, Body()] = 0) -> None:  # type: ignore[assignment]
        self.count, self.word = both, one


async def test_what_is_built_of_a_type_variable_has_its_argument() -> None:
    assert await given(Pair[int], "both=1&both=2&one=3") == {"count": [1, 2], "word": 3}
    assert await given(Pair[int], "both=1&both=b&one=c") == [["query", "both", 1], ["query", "one"]]


async def test_each_argument_makes_a_dependency_of_its_own() -> None:
    async def handler(
        numbers: Annotated[base.Repo[int], Depends()],
        again: Annotated[base.Repo[int], Depends()],
        texts: Annotated[base.Repo[str], Depends()],
    ) -> Any:
        return [numbers.key, numbers is again, texts.key, id(texts) != id(numbers)]

    exchange = await ask(handler, "/?count=5&key=7")
    assert exchange.json() == [7, True, "7", True]


def test_a_generic_class_is_named_with_its_arguments() -> None:
    async def handler(x: Annotated[base.Repo[threading.Thread], Depends()]) -> None: ...

    problem, _, _ = refusal_of(handler)
    assert problem.startswith("Repo[Thread]: 'key'")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (below.ImplementedStore, {"count": 1}),
        (below.MadeStore, {"count": 7}),
        (below.InheritedStore, {"count": 7}),
    ],
    ids=lambda kind: getattr(kind, "__name__", ""),
)
async def test_what_implements_a_protocol_takes_what_it_says(kind: Any, expected: Any) -> None:
    assert await given(kind, "size=7") == expected


async def test_a_protocol_hides_no_constructor_behind_it() -> None:
    found = await given(below.MixedStore, "count=7&word=ab")
    assert found == {"count": 7, "word": "ab"}


async def test_a_protocol_is_what_a_dependency_may_be_known_as() -> None:
    async def handler(store: Annotated[base.Store, Depends(below.MadeStore)]) -> Any:
        return store.load()

    assert (await ask(handler, "/?size=7")).json() == 7


class Abstract(abc.ABC):
    @abc.abstractmethod
    def load(self) -> Any: ...


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (base.Store, "Store: a Protocol has no instances"),
        (Abstract, "Abstract: an abstract class has no instances"),
    ],
)
def test_a_class_without_instances_needs_something_that_gives_one(kind: Any, problem: str) -> None:
    async def handler(x: Any) -> None: ...

    handler.__annotations__["x"] = Annotated[kind, Depends()]
    found, _, right = refusal_of(handler)
    assert found == problem
    assert right.startswith("Depends(get_it)")


# What an author forgot


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("request", "request: Request"),
        ("req", "req: Request"),
        ("tasks", "tasks: BackgroundTasks"),
        ("background_tasks", "background_tasks: BackgroundTasks"),
        ("nursery", "nursery: trio.Nursery"),
        ("response", "return JSONResponse("),
        ("websocket", "request: Request; there are no WebSockets"),
    ],
)
@pytest.mark.parametrize("default", ["", "=None"])
def test_an_annotation_that_was_forgotten(name: str, right: str, default: str) -> None:
    handler = eval(f"lambda {name}{default}: None")

    async def depends(x: Annotated[None, Depends(handler)]) -> None: ...

    for refused in (handler, depends):
        problem, wrong, shown = refusal_of(refused)
        assert problem == (
            f"<lambda>: {name!r} has no annotation, so it would be a query parameter"
        )
        assert wrong.startswith(name)
        assert shown.startswith(right)
        assert shown.endswith(f"(or {name}: str, where the query is meant)")


async def test_what_is_said_to_be_a_parameter_may_have_any_name() -> None:
    def in_the_path(request) -> Any:  # type: ignore[no-untyped-def]
        return request

    def in_the_query(tasks: str, nursery=Query()) -> Any:  # type: ignore[no-untyped-def] # noqa: B008
        return [tasks, nursery]

    assert (await ask(in_the_path, "/a", "/{request}")).json() == "a"
    assert (await ask(in_the_query, "/?tasks=a&nursery=b")).json() == ["a", "b"]


class Views:
    async def index(self, q: str = "") -> Any:
        return q

    @classmethod
    async def of_class(cls, q: str = "") -> Any:
        return [cls.__name__, q]

    @staticmethod
    async def static(q: str = "") -> Any:
        return q


def test_a_method_without_its_object() -> None:
    problem, wrong, right = refusal_of(Views.index)
    assert problem == (
        "Views.index is a method without its object, which would be a query parameter 'self'"
    )
    assert wrong == "Views.index, or a decorator on the method inside of the class"
    assert right == "Views().index, as in app.get(...)(Views().index)"
    assert "'cls'" in refusal_of(Views.of_class.__func__)[0]  # type: ignore[attr-defined]
    assert refusal_of(Adder.by_keyword)[0].endswith("a query parameter 'self'")
    problem, _, _ = refusal_of(vars(Views)["of_class"])
    assert problem.startswith("Views.of_class: what it takes isn't known before it is bound")


def test_a_decorator_on_a_method() -> None:
    app = App()
    with pytest.raises(RegistrationError, match="a method without its object"):

        class Decorated:
            @app.get("/")
            def index(self) -> None: ...


async def test_bound_methods_and_static_ones_are_handlers() -> None:
    assert (await ask(Views().index, "/?q=a")).json() == "a"
    assert (await ask(Views.of_class, "/?q=a")).json() == ["Views", "a"]
    assert (await ask(Views.static, "/?q=a")).json() == "a"
    assert (await ask(vars(Views)["static"], "/?q=a")).json() == "a"


async def test_a_router_that_is_included_later_knows_the_names_of_its_module() -> None:
    router = Router()
    router.get("/")(late)
    app = App()
    app.include_router(router)
    async with running(app) as client:
        assert (await client("GET", "/?x=1&y=2")).json() == [1, [2]]


async def test_special_types_in_texts() -> None:
    async def handler(request: Request, tasks: "BackgroundTasks") -> Any:  # noqa: UP037
        return request.method

    assert (await ask(handler)).json() == "GET"
