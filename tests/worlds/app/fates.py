"""Who may cancel what, and what is to become of a request: read off the records.

Rules of this module:

* It knows the contract, not the code: causes are what the server, the client and
  the plan did, and when.
* Of what happens at the same time either may be first: the answer is "either" then.
"""

from __future__ import annotations

import math
from typing import Literal

from .world import RequestRecord, World

Fate = Literal["success", "failure", "either"]


def may_be_cancelled_at(world: World, request: RequestRecord) -> float:
    """From when on a task of this request may be cancelled; infinity where never.

    By the app's end; by a child that failed in its nursery; with the call, if its
    handler hadn't returned by then.  By nothing else.
    """
    return min(world.app_cancelled_at, request.child_failed_at, _call_ended_it_at(request))


def _call_ended_it_at(request: RequestRecord) -> float:
    cancelled_at = request.call_cancelled_at
    if cancelled_at > request.call_over_at:
        return math.inf
    handler = request.handler
    returned = handler is not None and handler.how == "returned"
    was_first = returned and handler is not None and handler.ended_at < cancelled_at
    return math.inf if was_first else cancelled_at


def fate(world: World, request: RequestRecord, cancelled_at: float) -> Fate:
    """What counts for its tasks; `cancelled_at` is when its handler was, if it still ran."""
    handler, plan = request.handler, request.plan
    if handler is None or request.call_over_at >= world.app_cancelled_at:
        return "either"
    if handler.how in ("raised", "broken"):
        return "failure"
    if handler.how == "cancelled":
        return "either" if request.call_cancelled_at <= handler.ended_at else "failure"
    if request.failed_before_head:
        # As if the handler had raised it; but the head, or an end, may come at the same moment.
        is_disturbed = min(cancelled_at, request.call_cancelled_at) <= request.call_over_at
        return "either" if request.has_head or request.left or is_disturbed else "failure"
    spoils = any(d.exit_fails and d.scope == "function" for d in plan.dependencies)
    disturbed = min(cancelled_at, request.child_failed_at) <= handler.ended_at
    if spoils or disturbed or request.child_failed_at <= request.call_over_at:
        return "either"
    return "success"
