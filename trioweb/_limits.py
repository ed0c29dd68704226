"""The limits: each one a named constant with its unit, and what a user may set.

Rules of this module:

* A number that bounds what the network or the application can make us hold or
  wait for stands here, nowhere else.
* What users may want to change is a field of `AppLimits`; the rest is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

KIB = 1024  # bytes
MIB = 1024 * KIB  # bytes

# How long the shutdown waits for requests and tasks before it cancels them, and
# then for their cleanup; both are settings of `App`.
DRAIN_TIMEOUT = 20.0  # seconds
CLEANUP_TIMEOUT = 5.0  # seconds

# What ends with the cleanup time still has to land in the server's calls.
LANDING_TIME = 0.5  # seconds

# What the cleanup of tasks has left of the cleanup time may be nothing; their
# request's dependencies have this much to close in all the same.
EXIT_TIME = 0.5  # seconds

# So many tasks that didn't finish are named in the report of a shutdown.
MAX_NAMED_TASKS = 20

# How often the log names what holds a shutdown up past the cleanup timeout.
OFFENDER_INTERVAL = 5.0  # seconds

# How long the iterator behind a response may take to close after its client left.
STREAM_CLOSE_TIMEOUT = 5.0  # seconds

# How long the head of a streamed response waits for its first piece: what fails by then still gets
# an answer of its own.  A client that waits for events learns that late that there is a stream.
FIRST_PIECE_TIME = 0.5  # seconds

# After an early answer the rest of the request's body is read and thrown away:
# closing a socket with unread data resets it, and the client may lose the answer.
LINGER_TIME = 2.0  # seconds
LINGER_SIZE = 64 * MIB  # bytes

# What of a request's body may wait unread while we watch for the client leaving.
READ_AHEAD = 64 * KIB  # bytes

# After so much of a list, tasks that may not have waited for anything, others get their turn.
TASKS_IN_A_TURN = 16
TURN_TIME = 0.001  # seconds

# How long a handler runs before anybody listens for its client leaving.
DEPARTURE_GRACE = 0.2  # seconds

# How long we look whether a client has left, for tasks that are to run only if it hasn't; and how
# often, since a server under load needs some turns of the loop to find out.
DEPARTURE_TIME = 0.001  # seconds
DEPARTURE_LOOKS = 5

# From this size on a response may have to wait for its reader, in a scope that ends with the drain.
LARGE_RESPONSE = 64 * KIB  # bytes

# Fields of one query string; parsing costs time for each.
MAX_QUERY_FIELDS = 1000

# The characters of a number in a path.  A program can lower Python's limit for int() to 640 digits,
# no further; the longest float that is written without an exponent, a very small one, has 326.
MAX_NUMBER_LENGTH = 400

# Problems that one answer lists; how deep they are looked for; how many of a body's values are
# looked at for them, some 50 ms; characters that are sent back of a message or a key.
MAX_PROBLEMS = 100
MAX_PROBLEM_DEPTH = 32
MAX_PROBLEM_VISITS = 20_000
MAX_PROBLEM_TEXT = 200

# Of what msgspec refuses although it may fit, so much is read once more, which takes some 50 ms.
MAX_SECOND_READING = 256 * KIB  # bytes

# From this size on a body may hold enough values of one hash to cost time, and so many it may hold.
LONG_BODY = 16 * KIB  # bytes
MAX_OF_ONE_HASH = 100


@dataclass(frozen=True, kw_only=True)
class AppLimits:
    """What one app may be made to hold.

    `max_body_size`: bytes of one request's body; past it the answer is 413.  A
    route can set its own.  `max_pending_tasks`: how many tasks may wait; past it
    new requests get 503.  `max_running_tasks`: how many tasks run at once, None for
    as many as there are; the others wait their turn, and one that waits for another
    keeps its own place meanwhile.  `max_task_threads`: the same for `def` tasks,
    which run in threads.
    """

    max_body_size: int = 1 * MIB
    max_pending_tasks: int = 10_000
    max_running_tasks: int | None = None
    max_task_threads: int = 20

    def __post_init__(self) -> None:
        for field in fields(AppLimits):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"Limits({field.name}={value!r}): needs a whole number of at least 1"
                )
