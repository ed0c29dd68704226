"""A class in `Depends()`: its members are parameters, by the names that its author gave them."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Annotated, Any, Generic, TypeVar

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from trioweb import App, Body, Depends, Header, Query, RegistrationError, Request

from ..support.asgi import running


async def got(kind: Any, target: str = "/", **options: Any) -> Any:
    """The repr of what a handler gets, or the places of what is wrong and the words for it."""
    app = App()

    async def handler(value: Any) -> str:
        return repr(value)

    is_class = isinstance(kind, type)
    annotation = Annotated[kind, Depends()] if is_class else Annotated[Any, Depends(kind)]
    handler.__annotations__["value"] = annotation
    app.route("/", methods=["GET", "POST"])(handler)
    async with running(app) as client:
        exchange = await client("POST" if options else "GET", target, **options)
    if exchange.status == 422:
        return [(problem["loc"], problem["type"]) for problem in exchange.json()["detail"]]
    assert exchange.status == 200, exchange.text
    return exchange.json()


def of(kind: Any, **members: Any) -> Any:
    """An instance, by the names that a type checker wouldn't know."""
    return kind(**members)


class Model(pydantic.BaseModel):
    size: int = pydantic.Field(3, alias="page-size", ge=1)
    sort: str = pydantic.Field("a", validation_alias=pydantic.AliasChoices("sort", "order"))
    made: list[int] = pydantic.Field(default_factory=list)


