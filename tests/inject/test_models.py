"""A class is a model of a query, of header fields or cookies: its members are the parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, NamedTuple, Required, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from msgspec import Meta

from trioweb import App, Cookie, Depends, Header, Query, RegistrationError, Request

from ..support.asgi import Exchange, running

T = TypeVar("T")
Fields = list[tuple[str, str]]


class Model(pydantic.BaseModel):
    limit: int = pydantic.Field(100, gt=0, le=100)
    order_by: Literal["created_at", "updated_at"] = "created_at"
    tags: list[str] = []
    numbers: tuple[int, ...] | None = None
    page: int = pydantic.Field(1, alias="page-no")
    size: int = pydantic.Field(10, validation_alias=pydantic.AliasChoices("size", "page-size"))


class Strict(Model):
    model_config = pydantic.ConfigDict(extra="forbid")


class Open(Model):
    model_config = pydantic.ConfigDict(extra="allow", populate_by_name=True)


class Struct(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    page_size: Annotated[int, Meta(ge=1)]
    tags: list[str] = []
    _role: str = "user"


@dataclasses.dataclass
class Data:
    name: str
    role: str = dataclasses.field(init=False, default="user")
    _role: str = "user"
    ids: set[int] = dataclasses.field(default_factory=set)

    def __post_init__(self) -> None:
        if self.name == "nobody":
            raise ValueError("nobody is a bad name")


@attrs.define
class Attrs:
    name: str = attrs.field(converter=str.upper)  # type: ignore[misc]
    other: int = attrs.field(alias="another", default=1)
    role: str = attrs.field(init=False, default="user")


class Keys(TypedDict, total=False):
    one: Required[int]
    two: list[int]


class Pair(NamedTuple):
    one: int
    two: str = "x"


class Of(msgspec.Struct, Generic[T]):
    value: T


def of(kind: Any, **members: Any) -> Any:
    """An instance, by the names that a type checker wouldn't know."""
    return kind(**members)


def app_of(handler: Callable[..., Any]) -> App:
    app = App()
    app.get("/")(handler)
    return app


async def got(marked: Any, query: str = "", fields: Fields | None = None) -> Any:
    """The repr of what a handler gets, or the places of what is wrong and the words for it."""

    async def handler(value: Any) -> str:
        return repr(value)

    handler.__annotations__["value"] = marked
    async with running(app_of(handler)) as client:
        return said(await client("GET", f"/?{query}", headers=fields or []))


def said(exchange: Exchange) -> Any:
    if exchange.status == 422:
        return [(problem["loc"], problem["type"]) for problem in exchange.json()["detail"]]
    assert exchange.status == 200, exchange.text
    return exchange.json()


@pytest.mark.parametrize(
    ("kind", "query", "expected"),
    [
        (Model, "", of(Model)),
        (Model, "limit=5&order_by=updated_at", of(Model, limit=5, order_by="updated_at")),
        (Model, "tags=a&tags=b&numbers=1&numbers=2", of(Model, tags=["a", "b"], numbers=(1, 2))),
        (Model, "limit=1&limit=2", of(Model, limit=2)),
        (Model, "page-no=3&page=4", of(Model, **{"page-no": 3})),
        (Model, "page-size=3", of(Model, size=3)),
        (Model, "page-size=3&size=4", of(Model, size=4)),
        (Model, "other=1", of(Model)),
        (Open, "page=4&more=1&more=2&one=x", of(Open, page=4, more=["1", "2"], one="x")),
        (Strict, "limit=5", of(Strict, limit=5)),
        (Struct, "pageSize=3&tags=a&tags=b", Struct(3, ["a", "b"])),
        (Data, "name=x&role=admin&_role=admin&ids=1&ids=2", Data("x", ids={1, 2})),
        (Attrs, "name=x&another=2&other=3&role=admin", Attrs("x", 2)),
        (Keys, "one=1", {"one": 1}),
        (Keys, "one=1&two=2&two=3&other=4", {"one": 1, "two": [2, 3]}),
        (Pair, "one=1", Pair(1)),
        (Of[int], "value=1", Of(1)),
    ],
)
async def test_a_model_of_the_query(kind: Any, query: str, expected: Any) -> None:
    assert await got(Annotated[kind, Query()], query) == repr(expected)


