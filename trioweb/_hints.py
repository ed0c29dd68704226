"""Hints: a note on a failure that a habit from elsewhere has caused, for whoever reads the log.

Rules of this module:

* It looks at failures that are about to be logged, and never changes what becomes of them.
* A note says what to write instead, once.
"""

from __future__ import annotations

from types import TracebackType

from ._errors import describe, leaves

_ASYNCIO = (
    "This runs on Trio, where asyncio has no event loop. Write trio.sleep() for asyncio.sleep(), a"
    " nursery or a task list for create_task(), trio.to_thread.run_sync() for to_thread(); of a"
    " library that needs asyncio take the blocking half, in a def."
)
# What asyncio raises where no loop of its own runs; other exceptions from it are somebody's own.
_WITHOUT_LOOP = (RuntimeError, AttributeError)
# get_running_loop() is C: it leaves no frame.  A library may have put it into an error of its own.
_NO_LOOP = "no running event loop"
_OURS = ("HTTPException", "RequestValidationError")


def add_hints(failure: BaseException) -> None:
    """To each exception of a group, where there is something to say about it."""
    for exc in leaves(failure):
        hint = _hint(exc)
        if hint is not None and hint not in getattr(exc, "__notes__", ()):
            exc.add_note(hint)


def _hint(exc: BaseException) -> str | None:
    kind = type(exc)
    package = kind.__module__.partition(".")[0]
    if package in ("fastapi", "starlette") and kind.__name__ in _OURS:
        return (
            f"This is {package}'s {kind.__name__}, for which trioweb has no handler:"
            f" from trioweb import {kind.__name__}"
        )
    is_asyncios = isinstance(exc, _WITHOUT_LOOP) and _package_that_raised(exc) == "asyncio"
    return _ASYNCIO if is_asyncios or describe(exc).endswith(_NO_LOOP) else None


def _package_that_raised(exc: BaseException) -> str:
    step: TracebackType | None = exc.__traceback__
    name = ""
    while step is not None:
        name = step.tb_frame.f_globals.get("__name__", "")
        step = step.tb_next
    return name.partition(".")[0]
