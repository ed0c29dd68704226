"""Who still runs when a process has to end: tasks and threads, each with its place in the code.

Rules of this module:

* It only looks, from another thread, at what may be stuck: nothing is awaited or locked.
* A place is where the author's code is, not where Trio or trioweb wait for it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

import outcome
import trio

from .._app.app import App

# So many are named.
MAX_NAMED = 20

# Where the code of others stands: ours, Trio's, the standard library's.
_OTHERS = (
    f"{Path(__file__).parents[1]}/",
    *(
        f"{Path(str(file)).parent}/"
        for file in (trio.__file__, outcome.__file__, threading.__file__)
    ),
)


def survivors(app: object, root: trio.lowlevel.Task | None) -> list[str]:
    """The app's tasks, then whatever else of the author's code has not ended."""
    names = [*_tasks(app), *_trio_tasks(root), *_threads()]
    more = len(names) - MAX_NAMED
    return [*names[:MAX_NAMED], f"and {more} more"] if more > 0 else names


def _tasks(app: object) -> Iterator[str]:
    if isinstance(app, App):
        for task in app.tasks():
            yield f"task {task.name} of {task.request}"


def _trio_tasks(root: trio.lowlevel.Task | None) -> Iterator[str]:
    waiting = [] if root is None else [root]
    while waiting:
        task = waiting.pop()
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        place = _place(frame for frame, _ in task.iter_await_frames())
        if place is not None:
            yield place


def _threads() -> Iterator[str]:
    frames = sys._current_frames()
    for thread in threading.enumerate():
        inside_out = list(_stack(frames.get(thread.ident or 0)))
        place = _place(reversed(inside_out))
        if place is not None and thread is not threading.current_thread():
            yield f"thread {thread.name}: {place}"


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _place(frames: Iterable[FrameType]) -> str | None:
    """The first of them that is the author's; None if there is none."""
    for frame in frames:
        file = frame.f_code.co_filename
        is_command = frame.f_globals.get("__name__") == "__main__"
        if not (is_command or file.startswith(("<frozen ", *_OTHERS))):
            return f"{frame.f_code.co_qualname} ({file}:{frame.f_lineno})"
    return None