EXTRA = "extra_forbidden"


@pytest.mark.parametrize(
    ("kind", "query", "problems"),
    [
        (
            Model,
            "limit=0&numbers=1&numbers=x&page-no=x",
            [
                (["query", "limit"], "greater_than"),
                (["query", "numbers", 1], "int_parsing"),
                (["query", "page-no"], "int_parsing"),
            ],
        ),
        (
            Strict,
            "limit=0&evil=1&evil=2",
            [(["query", "limit"], "greater_than"), (["query", "evil"], EXTRA)],
        ),
        (Strict, "page=1", [(["query", "page"], EXTRA)]),
        (
            Struct,
            "page_size=1&_role=admin",
            [
                (["query", "pageSize"], "missing"),
                (["query", "page_size"], EXTRA),
                (["query", "_role"], EXTRA),
            ],
        ),
        (Struct, "pageSize=0", [(["query", "pageSize"], "greater_than_equal")]),
        (
            Data,
            "ids=1&ids=x",
            [(["query", "name"], "missing"), (["query", "ids", 1], "int_parsing")],
        ),
        (Data, "name=nobody", [(["query"], "value_error")]),
        (Keys, "two=2", [(["query", "one"], "missing")]),
        (Of[int], "value=x", [(["query", "value"], "int_parsing")]),
    ],
)
async def test_all_that_is_wrong_with_a_model_is_found(
    kind: Any, query: str, problems: Any
) -> None:
    assert await got(Annotated[kind, Query()], query) == problems


