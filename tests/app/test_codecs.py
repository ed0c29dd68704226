"""`App(encoders=, decoders=)`: types of one's own, wherever a value comes in or goes out."""

import dataclasses
import enum
import ipaddress
import logging
from collections.abc import Callable
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec
import pydantic
import pytest

from trioweb import (
    App,
    Body,
    Cookie,
    Depends,
    Header,
    JSONResponse,
    Query,
    RegistrationError,
    Response,
)

from ..support.asgi import Exchange, running
from ..support.log_records import messages

T = TypeVar("T")


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


def point_to_json(point: Point) -> str:
    return f"{point.x},{point.y}"


def point_from_json(value: Any) -> Point:
    x, y = value.split(",") if isinstance(value, str) else value
    return Point(int(x), int(y))


class Path(msgspec.Struct):
    points: list[Point]
    end: Point | None = None


@dataclasses.dataclass
class Area:
    corner: Point


class Box(Generic[T]):
    def __init__(self, value: Any) -> None:
        self.value = value


def pointed(**options: Any) -> App:
    return App(encoders={Point: point_to_json}, decoders={Point: point_from_json}, **options)


async def answer(handler: Callable[..., Any], app: App | None = None, **options: Any) -> Exchange:
    app = app or pointed()
    app.route("/", methods=["GET", "POST"])(handler)
    method = "POST" if "json" in options else "GET"
    async with running(app) as client:
        return await client(method, options.pop("target", "/"), **options)


async def test_what_a_handler_returns_is_encoded() -> None:
    async def handler() -> Any:
        return {"at": Point(1, 2), "path": Path([Point(3, 4)]), "areas": [Area(Point(5, 6))]}

    exchange = await answer(handler)
    assert exchange.json() == {
        "at": "1,2",
        "path": {"points": ["3,4"], "end": None},
        "areas": [{"corner": "5,6"}],
    }
    assert exchange.headers["content-type"] == "application/json"


async def test_other_responses_are_as_they_were() -> None:
    app = pointed()

    @app.get("/ready")
    async def ready() -> Response:
        return JSONResponse([1], 201)

    @app.get("/nothing", status_code=204)
    async def nothing() -> None: ...

    @app.exception_handler(LookupError)
    async def lost(request: Any, exc: LookupError) -> Any:
        return {"from": Point(1, 2)}

    @app.get("/lost")
    async def lose() -> None:
        raise LookupError

    async with running(app) as client:
        assert (await client("GET", "/ready")).status == 201
        exchange = await client("GET", "/nothing")
        assert (exchange.status, exchange.text) == (204, "")
        exchange = await client("GET", "/lost")
        assert (exchange.status, exchange.json()) == (500, {"from": "1,2"})


@pytest.mark.parametrize(
    ("annotation", "sent", "x"),
    [
        (Point, "1,2", 1),
        (Point, [1, 2], 1),
        (Point | None, "1,2", 1),
        (list[Point], ["1,2"], 1),
        (dict[str, Point], {"a": "1,2"}, 1),
        (Path, {"points": ["1,2"], "end": None}, 1),
        (Area, {"corner": "1,2"}, 1),
    ],
)
async def test_a_body_is_decoded_nested_too(annotation: Any, sent: Any, x: int) -> None:
    async def handler(body: Any) -> Any:
        match body:
            case Path():
                return body.points[0].x
            case Area():
                return body.corner.x
            case dict():
                return body["a"].x
            case list():
                return body[0].x
            case _:
                return body.x

    handler.__annotations__["body"] = Annotated[annotation, Body()]
    assert (await answer(handler, json=sent)).json() == x


async def test_parameters_are_decoded_where_a_marker_says_that_they_are_texts() -> None:
    app = pointed()

    async def dependency(dep: Annotated[Point, Query()]) -> Point:
        return dep

    @app.get("/{here}")
    async def handler(
        here: Point,
        there: Annotated[Point, Query()],
        between: Annotated[list[Point], Query()],
        at: Annotated[Point, Header()],
        last: Annotated[Point | None, Cookie()],
        dep: Annotated[Point, Depends(dependency)],
        none: Annotated[Point | None, Query()] = None,
    ) -> Any:
        assert none is None
        return [here, there, between, at, last, dep]

    target = "/1,2?there=3,4&between=5,6&between=7,8&dep=0,0"
    async with running(app) as client:
        exchange = await client("GET", target, headers={"at": "9,9", "cookie": "last=8,8"})
    assert exchange.json() == ["1,2", "3,4", ["5,6", "7,8"], "9,9", "8,8", "0,0"]


