"""Whatever stands in a signature: it is registered, or a RegistrationError says whose it is."""

import contextvars
import dataclasses
import enum
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NamedTuple,
    Never,
    NewType,
    ParamSpec,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    Union,
)
from unittest.mock import Mock

import attrs
import msgspec
import pydantic
import pytest
from typing_extensions import TypeAliasType

from trioweb import (
    App,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    Header,
    Path,
    Query,
    RegistrationError,
    Request,
    Response,
)

if TYPE_CHECKING:
    from fractions import Fraction as Absent

T = TypeVar("T")
P = ParamSpec("P")
NONE: Any = object()


class BadRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class BadHash(type):
    def __hash__(cls) -> int:
        raise RuntimeError("no hash")


class Unhashable(metaclass=BadHash): ...


class BadCopy:
    def __deepcopy__(self, memo: Any) -> Any:
        raise KeyError("no copy")


class BadEq:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = object.__hash__


class BadAttributes:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class AnyAttribute:
    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self


class BadSignature:
    @property
    def __signature__(self) -> Any:
        raise RuntimeError("no signature")

    def __call__(self) -> None: ...


class Plain: ...


class Boxed(Generic[T]): ...


@attrs.define
class TakesSelf:
    x: int
    y: int = attrs.field(default=attrs.Factory(lambda self: self.x, takes_self=True))


@dataclasses.dataclass
class UnknownData:
    x: "Nope"  # type: ignore[name-defined]  # noqa: F821


class UnknownDict(TypedDict):
    x: "Nope"  # type: ignore[name-defined]  # noqa: F821


class UnknownTuple(NamedTuple):
    x: "Nope"  # type: ignore[name-defined]  # noqa: F821


class UnknownModel(pydantic.BaseModel):
    x: "Nope"  # type: ignore[name-defined]  # noqa: F821


class Color(enum.Enum):
    RED = 1
    BLUE = "b"


class Empty(enum.Enum): ...


class Bound(Protocol):
    x: int


class One(msgspec.Struct):
    x: int


class Two(msgspec.Struct):
    x: int


Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | int")
Numbers = TypeAliasType("Numbers", dict[str, int])
Unknown = TypeAliasType("Unknown", "Absent")


def numbers() -> Iterator[int]:
    yield 1


assert next(numbers()) == 1  # it can't be copied

ANNOTATIONS: list[Any] = [
    # no types at all
    *("Nope", "1/0", "list[", "", 5, b"x", [], {}, ..., NotImplemented, [int], (int, str)),
    *(BadRepr, BadRepr(), Unhashable, Unhashable(), BadCopy(), BadEq(), BadAttributes()),
    *(AnyAttribute(), print, len, numbers, functools.partial(int), Query, Depends, Query()),
    *(contextvars.ContextVar("x"), pydantic.Field(), sys),
    # of typing
    *(None, Any, object, Callable, T, P, T | None, Boxed, Boxed[int], ClassVar[int]),
    *(Final[int], Never, Self, Literal[()], Literal[b"x"], Literal[Color.RED]),
    *(NewType("Number", int), NewType("Thing", Plain), type[int], Union[int, "Absent"]),
    *(list["Absent"], list["int"], dict[Plain, int], tuple[()], tuple[int], set[dict[str, int]]),
    # with markers and constraints
    *(Annotated[int, 5], Annotated[int, Query], Annotated[int, Query(), Query()]),
    *(Annotated[int, Depends()], Annotated["Absent", Query()], Annotated[str, Query(ge=1)]),
    *(Annotated[Plain, Query()], Annotated[list[Plain], Header()], Annotated[int, Path()]),
    *(Annotated[Plain, Body(ge=1)], Annotated[int | str, Query(min_length=1)]),
    *(Annotated[int, BadRepr()], Annotated[int, BadAttributes()], Annotated[int, AnyAttribute()]),
    *(Annotated[Any, Depends()], Annotated[int | None, Depends()], Annotated[Bound, Depends()]),
    *(Annotated[UnknownData, Depends()], Annotated[UnknownModel, Depends()]),
    *(Annotated[list[int], Depends()], Annotated[Response, Depends()], Annotated[Request, Query()]),
    # classes
    *(Plain, TakesSelf, list[TakesSelf], UnknownData, UnknownDict, UnknownTuple, UnknownModel),
    *(Color, Empty, Bound, One | Two, One | dict[str, int], list[int] | list[str], bytes | str),
    *(Json, Json | None, list[Json], Numbers, list[Numbers], Unknown, list[Unknown]),
    *(threading.Lock, threading.Thread, memoryview, range, Exception, App, Response),
    *(Request | None, list[Request], BackgroundTasks | None, msgspec.Raw, msgspec.Struct),
    *(pydantic.BaseModel, pydantic.AnyUrl, pydantic.PositiveInt, pydantic.RootModel[int]),
]
DEFAULTS: list[Any] = [
    *(NONE, None, 5, ..., [], threading.Lock(), sys, numbers(), Plain(), BadRepr(), BadCopy()),
    *(BadEq(), BadAttributes(), AnyAttribute(), Query(), Query(5), Query, Depends(numbers)),
    *(Depends(), Depends, Body(threading.Lock()), Query(threading.Lock()), Header(BadCopy())),
    *(Cookie(numbers()), Query(BadRepr()), Path(), Color.RED, pydantic.Field(ge=1), msgspec.UNSET),
]