class Sent(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    host: str
    user_agent: str | None = None
    x_tag: list[str] = []
    key: str = pydantic.Field("", alias="X-Key")


@dataclasses.dataclass
class SentData:
    host: str
    user_agent: str | None = None
    x_tag: list[str] = dataclasses.field(default_factory=list)


class SentStruct(msgspec.Struct, forbid_unknown_fields=True):
    x_tag: int = 0


HOST = ("host", "a.example")


@pytest.mark.parametrize("kind", [Sent, SentData])
async def test_a_model_of_header_fields_is_filled_by_them_alone(kind: Any) -> None:
    fields = [HOST, ("user-agent", "me"), ("x-tag", "a"), ("x-tag", "b"), ("user_agent", "you")]
    expected = kind(host="a.example", user_agent="me", x_tag=["a", "b"])
    if kind is Sent:
        fields.pop()  # which is unknown
    assert await got(Annotated[kind, Header()], "host=evil&user_agent=evil", fields) == repr(
        expected
    )
    assert await got(Annotated[kind, Header()], "host=evil") == [(["header", "host"], "missing")]


async def test_header_names_may_be_written_as_they_are() -> None:
    marked = Annotated[SentData, Header(convert_underscores=False)]
    fields = [HOST, ("user-agent", "me"), ("user_agent", "you")]
    assert await got(marked, "", fields) == repr(SentData("a.example", "you"))
    assert await got(Annotated[Sent, Header()], "", [HOST, ("x-key", "a")]) == repr(
        of(Sent, host="a.example", **{"X-Key": "a"})
    )


class Numbered(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", populate_by_name=True)
    x_size: int
    x_list: list[int] = []
    page: int = pydantic.Field(1, alias="X-Page")


@dataclasses.dataclass
class NumberedData:
    x_size: int
    x_list: list[int] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("kind", [Numbered, NumberedData])
async def test_a_problem_of_a_header_is_at_the_name_that_is_sent(kind: Any) -> None:
    marked = Annotated[kind, Header()]
    assert await got(marked) == [(["header", "x-size"], "missing")]
    assert await got(marked, "", [("x-size", "a"), ("X-List", "1"), ("x-list", "b")]) == [
        (["header", "x-size"], "int_parsing"),
        (["header", "x-list", 1], "int_parsing"),
    ]
    as_written = Annotated[kind, Header(convert_underscores=False)]
    assert await got(as_written, "", [("x-size", "1")]) == [(["header", "x_size"], "missing")]


async def test_a_header_that_a_member_takes_is_kept_but_once() -> None:
    fields = [("x-size", "1"), ("X-List", "2"), ("x-page", "3"), ("x-other", "4")]
    expected = of(Numbered, x_size=1, x_list=[2], page=3, **{"x-other": "4"})
    assert await got(Annotated[Numbered, Header()], "", fields) == repr(expected)


USUAL = [
    ("accept", "*/*"),
    ("accept-encoding", "gzip"),
    ("authorization", "Bearer x"),
    ("connection", "close"),
    ("cookie", "a=b"),
    ("sec-fetch-site", "none"),
    ("user-agent", "me"),
    ("x-forwarded-for", "192.0.2.1"),
]


@pytest.mark.parametrize(("kind", "usual"), [(Sent, [HOST, *USUAL]), (SentStruct, [HOST, *USUAL])])
async def test_an_unknown_header_is_refused_but_not_what_any_client_sends(
    kind: Any, usual: Fields
) -> None:
    marked = Annotated[kind, Header()]
    assert isinstance(await got(marked, "", usual), str)
    problems = [(["header", "x-evil"], EXTRA), (["header", "secret"], EXTRA)]
    assert await got(marked, "", [*usual, ("x-evil", "1"), ("secret", "2")]) == problems


class Session(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    session_id: str
    theme: str | None = None


async def test_a_model_of_cookies() -> None:
    marked = Annotated[Session, Cookie()]
    fields = [("cookie", "session_id=a; theme=dark")]
    assert await got(marked, "session_id=evil", fields) == repr(
        Session(session_id="a", theme="dark")
    )
    assert await got(marked, "session_id=evil", [("cookie", "other=a")]) == [
        (["cookie", "session_id"], "missing"),
        (["cookie", "other"], EXTRA),
    ]


async def test_what_other_parameters_of_the_route_take_is_not_unknown() -> None:
    async def token(token: str, key: Annotated[str, Query(alias="api-key")] = "") -> str:
        return token

    async def handler(
        strict: Annotated[Strict, Query()],
        struct: Annotated[Struct, Query()],
        page: int,
        token: Annotated[str, Depends(token)],
    ) -> str:
        return f"{strict.limit} {struct.page_size} {page} {token}"

    async with running(app_of(handler)) as client:
        target = "/?limit=5&pageSize=3&page=2&token=t&api-key=k"
        assert (await client("GET", target)).json() == "5 3 2 t"
        assert said(await client("GET", f"{target}&evil=1")) == [
            (["query", "evil"], EXTRA),
            (["query", "evil"], EXTRA),
        ]


async def test_a_default_stands_for_a_model_of_which_nothing_is_there() -> None:
    default = Data("default")

    async def handler(data: Annotated[Data, Query()] = default) -> str:
        data.ids.add(1)
        return repr(data)

    async with running(app_of(handler)) as client:
        for _ in range(2):
            assert (await client("GET", "/")).json() == repr(Data("default", ids={1}))
        assert (await client("GET", "/?name=x")).json() == repr(Data("x", ids={1}))
        assert said(await client("GET", "/?ids=1")) == [(["query", "name"], "missing")]
    assert default.ids == set()


@pytest.mark.parametrize("kind", [Data, Strict, Struct])
async def test_a_model_that_may_be_none_is_made_once_something_of_it_is_there(kind: Any) -> None:
    async def handler(model: Any = None) -> str:
        return repr(model)

    handler.__annotations__["model"] = Annotated[kind | None, Query()]
    required = Annotated[kind | None, Meta(title="x"), Query()]
    query = {Data: "name=x", Strict: "limit=5", Struct: "pageSize=1"}[kind]
    made = {Data: Data("x"), Strict: of(Strict, limit=5), Struct: Struct(1)}[kind]
    async with running(app_of(handler)) as client:
        assert (await client("GET", "/")).json() == "None"
        assert (await client("GET", f"/?{query}")).json() == repr(made)
    assert await got(required) == [(["query"], "missing")]
    assert await got(required, query) == repr(made)


@pytest.mark.parametrize("kind", [Strict, Struct])
async def test_a_default_stands_for_no_model_that_refuses_what_is_there(kind: Any) -> None:
    async def handler(model: Any = None) -> str:
        return repr(model)

    handler.__annotations__["model"] = Annotated[kind, Query()]
    async with running(app_of(handler)) as client:
        assert (await client("GET", "/")).json() == "None"
        assert (["query", "evil"], EXTRA) in said(await client("GET", "/?evil=1"))


class Nested(pydantic.BaseModel):
    inner: Model | None = None


class Mapped(pydantic.BaseModel):
    inner: dict[str, int] = {}


class Pathed(pydantic.BaseModel):
    inner: str = pydantic.Field("", validation_alias=pydantic.AliasPath("a", 0))


class Marked(pydantic.BaseModel):
    inner: Annotated[str, Header()]


class NestedStruct(msgspec.Struct):
    inner: Struct


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Nested, "'inner' is neither a text"),
        (Mapped, "'inner' is neither a text"),
        (Pathed, "'inner' is neither a text"),
        (NestedStruct, "'inner' is neither a text"),
        (Marked, "Header() of 'inner' would be passed over"),
    ],
)
def test_a_member_that_no_text_is_read_as_is_refused(kind: Any, reason: str) -> None:
    async def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = Annotated[kind, Query()]
    with pytest.raises(RegistrationError) as refused:
        App().get("/")(handler)
    assert f"{kind.__name__}: {reason}" in str(refused.value)


