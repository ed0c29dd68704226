"""What stands for a type parameter: what is written, or nothing goes through."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
import typing_extensions

from trioweb._errors import Invalid, RegistrationError
from trioweb._shapes.annotations import refuse_ignored
from trioweb._shapes.generics import hints_of
from trioweb._shapes.json import body_decoder

T = TypeVar("T")
U = TypeVar("U")
Bound = TypeVar("Bound", bound=int)
IntOrStr = TypeVar("IntOrStr", int, str)
# As `class Page[T = str]` makes it, from Python 3.13 on.
Default = typing_extensions.TypeVar("Default", default=str)
DEFAULT: Any = Default


class Any_(msgspec.Struct, Generic[T]):
    items: list[T]


class Bounded(msgspec.Struct, Generic[Bound]):
    items: list[Bound]


class Either(msgspec.Struct, Generic[IntOrStr]):
    items: list[IntOrStr]


class Page(msgspec.Struct, Generic[Default]):
    items: list[Default]


class Bare(Page):
    pass


class Further(Page[Default], Generic[Default]):
    more: Default


class OfInts(Page[int]):
    pass


class Holder(msgspec.Struct):
    pages: list[Page]


class HolderOfInts(msgspec.Struct):
    pages: list[Page[int]]


@dataclasses.dataclass
class Data(Generic[Default]):
    items: list[Default]


class Dict(TypedDict, Generic[Default]):
    items: list[Default]


class Tuple(NamedTuple, Generic[Default]):
    items: list[Default]


@pytest.mark.parametrize(
    ("annotation", "name", "right"),
    [
        (Page, "Default", "Page[str]"),
        (Page[DEFAULT], "Default", "Page[str]"),
        (list[Page], "Default", "Page[str]"),
        (dict[str, Page] | None, "Default", "Page[str]"),
        (Annotated[Page, 1], "Default", "Page[str]"),
        (Bare, "Default", "Page[str]"),
        (Further, "Default", "Further[str]"),
        (Holder, "Default", "Page[str]"),
        (Data, "Default", "Data[str]"),
        (Dict, "Default", "Dict[str]"),
        (Tuple, "Default", "Tuple[str]"),
        (Either, "IntOrStr", "Either[int]"),
        (DEFAULT, "Default", "str"),
        (list[DEFAULT], "Default", "list[str]"),
    ],
)
def test_a_type_parameter_that_stands_for_anything_is_refused(
    annotation: Any, name: str, right: str
) -> None:
    with pytest.raises(RegistrationError, match=f"doesn't say what {name} is") as refused:
        refuse_ignored(annotation)
    assert str(refused.value).endswith(right)


@pytest.mark.parametrize(
    "annotation", [Page[int], Further[int], OfInts, Data[int], Dict[int], Either[int], Bounded]
)
def test_items_are_checked_by_what_is_written_or_by_the_bound(annotation: Any) -> None:
    refuse_ignored(annotation)
    decode = body_decoder(annotation)
    decode(b'{"items": [1], "more": 2}')
    with pytest.raises(Invalid) as refused:
        decode(b'{"items": ["x"], "more": 2}')
    assert refused.value.problems[0]["loc"] == ["items", 0]


def test_what_is_said_of_a_type_parameter_holds_within() -> None:
    refuse_ignored(HolderOfInts)
    with pytest.raises(Invalid):
        body_decoder(HolderOfInts)(b'{"pages": [{"items": ["x"]}]}')


def test_a_type_parameter_of_which_nothing_is_said_is_any() -> None:
    refuse_ignored(Any_)
    assert body_decoder(Any_)(b'{"items": [1, "x"]}').items == [1, "x"]


class Checked(pydantic.BaseModel, Generic[Default]):
    items: list[Default]


class CheckedToo(Checked):
    pass


@pytest.mark.parametrize("kind", [Checked, CheckedToo, list[Checked], Checked[int]])
def test_a_model_knows_what_stands_for_its_type_parameters(kind: Any) -> None:
    refuse_ignored(kind)
    model = kind if isinstance(kind, type) else Checked
    with pytest.raises(Invalid):
        body_decoder(model)(b'{"items": [{}]}')


@dataclasses.dataclass
class Base(Generic[T, U]):
    plain: int
    first: T
    second: dict[str, list[U]]


@dataclasses.dataclass
class Child(Base[str, T], Generic[T]):
    third: T | None
    page: Any_[T]


def test_hints_have_what_type_parameters_stand_for_in_bases_too() -> None:
    assert hints_of(Child[int]) == {
        "plain": int,
        "first": str,
        "second": dict[str, list[int]],
        "third": int | None,
        "page": Any_[int],
    }
    assert hints_of(Base)["first"] is T
