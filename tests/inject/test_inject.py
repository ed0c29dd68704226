"""What a signature asks for is what its function gets; what doesn't fit is one 422."""

import contextvars
import dataclasses
import enum
import functools
import inspect
import logging
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Self, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
import trio
from trio.testing import MockClock
from typing_extensions import TypeAliasType

from trioweb import (
    App,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    Header,
    HTTPException,
    JSONResponse,
    Path,
    Query,
    RegistrationError,
    Request,
    Response,
    Router,
)

from ..support.asgi import Client, Exchange, running
from ..support.log_records import messages

ANY_UUID = UUID("12345678-1234-5678-1234-567812345678")
NOTHING: Any = object()

user = contextvars.ContextVar("user", default="nobody")


class Color(enum.Enum):
    RED = "red"


class Item(msgspec.Struct):
    name: str
    price: float = 0.0


@dataclasses.dataclass
class DataItem:
    name: str
    price: float = 0.0


class DictItem(TypedDict):
    name: str
    price: float


@attrs.define
class AttrsItem:
    name: str
    price: float = 0.0


class PydanticItem(pydantic.BaseModel):
    name: str
    price: float = 0.0


def echo(annotation: Any, default: Any = NOTHING) -> Callable[..., Any]:
    """A handler of one parameter, `value`, that answers with its repr."""

    async def handler(value: Any) -> str:
        return repr(value)

    if annotation is NOTHING:
        del handler.__annotations__["value"]
    else:
        handler.__annotations__["value"] = annotation
    if default is not NOTHING:
        handler.__defaults__ = (default,)
    return handler


class Recorded:
    """An app's calls and the responses sent in them, in a list of events."""

    def __init__(self, app: App) -> None:
        self.events: list[str] = []
        self.returned = trio.Event()
        # What was received before the response began; what is thrown away after it doesn't count.
        self.received = 0
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        begun = False

        async def receive_noted() -> Any:
            self.received += not begun
            return await receive()

        async def send_noted(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.events.append("response sent")

        await self._app(scope, receive_noted, send_noted)
        self.events.append("call returned")
        self.returned.set()


async def ask(app: App, method: str, target: str, **options: Any) -> Exchange:
    async with running(app) as client:
        return await client(method, target, **options)


async def asked(handler: Callable[..., Any], target: str = "/", **options: Any) -> Exchange:
    """The answer of an app that has this handler alone, for GET and POST of `/`."""
    app = App()
    app.route("/", methods=["GET", "POST"])(handler)
    return await ask(app, "POST" if options.keys() & {"json", "body"} else "GET", target, **options)


def places(exchange: Exchange) -> list[tuple[list[str | int], str]]:
    """The problems of a 422, without their texts."""
    assert exchange.status == 422, exchange.text
    return [(problem["loc"], problem["type"]) for problem in exchange.json()["detail"]]


# Path


@pytest.mark.parametrize(
    ("template", "annotation", "segment", "expected"),
    [
        ("{value}", str, "a%20b%2Fc", "a b/c"),
        ("{value}", NOTHING, "5", "5"),
        ("{value}", Any, "5", "5"),
        ("{value}", int, "-5", -5),
        ("{value}", float, "1.5", 1.5),
        ("{value}", bool, "yes", True),
        ("{value}", UUID, str(ANY_UUID), ANY_UUID),
        ("{value}", Decimal, "1.10", Decimal("1.10")),
        ("{value}", date, "2026-11-22", date(2026, 11, 22)),
        ("{value}", datetime, "2026-11-22T01:02:03Z", datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)),
        ("{value}", Color, "red", Color.RED),
        ("{value}", Literal["a", 3], "3", 3),
        ("{value}", int | str, "x", "x"),
        ("{value:str}", int, "5", 5),
        ("{value:int}", int, "5", 5),
        ("{value:int}", NOTHING, "007", 7),
        ("{value:int}", str, "5", "5"),
        ("{value:int}", float, "5", 5.0),
        ("{value:int}", Annotated[int, Path(ge=5)], "5", 5),
        ("{value:float}", float, "1.5", 1.5),
        ("{value:float}", Decimal, "1.5", Decimal("1.5")),
        ("{value:uuid}", UUID, str(ANY_UUID), ANY_UUID),
        ("{value:uuid}", str, str(ANY_UUID), str(ANY_UUID)),
        ("{value:path}", str, "a/b%2Fc", "a/b/c"),
        ("{other}", Annotated[int, Path(alias="other")], "5", 5),
    ],
)
async def test_path_parameter(template: str, annotation: Any, segment: str, expected: Any) -> None:
    app = App()
    app.get(f"/x/{template}")(echo(annotation))
    assert (await ask(app, "GET", f"/x/{segment}")).json() == repr(expected)


@pytest.mark.parametrize(
    ("annotation", "segment", "word"),
    [
        (int, "five", "int_parsing"),
        (float, "nan", "float_parsing"),
        (bool, "maybe", "bool_parsing"),
        (UUID, "1", "uuid_parsing"),
        (Decimal, "1,5", "decimal_parsing"),
        (date, "2026-02-30", "date_parsing"),
        (datetime, "noon", "datetime_parsing"),
        (Color, "RED", "enum"),
        (Literal["a", 3], "4", "literal_error"),
        (Annotated[int, Path(ge=5)], "4", "greater_than_equal"),
        (Annotated[str, msgspec.Meta(max_length=2)], "abc", "string_too_long"),
    ],
)
async def test_path_parameter_of_the_wrong_kind(annotation: Any, segment: str, word: str) -> None:
    app = App()
    app.get("/x/{value}")(echo(annotation))
    assert places(await ask(app, "GET", f"/x/{segment}")) == [(["path", "value"], word)]


async def test_dots_for_required_are_taken_as_in_fastapi() -> None:
    app = App()

    @app.get("/x/{item_id}")
    async def handler(item_id: int = Path(..., gt=0), q: str = Query(...)) -> Any:
        return [item_id, q]

    assert (await ask(app, "GET", "/x/5?q=a")).json() == [5, "a"]
    assert places(await ask(app, "GET", "/x/0")) == [
        (["path", "item_id"], "greater_than"),
        (["query", "q"], "missing"),
    ]


# Query, header, cookie