def signed(annotation: Any, default: Any) -> Callable[..., Any]:
    def handler(value: Any) -> None: ...

    if annotation is NONE:
        del handler.__annotations__["value"]
    else:
        handler.__annotations__["value"] = annotation
    if default is not NONE:
        handler.__defaults__ = (default,)
    return handler


def refusal_of(handler: Any, path: str = "/") -> str:
    """The text of the refusal; nothing where it was registered."""
    try:
        App().post(path)(handler)
    except RegistrationError as exc:
        text = str(exc)
        assert text.count("wrong:") == text.count("right:") == 1
        return text
    return ""


@pytest.mark.parametrize("default", DEFAULTS, ids=lambda default: type(default).__name__)
def test_only_a_registration_error_comes_out(default: Any) -> None:
    refused = 0
    for annotation in (NONE, *ANNOTATIONS):
        handler = signed(annotation, default)
        for path in ("/", "/{value}"):
            refused += bool(refusal_of(handler, path))
            refused += bool(refusal_of(signed(Annotated[Any, Depends(handler)], NONE), path))
    assert refused > len(ANNOTATIONS)


@pytest.mark.parametrize(
    "handler",
    [
        *(None, 5, "x", Plain, Plain(), BadRepr(), BadAttributes(), AnyAttribute(), BadSignature()),
        *(Mock(), Mock(spec=numbers), functools.partial(AnyAttribute()), numbers, print, dict),
        *(functools.partial(print), Bound, Boxed[int], list[int], classmethod(numbers), Request),  # type: ignore[arg-type]
    ],
    ids=lambda handler: type(handler).__name__,
)
def test_whatever_is_registered_as_a_handler(handler: Any) -> None:
    refusal_of(handler)
    refusal_of(signed(Annotated[Any, Depends(handler)], NONE))


@pytest.mark.parametrize(
    ("annotation", "default", "problem"),
    [
        (Json, NONE, "Type 'Json' is not supported"),
        (list[Json], NONE, "Type 'Json' is not supported"),
        (TakesSelf, NONE, "takes_self=True"),
        (UnknownData, NONE, "name 'Nope' is not defined"),
        (Annotated[str, Body()], threading.Lock(), "this one can't be: TypeError: cannot pickle"),
        (str, Query(threading.Lock()), "this one can't be: TypeError: cannot pickle"),
        (str, Header(BadCopy()), "this one can't be: KeyError"),
        (str, BadRepr(), "__repr__ that fails: RuntimeError('no repr')"),
        (Unhashable, NONE, "it can't be used: RuntimeError: no hash"),
        (list[Plain], NONE, "nothing is known about Plain"),
        (One | Two, NONE, "must be tagged"),
    ],
)
def test_the_parameter_is_named(annotation: Any, default: Any, problem: str) -> None:
    text = refusal_of(signed(annotation, default))
    assert "handler: " in text
    assert "'value'" in text
    assert problem in text


def test_a_name_that_stands_for_itself_has_a_hint() -> None:
    text = refusal_of(signed(list[Json], NONE))
    assert "right:  value: Annotated[Any, Body()] for any JSON, or a class that has itself" in text
