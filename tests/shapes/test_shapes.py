"""What the decoders promise: a value or `Invalid`, every problem with its place, and no more."""

from __future__ import annotations

import enum
import gc
import inspect
import json
import math
import random
import re
import sys
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from msgspec import Meta, Struct

from trioweb._errors import Invalid, Problem, RegistrationError
from trioweb._limits import (
    MAX_PROBLEM_DEPTH,
    MAX_PROBLEM_TEXT,
    MAX_PROBLEM_VISITS,
    MAX_PROBLEMS,
)
from trioweb._shapes.annotations import shape_of
from trioweb._shapes.codecs import NO_CODECS
from trioweb._shapes.encoding import encode_json
from trioweb._shapes.explain import Walk
from trioweb._shapes.json import body_decoder, raw_body_members
from trioweb._shapes.text import text_decoder, texts_decoder


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Cat(Struct, tag=True):
    lives: int


class Dog(Struct, tag=True, forbid_unknown_fields=True):
    name: str


class Labelled(NamedTuple):
    label: str
    value: Any


class Point(Struct, array_like=True, forbid_unknown_fields=True):
    x: int
    y: int = 0


class Circle(Struct, array_like=True, tag="circle"):
    radius: int


class Square(Struct, array_like=True, tag="square"):
    side: int


class Hooked(Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Item(Struct, rename="camel", forbid_unknown_fields=True):
    item_name: Annotated[str, Meta(min_length=1, max_length=5, pattern="^[a-z]*$")]
    price: Annotated[float, Meta(ge=0, lt=100)]
    tags: Annotated[set[str], Meta(max_length=2)] = msgspec.field(default_factory=set)
    color: Color = Color.RED


class Order(Struct):
    id: UUID
    items: list[Item]
    when: datetime | None = None
    pets: list[Cat | Dog] = []


class Tree(Struct):
    value: int
    children: list[Tree] = []


@dataclass
class Pair:
    left: int
    right: int | None = None

    def __post_init__(self) -> None:
        if self.left == self.right:
            raise ValueError("left equals right")


@attrs.define
class Guarded:
    age: int = attrs.field(validator=attrs.validators.ge(0))


class Options(TypedDict):
    size: int
    unit: NotRequired[str]


class Span(NamedTuple):
    start: int
    stop: int = 0


class Model(pydantic.BaseModel):
    size: int = pydantic.Field(alias="Size")
    day: date | None = None


class Wrapped(Struct):
    level: Level
    model: Model
    raw: msgspec.Raw
    more: bytearray
    inner: Hooked


class Stranger:
    """A class that nobody can decode."""


UserId = NewType("UserId", int)
Titled = Annotated[int, Meta(title="a title")]


def problems_of(decode: Callable[[Any], Any], value: Any) -> list[Problem]:
    with pytest.raises(Invalid) as caught:
        decode(value)
    return caught.value.problems


def places(problems: list[Problem]) -> list[tuple[list[str | int], str]]:
    return [(problem["loc"], problem["type"]) for problem in problems]


# Annotations


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        *((t, "text") for t in (str, int, float, bool, UUID, Decimal, date, datetime, time)),
        *((t, "text") for t in (timedelta, Color, Level, Any, inspect.Parameter.empty, UserId)),
        *((t, "text") for t in (Titled, int | None, int | str | None, Literal["a", 1])),
        *((t, "texts") for t in (list[int], set[str], frozenset[Color], tuple[int, ...])),
        *((t, "texts") for t in (list[int] | None, list[int | None], Annotated[list[Titled], 1])),
        *((t, "body") for t in (Item, Pair, Guarded, Options, Span, Model, dict[str, int], bytes)),
        (tuple[int, str], "texts"),
        *((t, "body") for t in (list[Item], list[list[int]], tuple[int, Item], Item | None, None)),
        *((t, "body") for t in (int | list[int], Model | None, Stranger)),
    ],
)
def test_kind(annotation: Any, expected: str) -> None:
    assert shape_of(annotation) == expected


@pytest.mark.parametrize(
    ("compile_decoder", "annotation"),
    [
        (shape_of, Mixed),
        (shape_of, Literal[1.5]),
        (text_decoder, Mixed),
        (text_decoder, UUID | date),
        (text_decoder, Item),
        (text_decoder, None),
        (texts_decoder, int),
        (texts_decoder, list[Item]),
        (body_decoder, Stranger),
        (body_decoder, list[Stranger]),
        (body_decoder, dict[str, tuple[int, Stranger]]),
        (body_decoder, Pair | Options),
    ],
)
def test_undecodable_annotations_are_refused_at_registration(
    compile_decoder: Callable[[Any], Any], annotation: Any
) -> None:
    with pytest.raises(RegistrationError, match=r"(?s)wrong: .*right: "):
        compile_decoder(annotation)