@pytest.mark.parametrize(
    ("annotation", "default", "query", "expected"),
    [
        (str, NOTHING, "value=a+b%26", "a b&"),
        (NOTHING, NOTHING, "value=5", "5"),
        (int, NOTHING, "value=5", 5),
        (int, NOTHING, "value=4&value=5", 5),
        (int, 3, "", 3),
        (int, 3, "value=5", 5),
        (int | None, None, "", None),
        (int | None, None, "value=5", 5),
        (str, "", "value=", ""),
        (list[int], NOTHING, "value=1&value=2", [1, 2]),
        (list[int], [7], "", [7]),
        (list[int] | None, None, "", None),
        (set[str], NOTHING, "value=a&value=a", {"a"}),
        (int, Query(10), "", 10),
        (int, Query(10), "value=5", 5),
        (int, Query(10, alias="page"), "value=5&page=6", 6),
        (list[int], Query([]), "value=1", [1]),
        (list[int], Query([]), "", []),
        (Annotated[int, Query()], 10, "", 10),
        (Annotated[int, Query(10)], NOTHING, "", 10),
        (Annotated[int, Query(alias="page-no")], NOTHING, "page-no=6", 6),
        (Annotated[int, Query(ge=1, lt=9)], NOTHING, "value=8", 8),
        (Annotated[int | None, Query(ge=1)], None, "value=8", 8),
        (Annotated[int, msgspec.Meta(ge=1), Query()], NOTHING, "value=8", 8),
        (Annotated[list[str], Query(max_length=2)], NOTHING, "value=a&value=b", ["a", "b"]),
        (Annotated[dict[str, int], Depends(lambda: {"a": 1})], NOTHING, "", {"a": 1}),
    ],
)
async def test_query_parameter(annotation: Any, default: Any, query: str, expected: Any) -> None:
    assert (await asked(echo(annotation, default), f"/?{query}")).json() == repr(expected)


@pytest.mark.parametrize(
    ("annotation", "query", "problems"),
    [
        (int, "", [(["query", "value"], "missing")]),
        (list[int], "", [(["query", "value"], "missing")]),
        (int, "value=x", [(["query", "value"], "int_parsing")]),
        (Annotated[int, Query(alias="page")], "value=5", [(["query", "page"], "missing")]),
        (Annotated[int, Query(ge=1)], "value=0", [(["query", "value"], "greater_than_equal")]),
        (
            Annotated[str, Query(pattern="^a")],
            "value=b",
            [(["query", "value"], "string_pattern_mismatch")],
        ),
        (
            list[int],
            "value=a&value=1&value=b",
            [(["query", "value", 0], "int_parsing"), (["query", "value", 2], "int_parsing")],
        ),
        (
            Annotated[list[str], Query(max_length=1)],
            "value=a&value=b",
            [(["query", "value"], "too_long")],
        ),
        (
            Annotated[int, msgspec.Meta(ge=1), Query()],
            "value=0",
            [(["query", "value"], "greater_than_equal")],
        ),
    ],
)
async def test_query_parameter_that_does_not_fit(
    annotation: Any, query: str, problems: Any
) -> None:
    assert places(await asked(echo(annotation), f"/?{query}")) == problems


@pytest.mark.parametrize(
    ("annotation", "default", "fields", "expected"),
    [
        (Annotated[str, Header()], NOTHING, [("value", "a")], "a"),
        (Annotated[int, Header()], 3, [], 3),
        (str, Header("none"), [], "none"),
        (Annotated[str, Header(alias="X-Key")], NOTHING, [("x-key", "a")], "a"),
        (Annotated[str, Header()], NOTHING, [("value", "a"), ("value", "b")], "b"),
        (Annotated[list[int], Header()], NOTHING, [("value", "1"), ("value", "2")], [1, 2]),
        (Annotated[str, Cookie()], NOTHING, [("cookie", "a=1; value=b")], "b"),
        (Annotated[int | None, Cookie()], None, [("cookie", "a=1")], None),
        (Annotated[str, Cookie(alias="session id")], "x", [], "x"),
        (str, Cookie("none", alias="sid"), [("cookie", "value=1; sid=2")], "2"),
    ],
)
async def test_header_and_cookie(
    annotation: Any, default: Any, fields: list[tuple[str, str]], expected: Any
) -> None:
    answer = await asked(echo(annotation, default), headers=fields)
    assert answer.json() == repr(expected)


async def test_header_name_is_written_with_hyphens_unless_told_otherwise() -> None:
    async def handler(
        user_agent: Annotated[str, Header()],
        x_key: Annotated[str, Header(convert_underscores=False)],
        z_key: Annotated[str, Header("none", alias="z_key")],
    ) -> Any:
        return [user_agent, x_key, z_key]

    fields = {"user-agent": "a", "x-key": "wrong", "x_key": "b", "z-key": "wrong"}
    assert (await asked(handler, headers=fields)).json() == ["a", "b", "none"]
    assert places(await asked(handler)) == [
        (["header", "user-agent"], "missing"),
        (["header", "x_key"], "missing"),
    ]


async def test_cookie_that_is_missing_or_wrong() -> None:
    handler = echo(Annotated[int, Cookie(alias="sid")])
    assert places(await asked(handler)) == [(["cookie", "sid"], "missing")]
    wrong = await asked(handler, headers={"cookie": "sid=x"})
    assert places(wrong) == [(["cookie", "sid"], "int_parsing")]


@pytest.mark.parametrize(
    "default", [Query([1]), Header([1]), Body([1]), [1]], ids=["query", "header", "body", "bare"]
)
async def test_default_is_fresh_for_each_request(default: Any) -> None:
    app = App()

    @app.post("/")
    async def handler(xs: list[int] = default) -> Any:
        xs.append(2)
        return xs

    async with running(app) as client:
        for _ in range(2):
            assert (await client("POST", "/")).json() == [1, 2]


# Body


@pytest.mark.parametrize("kind", [Item, DataItem, DictItem, AttrsItem, PydanticItem])
async def test_body_of_each_kind_of_class(kind: Any) -> None:
    good = {"name": "pen", "price": 1.5}
    assert (await asked(echo(kind), json=good)).json() == repr(kind(**good))
    bad = await asked(echo(kind), json={"price": "dear"})
    found = {(tuple(loc), word) for loc, word in places(bad)}
    assert (("body", "name"), "missing") in found
    assert [loc for loc, _ in places(bad) if loc[-1] == "price"] == [["body", "price"]]
    assert len(found) == 2


@pytest.mark.parametrize("kind", [Item, DataItem, DictItem, AttrsItem])
async def test_body_that_is_a_list_of_classes(kind: Any) -> None:
    good = {"name": "pen", "price": 1.5}
    assert (await asked(echo(list[kind]), json=[good, good])).json() == repr([kind(**good)] * 2)
    bad = await asked(echo(list[kind]), json=[good, {**good, "price": "dear"}])
    assert [loc for loc, _ in places(bad)] == [["body", 1, "price"]]


@pytest.mark.parametrize(
    ("annotation", "default", "body", "expected"),
    [
        (dict, NOTHING, {"a": [1]}, {"a": [1]}),
        (dict[str, int], NOTHING, {"a": 1}, {"a": 1}),
        (Item | None, None, None, None),
        (Item | None, None, {"name": "pen"}, Item("pen")),
        (dict[str, int], {"a": 1}, None, {"a": 1}),
        (Annotated[int, Body()], NOTHING, 5, 5),
        (Annotated[list[int], Body()], NOTHING, [5], [5]),
        (Annotated[list[int], Body(max_length=1)], NOTHING, [5], [5]),
        (Annotated[int, Body(ge=5)], NOTHING, 5, 5),
        (int, Body(7), None, 7),
        (Annotated[int, Body(embed=True)], NOTHING, {"value": 5}, 5),
        (Annotated[int, Body(embed=True, alias="n")], NOTHING, {"n": 5, "value": 6}, 5),
        (Annotated[int, Body(embed=True)], 7, {}, 7),
        (Annotated[int, Body(embed=True)], 7, None, 7),
    ],
)
async def test_body(annotation: Any, default: Any, body: Any, expected: Any) -> None:
    data = {"body": b""} if body is None else {"json": body}
    assert (await asked(echo(annotation, default), **data)).json() == repr(expected)


