"""Forms of a request's path: as it was sent, as it is routed, below a prefix.

Rules of this module:

* A path is decoded once, segment by segment: `%2F` never splits a segment.
* What the server decoded counts where the two can't be of the same path.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

# What RFC 3986 allows in a path besides letters, digits and "-._~".
PATH_SAFE: Final = "/:@!$&'()*+,;=~"

_AUTHORITY: Final = re.compile(rb"https?://[^/]+(?=/|\Z)", re.IGNORECASE)
_BAD_BYTES: Final = re.compile(rb"%(?![0-9a-fA-F]{2})|[\x80-\xff]")


def routed_path(path: str, raw_path: bytes | None) -> str:
    """The decoded path whose segments, split at `/`, are those that the matcher routes.

    It is `path`, except that a slash within a segment stays written as `%2F`.
    """
    if raw_path is None or b"%2f" not in raw_path.lower():
        return path
    try:
        segments = decoded_segments(raw_path)
    except ValueError:
        return path
    return "/".join(segment.replace("/", "%2F") for segment in segments)


def origin_form(path: str, raw_path: bytes | None) -> tuple[str, bytes | None]:
    """The path of a target that was sent as a whole URL, `GET http://host/path` (RFC 9112, 3.2.2).

    The host isn't looked at; any other target is as it was.
    """
    if path.startswith("/") or raw_path is None or not (url := _AUTHORITY.match(raw_path)):
        return path, raw_path
    raw_path = raw_path[url.end() :] or b"/"
    return unquote(raw_path.decode("latin-1")), raw_path


def below_root(root: str, path: str, raw_path: bytes | None) -> tuple[str, bytes | None]:
    """What of a path is below `root`, however that is spelled in `raw_path`."""
    if not root or not path.startswith(root + "/"):
        return path, raw_path
    below = path[len(root) :]
    if raw_path is None:
        return below, None
    segments = raw_path.decode("latin-1").split("/")
    count = root.count("/") + 1
    if [unquote(segment) for segment in segments[:count]] == root.split("/"):
        return below, "/".join(["", *segments[count:]]).encode("latin-1")
    whole = unquote("/".join(segments))
    if whole == path:  # where the root would end is a slash within a segment
        return path, raw_path
    # Some servers leave the root out of it; of any other the decoded path counts.
    return below, raw_path if whole == below else None


def as_sent(path: str, raw_path: bytes | None) -> str:
    """The path as it was sent; where the server doesn't say, as it could have been."""
    path, raw_path = origin_form(path, raw_path)
    if raw_path:
        # "%" is safe here: what is encoded already stays as it is.
        return quote(raw_path, safe=PATH_SAFE + "%")
    return quote(path, safe=PATH_SAFE, errors="replace")


def decoded_segments(raw_path: bytes) -> list[str]:
    """The segments of a path as it was received; raises `ValueError` if it is malformed."""
    if _BAD_BYTES.search(raw_path):
        raise ValueError("a malformed percent escape, or a byte beyond ASCII")
    return [unquote_to_bytes(segment).decode() for segment in raw_path.split(b"/")]