class ByName(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    size: int = pydantic.Field(alias="pageSize")


class Generated(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=lambda name: f"x-{name}")
    size: int


@pydantic.dataclasses.dataclass
class DataOfPydantic:
    size: int = pydantic.Field(3, alias="page-size")
    role: str = pydantic.Field("user", init=False)


class Struct(msgspec.Struct, rename="camel"):
    page_size: int
    sort: str = msgspec.field(name="order by", default="a")
    _is_admin: bool = False


@pytest.mark.parametrize(
    ("kind", "query", "expected"),
    [
        (Model, "", of(Model)),
        (Model, "page-size=5&size=6", of(Model, **{"page-size": 5})),
        (Model, "order=b", of(Model, sort="b")),
        (Model, "order=b&sort=c", of(Model, sort="c")),
        (Model, "made=1&made=2", of(Model, made=[1, 2])),
        (ByName, "pageSize=1", of(ByName, size=1)),
        (ByName, "size=1", of(ByName, size=1)),
        (ByName, "pageSize=1&size=2", of(ByName, size=1)),
        (Generated, "x-size=1&size=2", of(Generated, **{"x-size": 1})),
        (DataOfPydantic, "page-size=1&size=2&role=admin", of(DataOfPydantic, **{"page-size": 1})),
        (Struct, "pageSize=1&page_size=2&order+by=b", Struct(1, "b")),
        (Struct, "pageSize=1&sort=b", Struct(1)),
        (Struct, "pageSize=1&_isAdmin=1&_is_admin=1", Struct(1)),
    ],
)
async def test_an_alias_is_read(kind: Any, query: str, expected: Any) -> None:
    assert await got(kind, f"/?{query}") == repr(expected)


@pytest.mark.parametrize(
    ("kind", "query", "problems"),
    [
        (Model, "page-size=x&made=y", [("page-size", "int_parsing"), ("made", "int_parsing")]),
        (Model, "page-size=0", [("page-size", "greater_than_equal")]),
        (ByName, "", [("pageSize", "missing")]),
        (Struct, "page_size=1", [("pageSize", "missing")]),
    ],
)
async def test_a_problem_is_at_the_name_that_is_read(
    kind: Any, query: str, problems: list[tuple[str, str]]
) -> None:
    found = await got(kind, f"/?{query}")
    assert [(loc[:2], word) for loc, word in found] == [(["query", n], w) for n, w in problems]


Value = TypeVar("Value")


@dataclasses.dataclass
class OfOne(Generic[Value]):
    value: Value


@dataclasses.dataclass
class OfIntegers(OfOne[int]):
    _role: str = "user"


@pytest.mark.parametrize(
    ("kind", "query", "expected"),
    [
        (partial(Model), "page-size=5&size=6", of(Model, **{"page-size": 5})),
        (partial(Model, sort="z"), "page-size=5&order=b", of(Model, sort="z", **{"page-size": 5})),
        (partial(Struct), "pageSize=1&_isAdmin=1&_is_admin=1", Struct(1)),
        (partial(Struct, 2, _is_admin=True), "pageSize=1", Struct(2, _is_admin=True)),
        (partial(OfIntegers), "value=5&_role=admin", OfIntegers(5)),
    ],
)
async def test_a_class_behind_a_partial_is_read_as_itself(
    kind: Any, query: str, expected: Any
) -> None:
    assert await got(kind, f"/?{query}") == repr(expected)


async def test_what_is_left_out_is_the_classs_to_make() -> None:
    async def handler(model: Annotated[Model, Depends()]) -> list[str]:
        return sorted(model.model_fields_set)

    app = App()
    app.get("/")(handler)
    async with running(app) as client:
        assert (await client("GET", "/?page-size=5")).json() == ["size"]


async def test_an_alias_may_be_a_name_of_the_path() -> None:
    class OfPath(pydantic.BaseModel):
        number: int = pydantic.Field(alias="page")
        size: int = 1

    app = App()

    async def handler(value: Any) -> str:
        return repr(value)

    handler.__annotations__["value"] = Annotated[OfPath, Depends()]
    app.get("/of/{page}")(handler)
    async with running(app) as client:
        assert (await client("GET", "/of/5")).json() == "OfPath(number=5, size=1)"


class InBody(pydantic.BaseModel):
    item: Annotated[dict[str, int], Body()] = pydantic.Field(alias="the-item")
    note: str = "none"
    host: str = Header("nowhere")


async def test_members_may_come_from_elsewhere() -> None:
    found = await got(InBody, "/?note=x", json={"a": 1}, headers=[("host", "h")])
    assert found == repr(of(InBody, **{"the-item": {"a": 1}}, note="x", host="h"))


class OfItself(pydantic.BaseModel):
    name: str

    def __init__(self, first: str, last: str) -> None:
        super().__init__(name=f"{first} {last}")


async def test_a_constructor_of_the_authors_own_says_what_is_taken() -> None:
    assert await got(OfItself, "/?first=a&last=b") == repr(OfItself("a", "b"))


async def test_a_model_that_is_no_object_is_taken_by_its_signature() -> None:
    assert await got(pydantic.RootModel[int], "/?root=5") == "RootModel[int](root=5)"


def test_a_path_within_something_else_is_refused() -> None:
    class Pathed(pydantic.BaseModel):
        deep: str = pydantic.Field("", validation_alias=pydantic.AliasPath("a", 0))

    async def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = Annotated[Pathed, Depends()]
    with pytest.raises(RegistrationError, match="'deep' is within something else"):
        App().get("/")(handler)


# Unknown names


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    size: int = 1
    host: str = Header("")


class StrictStruct(msgspec.Struct, forbid_unknown_fields=True):
    size: int = 1
    host: Annotated[str, Header()] = ""
    item: dict[str, int] = {}


EXTRA = "extra_forbidden"


@pytest.mark.parametrize("kind", [Strict, StrictStruct])
async def test_names_that_a_class_refuses_are_refused(kind: Any) -> None:
    assert isinstance(await got(kind, "/?size=2", headers=[("host", "h")]), str)
    problems = await got(kind, "/?size=2&evil=1", headers=[("host", "h"), ("x-evil", "1")])
    assert problems == [(["query", "evil"], EXTRA), (["header", "x-evil"], EXTRA)]


async def test_a_class_that_takes_nothing_of_the_query_says_nothing_of_it() -> None:
    class OfHeader(msgspec.Struct, forbid_unknown_fields=True):
        x_tag: Annotated[str, Header()] = ""

    assert isinstance(await got(OfHeader, "/?evil=1"), str)


# What the class sets itself


@dataclasses.dataclass
class Data:
    name: str
    role: str = dataclasses.field(init=False, default="user")
    _role: str = "user"
    secret: dataclasses.InitVar[int] = 0

    def __post_init__(self, secret: int) -> None:
        self.name = f"{self.name}{secret + 1}"


def upper(value: str) -> str:
    return value.upper()


@attrs.define
class Attrs:
    name: str = attrs.field(converter=upper)
    size: int = attrs.field(converter=int, default=1)
    _role: str = attrs.field(init=False, default="user")


class Private(msgspec.Struct):
    name: str
    _role: str = "user"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Data, "Data(name='x4', role='user', _role='user')"),
        (Private, repr(Private("x"))),
        (Attrs, repr(Attrs("x", 2))),
    ],
)
async def test_what_a_class_sets_itself_is_not_the_clients(kind: Any, expected: str) -> None:
    query = "name=x&role=admin&_role=admin&secret=3&size=2"
    assert await got(kind, f"/?{query}") == expected


async def test_a_private_member_may_be_what_its_marker_says() -> None:
    async def clock() -> int:
        return 5

    @dataclasses.dataclass
    class Service:
        _clock: int
        _key: str
        _request: Request

    Service.__init__.__annotations__ |= {
        "_clock": Annotated[int, Depends(clock)],
        "_key": Annotated[str, Query()],
        "_request": Request,
    }

    async def handler(service: Any) -> list[Any]:
        return [service._clock, service._key, service._request.method]

    handler.__annotations__["service"] = Annotated[Service, Depends()]
    app = App()
    app.get("/")(handler)
    async with running(app) as client:
        assert (await client("GET", "/?_key=k&_clock=6")).json() == [5, "k", "GET"]


def test_a_private_member_that_nobody_sets_is_refused() -> None:
    @dataclasses.dataclass
    class Lacking:
        _role: str

    async def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = Annotated[Lacking, Depends()]
    with pytest.raises(RegistrationError, match="'_role' is private"):
        App().get("/")(handler)
