"""What the client needs of an `App` that ASGI has no words for: its tasks, and its threads.

Rules of this module:

* Everything else that the client does with an app goes by ASGI's messages.
* When the client has ended, the app is as it was before.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from .._app.app import App, inner_of, lifetime_of
from .._lifetime.events import Event, TaskEnded
from .._tasks.task import BackgroundTask

TaskErrorListener = Callable[[BackgroundTask, BaseException], None]


@contextmanager
def attached(app: App, listener: TaskErrorListener, *, threads: bool) -> Iterator[None]:
    """Within the block `listener` hears of each task that fails or times out.

    Without `threads`, every `def` of the app runs in the test's own thread.
    """
    inner = inner_of(app)
    run_sync = inner.run_sync

    def hear(event: Event) -> None:
        if isinstance(event, TaskEnded) and event.task.exception is not None:
            listener(event.task, event.task.exception)

    if not threads:
        inner.run_sync = _run_in_place
    try:
        with inner.events.listening(hear):
            yield
    finally:
        inner.run_sync = run_sync


def check_app(given: object) -> None:
    """Raises TypeError for what is no `App`, such as middleware around one."""
    if isinstance(given, App):
        return
    wrong, right = getattr(given, "__name__", None) or repr(given), "client(app), with app = App()"
    if callable(given) and not isinstance(given, type):
        right = f"client(app, asgi={wrong if wrong.isidentifier() else 'middleware'})"
    raise TypeError(
        "a client is for an App; middleware around it is given beside it\n"
        f"    wrong:  client({wrong})\n    right:  {right}"
    )


async def wait_tasks(app: App) -> None:
    """Returns when no task of the app waits or runs any more."""
    await trio.lowlevel.checkpoint()
    await lifetime_of(app).ledger.wait_idle()


async def _run_in_place(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """In place of `trio.to_thread.run_sync`; contextvars are as separate as in a thread."""
    await trio.lowlevel.checkpoint()
    return contextvars.copy_context().run(call, *args)
