"""The limits of the server: each one a named constant with its unit.

Rules of this module:

* What a client can make the server hold, read, or wait for is bounded by a number
  that stands here, nowhere else.
* What users may want to change is a field of `ServerLimits`; the rest is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

KIB = 1024  # bytes
MIB = 1024 * KIB  # bytes

# How much one read takes at most; most heads are small, and so is the buffer made for them.
READ_SIZE = 64 * KIB  # bytes
HEAD_READ_SIZE = 16 * KIB  # bytes

# How much of what follows a request is read while its handler watches for the client leaving.
READ_AHEAD = 64 * KIB  # bytes

# Header fields that are kept for the connection's next request, which mostly has the same.
MAX_KEPT_FIELDS = 4 * KIB  # bytes

# A client that moves fewer bytes than this in a second uses up the time that it has.
MIN_RATE = 1 * KIB  # bytes a second

# So much the kernel takes at most of what it can't send yet: by itself it would take megabytes
# for each client that doesn't read, and it would be long until that shows.  Where there is nothing
# but a loopback interface, a response of a megabyte in one piece takes twice as long for it.
MAX_UNSENT = 256 * KIB  # bytes

# So much is written at most to a stream that doesn't tell how much of it has gone out.
WRITE_SIZE = 64 * KIB  # bytes

# How long a stream that its client takes at once goes on before others have a turn, which costs as
# much as 64 KiB of TLS.
TURN = 0.001  # seconds

# So much is encrypted at once, and so much before others have a turn.
TLS_PIECE = 64 * KIB  # bytes
TLS_TURN = 512 * KIB  # bytes

# What TLS answers to a client by itself, which may read none of it.
MAX_TLS_ANSWERS = 64 * KIB  # bytes

# What a client still sends after an answer that leaves some of it unread is read and thrown
# away: closing a socket with unread data resets it, and the client may lose the answer.
LINGER_TIME = 2.0  # seconds
LINGER_SIZE = 1 * MIB  # bytes

# What of a request's body the app left unread may be skipped for the next request's sake.
MAX_SKIPPED_BODY = 64 * KIB  # bytes

# How long a `receive` that is cancelled already looks whether the client has left.
GLANCE_TIME = 0.001  # seconds

# How long, behind the end of a response to a client that has closed its sending side, the server
# looks whether the client has taken or refused it; and how often.
SETTLING_TIME = 0.5  # seconds
SETTLING_LOOKS = 100

# A chunk's size is written in so many hexadecimal digits, its line in so many bytes.
MAX_CHUNK_DIGITS = 16
MAX_CHUNK_LINE = 4 * KIB  # bytes

# The longest method; the longest in IANA's registry has 17 characters.
MAX_METHOD_SIZE = 32  # bytes

# So many proxies, one behind the other, are believed; past them nothing is read.
MAX_HOPS = 64  # proxies

# How long a TLS handshake may take.
HANDSHAKE_TIME = 10.0  # seconds

# How often the sweep looks for what has run out of time; no limit can be shorter.
SWEEP_INTERVAL = 0.1  # seconds

# How long a shutdown waits for what is in flight, where the app says nothing else.
DRAIN_TIMEOUT = 20.0  # seconds

# How long a lifespan may take to close after it was told to at once, where nobody says anything.
CLEANUP_TIMEOUT = 5.0  # seconds

# What it may take beyond its cleanup time, of which its requests may have left it nothing.
CLOSING_TIME = 0.75  # seconds

# Who has connected so short a time before the end may be about to send a request.
HEADWAY = 0.05  # seconds

# What is on its way when an app has drained still has to land.
LANDING_TIME = 0.2  # seconds

# How long a worker that is replaced waits for its idle connections: each is closed after one more
# answer, or by its client, or when it has been idle for too long.
LONGEST_RETIREMENT = 90.0  # seconds

# How long accepting waits when the machine has no more files for connections.
OUT_OF_FILES_PAUSE = 0.1  # seconds

# How often a port of the system's choice is tried that is to be free at all addresses of a host.
PORT_ATTEMPTS = 10

# Connections that may wait in the kernel to be accepted, where nothing else is said.
BACKLOG = 2048

# How much of the reason for a refusal is logged: parsers quote what they were given.
MAX_REASON = 200  # characters
# How long a worker that has more connections than another lets that one go first: time enough to
# wake up, and little for a client to wait while the other one is busy.
LET_OTHERS_GO = 0.002  # seconds

# Of several workers each accepts one connection at a time, and one more for so many that it has: a
# thousand at once are accepted soon, and a dozen are spread evenly.
CONNECTIONS_FOR_ONE_MORE = 4

# A worker whose event loop comes so late to what is due has too much to do: others may help.
LATE = 0.005  # seconds

# A connection is idle when nothing has come on it between so many signs of life of its worker: one
# that is late has not yet seen what its clients have sent.
IDLE_LOOKS = 8

# How often a worker gives a sign of life, and for how long others wait for it after the last one.
LIFE_SIGN_INTERVAL = 0.25  # seconds
LIFE_SIGN_LASTS = 2.0  # seconds

# A limit that has held nobody back for so long is left; reached on and off, it is logged once.
LIMIT_QUIET_TIME = 5.0  # seconds

# Lines of the access log that wait to be written.
MAX_WAITING_LOG_LINES = 10_000


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What clients may make the server hold or wait for.

    Sizes are in bytes, times in seconds.  `max_target_size`: past it the answer is
    414.  `max_head_size`, `max_fields`: 431.  `head_timeout`: for a whole head, then
    408.  `body_timeout`, `write_timeout`: how long a client that neither sends nor
    reads at least 1 KiB a second may keep a request waiting; then 408, or the
    connection is closed.  `idle_timeout`: between two requests.  `max_connections`:
    past it nothing is accepted.  `max_requests`: in flight, but for those
    that wait for their clients; past it 503.
    `max_connection_requests`: the last one's answer says `Connection: close`.
    """

    max_target_size: int = 8 * KIB
    max_head_size: int = 16 * KIB
    max_fields: int = 100
    head_timeout: float = 10.0
    body_timeout: float = 15.0
    write_timeout: float = 30.0
    idle_timeout: float = 5.0
    max_connections: int = 1_000
    max_requests: int = 256
    max_connection_requests: int = 1_000

    def __post_init__(self) -> None:
        for field in fields(ServerLimits):
            check = _check_seconds if field.name.endswith("timeout") else _check_count
            check(field.name, getattr(self, field.name))


def limits_of(app: object) -> ServerLimits:
    """An app, or what it says of itself, may bring limits, as an attribute of that name."""
    limits = getattr(app, "limits", None)
    return limits if isinstance(limits, ServerLimits) else ServerLimits()


def overridden(limits: ServerLimits, overrides: Mapping[str, Any]) -> ServerLimits:
    """With those of the overrides that it has in their place.

    Raises ValueError for what can't be one.
    """
    known = {field.name for field in fields(limits)}
    return replace(limits, **{name: overrides[name] for name in overrides.keys() & known})


def limits_of_others(overrides: Iterable[str]) -> list[str]:
    """Those of them that the server doesn't keep."""
    return sorted(set(overrides) - {field.name for field in fields(ServerLimits)})


def _check_seconds(name: str, value: object) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not SWEEP_INTERVAL <= value <= math.inf:  # type: ignore[operator]
        raise ValueError(f"Limits({name}={value!r}): needs at least {SWEEP_INTERVAL} seconds")


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"Limits({name}={value!r}): needs a whole number of at least 1")
