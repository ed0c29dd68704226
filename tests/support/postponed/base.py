"""The bases.  `Count` and `Word` are known here alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, Generic, NamedTuple, Protocol, TypeVar

import attrs
import msgspec
import pydantic

from trioweb import Query

Count = int
Word = Annotated[str, Query(max_length=3)]
T = TypeVar("T")


@dataclasses.dataclass
class DataBase:
    count: Count
    word: Word = "x"


@attrs.define
class AttrsBase:
    _count: Count
    word: Word = attrs.field(default="x", alias="word")


class StructBase(msgspec.Struct):
    count: Count
    word: Word = "x"


class ModelBase(pydantic.BaseModel):
    count: Count
    word: str = "x"


class PlainBase:
    def __init__(self, count: Count, word: Word = "x") -> None:
        self.count, self.word = count, word


class TupleBase(NamedTuple):
    count: Count  # type: ignore[assignment]  # which hides the method
    word: Word = "x"


class CallableBase:
    async def __call__(self, count: Count, word: Word = "x") -> list[Any]:
        return [count, word]


class Repo(Generic[T]):
    def __init__(self, count: Count, key: Annotated[T, Query()], word: Word = "x") -> None:
        self.count, self.key, self.word = count, key, word


class Store(Protocol):
    count: Any

    def load(self) -> Any: ...


def decorated(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await func(*args, **kwargs)

    return wrapper


async def function(count: Count, word: Word = "x") -> list[Any]:
    return [count, word]


bound = functools.partial(function, word="bound")
