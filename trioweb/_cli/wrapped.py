"""The `App` behind middleware: what is served is often a wrapper.

Rules of this module:

* A wrapper is known by its `app`, as nearly all ASGI middleware has it; a function that calls an
  app can't be looked through.
* It only looks: no wrapper's failure is anybody's failure, and a ring of wrappers has an end.
"""

from __future__ import annotations

from .._app.app import App

# How many wrappers are looked through; nobody has as many, but for those that wrap each other.
MOST_LAYERS = 100


def app_behind(served: object) -> App | None:
    """What is served itself, or what it wraps; None if that is no `App`."""
    for _ in range(MOST_LAYERS):
        if isinstance(served, App):
            return served
        try:
            served = getattr(served, "app", None)
        except Exception:
            return None
    return None
