"""One rule for texts and JSON: numbers are moments, and multiples are of what is written."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from msgspec import Meta, Struct

from trioweb._errors import Invalid
from trioweb._limits import MAX_SECOND_READING
from trioweb._shapes.codecs import Codecs
from trioweb._shapes.json import body_decoder
from trioweb._shapes.multiples import is_multiple
from trioweb._shapes.text import text_decoder

T = TypeVar("T")
Cents = Annotated[float, Meta(multiple_of=0.01)]
AT_300 = datetime(1970, 1, 1, 0, 5, tzinfo=UTC)


def refused(decode: Callable[[Any], Any], sent: Any) -> list[Any]:
    with pytest.raises(Invalid) as caught:
        decode(sent)
    return [(problem["loc"], problem["type"]) for problem in caught.value.problems]


# Multiples


@pytest.mark.parametrize(
    ("value", "step", "expected"),
    [
        *((value, 0.01, True) for value in (19.99, 0.07, 0.1, 0.0, -19.99, 1e22, 1e300, 5, 10**30)),
        *((value, 0.01, False) for value in (19.995, 0.001, -0.005, 1e-300, 123456789.001)),
        *((value, 0.1, True) for value in (0.3, 0.1 + 0.2, 0.7, 1e15 + 0.5, -0.6)),
        *((value, 0.1, False) for value in (0.35, 0.25, 0.30001)),
        *((value, 0.5, True) for value in (1.5, -2.0, 1e300, 7)),
        *((value, 0.5, False) for value in (1.25, 1e15 + 0.125)),
        *((value, 3, True) for value in (9, -9, 0, 9.0, Decimal(9), 3 * 10**40)),
        *((value, 3, False) for value in (10, 9.5, Decimal("9.5"), 10**40, 1e18 + 128)),
        (float("inf"), 0.1, False),
        (float("nan"), 0.1, False),
        (Decimal("NaN"), 0.1, False),
        (Decimal("19.99"), 0.01, True),
        (Decimal("19.995"), 0.01, False),
        (Decimal("1e999999"), 0.01, True),
        (Decimal("1e999999"), 7, False),
        (Decimal("1e-999999"), 0.01, False),
        (Decimal("0e-999999"), 0.01, True),
        (Decimal("1" * 5_000), 3, False),
        (Decimal("3" * 5_000), 3, True),
        (5e-324, 0.01, False),
        (1, 1e-5, True),
        (123456789.12345, 1e-5, True),
    ],
)
def test_a_multiple_is_one_of_what_is_written(value: Any, step: Any, expected: bool) -> None:
    assert is_multiple(value, step) is expected


@pytest.mark.parametrize("kind", [float, Decimal])
def test_multiples_in_a_text(kind: Any) -> None:
    decode = text_decoder(kind, Meta(multiple_of=0.01))
    for text in ("19.99", "0.07", "0.1", "-19.99", "1e22", "0"):
        assert decode(text) == kind(text)
    for text in ("19.995", "0.001"):
        assert refused(decode, text) == [([], "multiple_of")]
    assert refused(text_decoder(int, Meta(multiple_of=3)), "10") == [([], "multiple_of")]


class Price(Struct):
    price: Cents
    id: int = 0


@dataclasses.dataclass
class DataPrice:
    price: Cents
    name: str = "x"
    made: str = dataclasses.field(init=False, default="here")


@attrs.define
class AttrsPrice:
    _price: Cents
    name: str = "x"

    @property
    def price(self) -> float:
        return self._price


@dataclasses.dataclass
class PlainPrice:
    price: Cents
    name: str = "x"


class DictPrice(TypedDict):
    price: Cents


class Priced(NamedTuple):
    price: Cents
    name: str = "x"


class Tagged(Struct, tag=True, forbid_unknown_fields=True):
    price: Cents


class Other(Struct, tag=True):
    at: datetime


class Everything(Struct, rename="camel"):
    the_price: Cents
    at: datetime
    took: timedelta = timedelta(0)
    exact: Decimal = Decimal(0)
    whole: int = 0
    day: date | None = None
    hour: time | None = None
    extra: Any = None
    by_price: dict[Cents, Price] = {}
    pair: tuple[int, Cents] = (0, 0.0)
    many: set[int] = set()
    next: "Everything | None" = None


class Box(Struct, Generic[T]):
    value: T


@pytest.mark.parametrize(
    ("annotation", "sent", "expected"),
    [
        (Cents, "19.99", 19.99),
        (Cents, "5", 5.0),
        (Cents | None, "0.07", 0.07),
        (list[Cents], "[19.99, 0.07, 0.1, -0.07, 1e22]", [19.99, 0.07, 0.1, -0.07, 1e22]),
        (tuple[Cents, int], "[19.99, 1]", (19.99, 1)),
        (frozenset[Cents], "[19.99]", frozenset([19.99])),
        (dict[str, Cents], '{"a": 19.99}', {"a": 19.99}),
        (dict[int, Cents], '{"5": 19.99}', {5: 19.99}),
        (Price, '{"price": 19.99, "more": 1}', Price(19.99)),
        (DictPrice, '{"price": 19.99}', {"price": 19.99}),
        (Priced, "[19.99]", Priced(19.99)),
        (Tagged | Other, '{"type": "Tagged", "price": 19.99}', Tagged(19.99)),
        (Tagged | Other, '{"type": "Other", "at": 300}', Other(AT_300)),
        (Box[Cents], '{"value": 19.99}', Box(19.99)),
        (datetime, "300", AT_300),
        (datetime, "-1.5", datetime(1969, 12, 31, 23, 59, 58, 500_000, tzinfo=UTC)),
        (datetime, "1700000000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (datetime | None, "300", AT_300),
        (datetime | int, "300", 300),
        (datetime | bool, "300", AT_300),
        (timedelta, "300", timedelta(seconds=300)),
        (timedelta, "1.5", timedelta(seconds=1.5)),
        (list[timedelta], '[300, "PT5M"]', [timedelta(seconds=300)] * 2),
        (dict[str, Any] | list[datetime], "[300]", [AT_300]),
        (dict[Any, datetime | None], '{"a": 300, "b": null}', {"a": AT_300, "b": None}),
    ],
)
def test_what_msgspec_refuses_is_taken(annotation: Any, sent: str, expected: Any) -> None:
    found = body_decoder(annotation)(sent.encode())
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("kind", [DataPrice, AttrsPrice, PlainPrice])
def test_a_dataclass_is_made_as_its_author_makes_it(kind: Any) -> None:
    found = body_decoder(kind)(json.dumps({"price": 19.99}).encode())
    assert isinstance(found, kind)
    assert (found.price, found.name) == (19.99, "x")


def test_all_of_a_class_is_as_msgspec_would_make_it() -> None:
    body = """{"thePrice": 19.99, "at": 300, "took": 1.5, "exact": 1.000000000000000000001,
        "whole": 5, "day": "2026-01-02", "hour": "10:00:00", "extra": {"a": [1.5, "x"]},
        "byPrice": {"0.07": {"price": 0.1}}, "pair": [1, 0.07], "many": [1, 1],
        "next": {"thePrice": 0.07, "at": "2026-01-02T00:00:00Z"}}"""
    assert body_decoder(Everything)(body.encode()) == Everything(
        19.99,
        AT_300,
        timedelta(seconds=1.5),
        Decimal("1.000000000000000000001"),
        5,
        date(2026, 1, 2),
        time(10),
        {"a": [1.5, "x"]},
        {0.07: Price(0.1)},
        (1, 0.07),
        {1},
        Everything(0.07, datetime(2026, 1, 2, tzinfo=UTC)),
    )


class Checked(Struct):
    price: Cents

    def __post_init__(self) -> None:
        raise ValueError("too dear")


class Point:
    def __init__(self, x: Any) -> None:
        self.x = x


class Model(pydantic.BaseModel):
    x: float


class Mixed(Struct):
    at: datetime
    point: Point | None = None
    model: Model | None = None


def test_classes_of_others_within_are_decoded_by_their_own() -> None:
    decode = body_decoder(Mixed, codecs=Codecs(decoders={Point: Point}))
    found = decode(b'{"at": 300, "point": {"x": 1.5}, "model": {"x": 2.5}}')
    assert (found.at, found.point.x, found.model.x) == (AT_300, {"x": 1.5}, 2.5)


@pytest.mark.parametrize(
    ("annotation", "sent", "expected"),
    [
        (Cents, "19.995", [([], "multiple_of")]),
        (Cents, '"19.99"', [([], "float_parsing")]),
        (Cents, "true", [([], "float_type")]),
        (Price, '{"price": 19.99, "id": "x"}', [(["id"], "int_parsing")]),
        (Price, '{"price": 19.99, "id": 1.5}', [(["id"], "int_type")]),
        (
            Price,
            '{"price": 19.995, "id": "x"}',
            [(["price"], "multiple_of"), (["id"], "int_parsing")],
        ),
        (Price, "{}", [(["price"], "missing")]),
        (Price, "[]", [([], "dict_type")]),
        (Price, "{", [([], "json_invalid")]),
        (list[Price], '[{"price": 19.99}, {"price": 1.005}]', [([1, "price"], "multiple_of")]),
        (tuple[Cents, int], "[19.99]", [([], "too_short")]),
        (Priced, '[19.99, "a", 1]', [([], "too_long")]),
        (Checked, '{"price": 199.99}', [([], "value_error")]),
        (
            Tagged | Other,
            '{"type": "Tagged", "price": 19.99, "a": 1}',
            [(["a"], "extra_forbidden")],
        ),
        (Tagged | Other, '{"type": "None", "price": 19.99}', [(["type"], "literal_error")]),
        (Annotated[list[Cents], Meta(max_length=1)], "[19.99, 0.07]", [([], "too_long")]),
        (datetime, "true", [([], "datetime_type")]),
        (datetime, '"300"', [([], "datetime_parsing")]),
        (datetime, "1e999", [([], "json_invalid")]),
        (datetime, "1e300", [([], "datetime_type")]),
        (timedelta, "1e300", [([], "time_delta_type")]),
        (date, "86400", [([], "date_type")]),
        (time, "300", [([], "time_type")]),
        (Annotated[datetime, Meta(tz=False)], "300", [([], "timezone")]),
        (Mixed, '{"at": 300, "model": {"x": "y"}}', [(["model", "x"], "float_parsing")]),
    ],
)
def test_what_does_not_fit_is_explained_as_ever(annotation: Any, sent: str, expected: Any) -> None:
    decode = body_decoder(annotation, codecs=Codecs(decoders={Point: Point}))
    assert refused(decode, sent.encode()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("300", AT_300),
        ("-1.5", datetime(1969, 12, 31, 23, 59, 58, 500_000, tzinfo=UTC)),
        ("1700000000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("2026-01-02T00:00:00Z", datetime(2026, 1, 2, tzinfo=UTC)),
    ],
)
def test_a_moment_in_a_text(text: str, expected: datetime) -> None:
    assert text_decoder(datetime)(text) == expected
    for bad in ("1e999999", "nan", "1_0", "10:00"):
        assert refused(text_decoder(datetime), bad) == [([], "datetime_parsing")]
    assert text_decoder(timedelta)("1.5") == timedelta(seconds=1.5)
    assert refused(text_decoder(timedelta), "1e999999") == [([], "time_delta_parsing")]
    assert refused(text_decoder(date), "86400") == [([], "date_parsing")]


def test_what_is_long_is_not_read_twice() -> None:
    decode = body_decoder(list[datetime])
    body = b"[" + b"1," * (MAX_SECOND_READING // 2 - 1) + b"1]"
    assert len(decode(body[:-3] + b"]")) == MAX_SECOND_READING // 2 - 1
    with pytest.raises(Invalid, match=f"longer than {MAX_SECOND_READING} bytes"):
        decode(body + b" " * MAX_SECOND_READING)


class Listed(Struct, array_like=True):
    at: datetime


class Strange(Struct):
    at: datetime
    raw: msgspec.Raw = msgspec.Raw(b"null")


def test_what_is_rare_keeps_msgspecs_word() -> None:
    assert body_decoder(Listed)(b'["2026-01-02T00:00:00Z"]').at.year == 2026
    assert refused(body_decoder(Listed), b"[300]") == [([], "value_error")]
    assert refused(body_decoder(Strange), b'{"at": 300, "raw": 1}') == [([], "value_error")]
