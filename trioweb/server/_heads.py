"""Heads of one connection: bytes to what was asked, and what of it is known already.

Rules of this module:

* A head is cut off whole, wherever the bytes of its connection were split.  The strict layer sees
  every byte first; then a parser; then the strict layer judges what the parser made of it.
* A client's next head mostly differs from its last in method and path alone.  What
  follows these is kept, and what was made of it: while it is the same, byte by byte,
  neither has to read it again (that is 20 of 28 thousand instructions with httptools,
  and far more with h11).  Method and path are checked each time.
"""

from __future__ import annotations

from .._asgi import RawFields
from . import _limits
from ._limits import ServerLimits
from ._parsers import Parse
from ._strict import (
    PLAIN_START,
    Framing,
    RequestHead,
    check_beginning,
    check_bytes,
    check_head,
)

_new = tuple.__new__  # RequestHead's own constructor is written in Python


class HeadReader:
    """Reads the heads of one connection, one after the other.

    The fields of a head may be those of later ones, too, and aren't to be changed.
    """

    __slots__ = (
        *("_fields", "_framing", "_limits", "_longest", "_parse"),
        *("_scanned", "_tail", "_version"),
    )

    def __init__(self, parse: Parse, limits: ServerLimits) -> None:
        self._parse = parse
        self._limits = limits
        self._scanned = 0  # bytes of a head that isn't whole yet
        # What followed the target of the last head; at first nothing that any head ends with.
        self._tail = b"\r"
        self._longest = 0  # bytes of a head with this tail
        self._version = b""
        self._fields: RawFields = []
        self._framing = Framing()

    def recall(self, data: bytes) -> RequestHead | None:
        """What these bytes ask for, if they are a head like the last one and nothing else."""
        tail = self._tail
        if not data.endswith(tail):
            return None
        start = PLAIN_START.fullmatch(data, 0, len(data) - len(tail))
        if start is None or len(data) > self._longest:
            return None
        return _new(RequestHead, (*start.groups(), self._version, self._fields, self._framing))

    def take(self, buffer: bytearray) -> RequestHead | None:
        """Take a head off the front of `buffer`; None while its end is missing.

        Raises BadRequest as soon as it can't become a good one.
        """
        if skip_empty_lines(buffer):
            self._scanned = 0
        if len(buffer) <= self._scanned:
            return None
        raw = cut_head(buffer, self._scanned, self._limits)
        if raw is None:
            self._scanned = len(buffer)
            return None
        self._scanned = 0
        return self.recall(raw) or self._read(raw)

    def _read(self, raw: bytes) -> RequestHead:
        check_bytes(raw)
        head = self._parse(raw)
        framing = check_head(head, self._limits)
        tail = raw[raw.index(b" ", len(head.method) + 1) :]
        if head.method != b"CONNECT" and len(tail) <= _limits.MAX_KEPT_FIELDS:
            self._tail, self._version, self._fields = tail, head.version, head.fields
            self._framing = framing
            limits = self._limits
            self._longest = min(limits.max_head_size, limits.max_target_size + len(tail))
        return RequestHead(*head, framing)


def skip_empty_lines(buffer: bytearray) -> bool:
    """RFC 9112, 2.2: empty lines in front of a request are ignored.  Whether there were any."""
    found = False
    while buffer.startswith(b"\r\n"):
        del buffer[:2]
        found = True
    return found


def cut_head(buffer: bytearray, scanned: int, limits: ServerLimits) -> bytes | None:
    """Take a whole head off the front of `buffer`; None while its end is missing.

    The first `scanned` bytes were seen before.  Raises BadRequest as soon as it
    can't become a head any more.
    """
    end = buffer.find(b"\r\n\r\n", max(0, scanned - 3), limits.max_head_size)
    if end < 0:
        check_beginning(buffer, scanned, limits)
        return None
    head = bytes(buffer[: end + 4])
    del buffer[: end + 4]
    return head
