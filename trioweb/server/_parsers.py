"""The parsers: h11, and httptools where it is installed, behind one seam.

Rules of this module:

* The seam is one function, `Parse`: the bytes of one whole head, checked by the
  strict layer, to a `ParsedHead`; BadRequest if the parser finds fault all the same.
* A parser never sees a body, nor two requests: what it might carry over from one to
  the next is thrown away with it.
* Either is imported when it is first used: whoever serves with the other, or not at all,
  doesn't wait for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal

from .._asgi import RawFields
from ._errors import BadRequest
from ._strict import ParsedHead, check_raw_framing

Parse = Callable[[bytes], ParsedHead]
ParserName = Literal["auto", "h11", "httptools"]


def parser(name: ParserName) -> Parse:
    """The parser of that name; `auto` is httptools where it is installed, else h11."""
    # Either needs it, and when the first request comes there may be no more files to read it from.
    importlib.import_module("h11")
    if name == "h11":
        return parse_with_h11
    try:
        return HttptoolsParser()
    except ModuleNotFoundError:
        if name == "auto":
            return parse_with_h11
        raise ModuleNotFoundError(
            "the parser httptools is not installed: pip install httptools, or --http h11"
        ) from None


def parse_with_h11(raw: bytes) -> ParsedHead:
    import h11

    check_raw_framing(raw)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(raw))
    connection.receive_data(raw)
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError as exc:
        raise BadRequest(exc.error_status_hint, str(exc)) from None
    assert isinstance(request, h11.Request)  # the head is whole
    return ParsedHead(request.method, request.target, request.http_version, list(request.headers))


class HttptoolsParser:
    """llhttp, called with one head after the other.

    What it doesn't take goes to h11, whose word counts: methods beyond its list, what it
    would leave the protocol for, CONNECT and Upgrade, and whatever else it finds fault with.
    """

    def __init__(self) -> None:
        import httptools

        self._errors: Any = httptools
        self._renew()

    def _renew(self) -> None:
        self._parser = self._errors.HttpRequestParser(self)

    def __call__(self, raw: bytes) -> ParsedHead:
        self._fields: RawFields = []
        self._reusable = False
        parser = self._parser
        try:
            parser.feed_data(raw)
        except (self._errors.HttpParserUpgrade, self._errors.HttpParserError):
            self._renew()
            return parse_with_h11(raw)
        if not self._reusable:
            self._renew()  # it waits for a body, or for the end of the connection
        # The start line was checked: asking llhttp for its parts would cost three more calls.
        method, target, rest = raw.split(b" ", 2)
        return ParsedHead(method, target, rest[5:8], self._fields)

    # What llhttp calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value.strip(b" \t")))

    def on_message_complete(self) -> None:
        # The parser has forgotten it when it is asked later.
        self._reusable = self._parser.should_keep_alive()
