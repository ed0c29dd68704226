"""Where to listen, written as text: `0.0.0.0:80`, `[::1]:80`, `unix:/run/app.sock`, `fd://3`.

Rules of this module:

* Text is only read here; whether one can listen there is found out when one does.
* As Hypercorn and Gunicorn write it; an IPv6 address stands in brackets, as in a URL.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

DEFAULT_PORT = 8000
MAX_PORT = 65535

_FORMS = "such as 127.0.0.1:8000, [::1]:8000, :8000, unix:/run/app.sock or fd://3"


@dataclass(frozen=True, slots=True)
class HostPort:
    """`host` is None for all addresses."""

    host: str | None
    port: int


@dataclass(frozen=True, slots=True)
class UnixPath:
    path: str


@dataclass(frozen=True, slots=True)
class Descriptor:
    number: int


Bind = HostPort | UnixPath | Descriptor


def read_bind(text: str) -> Bind:
    """Raises ValueError, which says what would be right."""
    kind, _, rest = text.partition(":")
    if kind == "unix":
        if not rest:
            raise ValueError(f"needs a path behind unix:, {_FORMS}")
        return UnixPath(rest)
    if kind == "fd" and rest.startswith("//"):
        return Descriptor(_number(rest[2:], "a file descriptor"))
    return _host_and_port(text)


def _host_and_port(text: str) -> HostPort:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        separator, port = rest[:1], rest[1:]
        is_address = bracket and separator in ("", ":") and ":" in host
    else:
        host, separator, port = text.partition(":")
        is_address = bool(text) and "/" not in text
        if text.count(":") > 1 and is_address:
            raise ValueError(f"an IPv6 address needs brackets: {_in_brackets(text)}")
        if text.isascii() and text.isdigit():
            raise ValueError(f"a port alone needs a colon: :{text} for all addresses, {_FORMS}")
    if not is_address:
        raise ValueError(f"needs an address to listen on, {_FORMS}")
    number = _number(port, "a port from 0 to 65535") if separator else DEFAULT_PORT
    if number > MAX_PORT:
        raise ValueError("needs a port from 0 to 65535")
    return HostPort(None if host in ("", "*") else host, number)


def _in_brackets(text: str) -> str:
    """What was meant, most likely: a port stands last, where an address is left without it."""
    host, _, port = text.rpartition(":")
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return f"[{text}]:{DEFAULT_PORT}"
    return f"[{host}]:{port}"


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"needs {what}, {_FORMS}")
    return int(text)
