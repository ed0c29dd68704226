"""What still runs when a process has to end: tasks and threads, each with its place in the code.

Rules of this module:

* It only looks, from another thread, at what may be stuck: it awaits nothing, and takes no lock.
* A place is a line of the author's code, not the line of Trio or trioweb that waits for it.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType

import trio

from .._concurrency.context import frames_of
from .frames import is_the_authors
from .wrapped import app_behind

# How many of them are named, and how many frames of a stack are shown.
MAX_NAMED = 20
MAX_FRAMES = 50


def survivors(app: object, root: trio.lowlevel.Task | None) -> list[str]:
    """The app's tasks, whatever wraps it, then what else of the author's code has not ended."""
    names = [*_tasks(app), *_trio_tasks(root), *_threads()]
    more = len(names) - MAX_NAMED
    return [*names[:MAX_NAMED], f"and {more} more"] if more > 0 else names


def main_stack() -> str:
    """Where the main thread stands, from the author's first frame on, the innermost one last."""
    inside_out = list(_stack(sys._current_frames()[threading.main_thread().ident or 0]))
    theirs = [number for number, frame in enumerate(inside_out, 1) if is_the_authors(frame)]
    shown = inside_out[: max(theirs, default=len(inside_out))][:MAX_FRAMES]
    places = ((frame, frame.f_lineno) for frame in reversed(shown))
    return "".join(traceback.StackSummary.extract(places).format()).rstrip()


def _tasks(served: object) -> Iterator[str]:
    app = app_behind(served)
    if app is not None:
        for task in app.tasks():
            yield f"task {task.name} of {task.request}"


def _trio_tasks(root: trio.lowlevel.Task | None) -> Iterator[str]:
    waiting = [] if root is None else [root]
    while waiting:
        task = waiting.pop()
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        place = _place(frames_of(task))
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
    """Where the first frame of the author's stands; None if there is none."""
    for frame in frames:
        if is_the_authors(frame):
            return f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
    return None
