"""What users may set of all limits, those of the app and those of the server.

Rules of this module:

* Each limit is defined in the wing that keeps it; here the two meet.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._limits import AppLimits
from ..server import ServerLimits


@dataclass(frozen=True, kw_only=True)
class Limits(AppLimits, ServerLimits):
    """What clients can make an app and its server hold or wait for.

    Passed as `App(limits=Limits(…))`.  Sizes are in bytes, times in seconds.

    The app keeps, on every server: `max_body_size`, of one request; past it the answer
    is 413; a route can set its own.  `max_pending_tasks`: how many tasks may wait; past
    it new requests get 503.  `max_running_tasks`: how many run at once, None for as many
    as there are; the others wait their turn.  `max_task_threads`: the same for `def`
    tasks, which run in threads.

    The embedded server keeps: `max_target_size`; past it the answer is 414.
    `max_head_size`, `max_fields`: 431.  `head_timeout`: for a whole head; 408.
    `body_timeout`, `write_timeout`: how long a client that neither sends nor reads at
    least 1 KiB a second may keep a request waiting; 408, or the connection is closed.
    `idle_timeout`: between two requests.  `max_connections`: past it nothing is
    accepted.  `max_requests`: in flight; past it 503.  `max_connection_requests`: the
    last one's answer says `Connection: close`.
    """

    def __post_init__(self) -> None:
        AppLimits.__post_init__(self)
        ServerLimits.__post_init__(self)
