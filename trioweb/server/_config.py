"""The options of the server: their names, types, defaults, and what each of them is.

Rules of this module:

* An option is a field of `ServerConfig`, and nothing else has to be changed to add one but
  `ServerOptions`, which says the same to whoever calls `serve` with keywords.  A test holds the two
  against each other.
* What an option is stands in the docstring of `ServerConfig`; `help(serve)` shows it from there.
"""

from __future__ import annotations

import inspect
import os
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TypedDict

import trio

from . import _limits
from ._forwarded import ForwardedHeader
from ._limits import ServerLimits
from ._parsers import ParserName

AnySocket = socket.socket | trio.socket.SocketType | int


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Every option of the server.

    `host`, `port`: listen there; None is all addresses, 0 a port of the system's choice.
    `bind`, `uds`, `sockets`: listen there, not on host and port: at these addresses, written as
    "0.0.0.0:80", "[::1]:80", ":80" (all addresses), "unix:/path" or "fd://3"; on this Unix socket;
    on these bound sockets or their file descriptors, which are the server's from then on.
    `uds_permissions`: of each Unix socket that is made, such as 0o660; None leaves it to the umask.
    `backlog`: how many connections may wait in the kernel to be accepted.
    `ssl_context`: for TLS.
    `limits`: what clients can make it hold or wait for; None for those of the app, if it has any.
    `limit_overrides`: single limits, by the names of the fields of `trioweb.Limits`, in the place
    of those.
    `http`: the parser; "auto" is httptools where it is installed, else h11.
    `reuse_port`: share the port with others that ask for the same (SO_REUSEPORT).
    `root_path`: the prefix under which a proxy shows the app.
    `forwarded_allow_ips`: the peers, as addresses or networks, whose X-Forwarded-For and -Proto,
    or Forwarded, count; "*" for all.
    `forwarded_header`: which of them: "x-forwarded", "forwarded", or "auto", which takes
    X-Forwarded-* where a request has any, else Forwarded.
    `access_log`: log a line for each answer.
    `drain_timeout`: for how many seconds a shutdown waits for what is in flight; None for the
    app's own setting, or 20.
    `cleanup_timeout`: for how many seconds an app may clean up what was cancelled then; None for
    its own setting.
    `debug`: have the app answer errors with their traceback.
    """

    host: str | None = "127.0.0.1"
    port: int = 8000
    bind: str | Iterable[str] = ()
    uds: str | os.PathLike[str] | None = None
    uds_permissions: int | None = None
    sockets: Iterable[AnySocket] = ()
    backlog: int = _limits.BACKLOG
    ssl_context: ssl.SSLContext | None = None
    limits: ServerLimits | None = None
    limit_overrides: Mapping[str, int | float | None] = field(default_factory=dict)
    http: ParserName = "auto"
    reuse_port: bool = False
    root_path: str = ""
    forwarded_allow_ips: Iterable[str] = ("127.0.0.1", "::1")
    forwarded_header: ForwardedHeader = "auto"
    access_log: bool = False
    drain_timeout: float | None = None
    cleanup_timeout: float | None = None
    debug: bool = False


class ServerOptions(TypedDict, total=False):
    """The fields of `ServerConfig`, as keywords."""

    host: str | None
    port: int
    bind: str | Iterable[str]
    uds: str | os.PathLike[str] | None
    uds_permissions: int | None
    sockets: Iterable[AnySocket]
    backlog: int
    ssl_context: ssl.SSLContext | None
    limits: ServerLimits | None
    limit_overrides: Mapping[str, int | float | None]
    http: ParserName
    reuse_port: bool
    root_path: str
    forwarded_allow_ips: Iterable[str]
    forwarded_header: ForwardedHeader
    access_log: bool
    drain_timeout: float | None
    cleanup_timeout: float | None
    debug: bool


def config_of(options: ServerOptions) -> ServerConfig:
    """Raises TypeError for an option that there isn't."""
    known = [field.name for field in fields(ServerConfig)]
    for name in options.keys() - known:
        raise TypeError(f"serve() has no option {name!r}; it has {', '.join(known)}")
    return ServerConfig(**options)


def with_options(docstring: str | None) -> str | None:
    """With what each option is, below the line that says where that stands."""
    if docstring is None or ServerConfig.__doc__ is None:
        return docstring  # as with -OO
    line = "The options are the fields of `ServerConfig`"
    told = inspect.cleandoc(ServerConfig.__doc__).partition("\n\n")[2]
    return inspect.cleandoc(docstring).replace(f"{line}.", f"{line}:\n\n{told}")
