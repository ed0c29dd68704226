"""Unions of models are decoded as FastAPI decodes them; those of Structs by their tags."""

import dataclasses
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest

from trioweb import App, Body, RegistrationError

from ..support.asgi import Exchange, running


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    name: str
    age: int = 1


class Lion(msgspec.Struct, tag=True):
    age: int


class Tiger(msgspec.Struct, tag="tiger"):
    age: int


class Untagged(msgspec.Struct):
    age: int


@dataclasses.dataclass
class Data:
    age: int


class Holder(msgspec.Struct):
    pet: Cat | Dog


def kind_of(value: Any) -> Any:
    return "cat" if isinstance(value, dict) and "lives" in value else "dog"


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
Called = Annotated[
    Annotated[Cat, pydantic.Tag("cat")] | Annotated[Dog, pydantic.Tag("dog")],
    pydantic.Discriminator(kind_of),
]


async def answer(annotation: Any, json: Any, **body: Any) -> Exchange:
    async def handler(pet: Any) -> Any:
        return [type(pet).__name__, pet]

    handler.__annotations__["pet"] = annotation
    app = App()
    app.post("/")(handler)
    async with running(app) as client:
        return await client("POST", "/", json=json, **body)


CAT = {"kind": "cat", "lives": 9}
DOG = {"kind": "dog", "name": "a", "age": 1}


@pytest.mark.parametrize(
    ("annotation", "sent", "expected"),
    [
        (Cat | Dog, {"lives": 9}, ["Cat", CAT]),
        (Cat | Dog, {"name": "a"}, ["Dog", DOG]),
        (Cat | Dog, {"lives": "9"}, ["Cat", CAT]),  # pydantic's mode is lax, as in FastAPI
        (Cat | Dog | None, {"name": "a"}, ["Dog", DOG]),
        (Cat | int, 5, ["int", 5]),
        (Cat | list[Cat], [CAT], ["list", [CAT]]),
        (list[Cat | Dog], [CAT, DOG], ["list", [CAT, DOG]]),
        (dict[str, Cat | Dog], {"a": DOG}, ["dict", {"a": DOG}]),
        (Annotated[Cat | Dog, Body()], CAT, ["Cat", CAT]),
        (Annotated[Cat | Dog, Body(title="a pet")], CAT, ["Cat", CAT]),
        (Pet, CAT, ["Cat", CAT]),
        (Pet, DOG, ["Dog", DOG]),
        (list[Pet], [DOG], ["list", [DOG]]),
        (Called, {"lives": 9}, ["Cat", CAT]),
        (Annotated[list[Cat], pydantic.Field(max_length=1)], [CAT], ["list", [CAT]]),
        (Lion | Tiger, {"type": "tiger", "age": 1}, ["Tiger", {"type": "tiger", "age": 1}]),
        (list[Lion | Tiger], [{"type": "Lion", "age": 1}], ["list", [{"type": "Lion", "age": 1}]]),
    ],
)
async def test_a_union_is_decoded(annotation: Any, sent: Any, expected: Any) -> None:
    exchange = await answer(annotation, sent)
    assert exchange.json() == expected


@pytest.mark.parametrize(
    ("annotation", "sent", "places"),
    [
        (Cat | Dog, {}, [["body", "Cat", "lives"], ["body", "Dog", "name"]]),
        (Pet, {"kind": "cat"}, [["body", "cat", "lives"]]),
        (Pet, {"kind": "bird"}, [["body"]]),
        (list[Pet], [CAT, {"kind": "dog"}], [["body", 1, "dog", "name"]]),
        (Annotated[list[Cat], pydantic.Field(max_length=1)], [CAT, CAT], [["body"]]),
        (Lion | Tiger, {"type": "bird"}, [["body", "type"]]),
    ],
)
async def test_what_fits_no_member_is_a_422(annotation: Any, sent: Any, places: Any) -> None:
    exchange = await answer(annotation, sent)
    assert exchange.status == 422
    assert [problem["loc"] for problem in exchange.json()["detail"]] == places


async def test_no_body_for_a_union_is_missing() -> None:
    exchange = await answer(Cat | Dog, None, body=b"")
    assert exchange.json()["detail"] == [
        {"loc": ["body"], "msg": "Field required", "type": "missing"}
    ]
    assert (await answer(Cat | Dog | None, None, body=b"")).json() == ["NoneType", None]


@pytest.mark.parametrize(
    ("annotation", "right"),
    [
        (Holder, "one class in place of the union; or pydantic models alone"),
        (Cat | Untagged, "one class in place of the union; or pydantic models alone"),
        (Data | Untagged, "class Cat(msgspec.Struct, tag=True), and so each class of the union"),
        (Untagged | Lion, "class Cat(msgspec.Struct, tag=True), and so each class of the union"),
        (Annotated[list[Cat | Dog], Body(max_length=3)], "pydantic.Field(max_length=3)]"),
        (list[Annotated[int, msgspec.Meta(ge=1)] | Cat], "pydantic.Field(max_length=3)]"),
        (Annotated[Cat | int, pydantic.Field(discriminator="kind")], "pet: str"),
    ],
)
def test_what_cannot_be_decoded_says_what_can(annotation: Any, right: str) -> None:
    def handler(pet: Any) -> None: ...

    handler.__annotations__["pet"] = annotation
    with pytest.raises(RegistrationError) as refusal:
        App().post("/")(handler)
    assert refusal.value.problem.startswith("handler: 'pet': ")
    assert right in refusal.value.right


# Tuples in a query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("at=1&at=a", [1, "a"]),
        ("at=1", "too_short"),
        ("at=1&at=2&at=3", "too_long"),
        ("at=x&at=a", ["query", "at", 0]),
        ("", "missing"),
    ],
)
async def test_a_tuple_in_a_query_has_as_many_values(query: str, expected: Any) -> None:
    app = App()

    @app.get("/")
    async def handler(at: tuple[int, str], size: tuple[int, int] | None = None) -> Any:
        return at if size is None else size

    async with running(app) as client:
        exchange = await client("GET", f"/?{query}")
        sized = await client("GET", f"/?{query}&size=1&size=2")
    if exchange.status == 422:
        [problem] = exchange.json()["detail"]
        assert expected in (problem["type"], problem["loc"])
    else:
        assert exchange.json() == expected
        assert sized.json() == [1, 2]