def test_a_limit_that_does_not_fit_its_type_is_refused_at_registration() -> None:
    with pytest.raises(RegistrationError, match="min_length"):
        text_decoder(UUID, Meta(min_length=1))


# Text


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (str, "null", "null"),
        (inspect.Parameter.empty, "x", "x"),
        (Any, "1", "1"),
        (int, "-007", -7),
        (UserId, "5", 5),
        (Titled, "5", 5),
        (int | None, "5", 5),
        (float, "1e3", 1000.0),
        (float, ".5", 0.5),
        (Decimal, "1.50", Decimal("1.50")),
        (UUID, "12345678123456781234567812345678", UUID(int=0x12345678123456781234567812345678)),
        (date, "2024-02-29", date(2024, 2, 29)),
        (datetime, "2024-02-29T01:02:03", datetime(2024, 2, 29, 1, 2, 3)),
        (datetime, "0", datetime(1970, 1, 1, tzinfo=UTC)),
        (time, "01:02:03", time(1, 2, 3)),
        (timedelta, "P1D", timedelta(days=1)),
        (Color, "red", Color.RED),
        (Level, "2", Level.HIGH),
        (Literal[1, "a", True], "1", 1),
        (Literal[1, "a", True], "a", "a"),
        (Literal[True], "true", True),
        (int | str, "1", 1),
        (str | int, "1", 1),
        (int | UUID | None, "1", 1),
        (str | None, "null", "null"),
        *((bool, text, True) for text in ("true", "1", "ON", "Yes", "t", "y")),
        *((bool, text, False) for text in ("False", "0", "off", "no", "f", "N")),
    ],
)
def test_text_is_read(annotation: Any, text: str, expected: Any) -> None:
    value = text_decoder(annotation)(text)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "texts", "word"),
    [
        (int, ["x", "1.0", "1_0", " 1", "null", "0x1", "--1"], "int_parsing"),
        (float, ["nan", "inf", "-Infinity", "1e999", "1_0.0", "1 "], "float_parsing"),
        (Decimal, ["NaN", "sNaN", "Infinity", "1_0", "1e9999999999999999999"], "decimal_parsing"),
        (bool, ["2", "tru", "none"], "bool_parsing"),
        (UUID, ["1234", "x" * 36], "uuid_parsing"),
        (date, ["2024-02-30", "0"], "date_parsing"),
        (datetime, ["2024-02-29", "1e300"], "datetime_parsing"),
        (time, ["25:00:00"], "time_parsing"),
        (timedelta, ["P1Y", "1e300"], "time_delta_parsing"),
        (Color, ["RED", "Color.RED"], "enum"),
        (Level, ["3", "LOW"], "enum"),
        (Literal["a", None], ["null", "None", "b"], "literal_error"),
        (int | None, ["null", "None"], "int_parsing"),
        (int | UUID, ["x"], "union"),
    ],
)
def test_text_is_refused(annotation: Any, texts: list[str], word: str) -> None:
    hostile = ["", "\0", "\ud800", "\u0661", "\uff11", "1\n", "9" * 1_000_000 + "x"]
    for text in texts + hostile:
        (problem,) = problems_of(text_decoder(annotation), text)
        assert (problem["loc"], problem["type"]) == ([], word)
        assert len(problem["msg"]) <= MAX_PROBLEM_TEXT
        json.dumps(problem).encode()


@pytest.mark.parametrize("annotation", [int, float, date, datetime, timedelta, bool, Level])
def test_a_million_digits_are_a_problem_not_an_error(annotation: Any) -> None:
    assert problems_of(text_decoder(annotation), "9" * 1_000_000)


def test_text_of_no_limits_is_passed_on_as_it_is() -> None:
    text = "\ud800\0"
    assert text_decoder(str)(text) is text


