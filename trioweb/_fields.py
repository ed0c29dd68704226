"""What goes out as a header field: checked where it is set, whoever sets it.

Rules of this module:

* The traceback shows the line that set it, and nothing has been sent yet.
* Names are tokens (RFC 9110, 5.6.2), values are latin-1 without control characters other than tab
  (RFC 9110, 5.5).  A whole number is its digits, as `Retry-After` has them; nothing else is turned
  into text by guess.
* A server owns its connection: `transfer-encoding` is not ours to send.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def as_text(slot: str, value: object) -> str:
    """A text, or a whole number as one.  Raises TypeError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))  # of an enum's member, too
    raise TypeError(f"{slot}: its value must be a str, not {value!r}")


def checked_field(name: str, value: str | int) -> tuple[bytes, bytes]:
    field = (_checked_name(name), checked_value(name, value))
    if field[0] == b"content-length" and not field[1].isdigit():
        raise ValueError(f"header {name!r}: {value!r} isn't a number of bytes")
    return field


def checked_value(name: str, value: str | int) -> bytes:
    """A field's value as bytes, without white space at its ends; ValueError if it can't be sent."""
    text = as_text(f"header {name!r}", value)
    refuse_control_characters(f"header {name!r}", text)
    try:
        return text.strip(" \t").encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"header {name!r}: {text!r} has characters beyond latin-1") from None


def is_token(text: str) -> bool:
    """RFC 9110, 5.6.2: what names of fields and of methods are made of."""
    return _TOKEN.fullmatch(text) is not None


def refuse_control_characters(slot: str, text: str) -> None:
    """Raises ValueError for CR, LF, NUL and the like, all but tab."""
    if _CONTROL.search(text):
        raise ValueError(f"{slot}: control characters (CR, LF, NUL, …) in {text!r}")


def _checked_name(name: str) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"the name of a header must be a str, not {name!r}")
    if not is_token(name):
        raise ValueError(f"{name!r} isn't a header name: letters, digits and !#$%&'*+-.^_`|~")
    key = name.lower().encode("ascii")
    if key == b"transfer-encoding":
        raise ValueError("transfer-encoding belongs to the server; leave it out")
    return key
