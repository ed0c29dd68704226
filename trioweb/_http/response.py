"""Responses: what a handler returns, and how it goes to the server.

Rules of this module:

* A response is checked when it is made: status, header fields and body can't
  fail any more once the first byte is on its way.
* A response to HEAD has the header fields of the one to GET, and no body; 204
  and 304 have none either (RFC 9110, 9.3.2 and 15).
* `send` returns when the server has accepted the last byte.  Meanwhile what the
  client still sends is read and thrown away: Hypercorn's last `send` waits for
  its reader, and its reader for us.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from .. import _limits
from .._asgi import Message, RawFields
from .._fields import checked_value, refuse_control_characters
from .._instead import tells_instead
from .._shapes.codecs import Codecs
from .._shapes.encoding import encode_json
from .._tasks.list import BackgroundTasks
from .._tasks.task import BackgroundTask
from .cookies import format_cookie
from .exchange import Exchange
from .headers import ResponseHeaders
from .url import URL

WITHOUT_BODY = (204, 304)
_URL_SAFE = ":/%#?=@[]!$&'()*+,;~"


@tells_instead()
class Response:
    """A response with a body in one piece: `bytes`, `str` (sent as UTF-8) or None.

    `media_type` is the content type, to which `; charset=utf-8` is added for
    text.  `background` are tasks to run after it.
    """

    media_type: ClassVar[str | None] = None
    # Whether sending it waits for more than the server.
    streams: ClassVar[bool] = False
    # Whether all of its body was made; of one that streams, once it is.
    is_whole: bool = True

    def __init__(
        self,
        content: Any = None,
        status_code: int = 200,
        headers: Mapping[str, str | int] | None = None,
        media_type: str | None = None,
        background: BackgroundTasks | BackgroundTask | None = None,
    ) -> None:
        self.status_code = status_code
        self.background: BackgroundTasks | BackgroundTask | None = (
            None if background is None else _checked_background(background)
        )
        self._content_type = _content_type(media_type or self.media_type)
        # Made when first asked for: most responses have no header field of their own.
        self._headers = ResponseHeaders(headers) if headers else None
        body: object = self.render(content)
        self.body: bytes = (
            body if type(body) is bytes else as_bytes(body, self, "so is what it renders")
        )
        if self.body and status_code in WITHOUT_BODY:
            raise ValueError(f"a response with status {status_code} has no body")

    @property
    def status_code(self) -> int:
        """May be set until the response is sent; 204 and 304 send no body, whatever it was."""
        return self._status_code

    @status_code.setter
    def status_code(self, status_code: int) -> None:
        self._status_code = _checked_status(status_code)

    def render(self, content: Any) -> bytes:
        """The body for `content`; a subclass says how."""
        if content is None:
            return b""
        return as_bytes(content, self, "JSONResponse takes what JSON can hold")

    @property
    def headers(self) -> ResponseHeaders:
        """The header fields to add; those for type and length of the body come by themselves."""
        if self._headers is None:
            self._headers = ResponseHeaders()
        return self._headers

    def set_cookie(
        self,
        key: str,
        value: str | int = "",
        max_age: int | None = None,
        expires: datetime | str | int | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["lax", "strict", "none"] | None = "lax",
        partitioned: bool = False,
    ) -> None:
        """Add a `Set-Cookie` (RFC 6265).

        `max_age` is in seconds; `expires` is a moment, or so many seconds from now.
        """
        cookie = format_cookie(
            key,
            value,
            max_age=max_age,
            expires=expires,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
        )
        self.headers.append("set-cookie", cookie)

    def delete_cookie(
        self,
        key: str,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["lax", "strict", "none"] | None = "lax",
        partitioned: bool = False,
    ) -> None:
        """Make the browser forget a cookie; `path` and `domain` are those it was set with."""
        self.set_cookie(
            key,
            max_age=0,
            expires="Thu, 01 Jan 1970 00:00:00 GMT",
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
        )

    async def send(self, exchange: Exchange) -> bool:
        """Give the response to the server; returns when it has accepted the last byte.

        False when the client is known to have left before.
        """
        status = self.status_code  # a subclass may work it out
        shows_body = shows_body_of(status, exchange)
        try:
            if exchange.server is not None and shows_body and type(self.body) is bytes:
                # The server says how long it is.
                fields = self._fields(None, length_is_ours=True)
                sending = exchange.send_whole(status, fields, self.body)
                if sending is not None:
                    await sending
                    return True
            await exchange.send_head(self._head(len(self.body)))
            body = self.body if shows_body else b""
            if len(body) > _limits.LARGE_RESPONSE and exchange.wants_delivery():
                body = await exchange.send_all_but_last(body)
            is_there = await exchange.is_client_there()
            await exchange.send_last(body)
        except OSError:
            return False
        return is_there

    async def close(self, exchange: Exchange) -> None:
        """Let go of what the body comes from, when the response won't be sent."""

    def _head(self, size: int | None) -> Message:
        status = self.status_code
        has_no_body = status in WITHOUT_BODY
        fields = self._fields(
            None if has_no_body else size, length_is_ours=has_no_body or size is not None
        )
        return {"type": "http.response.start", "status": status, "headers": fields}

    def _fields(self, size: int | None, *, length_is_ours: bool) -> RawFields:
        """The header fields, with the length of the body where that is given."""
        fields = self._content_type.copy()
        if size is not None:
            fields.append((b"content-length", b"%d" % size))
        if self._headers is not None:
            fields = _merged(fields, self._headers.raw, length_is_ours=length_is_ours)
        return fields


