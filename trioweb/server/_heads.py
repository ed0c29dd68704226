"""Heads of one connection: bytes to what was asked, and what of it is known already.

Rules of this module:

* The strict layer sees every byte first; then a parser; then the strict layer judges
  what the parser made of it.
* A client's next head mostly differs from its last in method and path alone.  What
  follows these is kept, and what was made of it: while it is the same, byte by byte,
  neither has to read it again (that is 20 of 28 thousand instructions with httptools,
  and far more with h11).  Method and path are checked each time.
"""

from __future__ import annotations

from .._asgi import RawFields
from . import _limits, _strict
from ._limits import ServerLimits
from ._parsers import Parse
from ._strict import Framing, Head

Asked = tuple[Head, Framing]

_new = tuple.__new__  # Head's own constructor is written in Python


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

    def recall(self, data: bytes) -> Asked | None:
        """What these bytes ask for, if they are a head like the last one and nothing else."""
        if not data.endswith(self._tail):
            return None
        start = _strict.plain_start(data, len(data) - len(self._tail))
        if start is None or len(data) > self._longest:
            return None
        return _new(Head, (*start, self._version, self._fields)), self._framing

    def take(self, buffer: bytearray) -> Asked | None:
        """Take a head off the front of `buffer`; None while its end is missing.

        Raises BadRequest as soon as it can't become a good one.
        """
        if _strict.skip_empty_lines(buffer):
            self._scanned = 0
        if len(buffer) <= self._scanned:
            return None
        raw = _strict.cut_head(buffer, self._scanned, self._limits)
        if raw is None:
            self._scanned = len(buffer)
            return None
        self._scanned = 0
        return self.recall(raw) or self._read(raw)

    def _read(self, raw: bytes) -> Asked:
        _strict.check_bytes(raw)
        head = self._parse(raw)
        framing = _strict.check_head(head, self._limits)
        tail = raw[raw.index(b" ", len(head.method) + 1) :]
        if head.method != b"CONNECT" and len(tail) <= _limits.MAX_KEPT_FIELDS:
            self._tail, self._version, self._fields = tail, head.version, head.fields
            self._framing = framing
            limits = self._limits
            self._longest = min(limits.max_head_size, limits.max_target_size + len(tail))
        return head, framing
