"""What the text of an option or a variable becomes.

Rules of this module:

* A conversion takes text and returns the value, or raises ValueError; the error says what would
  be right, and `options` says under which name the text was given.
* What the server or the app checks anyway is left to them: each rule stands in one place.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._app.limits import Limits
from ..server._addresses import read_bind
from ..server._forwarded import TrustedPeers


def text(value: str) -> str:
    return value


def switch(value: str) -> bool:
    """Only variables have text: on the command line a switch is `--x` or `--no-x`."""
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    if value.lower() not in words:
        raise ValueError("needs true or false")
    return words[value.lower()]


def whole(lowest: int, highest: int | float = math.inf) -> Callable[[str], int]:
    needs = f"of at least {lowest}" if highest == math.inf else f"from {lowest} to {highest}"

    def convert(value: str) -> int:
        # int() would also take 1_000, and digits of other scripts.
        if not (value.isascii() and value.isdigit() and lowest <= int(value) <= highest):
            raise ValueError(f"needs a whole number {needs}")
        return int(value)

    return convert


def seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not number >= 0:
        raise ValueError("needs a number of seconds, such as 20 or 0.5")
    return number


def positive_seconds(value: str) -> float:
    number = seconds(value)
    if not number:
        raise ValueError("needs more than 0 seconds; none switches it off")
    return number


def or_none(convert: Callable[[str], float]) -> Callable[[str], float]:
    """The same, with the word none for what is never reached."""

    def converted(value: str) -> float:
        return math.inf if value.lower() == "none" else convert(value)

    return converted


def one_of(*words: str) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value.lower() not in words:
            raise ValueError(f"needs one of {', '.join(words)}")
        return value.lower()

    return convert


def peers(value: str) -> tuple[str, ...]:
    """Addresses and networks, with commas between them."""
    if value.lower() == "none":
        return ()
    found = tuple(peer.strip() for peer in value.split(","))
    try:
        TrustedPeers(found)
    except ValueError:
        raise ValueError("needs addresses or networks, such as 10.0.0.0/8,::1, * or none") from None
    return found


def prefix(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("needs to begin with a slash")
    return value


def descriptor(value: str) -> tuple[int]:
    """The sockets to listen on: one that the process has inherited."""
    return (whole(0)(value),)


def bind(value: str) -> str:
    """Text that the server can read; it is the server that reads it."""
    read_bind(value)
    return value


def permissions(value: str) -> int:
    """Of a file, in octal digits, as `chmod` takes them."""
    digits = value.removeprefix("0o")
    if not digits or set(digits) - set("01234567") or int(digits, 8) > 0o777:
        raise ValueError("needs permissions in octal digits, such as 660")
    return int(digits, 8)


def existing_file(value: str) -> str:
    if not Path(value).is_file():
        raise ValueError("there is no such file")
    return value


def existing_folder(value: str) -> str:
    if not Path(value).is_dir():
        raise ValueError("there is no such folder")
    return value


def client_certificates(value: str) -> ssl.VerifyMode:
    """Uvicorn takes the numbers of `ssl.VerifyMode`; so do we, beside their names."""
    modes = {f"{mode.value}": mode for mode in ssl.VerifyMode}
    modes |= {mode.name.removeprefix("CERT_").lower(): mode for mode in ssl.VerifyMode}
    if value.lower() not in modes:
        raise ValueError("needs one of none, optional, required")
    return modes[value.lower()]


def limit(name: str) -> Callable[[str], Any]:
    """For the field of `Limits` that has this name."""

    def convert(value: str) -> Any:
        number: Any = None if value.lower() == "none" else _number(value)
        try:
            Limits(**{name: number})
        except ValueError as exc:
            raise ValueError(str(exc).rpartition(": ")[2]) from None
        return number

    return convert


def _number(value: str) -> float | str:
    """As whole as it is written; text that isn't a number stays text, for `Limits` to refuse."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
