"""What is answered is what FastAPI answers, value by value, but where the docs say otherwise."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import json
import re
import sqlite3
from collections import (
    ChainMap,
    Counter,
    OrderedDict,
    UserDict,
    UserList,
    UserString,
    defaultdict,
    deque as deque_of,
)
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from fastapi.encoders import jsonable_encoder

from trioweb._shapes.encoding import encode_json, encoder_with


class Text(str):
    __str__ = None  # type: ignore[assignment]  # it is never asked


class Whole(int): ...


class Ratio(float): ...


class Raw(bytes): ...


class Moment(datetime): ...


class Day(date): ...


class Clock(time): ...


class Span(timedelta): ...


class Amount(Decimal): ...


class Key(UUID): ...


class Items(list[int]): ...


class Row(dict[str, int]): ...


class Half(enum.Enum):
    A = 1.5
    B = (1, 2)
    C = None


class Word(enum.StrEnum):
    A = "a"


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Holder:
    host: Any = ipaddress.ip_address("10.0.0.1")  # noqa: RUF009
    by_kind: Any = dataclasses.field(default_factory=lambda: {None: 1})


@dataclasses.dataclass(slots=True)
class Slotted:
    pattern: Any = re.compile("a+")
    names: Any = dataclasses.field(default_factory=lambda: deque_of("ab"))


class Model(pydantic.BaseModel):
    host: ipaddress.IPv4Address = ipaddress.IPv4Address("10.0.0.1")
    secret: pydantic.SecretStr = pydantic.SecretStr("hidden")


class Tags(pydantic.RootModel[list[str]]): ...


class Bare(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return {"a": 1}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def numbers() -> Iterator[int]:
    yield from (1, 2)


AS_IN_FASTAPI: list[Any] = [
    # subclasses of what JSON has
    Text("a"),
    Whole(3),
    Ratio(1.5),
    Raw(b"a") and Items([1]),
    Row(a=1),
    # subclasses of what has a text
    Moment(2026, 1, 2, 3, 4, 5, 600),
    Moment(2026, 1, 2, tzinfo=None),
    Day(2026, 1, 2),
    Clock(1, 2, 3),
    Key(int=1),
    # mappings
    MappingProxyType({"a": 1}),
    ChainMap({"a": 1}, {"b": 2}),
    UserDict({"a": 1}),
    defaultdict(list, a=[1]),
    Counter("aab"),
    OrderedDict(a=1),
    Bare(),
    {"a": 1}.items(),
    # what has members
    deque_of([1, 2]),
    {1},
    frozenset([1]),
    Point(1, 2),
    # enums
    Half.A,
    Half.B,
    Half.C,
    Word.A,
    Level.LOW,
    Flags.A | Flags.B,
    # what is written as its text
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_interface("10.0.0.1/8"),
    ipaddress.ip_address("::1"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_interface("::1/64"),
    PurePosixPath("/a"),
    PureWindowsPath("a\\b"),
    re.compile("a+"),
    UUID(int=1),
    # keys
    {None: 1},
    {True: 1, False: 2},
    {1: 1},
    {1.5: 1},
    {Text("a"): 1},
    {Whole(3): 1},
    {Ratio(2.5): 1},
    {Word.A: 1},
    {Level.LOW: 1},
    {Half.A: 1},
    {date(2026, 1, 2): 1},
    {Day(2026, 1, 2): 1},
    {UUID(int=1): 1},
    {ipaddress.ip_address("10.0.0.1"): 1},
    {PurePosixPath("/a"): 1},
    # classes with such members
    Holder(),
    Slotted(),
    [{"a": Holder()}],
    Model(),
    {"a": [Model()]},
    Tags(["a"]),
    pydantic.SecretStr("hidden"),
    pydantic.SecretBytes(b"hidden"),
    pydantic.AnyUrl("https://a.example/"),
    pydantic.HttpUrl("https://a.example/b"),
]


def name_of(value: object) -> str:
    """The same in each process: an address isn't."""
    return repr(value).partition(" at 0x")[0]


