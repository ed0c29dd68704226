"""Events: who watches an app sees everything once, in its order; who doesn't changes nothing."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, BackgroundTasks, StreamingResponse, task
from trioweb._app.app import inner_of, lifetime_of
from trioweb._lifetime.events import (
    CancelBegan,
    DrainBegan,
    Event,
    Events,
    RequestAnswered,
    RequestBegan,
    RequestEnded,
    ShutdownReported,
    TaskAdded,
    TaskBegan,
    TaskEnded,
)
from trioweb.testing import client

from ..support.asgi import Client
from ..support.log_records import REPORT, messages


def said(event: Event) -> str:
    """An event in a few words."""
    name = type(event).__name__
    if isinstance(event, TaskEnded):
        return f"{name} {event.task.name} {event.state}"
    if isinstance(event, (TaskAdded, TaskBegan)):
        return f"{name} {event.task.name}"
    if isinstance(event, RequestAnswered):
        delivered = "" if event.is_delivered else ", not delivered"
        return f"{name} {event.request} {event.status}{delivered}"
    if isinstance(event, (RequestBegan, RequestEnded)):
        return f"{name} {event.request}"
    return name


async def quick() -> None: ...


async def fails() -> None:
    raise OSError


@task(timeout=1)
async def endless() -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("takes", ["nothing", "a nursery"])
async def test_a_request_and_its_tasks_are_told_of_in_their_order(
    takes: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app, events = App(), list[Event]()

    async def root(tasks: BackgroundTasks) -> None:
        for func in (quick, fails, endless):
            tasks.add_task(func)

    async def root_with_nursery(tasks: BackgroundTasks, nursery: trio.Nursery) -> None:
        await root(tasks)

    app.get("/")(root if takes == "nothing" else root_with_nursery)
    with inner_of(app).events.listening(events.append):
        async with client(app) as c:
            await c.get("/")
            await c.wait_tasks()
            await trio.testing.wait_all_tasks_blocked()
            heard = [said(event) for event in events]
    assert heard == [
        "RequestBegan GET /",
        "TaskAdded quick",
        "TaskAdded fails",
        "TaskAdded endless",
        "RequestAnswered GET / 200",
        "TaskBegan quick",
        "TaskEnded quick done",
        "TaskBegan fails",
        "TaskEnded fails failed",
        "TaskBegan endless",
        "TaskEnded endless timed_out",
        "RequestEnded GET /",
    ]
    labels = {id(e.request) for e in events if isinstance(e, (RequestBegan, RequestEnded))}
    labels |= {id(e.task.label) for e in events if isinstance(e, TaskAdded)}
    assert len(labels) == 1


@pytest.mark.parametrize("takes", ["nothing", "a nursery"])
async def test_a_request_without_tasks_ends_when_it_is_answered(takes: str) -> None:
    app, events = App(), list[Event]()

    async def root() -> None: ...

    async def root_with_nursery(nursery: trio.Nursery) -> None: ...

    app.get("/")(root if takes == "nothing" else root_with_nursery)
    async with client(app) as c:
        with inner_of(app).events.listening(events.append):
            await c.get("/")
            await c.get("/nowhere")
            await trio.testing.wait_all_tasks_blocked()
        await c.get("/")
    assert [said(event) for event in events] == [
        "RequestBegan GET /",
        "RequestAnswered GET / 200",
        "RequestEnded GET /",
        "RequestBegan GET /nowhere",
        "RequestAnswered GET /nowhere 404",
        "RequestEnded GET /nowhere",
    ]


async def test_what_is_skipped_cancelled_or_not_delivered_is_told_so(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app, events = App(drain_timeout=1, cleanup_timeout=1), list[Event]()

    @task(when="sent")
    async def when_sent() -> None: ...

    async def slowly() -> AsyncIterator[str]:
        while True:
            yield "x"
            await trio.sleep(1)

    @app.get("/stream")
    async def stream(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(when_sent)
        return StreamingResponse(slowly())

    @app.post("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.start_soon(trio.sleep_forever)
        tasks.add_task(trio.sleep_forever)
        tasks.add_task(quick)

    with inner_of(app).events.listening(events.append):
        async with client(app) as c:
            await c.get("/stream", disconnect_after=1)
            await c.wait_tasks()
            await trio.testing.wait_all_tasks_blocked()
            await c.post("/")
            await trio.testing.wait_all_tasks_blocked()
    heard = [said(event) for event in events]
    assert heard[:5] == [
        "RequestBegan GET /stream",
        "TaskAdded when_sent",
        "RequestAnswered GET /stream 200, not delivered",
        "TaskEnded when_sent skipped",
        "RequestEnded GET /stream",
    ]
    # What is cancelled may have ended before it is told that it is.
    ended = [heard.index("CancelBegan"), heard.index("RequestEnded POST /")]
    assert heard.index("DrainBegan") < min(ended)
    assert max(ended) == len(heard) - 2
    assert heard.count("TaskEnded sleep_forever cancelled") == 2
    assert heard.count("TaskEnded quick cancelled") == 1
    assert "TaskBegan quick" not in heard
    assert heard[-1] == "ShutdownReported"


async def test_a_shutdown_is_told_of_from_its_drain_to_its_report(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trioweb")
    app, events = App(), list[Event]()
    with inner_of(app).events.listening(events.append):
        async with client(app):
            pass
        with pytest.raises(OSError, match="of the test"):
            async with client(app):
                raise OSError("of the test")
    kinds = [type(event) for event in events]
    assert kinds == [DrainBegan, ShutdownReported, DrainBegan, CancelBegan, ShutdownReported]
    reports = [event.text for event in events if isinstance(event, ShutdownReported)]
    logged = [text for text in messages(caplog) if text.startswith(REPORT)]
    assert [f"stopped after {text}" for text in reports] == logged


async def test_a_listener_that_fails_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, events = App(), list[Event]()

    def broken(event: Event) -> None:
        raise LookupError

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(quick)

    inner = inner_of(app)
    with inner.events.listening(broken), inner.events.listening(events.append):
        async with client(app) as c:
            assert (await c.get("/")).status_code == 200
            await c.wait_tasks()
    assert app.statistics().done == 1
    assert len(
        [r for r in caplog.records if r.getMessage().startswith("a listener failed at ")]
    ) == len(events)


async def test_a_task_that_a_thread_adds_is_told_of_there() -> None:
    app, threads = App(), list[int]()

    @app.get("/")
    def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(quick)

    def hear(event: Event) -> None:
        if isinstance(event, (TaskAdded, TaskEnded)):
            threads.append(threading.get_ident())

    with inner_of(app).events.listening(hear):
        async with client(app, threads=True) as c:
            await c.get("/")
            await c.wait_tasks()
    added, ended = threads
    assert added != threading.get_ident() == ended


async def test_nobody_who_does_not_listen_pays() -> None:
    """Where there is no listener there is nothing to call, in a run or after it."""
    app = App()
    events = inner_of(app).events

    def is_heard() -> tuple[bool, bool]:
        return events.hear is not None, lifetime_of(app).ledger.hear is not None

    assert is_heard() == (False, False)
    with events.listening(print), events.listening(repr):
        async with client(app):
            assert is_heard() == (True, True)
        assert is_heard() == (True, True)
    assert is_heard() == (False, False)


async def test_a_request_outside_of_any_lifespan_is_no_shutdown() -> None:
    app, events = App(), list[Event]()

    @app.get("/")
    async def root() -> None: ...

    with inner_of(app).events.listening(events.append):
        await Client(app)("GET", "/")
    assert [said(event) for event in events] == [
        "RequestBegan GET /",
        "RequestAnswered GET / 200",
        "RequestEnded GET /",
    ]


@pytest.mark.parametrize("takes", ["nothing", "a nursery"])
async def test_a_listener_that_exits_has_failed_like_any_other(
    takes: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    async def root() -> None: ...

    async def root_with_nursery(nursery: trio.Nursery) -> None: ...

    def leave(event: Event) -> None:
        raise SystemExit

    app.get("/")(root if takes == "nothing" else root_with_nursery)
    with trio.fail_after(30):
        async with client(app) as c:
            with inner_of(app).events.listening(leave):
                assert (await c.get("/")).status_code == 200
    assert "a listener failed at RequestBegan" in caplog.text


def test_an_app_that_is_dropped_is_freed_at_once() -> None:
    app = App()
    app.get("/")(quick)
    kept = weakref.ref(app)
    gc.disable()
    try:
        del app
        assert kept() is None
    finally:
        gc.enable()


def test_events_without_an_app_are_nobodys() -> None:
    events = Events()
    with events.listening(print):
        assert events.hear is not None
    assert events.hear is None