@pytest.mark.parametrize(
    ("annotation", "meta", "good", "bad", "word"),
    [
        (int, Meta(gt=1), "2", "1", "greater_than"),
        (int, Meta(ge=1), "1", "0", "greater_than_equal"),
        (float, Meta(lt=1), "0.5", "1", "less_than"),
        (int | None, Meta(le=1), "1", "2", "less_than_equal"),
        (int, Meta(multiple_of=5), "10", "11", "multiple_of"),
        (str, Meta(min_length=2), "ab", "a", "string_too_short"),
        (str, Meta(max_length=2), "ab", "\ud800\0\0", "string_too_long"),
        (str, Meta(pattern="^a$"), "a", "b", "string_pattern_mismatch"),
        (datetime, Meta(tz=True), "2024-01-01T00:00:00Z", "2024-01-01T00:00:00", "timezone"),
    ],
)
def test_text_has_limits(annotation: Any, meta: Meta, good: str, bad: str, word: str) -> None:
    decode = text_decoder(annotation, meta)
    decode(good)
    assert places(problems_of(decode, bad)) == [([], word)]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (list[int], [1, 2, 1]),
        (set[int] | None, {1, 2}),
        (frozenset[int], frozenset({1, 2})),
        (tuple[int, ...], (1, 2, 1)),
        (list[Any], ["1", "2", "1"]),
    ],
)
def test_texts_are_read(annotation: Any, expected: Any) -> None:
    assert texts_decoder(annotation)(["1", "2", "1"]) == expected


def test_every_bad_text_is_reported_at_its_index() -> None:
    problems = problems_of(texts_decoder(list[int]), ["1", "x", "2", "y"])
    assert places(problems) == [([1], "int_parsing"), ([3], "int_parsing")]


def test_texts_have_limits_of_their_own_after_their_members() -> None:
    decode = texts_decoder(set[int], Meta(max_length=1))
    assert decode(["1", "1"]) == {1}
    assert places(problems_of(decode, ["1", "2"])) == [([], "too_long")]
    assert places(problems_of(decode, ["x", "2"])) == [([0], "int_parsing")]


def test_texts_report_only_so_many() -> None:
    assert len(problems_of(texts_decoder(list[int]), ["x"] * 1000)) == MAX_PROBLEMS


# Bodies


UNHASHABLE = "set_item_not_hashable"
ID = "12345678-1234-5678-1234-567812345678"


def test_nine_problems_in_one_body_are_nine_with_exactly_their_places() -> None:
    order = {
        "id": "no uuid",
        "when": "yesterday",
        "items": [
            {"itemName": "", "price": -1},
            {"itemName": "ABC", "price": "free", "extra": 1},
            {"price": 5, "color": "green"},
        ],
    }
    assert places(problems_of(body_decoder(Order), json.dumps(order).encode())) == [
        (["id"], "uuid_parsing"),
        (["items", 0, "itemName"], "string_too_short"),
        (["items", 0, "price"], "greater_than_equal"),
        (["items", 1, "itemName"], "string_pattern_mismatch"),
        (["items", 1, "price"], "float_parsing"),
        (["items", 1, "extra"], "extra_forbidden"),
        (["items", 2, "itemName"], "missing"),
        (["items", 2, "color"], "enum"),
        (["when"], "datetime_parsing"),
    ]