@pytest.mark.parametrize(
    ("annotation", "body", "problems"),
    [
        (Item, b"", [(["body"], "missing")]),
        (Item, b"{", [(["body"], "json_invalid")]),
        (Item, b"[]", [(["body"], "object_type")]),
        (Annotated[int, Body()], b'"5"', [(["body"], "int_parsing")]),
        (Annotated[int, Body(ge=5)], b"4", [(["body"], "greater_than_equal")]),
        (Annotated[int, Body(embed=True)], b"", [(["body", "value"], "missing")]),
        (Annotated[int, Body(embed=True)], b"{}", [(["body", "value"], "missing")]),
        (Annotated[int, Body(embed=True)], b"{", [(["body"], "json_invalid")]),
        (Annotated[int, Body(embed=True)], b'{"value": null}', [(["body", "value"], "int_type")]),
        (
            Annotated[Item, Body(embed=True)],
            b'{"value": {}}',
            [(["body", "value", "name"], "missing")],
        ),
    ],
)
async def test_body_that_does_not_fit(annotation: Any, body: bytes, problems: Any) -> None:
    found = places(await asked(echo(annotation), body=body))
    assert [loc for loc, _ in found] == [loc for loc, _ in problems]
    if problems[0][1] != "object_type":
        assert found == problems


async def test_several_body_parameters_are_members_of_one_body() -> None:
    async def handler(
        item: Item, owner: PydanticItem, count: Annotated[int, Body()], note: str = Body("none")
    ) -> Any:
        return [item.name, owner.name, count, note]

    body: dict[str, Any] = {"item": {"name": "pen"}, "owner": {"name": "Ann"}, "count": 2}
    assert (await asked(handler, json=body)).json() == ["pen", "Ann", 2, "none"]
    bad = await asked(handler, json={"item": {}, "owner": {}, "note": 1})
    assert places(bad) == [
        (["body", "item", "name"], "missing"),
        (["body", "owner", "name"], "missing"),
        (["body", "count"], "missing"),
        (["body", "note"], "string_type"),
    ]


async def test_handler_and_dependency_share_a_body_of_one_name() -> None:
    def first_letter(item: Item) -> str:
        return item.name[0]

    async def handler(item: Item, letter: Annotated[str, Depends(first_letter)]) -> Any:
        return [item.name, letter]

    assert (await asked(handler, json={"name": "pen"})).json() == ["pen", "p"]


async def test_a_body_of_a_dependency_makes_the_handlers_a_member() -> None:
    def owner(owner: Item) -> str:
        return owner.name

    async def handler(item: Item, name: Annotated[str, Depends(owner)]) -> Any:
        return [item.name, name]

    body = {"item": {"name": "pen"}, "owner": {"name": "Ann"}}
    assert (await asked(handler, json=body)).json() == ["pen", "Ann"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/merge-patch+json", 200),
        ("", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonx", 415),
    ],
)
async def test_body_must_not_say_that_it_is_something_else(content_type: str, status: int) -> None:
    app = App()
    app.post("/")(echo(Item))
    recorded = Recorded(app)
    async with running(app):
        answer = await Client(recorded)(
            "POST", "/", body=b'{"name": "a"}', headers={"content-type": content_type}
        )
    assert answer.status == status
    if status == 415:
        assert content_type in answer.json()["detail"]
        assert recorded.received == 0  # nobody had to upload it


# Request, task list, nursery


async def test_request_tasks_and_nursery_are_those_of_the_request() -> None:
    events: list[str] = []
    app = App()

    async def child() -> None:
        events.append("child")

    @app.get("/{name}")
    async def handler(request: Request, tasks: BackgroundTasks, nursery: trio.Nursery) -> Any:
        assert tasks is request.tasks
        tasks.add_task(events.append, "task")
        nursery.start_soon(child)
        await trio.testing.wait_all_tasks_blocked()
        return [request.path_params["name"], list(events)]

    assert (await ask(app, "GET", "/x")).json() == ["x", ["child"]]
    assert events == ["child", "task"]


async def test_dependency_gets_the_same_request_tasks_and_nursery() -> None:
    def things(request: Request, tasks: BackgroundTasks, nursery: trio.Nursery) -> Any:
        return request, tasks, nursery

    async def handler(
        found: Annotated[Any, Depends(things)],
        request: Request,
        tasks: BackgroundTasks,
        nursery: trio.Nursery,
    ) -> bool:
        return bool(found == (request, tasks, nursery)) and nursery is not None

    assert (await asked(handler)).json() is True


# Dependencies


class Pages:
    def __init__(self, skip: int = 0, limit: int = 10) -> None:
        self.window = [skip, skip + limit]


@dataclasses.dataclass  # compared by value, so without a hash
class Above:
    floor: int

    def __call__(self, n: int) -> bool:
        return n > self.floor


@dataclasses.dataclass(frozen=True)  # whose hash raises
class OneOf:
    choices: list[int]

    async def __call__(self, n: int) -> bool:
        return n in self.choices

    def none(self, n: int) -> bool:
        return n not in self.choices

    async def generate(self, n: int) -> AsyncIterator[bool]:
        yield n in self.choices


class Empty:
    """Callable, and false."""

    def __len__(self) -> int:
        return 0

    def __call__(self, n: int) -> int:
        return -n


def add(a: int, n: int, *, times: int = 1) -> int:
    return (a + n) * times


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Annotated[bool, Depends(Above(4))], True),
        (Annotated[bool, Depends(OneOf([1, 2]))], False),
        (Annotated[bool, Depends(OneOf([1, 2]).none)], True),
        (Annotated[bool, Depends(OneOf([5]).generate)], True),
        (Annotated[int, Depends(functools.partial(add, 2))], 7),
        (Annotated[int, Depends(functools.partial(add, 2, times=2))], 14),
        (Annotated[bool, Depends(functools.partial(OneOf([5])))], True),
        (Annotated[Any, Depends(lambda n: n)], "5"),
    ],
)
async def test_anything_callable_is_a_dependency(annotation: Any, expected: Any) -> None:
    assert (await asked(echo(annotation), "/?n=5")).json() == repr(expected)


async def test_callable_that_is_false_is_a_dependency() -> None:
    assert not Empty()
    assert (await asked(echo(Annotated[int, Depends(Empty())]), "/?n=5")).json() == "-5"


async def test_class_is_a_dependency_and_the_annotation_is_the_default_one() -> None:
    async def handler(
        pages: Annotated[Pages, Depends()],
        again: Annotated[Pages, Depends(Pages)],
        also: Pages = Depends(),  # noqa: B008
    ) -> Any:
        assert pages is again is also
        return pages.window

    assert (await asked(handler, "/?skip=20")).json() == [20, 30]
    assert places(await asked(handler, "/?skip=x")) == [(["query", "skip"], "int_parsing")]


