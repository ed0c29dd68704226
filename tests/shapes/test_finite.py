"""A number is finite, however it is written and wherever it is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest
from msgspec import Struct

from trioweb._errors import Invalid
from trioweb._shapes.json import body_decoder

INFINITE = ["NaN", "nan", "-NaN", "nan12", "sNaN", "Infinity", "-Infinity", "inf", "+INF", " inf "]
# The same with its first letter escaped, which is as good in JSON.
ESCAPED = ["\\u004eaN", "\\u0049nf", "-\\u0069NF"]


class Prices(TypedDict):
    price: Decimal


class Row(NamedTuple):
    label: str
    price: Decimal = Decimal(0)


class Listed(Struct, array_like=True):
    label: str
    price: Decimal


@dataclass
class Data:
    price: Decimal
    limit: Decimal = Decimal("Infinity")  # its author's, and no client's


class Item(Struct):
    name: str
    price: Decimal | None = None
    more: list[Item] = []


class Cat(Struct, tag=True):
    price: Decimal


class Dog(Struct, tag=True):
    name: str


@pytest.mark.parametrize("text", INFINITE + ESCAPED)
@pytest.mark.parametrize(
    ("annotation", "body", "place"),
    [
        (Decimal, '"{}"', []),
        (Decimal | None, '"{}"', []),
        (Decimal | float, '"{}"', []),
        (Decimal | int | list[int], '"{}"', []),
        (list[Decimal], '[1, "{}"]', [1]),
        (set[Decimal], '["{}"]', [0]),
        (tuple[int, Decimal], '[1, "{}"]', [1]),
        (dict[str, Decimal], '{{"a": "{}"}}', ["a"]),
        (Prices, '{{"price": "{}"}}', ["price"]),
        (Row, '["a", "{}"]', [1]),
        (Listed, '["a", "{}"]', [1]),
        (Data, '{{"price": "{}"}}', ["price"]),
        (Item, '{{"name": "a", "more": [{{"name": "b", "price": "{}"}}]}}', ["more", 0, "price"]),
        (Cat | Dog, '{{"type": "Cat", "price": "{}"}}', ["price"]),
    ],
)
def test_a_decimal_is_finite(annotation: Any, body: str, place: list[Any], text: str) -> None:
    with pytest.raises(Invalid) as refused:
        body_decoder(annotation)(body.format(text).encode())
    (problem,) = refused.value.problems
    assert problem["loc"] == place
    assert problem["type"] in ("finite_number", "union")


@pytest.mark.parametrize("text", INFINITE + ESCAPED)
@pytest.mark.parametrize("key", [float, Decimal, float | None, int | float])
def test_a_key_that_is_a_number_is_finite(key: Any, text: str) -> None:
    with pytest.raises(Invalid):
        body_decoder(dict[str, dict[key, int]])(b'{"a": {"%b": 1}}' % text.encode())


@pytest.mark.parametrize("text", INFINITE)
def test_a_float_is_no_text(text: str) -> None:
    for body in (f'"{text}"', text):
        with pytest.raises(Invalid):
            body_decoder(float)(body.encode())


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b'"1e999"'])
def test_a_float_is_not_beyond_what_it_can_hold(number: bytes) -> None:
    for annotation in (float, list[float], dict[str, Any] if number[:1] != b'"' else int):
        with pytest.raises(Invalid):
            body_decoder(annotation)(b'{"a": [%b]}' % number)


@pytest.mark.parametrize(
    ("annotation", "body", "value"),
    [
        (Decimal, b'"1.50"', Decimal("1.50")),
        (Decimal, b"1e999", Decimal("1e999")),
        (dict[str, Decimal], b'{"infinity": 1e999}', {"infinity": Decimal("1e999")}),
        (Decimal | float, b"1.5", 1.5),
        (dict[float, str], b'{"1.5": "nan"}', {1.5: "nan"}),
        (dict[Decimal, str], b'{"1.5": "\\u004e"}', {Decimal("1.5"): "N"}),
        (Row, b'["NaN"]', Row("NaN")),
        (Row | None, b"null", None),
        (tuple[Decimal, str], b'[1, "inf"]', (Decimal(1), "inf")),
        (Item, b'{"name": "Nan", "price": 3}', Item("Nan", Decimal(3))),
        (Data, b'{"price": "1", "note": "finance"}', Data(Decimal(1))),
        (Listed, b'["inf", 1, "more"]', Listed("inf", Decimal(1))),
        (Cat | Dog, b'{"type": "Dog", "name": "inf"}', Dog("inf")),
    ],
)
def test_what_only_looks_like_one_is_taken(annotation: Any, body: bytes, value: Any) -> None:
    assert body_decoder(annotation)(body) == value


@pytest.mark.parametrize("body", [b'{"price": "NaN"}', b'{"price": "inf"}'])
def test_a_model_has_its_own_rule(body: bytes) -> None:
    class Strict(pydantic.BaseModel):
        price: Decimal

    class Lax(pydantic.BaseModel):
        price: float

    with pytest.raises(Invalid):
        body_decoder(Strict)(body)
    with pytest.raises(Invalid):
        body_decoder(list[Strict])(b"[%b]" % body)
    body_decoder(Lax)(body)


def test_long_bodies_are_looked_at_to_their_end() -> None:
    body = b"[%b]" % b", ".join([b'"1"'] * 50_000 + [b'"NaN"'])
    with pytest.raises(Invalid, match="finite number"):
        body_decoder(list[Decimal])(body)


def test_what_is_no_list_or_object_is_left_to_msgspec() -> None:
    for annotation in (list[Decimal], dict[str, Decimal], Item, Row, Cat | Dog):
        with pytest.raises(Invalid):
            body_decoder(annotation)(b'"inf"')
    with pytest.raises(Invalid):
        body_decoder(Cat | Dog)(b'{"price": "inf"}')
    with pytest.raises(Invalid):
        body_decoder(list[msgspec.Raw | Decimal])(b'["inf", {]')