Places = list[tuple[list[str | int], str]]
CASES: list[tuple[Any, str, Places]] = [
    # leaves
    (int, '"5"', [([], "int_parsing")]),
    (int, "true", [([], "int_type")]),
    (Titled, "null", [([], "int_type")]),
    (str, "5", [([], "string_type")]),
    (bool, "1", [([], "bool_type")]),
    (float, "[]", [([], "float_type")]),
    (bytes, '"#"', [([], "bytes_parsing")]),
    (Level, "7", [([], "enum")]),
    (Literal[1, "a"], "[]", [([], "literal_error")]),
    (None, "1", [([], "none_type")]),
    # collections
    (list[int], "{}", [([], "list_type")]),
    (list[int], '["a", 1, []]', [([0], "int_parsing"), ([2], "int_type")]),
    (Annotated[list[int], Meta(min_length=2)], "[1]", [([], "too_short")]),
    (Annotated[set[int], Meta(min_length=2)], "[1, 1]", [([], "too_short")]),
    (Annotated[set[UUID], Meta(min_length=2)], f'["{ID}"]', [([], "value_error")]),
    (set[int], '[1, "a"]', [([1], "int_parsing")]),
    (frozenset[int], "1", [([], "list_type")]),
    (set[Any], "[1, [1], {}]", [([1], UNHASHABLE), ([2], UNHASHABLE)]),
    (set[Pair], '[{"left": 1, "right": 2}]', [([0], UNHASHABLE)]),
    (set[tuple[int, Any]], "[[1, 2], [1, []]]", [([1], UNHASHABLE)]),
    (set[tuple[Any, ...]], "[[[1]]]", [([0], UNHASHABLE)]),
    (set[Labelled], '[["a", 1], ["b", {}]]', [([1], UNHASHABLE)]),
    (frozenset[int | list[int]], "[1, [2]]", [([1], UNHASHABLE)]),
    (frozenset[frozenset[Any]], "[[1], [[]]]", [([1, 0], UNHASHABLE)]),
    (tuple[int, ...], '["a"]', [([0], "int_parsing")]),
    (tuple[int, str], "1", [([], "list_type")]),
    (tuple[int, str], '["a", 1]', [([0], "int_parsing"), ([1], "string_type")]),
    (tuple[int, str], '["a"]', [([0], "int_parsing"), ([], "too_short")]),
    (tuple[int, str], '[1, "a", 2]', [([], "too_long")]),
    (dict[str, int], "[]", [([], "dict_type")]),
    (dict[str, int], '{"a.b": "x", "c": null}', [(["a.b"], "int_parsing"), (["c"], "int_type")]),
    (dict[int, int], '{"a": 1, "1": 2}', [(["a", "[key]"], "int_parsing")]),
    (dict[int | str, int], '{"a": "x"}', [(["a"], "int_parsing")]),
    (Annotated[dict[str, int], Meta(max_length=1)], '{"a": 1, "b": 2}', [([], "too_long")]),
    # classes
    (Item, "null", [([], "dict_type")]),
    (Options, '{"unit": 1}', [(["size"], "missing"), (["unit"], "string_type")]),
    (Options, "[]", [([], "dict_type")]),
    (Span, '["a", 2]', [([0], "int_parsing")]),
    (Span, "[]", [([0], "missing")]),
    (Span, "[1, 2, 3]", [([], "too_long")]),
    (Point, "{}", [([], "list_type")]),
    (Point, "[]", [([0], "missing")]),
    (Point, "[1, 2, 3]", [([], "too_long")]),
    (Circle, '["square", 1]', [([0], "literal_error")]),
    (Circle, '["circle", "a", 1]', [([1], "int_parsing")]),
    (Cat, '{"type": "Dog", "lives": 1}', [(["type"], "literal_error")]),
    (list[Pair], '[{"left": 1, "right": 1}, {}]', [([0], "value_error"), ([1, "left"], "missing")]),
    (dict[str, Hooked], '{"a": {"low": 1, "high": 0}}', [(["a"], "value_error")]),
    (Guarded, '{"age": -1}', [([], "value_error")]),
    (Tree, '{"value": 1, "children": [{}]}', [(["children", 0, "value"], "missing")]),
    # unions
    (int | None, '"a"', [([], "int_parsing")]),
    (Item | None, "1", [([], "dict_type")]),
    (list[int | None], '[null, "a"]', [([1], "int_parsing")]),
    (int | list[int], '["a"]', [([0], "int_parsing")]),
    (int | str | dict[str, int], '{"a": "b"}', [(["a"], "int_parsing")]),
    (int | str, "1.5", [([], "union")]),
    (int | list[int], "{}", [([], "union")]),
    (list[int | str], '[1, "a", 1.5]', [([2], "union")]),
    (Cat | Dog, "{}", [(["type"], "missing")]),
    (Cat | Dog, '{"type": "Cow"}', [(["type"], "literal_error")]),
    (Cat | Dog, '{"type": "Dog", "a": 1}', [(["name"], "missing"), (["a"], "extra_forbidden")]),
    (Circle | Square, "[]", [([0], "missing")]),
    (Circle | Square, '["square", "a"]', [([1], "int_parsing")]),
    # pydantic models
    (Model, '{"Size": "x", "day": []}', [(["Size"], "int_parsing"), (["day"], "date_type")]),
    (list[Model], '[{"Size": 1}, {}]', [([1, "Size"], "missing")]),
    (Model | None, '{"Size": "x"}', [(["Size"], "int_parsing")]),
    # what only msgspec's own message tells: a member given twice, a key of a rare type
    (list[Cat], '[{"lives": "x", "lives": 1}]', [([0, "lives"], "value_error")]),
    (dict[str, list[int]], '{"a": ["x"], "a": []}', [(["...", 0], "value_error")]),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "body", "expected"), CASES)
def test_problems_of_a_body(annotation: Any, body: str, expected: Places) -> None:
    assert places(problems_of(body_decoder(annotation), body.encode())) == expected