class JSONResponse(Response):
    """Anything that msgspec or a pydantic model can make JSON of."""

    media_type: ClassVar[str | None] = "application/json"

    def render(self, content: Any) -> bytes:
        return encode_json(content)


class HTMLResponse(Response):
    """HTML text, sent as UTF-8."""

    media_type: ClassVar[str | None] = "text/html"


class PlainTextResponse(Response):
    """Plain text, sent as UTF-8."""

    media_type: ClassVar[str | None] = "text/plain"


class RedirectResponse(Response):
    """Sends the client to `url`; 307 keeps the method, 303 makes it GET.

    It may be a class's that has a text of its own, as `request.url` and those of other
    libraries are.  Characters that a URL can't hold are percent-encoded; CR, LF and other
    control characters raise ValueError.
    """

    def __init__(
        self,
        url: str | URL,
        status_code: int = 307,
        headers: Mapping[str, str | int] | None = None,
        background: BackgroundTasks | BackgroundTask | None = None,
    ) -> None:
        super().__init__(None, status_code, headers, background=background)
        target = _url_text(url)
        refuse_control_characters("header 'location'", target)
        self.headers["location"] = quote(target, safe=_URL_SAFE)


def _url_text(url: object) -> str:
    """Raises TypeError for what only has a text as anything has one, such as None."""
    if isinstance(url, bytes) or type(url).__str__ is object.__str__:
        raise TypeError(
            f"RedirectResponse takes a URL, as text or of a class for URLs, not {url!r}"
        )
    return str(url)


def shows_body_of(status: int, exchange: Exchange) -> bool:
    """Whether the client gets to see the body of a response with this status."""
    return exchange.scope["method"] != "HEAD" and status not in WITHOUT_BODY


def as_response(result: Any, status_code: int, exchange: Exchange) -> Response:
    """What a handler returned, as the response that it stands for."""
    if not isinstance(result, Response):
        if result is None and status_code in WITHOUT_BODY:
            return Response(None, status_code)
        return JSONResponse(result, status_code)
    if result.background is not None:
        exchange.adopt(result.background)
    return result


Respond = Callable[[Any, int, Exchange], Response]


def responder(codecs: Codecs) -> Respond:
    """`as_response` for an app with these codecs: they are for what a handler returns as it is."""
    if codecs.encode is encode_json:
        return as_response

    class EncodedResponse(JSONResponse):
        def render(self, content: Any) -> bytes:
            return codecs.encode(content)

    def encode_as_response(result: Any, status_code: int, exchange: Exchange) -> Response:
        if isinstance(result, Response) or (result is None and status_code in WITHOUT_BODY):
            return as_response(result, status_code, exchange)
        return EncodedResponse(result, status_code)

    return encode_as_response


def as_bytes(content: object, response: Response, hint: str) -> bytes:
    if isinstance(content, str):
        return content.encode("utf-8")
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    kinds = type(response).__name__, type(content).__name__
    raise TypeError("a {} holds str or bytes, not {}; {}".format(*kinds, hint))


def _checked_background(
    background: BackgroundTasks | BackgroundTask,
) -> BackgroundTasks | BackgroundTask:
    """As it is; a function or a list in its place would be found out after the answer."""
    if not isinstance(background, (BackgroundTasks, BackgroundTask)):
        right = "BackgroundTask(func, *args), or several: BackgroundTasks([BackgroundTask(…), …])"
        raise TypeError(f"background={background!r} isn't a task; take {right}")
    return background


def _checked_status(status_code: int) -> int:
    if not isinstance(status_code, int) or not 200 <= status_code <= 599:
        raise ValueError(f"{status_code!r} isn't the status of a response: 200 to 599")
    return int(status_code)  # an HTTPStatus too: servers and logs are given a plain number


@functools.lru_cache(maxsize=64)
def _content_type(media_type: str | None) -> RawFields:
    """The header field for it, if there is one."""
    if media_type is None:
        return []
    if not isinstance(media_type, str):
        raise TypeError(f"media_type must be a str, not {media_type!r}")
    if media_type.startswith("text/") and "charset=" not in media_type:
        media_type += "; charset=utf-8"
    return [(b"content-type", checked_value("content-type", media_type))]


def _merged(ours: RawFields, theirs: RawFields, *, length_is_ours: bool) -> RawFields:
    """The response's own fields over ours; but the length of a body that we know is ours."""
    if length_is_ours:
        theirs = [field for field in theirs if field[0] != b"content-length"]
    names = {name for name, _ in theirs}
    return [field for field in ours if field[0] not in names] + theirs