async def test_an_address_is_a_type_of_ones_own_too() -> None:
    async def handler(ip: Annotated[ipaddress.IPv4Address, Query()]) -> Any:
        return ip.packed[0]

    app = App(decoders={ipaddress.IPv4Address: ipaddress.IPv4Address})
    assert (await answer(handler, app, target="/?ip=10.0.0.1")).json() == 10


async def test_what_a_decoder_refuses_is_a_422_at_its_place() -> None:
    async def handler(path: Path, at: Annotated[Point, Query()]) -> None: ...

    exchange = await answer(handler, json={"points": ["1,2", "x,y", 5], "end": "1"}, target="/?at=")
    assert exchange.status == 422
    assert [(each["loc"], each["type"]) for each in exchange.json()["detail"]] == [
        (["body", "points", 1], "value_error"),
        (["body", "points", 2], "value_error"),
        (["body", "end"], "value_error"),
        (["query", "at"], "value_error"),
    ]
    exchange = await answer(handler, json={"points": []}, target="/?at=1")
    assert exchange.json()["detail"] == [
        {
            "loc": ["query", "at"],
            "msg": "not enough values to unpack (expected 2, got 1)",
            "type": "value_error",
        }
    ]


async def test_what_is_decoded_already_is_decoded_once() -> None:
    async def handler(paths: Annotated[list[Path], Body()]) -> None: ...

    exchange = await answer(handler, json=[{"points": ["1,2"]}, {"points": 5}])
    assert [each["loc"] for each in exchange.json()["detail"]] == [["body", 1, "points"]]


async def test_a_decoder_that_gives_something_else_is_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(point: Point) -> None: ...

    app = App(decoders={Point: lambda value: value})
    with caplog.at_level(logging.ERROR):
        assert (await answer(handler, app, json="1,2")).status == 500
    assert messages(caplog) == ["POST / failed"]
    assert "RuntimeError: the decoder of Point" in caplog.text
    assert "gave a str" in caplog.text


async def test_a_generic_class_has_the_decoder_of_its_origin() -> None:
    async def handler(box: Box[int]) -> Any:
        return box.value

    app = App(decoders={Box: Box})
    assert (await answer(handler, app, json=[5])).json() == [5]


async def test_without_a_decoder_the_right_line_names_it() -> None:
    async def handler(point: Point) -> None: ...

    with pytest.raises(RegistrationError, match=r"App\(decoders=\{Point: "):
        App().post("/")(handler)


class Struct(msgspec.Struct): ...


class Model(pydantic.BaseModel): ...


class Color(enum.Enum):
    RED = 1.5


class Closed(Protocol):
    x: int


class Bag(dict[str, int]): ...


async def slow(value: Any) -> Any: ...


def many(value: Any) -> Any:
    yield value


assert [*many(1)] == [1]


@pytest.mark.parametrize("argument", ["encoders", "decoders"])
@pytest.mark.parametrize(
    ("codecs", "problem"),
    [
        ([Point], "is a mapping"),
        ({"Point": str}, "are for classes"),
        ({Point | None: str}, "are for classes"),
        ({object: str}, "are for classes"),
        ({Closed: str}, "are for classes"),
        ({Point: "str"}, "isn't a plain function"),
        ({Point: slow}, "isn't a plain function"),
        ({Point: many}, "isn't a plain function"),
        ({Point: lambda: 1}, "isn't a plain function of one argument"),
        ({Point: lambda value, other: 1}, "isn't a plain function of one argument"),
        ({int: str}, "by themselves"),
        ({Area: str}, "by themselves"),
        ({Struct: str}, "by themselves"),
        ({Model: str}, "by themselves"),
        ({Color: str}, "by themselves"),
        ({type(None): str}, "by themselves"),
    ],
)
def test_what_could_never_be_used_is_refused(argument: str, codecs: Any, problem: str) -> None:
    with pytest.raises(RegistrationError, match=problem):
        App(**{argument: codecs})


def test_what_only_one_of_the_two_knows_by_itself_is_taken_by_the_other() -> None:
    with pytest.raises(RegistrationError, match="by themselves"):
        App(encoders={Bag: dict})
    App(decoders={Bag: Bag})
    App(encoders={}, decoders={})