@pytest.mark.parametrize(
    ("annotation", "body", "expected"),
    [
        (Order, f'{{"id": "{ID}", "items": []}}', Order(UUID(ID), [])),
        (Model, '{"Size": 1}', Model(Size=1)),
        (list[Model], '[{"Size": 1, "day": "2024-01-01"}]', [Model(Size=1, day=date(2024, 1, 1))]),
        (Cat | Dog, '{"type": "Dog", "name": "Rex"}', Dog("Rex")),
        (Pair, '{"left": 1}', Pair(1)),
        (dict[int, Span], '{"1": [2, 3]}', {1: Span(2, 3)}),
    ],
)
def test_a_valid_body_is_decoded(annotation: Any, body: str, expected: Any) -> None:
    assert body_decoder(annotation)(body.encode()) == expected


def test_a_body_has_limits() -> None:
    decode = body_decoder(list[int] | None, Meta(min_length=1))
    assert decode(b"null") is None
    assert places(problems_of(decode, b"[]")) == [([], "too_short")]


def test_a_valid_neighbour_of_any_type_is_no_problem() -> None:
    good = {
        "level": 1,
        "model": {"Size": 1},
        "raw": {"a": [1]},
        "more": "aGk=",
        "inner": {"low": 0, "high": 1},
    }
    bad = good | {"inner": {"low": 1, "high": 0}, "raw": 10**30}
    decode = body_decoder(list[Wrapped])
    problems = problems_of(decode, json.dumps([good, bad, good, bad]).encode())
    assert places(problems) == [([1, "inner"], "value_error"), ([3, "inner"], "value_error")]


MALFORMED = [b"{", b"[1,", b"nan", b'"\xff"', b'"\\ud800"', b"1 1", b"[" * 100_000, b" "]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:8]))
@pytest.mark.parametrize("annotation", [Order, Model, dict[str, Any], list[int]])
def test_malformed_json_is_one_problem(annotation: Any, body: bytes) -> None:
    assert places(problems_of(body_decoder(annotation), body)) == [([], "json_invalid")]


@pytest.mark.parametrize("body", [b"NaN", b'{"id": NaN}', b"1e999", b"[-Infinity]"])
def test_what_json_has_no_number_for_is_malformed(body: bytes) -> None:
    assert places(problems_of(body_decoder(Order), body)) == [([], "json_invalid")]


@pytest.mark.parametrize("decode", [body_decoder(Order), body_decoder(Model), raw_body_members])
def test_an_empty_body_is_missing(decode: Callable[[bytes], Any]) -> None:
    assert places(problems_of(decode, b"")) == [([], "missing")]


def test_raw_body_members() -> None:
    members = raw_body_members(b'{"item": {"a": [1]}, "user": 2}')
    assert {name: bytes(raw) for name, raw in members.items()} == {
        "item": b'{"a": [1]}',
        "user": b"2",
    }
    assert places(problems_of(raw_body_members, b"[]")) == [([], "dict_type")]
    assert places(problems_of(raw_body_members, b"{")) == [([], "json_invalid")]


def test_a_bug_in_a_user_class_is_no_problem_of_the_peer() -> None:
    class Buggy(Struct):
        def __post_init__(self) -> None:
            raise KeyError("a bug")

    with pytest.raises(KeyError):
        body_decoder(Buggy)(b"{}")


def test_a_model_that_lists_no_errors_is_one_problem() -> None:
    class Terse:
        @classmethod
        def model_validate_json(cls, data: bytes) -> Terse:
            raise ValueError("no" * 1000)

    (problem,) = problems_of(body_decoder(Terse), b"{}")
    assert (problem["loc"], problem["type"]) == ([], "value_error")
    assert len(problem["msg"]) == MAX_PROBLEM_TEXT


# Hostile input


def answer_size(problems: list[Problem]) -> int:
    return len(json.dumps(problems))


@pytest.mark.parametrize(
    ("annotation", "body"),
    [
        (list[int], json.dumps(["x"] * 250_000)),
        (dict[str, int], json.dumps({"k" * 1000 + str(i): "x" for i in range(1000)})),
        (Dog, json.dumps({"name": "a"} | {f"{i:09}": 1 for i in range(60_000)})),
        (Dog, json.dumps({"name": ["x"], "k" * 1_000_000: 1})),
        (list[Model], json.dumps([{}] * 10_000)),
        (Cat | Dog, json.dumps({"type": "x" * 1_000_000})),
    ],
    ids=["items", "keys", "extras", "key", "models", "tag"],
)
def test_an_answer_is_small_however_large_the_body(annotation: Any, body: str) -> None:
    problems = problems_of(body_decoder(annotation), body.encode())
    assert 1 <= len(problems) <= MAX_PROBLEMS
    assert answer_size(problems) < 100_000


