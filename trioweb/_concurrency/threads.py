"""Places for threads: how many a function may have, so that nobody waits for who waits for it.

Rules of this module:

* What runs in a thread may block until another request lets go of something, and that request may
  need a thread for its next step first.  If both came out of the same places, all could be taken by
  those who wait: no handler would run any more, not even after their clients have left.
* So each function has places of its own.  Who waits for one then waits for nothing but calls of
  that very function, and they wait, if at all, for requests that are past it.
* There are as many for each function as Trio's own limiter has, `/health` or not.
"""

from __future__ import annotations

import trio
from trio.lowlevel import RunVar

_places: RunVar[dict[object, trio.CapacityLimiter]] = RunVar("trioweb_places")


def places_of(function: object) -> trio.CapacityLimiter:
    """The places of this function's threads, in this run of Trio."""
    try:
        places = _places.get()
    except LookupError:
        places = {}
        _places.set(places)
    count = trio.to_thread.current_default_thread_limiter().total_tokens
    if function not in places:
        places[function] = trio.CapacityLimiter(count)
    own = places[function]
    own.total_tokens = count  # its owner may have set another one meanwhile
    return own