@dataclasses.dataclass
class MadePage:
    tags: list[str] = dataclasses.field(default_factory=list)


class MadeStruct(msgspec.Struct):
    tags: list[str] = []


class MadeModel(pydantic.BaseModel):
    tags: list[str] = pydantic.Field(default_factory=list)


@attrs.define
class MadeAttrs:
    tags: list[str] = attrs.field(factory=list)


@pytest.mark.parametrize("kind", [MadePage, MadeStruct, MadeModel, MadeAttrs])
async def test_class_as_dependency_makes_its_own_defaults(kind: Any) -> None:
    async def handler(page: Any) -> Any:
        page.tags.append("own")
        return page.tags

    handler.__annotations__["page"] = Annotated[kind, Depends()]
    app = App()
    app.get("/")(handler)
    async with running(app) as client:
        assert (await client("GET", "/")).json() == ["own"]
        assert (await client("GET", "/")).json() == ["own"]
        assert (await client("GET", "/?tags=a&tags=b")).json() == ["a", "b", "own"]


class Filters(pydantic.BaseModel):
    low: Annotated[int, pydantic.Field(ge=1)]
    high: pydantic.PositiveInt = 9
    tag: str = pydantic.Field("", max_length=3)

    @pydantic.model_validator(mode="after")
    def check(self) -> Self:
        if self.low == 13:
            raise KeyError(self.low)
        if self.low > self.high:
            raise ValueError("low is beyond high")
        return self


@pydantic.dataclasses.dataclass
class CheckedFilters:
    low: Annotated[int, pydantic.Field(ge=1)]
    high: pydantic.PositiveInt = 9
    tag: Annotated[str, pydantic.Field(max_length=3)] = ""


@pytest.mark.parametrize("kind", [Filters, CheckedFilters])
async def test_class_that_checks_itself_as_dependency(kind: Any) -> None:
    async def handler(filters: Any, limit: Annotated[int, Query(ge=1)] = 5) -> Any:
        return [filters.low, filters.high, filters.tag]

    handler.__annotations__["filters"] = Annotated[kind, Depends()]
    assert (await asked(handler, "/?low=3&tag=a")).json() == [3, 9, "a"]
    assert places(await asked(handler, "/?low=0&high=-1&tag=long&limit=0")) == [
        (["query", "low"], "greater_than_equal"),
        (["query", "high"], "greater_than"),
        (["query", "tag"], "string_too_long"),
        (["query", "limit"], "greater_than_equal"),
    ]
    assert places(await asked(handler, "/?low=x")) == [(["query", "low"], "int_parsing")]


async def test_problem_of_a_whole_class_has_no_place_of_its_own() -> None:
    async def handler(filters: Annotated[Filters, Depends()]) -> Any: ...

    assert places(await asked(handler, "/?low=10")) == [([], "value_error")]


async def test_other_errors_of_a_class_that_checks_itself_are_the_programs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Own(Filters):
        def __init__(self, **values: Any) -> None:
            raise ValueError("not the client's")

    Own.__signature__ = inspect.Signature()

    async def own(own: Annotated[Any, Depends(Own)]) -> Any: ...
    async def other(other: Annotated[Filters, Depends()]) -> Any: ...

    assert (await asked(own)).status == 500
    assert (await asked(other, "/?low=13&high=20")).status == 500
    assert messages(caplog, level=logging.ERROR) == ["GET / failed", "GET / failed"]


async def some_async(count: int) -> AsyncIterator[int]:
    for n in range(count):
        yield n


