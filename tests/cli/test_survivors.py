"""What still runs when a process has to end, and the author's line in each."""

from __future__ import annotations

import functools
import inspect
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trioweb
from trioweb import App, BackgroundTasks
from trioweb._cli import frames, survivors as _survivors
from trioweb._cli.survivors import MAX_FRAMES, main_stack, survivors
from trioweb.server import Server, serve
from trioweb.testing import client

# Seconds.  Only ends a wait that will never be answered.
TIMEOUT = 20.0


async def test_who_still_runs_is_named_with_the_authors_line() -> None:
    async def author() -> None:
        await trio.sleep_forever()

    release = threading.Event()
    thread = threading.Thread(target=lambda: release.wait(TIMEOUT), name="mine")
    thread.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(author)
        await wait_all_tasks_blocked()
        root = trio.lowlevel.current_root_task()
        named = await trio.to_thread.run_sync(survivors, None, root)
        nursery.cancel_scope.cancel()
    release.set()
    thread.join()
    assert any("<locals>.author (" in name and __file__ in name for name in named)
    assert any(name.startswith("thread mine: ") and __file__ in name for name in named)


def test_the_main_thread_is_shown_from_the_authors_frame_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stack() -> str:
        return main_stack()

    def is_mine(frame: FrameType) -> bool:
        return frame.f_code.co_filename == __file__

    monkeypatch.setattr(_survivors, "is_the_authors", is_mine)
    first, *_, last = stack().splitlines()
    assert first.strip().startswith(f'File "{__file__}", line ')
    assert "StackSummary" in last  # a line of ours, which looks
    monkeypatch.setattr(_survivors, "is_the_authors", lambda frame: False)
    assert 10 < stack().count("\n  File ") < MAX_FRAMES


async def test_frames_of_trioweb_are_nobodys_in_whichever_room() -> None:
    """A server's own tasks wait in its rooms; the author's task waits there too, for the server."""

    async def author(server: Server) -> None:
        await server.wait_closed()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(serve, App(), port=0))
        nursery.start_soon(author, server)
        await wait_all_tasks_blocked()
        root = trio.lowlevel.current_root_task()
        named = await trio.to_thread.run_sync(survivors, None, root)
        server.cancel()
    assert any("<locals>.author (" in name for name in named)
    package = str(Path(trioweb.__file__).parent)
    assert [name for name in named if package in name] == []


async def test_a_handler_and_a_task_are_named_where_the_app_cannot_be_seen() -> None:
    """They have no task of Trio's of their own, and an app behind middleware names none."""
    app = App()
    release = trio.Event()

    async def endless() -> None:
        await release.wait()

    @app.get("/")
    async def waits() -> None:
        await release.wait()

    @app.post("/")
    async def begin(tasks: BackgroundTasks) -> None:
        tasks.add_task(endless)

    async with client(app) as c, trio.open_nursery() as nursery:
        nursery.start_soon(c.get, "/")
        await c.post("/")
        await wait_all_tasks_blocked()
        root = trio.lowlevel.current_root_task()
        named = await trio.to_thread.run_sync(survivors, None, root)
        release.set()
        nursery.cancel_scope.cancel()
    assert any("<locals>.waits (" in name for name in named)
    assert any("<locals>.endless (" in name for name in named)


@pytest.mark.parametrize(
    ("file", "is_the_authors"),
    [
        (Path(trioweb.__file__).parent / "_http" / "request.py", False),
        (Path(trio.__file__).parent / "_core" / "_run.py", False),
        (Path(threading.__file__).parent / "concurrent" / "futures" / "thread.py", False),
        # Where Python is installed without a virtual environment, packages stand inside it.
        (Path(threading.__file__).parent / "site-packages" / "shop" / "main.py", True),
        (Path("/srv/shop/main.py"), True),
        (Path("<frozen importlib._bootstrap>"), False),
    ],
)
def test_whose_code_a_frame_runs(file: Path, is_the_authors: bool) -> None:
    assert frames.is_the_authors(frame_of(file, "shop.main")) is is_the_authors
    # The command's own script may stand anywhere.
    assert frames.is_the_authors(frame_of(file, "__main__")) is False


def frame_of(file: Path, module: str) -> FrameType:
    made: dict[str, Any] = {"inspect": inspect, "__name__": module}
    exec(compile("def frame(): return inspect.currentframe()", str(file), "exec"), made)
    frame: FrameType = made["frame"]()
    return frame


async def test_tasks_are_named_by_their_request_and_only_some_of_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Task:
        name = "send_mail"
        request = "POST /"

    app = App()
    monkeypatch.setattr(app, "tasks", lambda: [Task()] * 25)
    named = survivors(app, None)
    assert named[:20] == ["task send_mail of POST /"] * 20
    assert named[20].startswith("and ")