@pytest.mark.parametrize("value", AS_IN_FASTAPI, ids=name_of)
def test_it_is_what_fastapi_sends(value: Any) -> None:
    expected = json.loads(json.dumps(jsonable_encoder(value)))
    assert json.loads(encode_json(value)) == expected
    assert json.loads(encode_json({"within": [value]})) == {"within": [expected]}


def test_a_generator_is_a_list_as_in_fastapi() -> None:
    assert encode_json({"a": numbers()}) == b'{"a":[1,2]}'
    assert jsonable_encoder(numbers()) == [1, 2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # The docs say so: coming-from-fastapi, JSON out.
        (Span(seconds=90), b'"PT90S"'),
        (Amount("1.50"), b'"1.50"'),
        (Raw(b"a"), b'"YQ=="'),
        (Moment(2026, 1, 2, tzinfo=UTC), b'"2026-01-02T00:00:00Z"'),
        ({timedelta(days=1): 1}, b'{"P1D":1}'),
        # These FastAPI can't send.
        (range(2), b"[0,1]"),
        (UserString("a"), b'"a"'),
        (UserList([1]), b"[1]"),
        ({"a": 1}.keys(), b'["a"]'),
        ({"a": 1}.values(), b"[1]"),
        (memoryview(b"a"), b'"YQ=="'),
        ({UserString("a"): 1}, b'{"a":1}'),
    ],
)
def test_it_differs_from_what_fastapi_sends(value: Any, expected: bytes) -> None:
    assert encode_json(value) == expected


def test_a_row_of_sqlite_is_an_object_as_in_fastapi() -> None:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    row = connection.execute("select 1 as id, 'a' as name").fetchone()
    connection.close()
    assert json.loads(encode_json([row])) == [jsonable_encoder(row)] == [{"id": 1, "name": "a"}]


class Account:
    def __init__(self) -> None:
        self.name, self.password = "a", "secret"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Account(), "Account"),
        ([Account()], "Account"),
        (Account, "type"),
        (Model, "ModelMetaclass"),
        (1j, "complex"),
        (Fraction(1, 2), "Fraction"),
        (ValueError("secret"), "ValueError"),
        (len, "builtin_function_or_method"),
        ({(1, 2): 1}, "tuple"),
        ({frozenset([1]): 1}, "frozenset"),
        ({Point(1, 2): 1}, "Point"),
        ({Account(): 1}, "Account"),
    ],
)
def test_what_no_client_is_meant_to_see_is_refused_by_name(value: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} can't be") as caught:
        encode_json(value)
    assert "secret" not in str(caught.value)


# Encoders of the author's


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


class Euro(Money): ...


class Purse(pydantic.BaseModel, arbitrary_types_allowed=True):
    money: Money


class Wallet(msgspec.Struct):
    money: Money


@attrs.define
class Box:
    money: Any


def test_an_encoder_goes_before_ours_and_reaches_everywhere() -> None:
    encode = encoder_with(
        {
            Money: lambda money: [money.cents, "cents"],
            Text: lambda text: str.upper(text),
            Bare: lambda bare: "bare",
        }
    )
    assert encode(Money(5)) == b'[5,"cents"]'
    assert encode({"a": [Euro(5)]}) == b'{"a":[[5,"cents"]]}'
    assert encode(Purse(money=Euro(5))) == b'{"money":[5,"cents"]}'
    assert encode([Wallet(Money(5)), Box(Money(6))]) == (
        b'[{"money":[5,"cents"]},{"money":[6,"cents"]}]'
    )
    assert (
        encode({Text("a"): Text("b"), None: deque_of([Bare()])}) == b'{"a":"B","null":["bare"]}'
    )  # msgspec has its form for a key


def test_the_closest_encoder_counts() -> None:
    encode = encoder_with({Money: lambda money: "money", Euro: lambda euro: Money(1)})
    assert encode([Euro(5), Money(5)]) == b'["money","money"]'
    assert encoder_with({Mapping: lambda mapping: sorted(mapping)})(Bare()) == b'["a"]'


def test_an_encoder_that_gives_its_own_type_again_is_told() -> None:
    with pytest.raises(TypeError, match="the encoder of Money gives a Money again"):
        encoder_with({Money: lambda money: money})(Money(1))