@pytest.mark.parametrize(
    ("annotation", "right"),
    [
        (Annotated[Data | int | None, Header()], "Annotated[Data, Header()]"),
        (Annotated[list[Data], Query()], "Annotated[Data, Query()]"),
        (Annotated[dict[str, int], Cookie()], "such as limit: Annotated[int, Cookie()]"),
        (Annotated[pydantic.RootModel[list[int]], Query()], "Annotated[int, Query()]"),
        (Annotated[Data, Query(alias="a")], "Annotated[..., Query()], and aliases in its class"),
    ],
)
def test_what_is_no_model_is_refused_with_the_right_line(annotation: Any, right: str) -> None:
    async def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = annotation
    with pytest.raises(RegistrationError) as refused:
        App().get("/")(handler)
    assert right in str(refused.value).split("right:")[1]


# What comes twice


async def test_of_what_comes_twice_the_last_counts_everywhere() -> None:
    async def handler(
        request: Request,
        query: Annotated[str, Query(alias="x")],
        header: Annotated[str, Header(alias="x")],
        cookie: Annotated[str, Cookie(alias="x")],
        header_model: Annotated[Twice, Header()],
        query_model: Annotated[Twice, Query()],
    ) -> list[str]:
        told = [request.query_params["x"], request.headers["x"], request.cookies["x"]]
        return [query, header, cookie, header_model.x, query_model.x, *told]

    fields = [("x", "1"), ("cookie", "x=1; x=3"), ("x", "2"), ("cookie", "x=2")]
    async with running(app_of(handler)) as client:
        exchange = await client("GET", "/?x=1&x=2", headers=fields)
    assert exchange.json() == ["2"] * 8


class Twice(msgspec.Struct):
    x: str


async def test_a_second_content_type_may_not_say_something_else() -> None:
    async def handler(body: Data) -> None: ...

    app = App()
    app.post("/")(handler)
    async with running(app) as client:
        for kinds in (["application/json", "text/plain"], ["text/plain", "application/json"]):
            fields = [("content-type", kind) for kind in kinds]
            exchange = await client("POST", "/", headers=fields, body=b'{"name": "x"}')
            assert exchange.status == 415