@pytest.mark.parametrize(
    "depth", [MAX_PROBLEM_DEPTH // 2 - 1, MAX_PROBLEM_DEPTH, 100, 400, 100_000]
)
def test_a_recursive_type_is_explained_at_any_depth(depth: int) -> None:
    body = b'{"value": 1, "children": [' * depth + b'{"value": "x"}' + b"]}" * depth
    (problem,) = problems_of(body_decoder(Tree), body)
    assert len(problem["loc"]) <= MAX_PROBLEM_DEPTH
    if depth < MAX_PROBLEM_DEPTH // 2:
        assert problem["loc"] == ["children", 0] * depth + ["value"]


def test_only_so_many_values_are_looked_at() -> None:
    body = json.dumps([1] * MAX_PROBLEM_VISITS + ["x", "y"]).encode()
    assert places(problems_of(body_decoder(list[int]), body)) == [
        ([MAX_PROBLEM_VISITS], "value_error")
    ]


def random_json(rng: random.Random, depth: int = 4) -> Any:
    choice = rng.randrange(12 if depth else 8)
    if choice >= 10:
        return [random_json(rng, depth - 1) for _ in range(rng.randrange(4))]
    if choice >= 8:
        return {name: random_json(rng, depth - 1) for name in rng.sample(NAMES, rng.randrange(6))}
    return rng.choice([None, True, 0, 1, -1, 10**30, 1.5, "", "a", "Cat", ID, "2024-01-01"])


NAMES = ["type", "lives", "name", "low", "high", "left", "right", "value", "children", "1", "size"]
TYPES = [
    int, Item, Order, Tree, Hooked, Pair, Options, Span, Point, Cat | Dog, Circle | Square,
    list[Cat | Dog], dict[str, Hooked | None], dict[int, float], list[Tree], set[int],
    tuple[int, str], list[int | str | None], Annotated[set[str], Meta(max_length=2)],
    list[UUID | int], dict[str, list[Pair]], Literal[1, "a"], dict[str, Any], msgspec.Raw,
]  # fmt: skip


@pytest.mark.parametrize("annotation", TYPES)
def test_random_json_is_a_value_or_problems(annotation: Any) -> None:
    decode, rng = body_decoder(annotation), random.Random(1)
    for _ in range(1500):
        value = random_json(rng)
        body = json.dumps(value).encode()
        _, problems = outcome(decode, body)
        assert is_valid(annotation, body) == (not problems)
        for problem in problems:
            assert_place_exists(problem, value)


def outcome(decode: Callable[[Any], Any], value: Any) -> tuple[Any, list[Problem]]:
    """The value and no problem, or None and at least one."""
    try:
        return decode(value), []
    except Invalid as exc:
        problems = exc.problems
    assert problems
    return None, problems


def is_valid(annotation: Any, body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=annotation)
    except (ValueError, TypeError):
        return False
    return True


def assert_place_exists(problem: Problem, value: Any) -> None:
    """A problem's place is in the body; of what is missing, only where it should have been."""
    loc = [part for part in problem["loc"] if part != "[key]"]
    parents = loc[:-1] if problem["type"] == "missing" else loc
    for part in parents:
        value = value[part]
    if problem["type"] == "missing":
        assert loc[-1] not in value if isinstance(value, dict) else loc[-1] >= len(value)  # type: ignore[operator]


@pytest.mark.parametrize("annotation", TYPES)
def test_mutilated_json_is_a_value_or_problems(annotation: Any) -> None:
    decode, rng = body_decoder(annotation), random.Random(2)
    for _ in range(300):
        body = bytearray(json.dumps(random_json(rng)).encode())
        body[rng.randrange(len(body))] = rng.randrange(256)
        outcome(decode, bytes(body))


UNFINITE = ("nan", "snan", "-nan", "inf", "-inf", "infinity", "-infinity")


@pytest.mark.parametrize("annotation", [int, float, bool, Decimal, UUID, date, datetime, timedelta,
                                        Color, Level, Literal[1, "a"], int | str])  # fmt: skip
def test_random_text_is_a_value_or_problems(annotation: Any) -> None:
    decode, rng = text_decoder(annotation), random.Random(3)
    alphabet = "0123456789+-._eE:TZP naif\0\n\u0661\ud800\U0001f600"
    for _ in range(3000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(12)))
        value, problems = outcome(decode, text)
        assert len(problems) <= 1
        assert not isinstance(value, (float, Decimal)) or str(value).lower() not in UNFINITE


