"""What is built on the bases; `Size` is known here alone, `Word` means something else."""

from __future__ import annotations

import dataclasses
from datetime import date

import attrs

from . import base

Size = int
Word = bytes


@dataclasses.dataclass
class Data(base.DataBase):
    size: Size = 1


class DataAsItIs(base.DataBase):
    """Without an `__init__` of its own."""


@dataclasses.dataclass
class Dated:
    date: date = date(2026, 1, 2)
    list: list[Size] = dataclasses.field(default_factory=list)

    class Inner: ...


@attrs.define
class Attrs(base.AttrsBase):
    size: Size = 1


class Struct(base.StructBase):
    size: Size = 1


class Model(base.ModelBase):
    size: Size = 1


class Plain(base.PlainBase): ...


class PlainOfItsOwn(base.PlainBase):
    def __init__(self, size: Size = 1) -> None:
        super().__init__(size)


class Called(base.CallableBase): ...


class IntRepo(base.Repo[int]): ...


class MiddleRepo(base.Repo[base.T]): ...


class ImplementedStore(base.Store):
    count = 1

    def load(self) -> Size: ...  # type: ignore[empty-body]


class MadeStore(base.Store):
    def __init__(self, size: Size = 2) -> None:
        self.count = size

    def load(self) -> Size:
        return self.count


class InheritedStore(MadeStore): ...


class MixedStore(base.Store, base.PlainBase):
    """The Protocol's place for an `__init__` stands before the one that is called."""

    def load(self) -> Size: ...  # type: ignore[empty-body]
