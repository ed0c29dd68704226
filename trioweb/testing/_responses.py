"""A response as a test sees it.

Rules of this module:

* It is there from its head on; the pieces of its body come as they are asked for.
* What has been read stays: a read that is cancelled or breaks off loses nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from email.message import Message as MIMEFields
from typing import Any

from .._asgi import Message
from .._http.headers import Headers
from .._instead import tells_instead
from ._conversation import Conversation
from ._cookies import keep_cookies


@tells_instead()
class ClientResponse(AsyncIterator[bytes]):
    """A response.  `async for` gives the pieces of its body that haven't been read yet.

    `status_code`; `headers`, a mapping with names in any case and `getlist`;
    `cookies`, those that it set; `is_complete`: whether the last byte has been read.

    Iterating raises `IncompleteResponse`, and trio.ClosedResourceError past the
    end of its block.  Cancellation loses nothing.
    """

    def __init__(
        self, head: Message, conversation: Conversation, disconnect_after: int | None
    ) -> None:
        self.status_code: int = head["status"]
        self.headers: Headers = Headers(head["headers"])
        self.cookies: dict[str, str] = {}
        keep_cookies(self.cookies, self.headers)
        self.is_complete: bool = False
        self._conversation = conversation
        self._chunks: list[bytes] = []
        self._bytes_left = sys.maxsize if disconnect_after is None else disconnect_after
        self._is_over = False
        self._leave_in_time()

    @property
    def content(self) -> bytes:
        """What has been read of the body."""
        return b"".join(self._chunks)

    @property
    def text(self) -> str:
        """`content`, decoded as its content type says, else as UTF-8."""
        fields = MIMEFields()
        fields["content-type"] = self.headers.get("content-type", "")
        return self.content.decode(fields.get_content_charset("utf-8"), "replace")

    def json(self) -> Any:
        """`content` as JSON.  Raises ValueError."""
        return json.loads(self.content)

    async def read(self) -> bytes:
        """Read to the last byte, or to where the client leaves; returns `content`."""
        async for _ in self:
            pass
        return self.content

    async def __anext__(self) -> bytes:
        while not self._is_over:
            if chunk := self._accept(await self._conversation.take()):
                return chunk
        raise StopAsyncIteration

    def _accept(self, message: Message) -> bytes:
        body = message.get("body", b"")
        chunk: bytes = body[: self._bytes_left]
        self._bytes_left -= len(chunk)
        self._chunks.append(chunk)
        if not message.get("more_body", False):
            self._is_over = True
            self.is_complete = len(chunk) == len(body)
        self._leave_in_time()
        return chunk

    def _leave_in_time(self) -> None:
        if self._bytes_left <= 0:
            self._is_over = True
            self._conversation.leave()

    def __repr__(self) -> str:
        size = sum(map(len, self._chunks))
        return f"<ClientResponse {self.status_code}, {size} bytes read>"