# JSON out


def numbers() -> Iterator[int]:
    yield from (1, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1}, b'{"a":1}'),
        (Model(Size=1), b'{"Size":1,"day":null}'),
        ([Model(Size=1, day=date(2024, 1, 1))], b'[{"Size":1,"day":"2024-01-01"}]'),
        (Pair(1), b'{"left":1,"right":null}'),
        ({1}, b"[1]"),
        ((1, 2), b"[1,2]"),
        (deque([1]), b"[1]"),
        (range(2), b"[0,1]"),
        (numbers(), b"[1,2]"),
        (PurePosixPath("/a"), b'"/a"'),
        (math.nan, b"null"),
    ],
)
def test_encode_json(value: Any, expected: bytes) -> None:
    assert encode_json(value) == expected


@pytest.mark.parametrize("value", [Stranger(), [Stranger()], Model])
def test_what_has_no_json_form_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match=re.compile("Stranger|ModelMetaclass")):
        encode_json(value)


async def coroutine() -> None: ...


async def stream() -> AsyncIterator[int]:
    yield 1


async def test_what_was_to_be_awaited_or_streamed_says_so() -> None:
    with pytest.raises(
        TypeError, match=r"^coroutine\(\) was never awaited.*: await coroutine\(\)$"
    ):
        encode_json({"a": coroutine()})
    with pytest.raises(TypeError, match=r": StreamingResponse\(stream\(\)\)$"):
        encode_json(stream())
    with pytest.raises(TypeError, match=r"^coroutine is a function, and .*: coroutine\(\)$"):
        encode_json(coroutine)
    assert [number async for number in stream()] == [1]


# What costs more than it is worth


def calls_of_ours(function: Callable[[Any], Any], argument: Any) -> int:
    """How many Python functions run for one call of `function`, but for what garbage has."""
    calls = []
    gc.disable()
    sys.setprofile(lambda frame, event, _: calls.append(frame) if event == "call" else None)
    try:
        function(argument)
    finally:
        sys.setprofile(None)
        gc.enable()
    return len(calls)


@pytest.mark.parametrize(
    ("annotation", "body", "most"),
    [
        (Order, f'{{"id": "{ID}", "items": []}}', 1),
        (Any, "[]", 1),
        (set[int], "[1]", 2),  # whose values could have one hash
    ],
)
def test_a_valid_body_costs_one_call_around_msgspec(annotation: Any, body: str, most: int) -> None:
    assert calls_of_ours(body_decoder(annotation), body.encode()) == most
    assert calls_of_ours(raw_body_members, b'{"a": 1}') == 1


def test_to_encode_costs_no_call_but_of_msgspec() -> None:
    assert calls_of_ours(encode_json, {"a": [1, "b", None]}) == 0


PRIME = 2**61 - 1  # what Python hashes numbers by


@dataclass
class Holder:
    ids: set[int]
    name: str = ""


COLLIDING = [n * PRIME for n in range(10**6, 10**6 + 1_000)]


@pytest.mark.parametrize(
    ("annotation", "members"),
    [
        (set[int], COLLIDING),
        (frozenset[int | str], COLLIDING),
        (set[Any], COLLIDING),
        (set[tuple[int, int]], [[n, 1] for n in COLLIDING]),
        (set[Decimal], [*map(str, COLLIDING)]),
        (set[UUID], [str(UUID(int=n)) for n in COLLIDING]),
        (dict[int, int], dict.fromkeys(COLLIDING, 1)),
        (list[Holder], [{"ids": COLLIDING}]),
    ],
)
def test_many_values_of_one_hash_are_refused(annotation: Any, members: Any) -> None:
    body = json.dumps(members).encode()
    assert places(problems_of(body_decoder(annotation), body)) == [([], "collision")]


@pytest.mark.parametrize(
    ("annotation", "members"),
    [
        (list[int], COLLIDING),  # nothing is hashed
        (dict[str, int], {str(n): n for n in COLLIDING}),
        (set[int], list(range(10**18, 10**18 + 2_000))),
        (set[int], [COLLIDING[0]] * 2_000),
        (set[UUID], [str(UUID(int=n**9)) for n in range(2, 900)]),
        (dict[Decimal, str], {f"{n}.5": f"1e2e3e4e5 {n}" for n in range(2_000)}),
    ],
)
def test_large_bodies_whose_hashes_differ_are_decoded(annotation: Any, members: Any) -> None:
    body = json.dumps(members).encode()
    assert len(body_decoder(annotation)(body)) == len({str(member) for member in members})


