"""The JSON body for all whose users validate with pydantic; trioweb has msgspec for it."""

from __future__ import annotations

from pydantic import BaseModel


class Item(BaseModel):
    name: str
    price: float
    tags: list[str]