def some(count: int) -> Iterator[int]:
    yield from range(count)


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("dependency", [some, some_async])
async def test_generator_that_does_not_yield_once_is_named(
    dependency: Any, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    get_some = functools.partial(dependency, count=count)

    async def handler(x: Annotated[int, Depends(get_some, scope="function")]) -> Any: ...

    assert (await asked(handler)).status == 500
    (record,) = caplog.records
    assert record.exc_info
    failure = record.exc_info[1]
    assert isinstance(failure, RuntimeError)
    assert failure.__notes__ == [f"dependency {dependency.__name__} has to yield exactly once"]


async def test_other_runtime_errors_of_a_generator_are_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> int:
        raise RuntimeError("broken")

    def broken() -> Iterator[int]:
        yield fail()

    async def handler(x: Annotated[int, Depends(broken)]) -> Any: ...

    assert (await asked(handler)).status == 500
    (record,) = caplog.records
    assert record.exc_info
    assert not hasattr(record.exc_info[1], "__notes__")


async def test_what_a_partial_has_bound_is_not_the_clients_to_say() -> None:
    def role(role: str) -> str:
        return role

    bound = functools.partial(role, role="reader")
    answer = await asked(echo(Annotated[str, Depends(bound)]), "/?role=admin")
    assert answer.json() == repr("reader")


async def test_sub_dependencies_are_called_first_and_each_once() -> None:
    calls: list[str] = []

    async def session() -> str:
        calls.append("session")
        return "s"

    def users(session: Annotated[str, Depends(session)]) -> str:
        calls.append("users")
        return session + "u"

    async def items(session: Annotated[str, Depends(session)], n: int) -> str:
        calls.append("items")
        return session + "i" * n

    async def handler(
        users: Annotated[str, Depends(users)],
        items: Annotated[str, Depends(items)],
        session: Annotated[str, Depends(session, scope="function")],
    ) -> Any:
        return [users, items, session]

    assert (await asked(handler, "/?n=2")).json() == ["su", "sii", "s"]
    assert calls == ["session", "users", "items"]


async def test_dependency_is_cached_for_one_request_and_never_for_two() -> None:
    numbers = iter(range(100))

    def number() -> int:
        return next(numbers)

    async def handler(
        a: Annotated[int, Depends(number)],
        b: Annotated[int, Depends(number)],
        c: Annotated[int, Depends(number, use_cache=False)],
        d: Annotated[int, Depends(number, use_cache=False)],
    ) -> Any:
        return [a, b, c, d]

    app = App()
    app.get("/")(handler)
    async with running(app) as client:
        assert (await client("GET", "/")).json() == [0, 0, 1, 2]
        assert (await client("GET", "/")).json() == [3, 3, 4, 5]


async def test_same_dependency_with_other_scope_is_entered_again() -> None:
    entered: list[int] = []

    def resource() -> Iterator[int]:
        entered.append(1)
        yield len(entered)

    async def handler(
        a: Annotated[int, Depends(resource)],
        b: Annotated[int, Depends(resource)],
        c: Annotated[int, Depends(resource, scope="function")],
    ) -> Any:
        return [a, b, c]

    assert (await asked(handler)).json() == [1, 1, 2]


async def test_sync_functions_run_in_threads_and_async_ones_in_place() -> None:
    here = threading.get_ident()

    def sync_value() -> bool:
        return threading.get_ident() == here

    async def async_value() -> bool:
        return threading.get_ident() == here

    def sync_generator() -> Iterator[bool]:
        yield threading.get_ident() == here

    async def async_generator() -> AsyncIterator[bool]:
        yield threading.get_ident() == here

    def handler(
        a: Annotated[bool, Depends(sync_value)],
        b: Annotated[bool, Depends(async_value)],
        c: Annotated[bool, Depends(sync_generator)],
        d: Annotated[bool, Depends(async_generator)],
    ) -> Any:
        return [a, b, c, d, threading.get_ident() == here]

    assert (await asked(handler)).json() == [False, True, False, True, False]


async def test_contextvar_of_an_async_dependency_is_seen_by_handler_and_thread() -> None:
    async def login(name: str) -> None:
        user.set(name)

    def seen_in_thread() -> str:
        return user.get()

    async def handler(seen: Annotated[str, Depends(seen_in_thread)]) -> Any:
        return [user.get(), seen]

    app = App()
    app.get("/", dependencies=[Depends(login)])(handler)
    async with running(app) as client:
        assert (await client("GET", "/?name=ann")).json() == ["ann", "ann"]
        assert (await client("GET", "/?name=bob")).json() == ["bob", "bob"]


async def test_both_sides_of_a_sync_generator_share_their_contextvars() -> None:
    seen: list[Any] = []
    here = threading.get_ident()

    def session() -> Iterator[None]:
        token = user.set("ann")
        yield
        seen.append(user.get())
        user.reset(token)  # raises in any other context
        seen.append(user.get())
        seen.append(threading.get_ident() == here)

    await asked(echo(Annotated[None, Depends(session)]))
    assert seen == ["ann", "nobody", False]


async def test_async_generator_is_entered_and_left_on_the_handlers_task() -> None:
    tasks: list[trio.lowlevel.Task] = []

    async def session() -> AsyncIterator[None]:
        tasks.append(trio.lowlevel.current_task())
        token = user.set("ann")
        yield
        user.reset(token)
        tasks.append(trio.lowlevel.current_task())

    async def handler(session: Annotated[None, Depends(session)]) -> str:
        tasks.append(trio.lowlevel.current_task())
        return user.get()

    assert (await asked(handler)).json() == "ann"
    assert len(tasks) == 3
    assert len(set(tasks)) == 1


# Lifetimes


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_steps_of_a_request_in_their_order(is_async: bool) -> None:
    app = App()
    recorded = Recorded(app)
    events = recorded.events

    def sync_resource(name: str) -> Callable[..., Any]:
        def resource() -> Iterator[str]:
            events.append(f"enter {name}")
            yield name
            events.append(f"exit {name}")

        return resource

    def async_resource(name: str) -> Callable[..., Any]:
        async def resource() -> AsyncIterator[str]:
            events.append(f"enter {name}")
            yield name
            events.append(f"exit {name}")

        return resource

    resource = async_resource if is_async else sync_resource

    async def task() -> None:
        await recorded.returned.wait()
        events.append("task")

    @app.get("/")
    async def handler(
        request: Annotated[str, Depends(resource("request"))],
        response_1: Annotated[str, Depends(resource("response 1"), scope="response")],
        response_2: Annotated[str, Depends(resource("response 2"), scope="response")],
        function: Annotated[str, Depends(resource("function"), scope="function")],
        tasks: BackgroundTasks,
    ) -> Any:
        tasks.add_task(task)
        events.append("handler")
        return [request, response_1, response_2, function]

    async with running(app):
        answer = await Client(recorded)("GET", "/")
    assert answer.json() == ["request", "response 1", "response 2", "function"]
    assert events == [
        "enter request",
        "enter response 1",
        "enter response 2",
        "enter function",
        "handler",
        "exit function",
        "response sent",
        "exit response 2",
        "exit response 1",
        "call returned",
        "task",
        "exit request",
    ]


async def test_generators_that_close_later_are_entered_earlier() -> None:
    events: list[str] = []

    def entered(name: str) -> Callable[..., Any]:
        async def dependency() -> AsyncIterator[None]:
            events.append(f"enter {name}")
            yield
            events.append(f"exit {name}")

        return dependency

    async def plain(name: str) -> None:
        events.append(name)

    session = entered("session")

    async def transaction(session: Annotated[None, Depends(session)]) -> AsyncIterator[None]:
        events.append("enter transaction")
        yield
        events.append("exit transaction")

    async def handler(
        plain: Annotated[None, Depends(plain)],
        a: Annotated[None, Depends(entered("function"), scope="function")],
        b: Annotated[None, Depends(transaction, scope="response")],
        c: Annotated[None, Depends(entered("request"))],
    ) -> None:
        events.append("handler")

    await asked(handler, "/?name=plain")
    assert events == [
        "plain",
        "enter session",
        "enter request",
        "enter transaction",
        "enter function",
        "handler",
        "exit function",
        "exit transaction",
        "exit request",
        "exit session",
    ]


async def test_task_uses_what_a_dependency_gave_it() -> None:
    events: list[str] = []

    async def session() -> AsyncIterator[list[str]]:
        yield events
        events.append("closed")

    async def handler(
        session: Annotated[list[str], Depends(session)], tasks: BackgroundTasks
    ) -> None:
        tasks.add_task(session.append, "used")

    await asked(handler)
    assert events == ["used", "closed"]


def resource(seen: list[str], name: str, **problem: Any) -> Callable[..., Any]:
    """An async generator that notes what passes through it, and may do something about it."""

    async def resource() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as exc:
            seen.append(f"{name}: {type(exc).__name__}")
            if "instead" in problem:
                raise problem["instead"] from exc
            if "swallow" not in problem:
                raise
        else:
            seen.append(f"{name}: fine")
            if "after" in problem:
                raise problem["after"]

    return resource


async def test_exception_passes_through_all_generators_innermost_first() -> None:
    seen: list[str] = []
    outer = resource(seen, "outer")
    app = App()

    def inner(outer: Annotated[None, Depends(outer)]) -> Iterator[None]:
        try:
            yield
        except LookupError:
            seen.append("inner: LookupError, in a thread")
            raise

    @app.exception_handler(LookupError)
    async def not_found(request: Request, exc: LookupError) -> Response:
        seen.append("response made")
        return JSONResponse("nothing there", 404)

    @app.get("/")
    async def handler(
        a: Annotated[None, Depends(inner)],
        b: Annotated[None, Depends(resource(seen, "response"), scope="response")],
        c: Annotated[None, Depends(resource(seen, "function"), scope="function")],
    ) -> None:
        raise LookupError

    answer = await ask(app, "GET", "/")
    assert (answer.status, answer.json()) == (404, "nothing there")
    assert seen == [
        "function: LookupError",
        "response: LookupError",
        "inner: LookupError, in a thread",
        "outer: LookupError",
        "response made",
    ]


async def test_generator_may_answer_for_the_exception(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    conflict = resource(seen, "inner", instead=HTTPException(409, "taken"))

    async def middle(outer: Annotated[None, Depends(resource(seen, "outer"))]) -> None: ...

    async def handler(
        a: Annotated[None, Depends(middle)], b: Annotated[None, Depends(conflict)]
    ) -> None:
        raise LookupError

    answer = await asked(handler)
    assert (answer.status, answer.json()) == (409, {"detail": "taken"})
    assert seen == ["inner: LookupError", "outer: HTTPException"]
    assert messages(caplog, level=logging.ERROR) == []


@pytest.mark.parametrize("scope", ["function", "response", "request"])
@pytest.mark.parametrize("exc", [LookupError(), HTTPException(418)])
async def test_generator_that_swallows_an_exception_does_not_hide_it(
    scope: Any, exc: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    swallow = resource(seen, "dependency", swallow=True)

    def swallow_in_thread() -> Iterator[None]:
        try:
            yield
        except Exception as exc:
            seen.append(f"thread: {type(exc).__name__}")

    async def handler(
        a: Annotated[None, Depends(swallow, scope=scope)],
        b: Annotated[None, Depends(swallow_in_thread, scope=scope)],
    ) -> None:
        raise exc

    answer = await asked(handler)
    kind = type(exc).__name__
    assert seen == [f"thread: {kind}", f"dependency: {kind}"]
    if isinstance(exc, HTTPException):
        assert (answer.status, messages(caplog, level=logging.ERROR)) == (418, [])
    else:
        assert (answer.status, messages(caplog, level=logging.ERROR)) == (500, ["GET / failed"])


async def test_exit_before_the_response_that_fails_is_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[str] = []
    commit = resource(seen, "commit", after=ConnectionError("lost"))

    async def handler(
        outer: Annotated[None, Depends(resource(seen, "outer"))],
        commit: Annotated[None, Depends(commit, scope="function")],
        tasks: BackgroundTasks,
    ) -> str:
        tasks.add_task(seen.append, "task")
        return "fine"

    answer = await asked(handler)
    assert (answer.status, answer.json()) == (500, {"detail": "Internal Server Error"})
    assert seen == ["commit: fine", "outer: ConnectionError"]
    assert messages(caplog, level=logging.ERROR) == ["GET / failed"]


@pytest.mark.parametrize("scope", ["response", "request"])
async def test_exit_after_the_response_that_fails_is_logged_once(
    scope: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    late = resource(seen, "late", after=ConnectionError("lost"))

    async def handler(
        late: Annotated[None, Depends(late, scope=scope)], tasks: BackgroundTasks
    ) -> str:
        tasks.add_task(seen.append, "task")
        return "fine"

    answer = await asked(handler)
    assert (answer.status, answer.json()) == (200, "fine")
    assert sorted(seen) == ["late: fine", "task"]
    assert messages(caplog, level=logging.ERROR) == ["GET / failed too late to be answered"]
    assert caplog.records[-1].exc_info is not None
    assert isinstance(caplog.records[-1].exc_info[1], ConnectionError)


async def test_generator_that_fails_before_its_yield(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def refused(
        outer: Annotated[None, Depends(resource(seen, "outer"))],
    ) -> AsyncIterator[None]:
        raise HTTPException(503, "no database")
        yield

    answer = await asked(echo(Annotated[None, Depends(refused)]))
    assert (answer.status, answer.json()) == (503, {"detail": "no database"})
    assert seen == ["outer: HTTPException"]
    assert messages(caplog, level=logging.ERROR) == []


@pytest.mark.parametrize(("used", "user_scope"), [("function", "request"), ("response", "request")])
async def test_generator_may_live_shorter_than_what_it_uses(used: Any, user_scope: Any) -> None:
    seen: list[str] = []

    def nested(
        outer: Annotated[None, Depends(resource(seen, "outer"), scope=user_scope)],
    ) -> Iterator[None]:
        yield
        seen.append("nested")

    assert (await asked(echo(Annotated[None, Depends(nested, scope=used)]))).status == 200
    assert seen == ["nested", "outer: fine"]


# Problems


async def test_all_problems_of_handler_and_dependencies_are_one_answer() -> None:
    called: list[str] = []

    def token(x_token: Annotated[int, Header()]) -> None:
        called.append("token")

    def pages(token: Annotated[None, Depends(token)], skip: int, limit: int) -> None:
        called.append("pages")

    def unharmed() -> None:
        called.append("unharmed")

    async def handler(
        pages: Annotated[None, Depends(pages)],
        unharmed: Annotated[None, Depends(unharmed)],
        item: Item,
        sid: Annotated[int, Cookie()],
    ) -> None:
        called.append("handler")

    answer = await asked(handler, "/?skip=a", body=b"{}", headers={"cookie": "sid=x"})
    assert places(answer) == [
        (["header", "x-token"], "missing"),
        (["query", "skip"], "int_parsing"),
        (["query", "limit"], "missing"),
        (["body", "name"], "missing"),
        (["cookie", "sid"], "int_parsing"),
    ]
    assert called == ["unharmed"]
    fields = {"x-token": "1", "cookie": "sid=1"}
    good = await asked(handler, "/?skip=1&limit=2", json={"name": "pen"}, headers=fields)
    assert good.status == 200
    assert called[1:] == ["token", "pages", "unharmed", "handler"]


async def test_problem_has_a_text_for_people() -> None:
    assert (await asked(echo(int), "/?value=x")).json() == {
        "detail": [
            {
                "loc": ["query", "value"],
                "msg": "Input should be a valid integer",
                "type": "int_parsing",
            }
        ]
    }


async def test_what_needs_a_dependency_with_problems_is_not_called() -> None:
    called: list[str] = []

    def first(n: int) -> int:
        called.append("first")
        return n

    def second(n: Annotated[int, Depends(first)]) -> int:
        called.append("second")
        return n

    def third(n: Annotated[int, Depends(second)]) -> None:
        called.append("third")

    answer = await asked(echo(Annotated[None, Depends(third)]), "/?n=x")
    assert places(answer) == [(["query", "n"], "int_parsing")]
    assert called == []
    assert (await asked(echo(Annotated[None, Depends(third)]), "/?n=1")).status == 200
    assert called == ["first", "second", "third"]


async def test_handler_is_not_called_when_a_dependency_of_its_route_has_problems() -> None:
    called: list[str] = []
    app = App()

    def check(token: int) -> None: ...

    @app.get("/", dependencies=[Depends(check)])
    async def handler() -> None:
        called.append("handler")

    assert places(await ask(app, "GET", "/?token=x")) == [(["query", "token"], "int_parsing")]
    assert called == []
    assert (await ask(app, "GET", "/?token=1")).status == 200
    assert called == ["handler"]


async def test_bad_json_for_several_is_one_problem_beside_the_others() -> None:
    async def handler(n: int, item: Item, owner: Item) -> None: ...

    assert places(await asked(handler, "/", body=b"{")) == [
        (["body"], "json_invalid"),
        (["query", "n"], "missing"),
    ]


@pytest.mark.parametrize("body", [b"{}", b"{"])
async def test_refusal_of_an_independent_dependency_comes_before_problems(body: bytes) -> None:
    def audit(item: Item, owner: Item) -> None: ...

    def check_token() -> None:
        raise HTTPException(401)

    async def handler(
        audit: Annotated[None, Depends(audit)], token: Annotated[None, Depends(check_token)]
    ) -> None: ...

    assert (await asked(handler, body=body)).status == 401


async def test_generators_see_that_there_are_problems() -> None:
    seen: list[str] = []

    async def handler(a: Annotated[None, Depends(resource(seen, "open"))], n: int) -> None: ...

    assert places(await asked(handler)) == [(["query", "n"], "missing")]
    assert seen == ["open: RequestValidationError"]


async def test_body_is_not_read_before_a_dependency_refuses() -> None:
    def check_token(x_token: Annotated[str, Header()]) -> None:
        if x_token != "secret":
            raise HTTPException(401)

    def audit(item: Item) -> None: ...

    app = App()

    @app.post("/", dependencies=[Depends(check_token)])
    async def handler(item: Item, audit: Annotated[None, Depends(audit)]) -> str:
        return item.name

    recorded = Recorded(app)
    async with running(app):
        client = Client(recorded)
        refused = await client("POST", "/", json={"name": "pen"}, headers={"x-token": "guess"})
        assert (refused.status, recorded.received) == (401, 0)
        served = await client("POST", "/", json={"name": "pen"}, headers={"x-token": "secret"})
        assert (served.json(), recorded.received) == ("pen", 1)


async def test_body_is_read_in_pieces() -> None:
    answer = await asked(echo(Item), body=[b'{"na', b'me": ', b'"pen"}'])
    assert answer.json() == repr(Item("pen"))


# Dependencies of routes


async def test_dependencies_of_router_and_route_are_called_outermost_first() -> None:
    called: list[str] = []

    def note(name: str) -> Any:
        def noted() -> str:
            called.append(name)
            return name

        return Depends(noted)

    inner = Router("/inner", dependencies=[note("inner")])
    outer = Router("/outer", dependencies=[note("outer")])

    @inner.get("/x", dependencies=[note("route 1"), note("route 2")])
    async def handler() -> str:
        called.append("handler")
        return "fine"

    outer.include_router(inner)
    app = App()
    app.include_router(outer)
    assert (await ask(app, "GET", "/outer/inner/x")).json() == "fine"
    assert called == ["outer", "inner", "route 1", "route 2", "handler"]


async def test_dependency_of_a_route_refuses_and_shares_its_cache() -> None:
    calls: list[int] = []

    def age(age: int) -> int:
        calls.append(age)
        if age < 18:
            raise HTTPException(403)
        return age

    app = App()
    app.get("/", dependencies=[Depends(age)])(echo(Annotated[int, Depends(age)]))
    assert (await ask(app, "GET", "/?age=17")).status == 403
    assert (await ask(app, "GET", "/?age=18")).json() == "18"
    assert calls == [17, 18]


# Results


async def test_status_of_what_is_returned() -> None:
    app = App()
    app.post("/made", status_code=201)(lambda: {"id": 1})
    app.delete("/gone", status_code=204)(lambda: None)
    app.get("/null")(lambda: None)
    app.get("/own", status_code=201)(lambda: JSONResponse("own", 202))
    async with running(app) as client:
        made, gone = await client("POST", "/made"), await client("DELETE", "/gone")
        null, own = await client("GET", "/null"), await client("GET", "/own")
    assert (made.status, made.json()) == (201, {"id": 1})
    assert (gone.status, gone.body) == (204, b"")
    assert "content-length" not in gone.headers
    assert (null.status, null.body) == (200, b"null")
    assert (own.status, own.json()) == (202, "own")


async def test_tasks_of_a_returned_response_join_the_list() -> None:
    events: list[str] = []

    async def handler(tasks: BackgroundTasks) -> Response:
        tasks.add_task(events.append, "injected")
        own = BackgroundTasks()
        own.add_task(events.append, "own")
        return JSONResponse("fine", background=own)

    assert (await asked(handler)).json() == "fine"
    assert events == ["injected", "own"]


# Timeout


async def test_timeout_cancels_the_handler_and_its_generators(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    app = App()

    @app.get("/", timeout=2.5)
    async def handler(session: Annotated[None, Depends(resource(seen, "session"))]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append(f"cancelled after {trio.current_time() - start}")

    async with running(app) as client:
        start = trio.current_time()
        answer = await client("GET", "/")
    assert answer.status == 503
    assert answer.json() == {"detail": "The handler took longer than 2.5 s"}
    assert seen == ["cancelled after 2.5", "session: Cancelled"]
    assert messages(caplog, level=logging.ERROR) == []


async def test_timeout_holds_for_dependencies_and_spares_tasks(autojump_clock: MockClock) -> None:
    events: list[str] = []
    app = App()

    async def slow(seconds: float) -> None:
        await trio.sleep(seconds)

    async def task() -> None:
        await trio.sleep(60)
        events.append("task")

    @app.get("/", timeout=2)
    async def handler(slow: Annotated[None, Depends(slow)], tasks: BackgroundTasks) -> str:
        tasks.add_task(task)
        return "fine"

    async with running(app) as client:
        assert (await client("GET", "/?seconds=3")).status == 503
        assert events == []
        assert (await client("GET", "/?seconds=1")).json() == "fine"
        await trio.sleep(100)
    assert events == ["task"]


# Signatures


@pytest.mark.parametrize(
    ("marker", "place"),
    [
        (Query(), ["query", "value"]),
        (Header(), ["header", "value"]),
        (Cookie(), ["cookie", "value"]),
        (Body(), ["body"]),
        (Body(embed=True), ["body", "value"]),
    ],
    ids=lambda part: None if isinstance(part, list) else "",
)
async def test_marker_in_the_default_place_is_no_default(marker: Any, place: Any) -> None:
    assert places(await asked(echo(int, marker), body=b"")) == [(place, "missing")]


@pytest.mark.parametrize("default", [NOTHING, 7])
async def test_parameters_by_keyword_only(default: Any) -> None:
    async def handler(*, value: int) -> int:
        return value

    if default is not NOTHING:
        handler.__kwdefaults__ = {"value": default}
    assert (await asked(handler, "/?value=5")).json() == 5


async def test_bodiless_values_are_taken_from_where_they_are_named() -> None:
    app = App()

    @app.get("/{a}/{b}")
    async def handler(
        a: int,
        q: float,
        b: Annotated[str, Query(alias="b")],
        c: Annotated[str, Path(alias="b")],
    ) -> Any:
        return [a, q, b, c]

    answer = await ask(app, "GET", "/1/path?q=2&b=query")
    assert answer.json() == [1, 2.0, "query", "path"]
    assert math.isclose(answer.json()[1], 2.0)


async def test_annotation_as_text_is_read_in_its_module() -> None:
    def handler(value: "Annotated[list[int], Query(max_length=2)]") -> "Unknown":  # type: ignore[name-defined] # noqa: F821
        return value

    assert (await asked(handler, "/?value=1&value=2")).json() == [1, 2]


class LateAnnotated:
    def __init__(self, color: "Color", *, n: "int" = 3) -> None:
        self.values = [color.value, n]


class Meeting:
    async def __call__(self, color: "Color") -> str:
        return str(color.value)


async def test_annotation_as_text_of_a_class_or_method_is_read_in_its_module() -> None:
    async def handler(
        late: Annotated[LateAnnotated, Depends()],
        met: Annotated[str, Depends(Meeting())],
        item: Annotated[Item, Depends(Item)],
    ) -> Any:
        return [*late.values, met, item.name]

    assert (await asked(handler, "/?color=red&name=pen")).json() == ["red", 3, "red", "pen"]


def sequence_of(kind: Any) -> Any:
    return Sequence[kind]


async def test_a_sequence_is_a_list_of_values() -> None:
    assert (await asked(echo(sequence_of(int)), "/?value=1&value=2")).json() == "[1, 2]"


# What hides a marker


def alias(name: str, value: Any, *, params: Any = ()) -> Any:
    """`type name = value`, before Python 3.12."""
    return TypeAliasType(name, value, type_params=params)


def who() -> str:
    return "me"


Me = alias("Me", Annotated[str, Depends(who)])
T = TypeVar("T")
of_any: Any = Annotated  # for mypy: an expression, no type
list_of: Any = list


@pytest.mark.parametrize("annotation", [Me, alias("Alias", Me), Annotated[Me, "doc"]])
async def test_a_marker_counts_through_a_named_type(annotation: Any) -> None:
    exchange = await asked(echo(annotation), "/?value=you")
    assert exchange.json() == "'me'"


@pytest.mark.parametrize(
    "annotation",
    [Annotated[Request, "doc"], alias("Req", Request), alias("R", alias("S", Request))],
)
async def test_a_request_is_one_whatever_is_said_of_it(annotation: Any) -> None:
    assert "<Request GET /" in (await asked(echo(annotation))).json()


class Hiding(msgspec.Struct):
    name: Annotated[str, Header()]


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[str, Depends(who)] | None,
        Me | None,
        list[Annotated[int, Query()]],
        dict[str, list[Annotated[int, Body()]]],
        alias("List", list_of[T], params=(T,))[Annotated[int, Query()]],
        alias("Generic", of_any[T, Query()], params=(T,))[int],
        NewType("New", Annotated[str, Depends(who)]),
        Hiding,
        Annotated[list[Hiding], Body()],
    ],
)
def test_a_marker_within_a_type_is_refused(annotation: Any) -> None:
    with pytest.raises(RegistrationError, match="within 'value' would be passed over"):
        App().post("/")(echo(annotation))


def test_a_class_that_is_a_dependency_may_have_markers() -> None:
    App().get("/")(echo(Annotated[Hiding, Depends()]))


# Decorated functions


def in_async(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    async def wrapper(**arguments: Any) -> Any:
        return func(**arguments)

    return wrapper


def in_plain(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(**arguments: Any) -> Any:
        return func(**arguments)

    return wrapper


async def coroutine(x: int) -> int:
    return x


async def async_generator(x: int) -> AsyncIterator[int]:
    yield x


def generator(x: int) -> Iterator[int]:
    yield x


def plain(x: int) -> int:
    return x


@pytest.mark.parametrize(
    "func",
    [
        in_async(plain),
        in_plain(plain),
        in_plain(coroutine),
        in_plain(generator),
        in_plain(async_generator),
        functools.partial(in_plain(generator)),
    ],
)
async def test_a_wrapped_dependency_is_called_as_what_it_gives(func: Any) -> None:
    assert (await asked(echo(Annotated[int, Depends(func)]), "/?x=3")).json() == "3"


async def test_a_handler_may_make_a_response_of_the_generator_that_it_wraps() -> None:
    @functools.wraps(generator)
    def handler(x: int) -> Response:
        return JSONResponse(list(generator(x)))

    assert (await asked(handler, "/?x=3")).json() == [3]


# Arguments left out


@dataclasses.dataclass
class Search:
    item: Item = dataclasses.field(default_factory=lambda: Item("new"))
    tags: list[str] = dataclasses.field(default_factory=list)


async def test_a_factory_of_a_dependency_makes_what_is_not_sent() -> None:
    exchange = await asked(echo(Annotated[Search, Depends()]))
    assert exchange.json() == "Search(item=Item(name='new', price=0.0), tags=[])"


async def test_decimals_in_text_have_limits() -> None:
    handler = echo(Annotated[Decimal, Query(ge=0.1, multiple_of=0.05)])
    assert (await asked(handler, "/?value=0.1")).json() == "Decimal('0.1')"
    for text, word in [("0.09", "greater_than_equal"), ("0.11", "multiple_of")]:
        assert places(await asked(handler, f"/?value={text}")) == [(["query", "value"], word)]
    wrong = await asked(handler, "/?value=1e999")
    assert places(wrong) == [(["query", "value"], "decimal_parsing")]
    with pytest.raises(RegistrationError):
        App().get("/")(echo(Annotated[Decimal, Query(min_length=2)]))


@pytest.mark.parametrize("pattern", [r"^\d+$", r"^(\d|[$]+$)+$", r"^\d+\Z"])
async def test_a_pattern_ends_where_the_text_ends(pattern: str) -> None:
    for marker, options in (Query, {}), (Body, {"json": "1\n"}):
        handler = echo(Annotated[str, marker(pattern=pattern)])
        wrong = await asked(handler, "/?value=1%0A", **options)
        assert wrong.json()["detail"][0]["type"] == "string_pattern_mismatch"
    assert (await asked(echo(Annotated[str, Query(pattern=pattern)]), "/?value=12")).status == 200


async def test_a_pattern_of_lines_ends_where_a_line_ends() -> None:
    handler = echo(Annotated[str, Query(pattern="(?m)^a$")])
    assert (await asked(handler, "/?value=a%0Ab")).status == 200


async def test_a_converted_path_parameter_keeps_its_limits() -> None:
    async def handler(id: Annotated[int, Path(ge=1)]) -> int:
        return id

    app = App()
    app.get("/{id:int}")(handler)
    assert (await ask(app, "GET", "/1")).json() == 1
    assert places(await ask(app, "GET", "/0")) == [(["path", "id"], "greater_than_equal")]


def test_of_two_generators_the_one_that_closes_first_decides() -> None:
    def both(
        short: Annotated[int, Depends(generator, scope="function")],
        long: Annotated[int, Depends(generator, scope="request")],
    ) -> int:
        return short + long

    def keeps(both: Annotated[int, Depends(both)]) -> Iterator[int]:
        yield both

    assert [*keeps(both(1, 2))] == [3]
    with pytest.raises(RegistrationError, match="would outlive"):
        App().get("/")(echo(Annotated[int, Depends(keeps, scope="request")]))


async def test_a_generator_closes_while_all_threads_are_busy() -> None:
    limiter = trio.to_thread.current_default_thread_limiter()
    closed = []

    def held() -> Iterator[None]:
        yield
        closed.append(True)

    async def handler(held: Annotated[None, Depends(held, scope="function")]) -> None:
        for n in range(int(limiter.available_tokens)):
            limiter.acquire_on_behalf_of_nowait(("busy", n))

    with trio.fail_after(30):
        await asked(handler)
    assert closed == [True]