class Frozen(NamedTuple):
    inner: PlainOld | None


@dataclass
class PlainOld:
    a: int
    b: str = "z"
    inner: Any = None


@dataclass(slots=True)
class Slotted:
    inner: PlainOld
    c: int = 1


@attrs.define
class Attrs:
    inner: PlainOld


class Structured(Struct):
    inner: PlainOld


@pytest.mark.parametrize(
    "annotation",
    [PlainOld, list[PlainOld], dict[str, PlainOld], Slotted, Attrs, Structured, tuple[Frozen, ...]],
)
def test_defaults_of_a_dataclass_are_encoded_too(annotation: Any) -> None:
    plain = {"a": 1}
    body: Any = {
        PlainOld: plain,
        list[PlainOld]: [plain],
        dict[str, PlainOld]: {"x": plain},
        tuple[Frozen, ...]: [[plain]],
    }.get(annotation, {"inner": plain})
    value = body_decoder(annotation)(json.dumps(body).encode())
    assert b'"a":1,"b":"z","inner":null' in encode_json(value)


@dataclass
class Asserting:
    a: int
    said: str = "too small"

    def __post_init__(self) -> None:
        assert self.a > 3, self.said


@pytest.mark.parametrize("annotation", [Asserting, list[Asserting]])
def test_an_assertion_of_a_class_is_the_clients_mistake(annotation: Any) -> None:
    body: Any = {"a": 1} if annotation is Asserting else [{"a": 1}]
    (problem,) = problems_of(body_decoder(annotation), json.dumps(body).encode())
    assert (problem["type"], "too small" in problem["msg"]) == ("value_error", True)


def test_an_assertion_without_words_has_some() -> None:
    @dataclass
    class Silent:
        a: int

        def __post_init__(self) -> None:
            raise AssertionError

    (problem,) = problems_of(body_decoder(Silent), b'{"a": 1}')
    assert problem["msg"] == "Assertion failed"


class Strict(pydantic.BaseModel):
    x: int = 1


@pytest.mark.slow
def test_a_model_past_what_is_looked_at_never_echoes_the_input() -> None:
    body = json.dumps([{}] * MAX_PROBLEM_VISITS + [{"x": "secret"}]).encode()
    (problem,) = problems_of(body_decoder(list[Strict]), body)
    assert problem["loc"] == [MAX_PROBLEM_VISITS, "x"]
    assert "secret" not in problem["msg"]
    assert "http" not in problem["msg"]


def test_a_model_reports_only_so_many_problems() -> None:
    class Many(pydantic.BaseModel):
        x: list[int]

    for annotation, body in (Many, {"x": ["q"] * 500}), (list[Many], [{"x": ["q"] * 60}] * 2):
        problems = problems_of(body_decoder(annotation), json.dumps(body).encode())
        assert len(problems) == MAX_PROBLEMS


@pytest.mark.slow
def test_unknown_members_are_looked_at_only_until_there_are_enough() -> None:
    body = json.dumps({"name": "x"} | {f"k{n}": 1 for n in range(50_000)}).encode()
    assert len(problems_of(body_decoder(Dog), body)) == MAX_PROBLEMS


def test_integer_keys_beside_another_problem_are_none() -> None:
    class Counts(Struct):
        counts: dict[int, float]
        name: str

    body = b'[{"counts": {"1": 2.5}, "name": "a"}, {"counts": {"1": 2}, "name": 3}]'
    problems = problems_of(body_decoder(list[Counts]), body)
    assert places(problems) == [([1, "name"], "string_type")]


def test_null_in_a_union_without_it_is_one_problem() -> None:
    problems = problems_of(body_decoder(list[int | str]), b"[1, null]")
    assert places(problems) == [([1], "union")]


def test_one_moment_in_two_zones_is_one_member() -> None:
    annotation = Annotated[set[datetime], Meta(max_length=1)]
    moments = ["2024-01-01T12:00:00Z", "2024-01-01T13:00:00+01:00"]
    assert len(body_decoder(annotation)(json.dumps(moments).encode())) == 1


@pytest.mark.slow
def test_a_long_list_is_explained_in_bounded_memory() -> None:
    sizes = []
    for count in (MAX_PROBLEM_VISITS + 1, 30 * MAX_PROBLEM_VISITS):
        items = [1] * count
        tracemalloc.start()
        Walk(NO_CODECS).visit(msgspec.inspect.type_info(list[int]), items)
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert sizes[1] < 2 * sizes[0]
