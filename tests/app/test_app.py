"""The door for ASGI: lifespan, refusals, where the path begins; and the app's own registration."""

import functools
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import pytest
import trio
from trio.testing import MockClock

from trioweb import App, HTTPException, Limits, Request, Router
from trioweb._asgi import SERVER_SETTINGS, ServerSettings
from trioweb._errors import RegistrationError

from ..support.asgi import Client, Message, running


async def lifespan_answers(app: App) -> list[Message]:
    """What the app answers to a start and a stop at once."""
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    answers: list[Message] = []

    async def receive() -> Message:
        return next(asked)

    async def send(message: Message) -> None:
        answers.append(message)

    await app({"type": "lifespan", "state": {}}, receive, send)
    return answers


async def test_what_the_lifespan_yields_every_request_begins_with() -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, Any]]:
        app.state.name = "app"
        yield {"users": ["ann"], "visits": 0}

    app = App(lifespan=lifespan)

    @app.get("/")
    async def root(request: Request) -> dict[str, Any]:
        request.state.visits += 1
        return {"name": request.app.state.name, **vars(request.state)}

    async with running(app) as client:
        for _ in range(2):  # one request's writes are not another's
            exchange = await client("GET", "/")
            assert exchange.json() == {"name": "app", "users": ["ann"], "visits": 1}


async def test_an_app_can_be_served_again() -> None:
    app = App()

    @app.get("/")
    async def root() -> str:
        return "ok"

    for _ in range(2):
        async with running(app) as client:
            assert (await client("GET", "/")).status == 200
        assert (await client("GET", "/")).status == 503


async def test_an_app_is_not_served_twice_at_once(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    async with running(app):
        [answer] = await lifespan_answers(app)
    assert answer["type"] == "lifespan.startup.failed"
    assert "being served already" in answer["message"]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_a_lifespan_that_fails_is_logged_and_told_to_the_server(
    phase: str, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        if phase == "startup":
            raise OSError("no database")
        yield
        raise OSError("no database")

    answers = await lifespan_answers(App(lifespan=lifespan))
    assert answers[-1] == {"type": f"lifespan.{phase}.failed", "message": "OSError: no database"}
    [record] = caplog.records
    assert record.getMessage() == f"the lifespan failed at {phase}"
    assert record.exc_info


async def test_a_cancelled_server_leaves_the_lifespan_time_to_close(
    autojump_clock: MockClock,
) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await trio.sleep(1)
            events.append("closed")

    async def hanging(app: App) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await trio.sleep_forever()

    for app in (
        App(lifespan=lifespan, cleanup_timeout=2),
        App(lifespan=asynccontextmanager(hanging), cleanup_timeout=2),
    ):
        begin = trio.current_time()
        with trio.move_on_after(1) as scope:
            async with running(app):
                await trio.sleep_forever()
        assert scope.cancelled_caught
        events.append(f"{trio.current_time() - begin:g} s")
    assert events == ["closed", "2 s", "3 s"]


@pytest.mark.parametrize("wrong", ["generator", "coroutine"])
def test_a_lifespan_that_is_no_context_manager_is_refused(wrong: str) -> None:
    async def generator(app: App) -> AsyncIterator[None]:
        yield  # pragma: no cover

    async def coroutine(app: App) -> None: ...

    lifespan: Any = generator if wrong == "generator" else coroutine
    with pytest.raises(RegistrationError, match=r"right:  @asynccontextmanager above"):
        App(lifespan=lifespan)


def run_on_asyncio(
    app: App, scope: dict[str, Any], ends_by: type[Exception] = StopIteration
) -> list[Message]:
    """The app's answers on a loop that isn't Trio; no more than a coroutine's steps is needed."""
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        answers.append(message)

    with pytest.raises(ends_by):
        app(scope, receive, send).send(None)
    return answers


def test_on_another_loop_the_lifespan_says_which_command_to_run() -> None:
    """And raises, or Starlette's test client would wait for its end, for ever."""
    [answer] = run_on_asyncio(App(), {"type": "lifespan"}, RuntimeError)
    assert answer["type"] == "lifespan.startup.failed"
    assert "start it with: trioweb run MODULE:APP, or hypercorn" in answer["message"]


def test_on_another_loop_a_request_is_told_too() -> None:
    start, body = run_on_asyncio(App(), {"type": "http"})
    assert start["status"] == 500
    assert b"hypercorn -k trio" in body["body"]


def test_on_another_loop_anything_else_raises() -> None:
    with pytest.raises(RuntimeError, match="hypercorn -k trio"):
        run_on_asyncio(App(), {"type": "websocket"})


async def test_a_websocket_is_refused() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await App()({"type": "websocket"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]
    with pytest.raises(NotImplementedError, match="'webtransport'"):
        await App()({"type": "webtransport"}, receive, send)


@pytest.mark.parametrize(
    ("root_path", "path", "raw_path", "status"),
    [
        ("", "/items/a", b"/items/a", 200),
        ("/api", "/api/items/a", b"/api/items/a", 200),
        ("/api/", "/api/items/a", b"/api/items/a", 200),
        ("/api", "/items/a", b"/items/a", 200),  # a proxy that cut the prefix off
        ("/api", "/api/items/a", None, 200),
        ("/a b", "/a b/items/a", b"/a%20b/items/a", 200),
        ("/api", "/apiary/items/a", b"/apiary/items/a", 404),
        ("/api", "/api/items/a", b"/%61pi/items/a", 200),
        ("/api", "/api/items/a", b"/items/a", 200),  # a server that leaves it out of one
        ("/api", "/api/items/a", b"/elsewhere", 200),
        ("/api", "/api/items/a", b"/api%2Fitems/a", 404),  # one segment, "api/items"
    ],
)
async def test_the_root_path_is_not_routed(
    root_path: str, path: str, raw_path: bytes | None, status: int
) -> None:
    app = App()

    @app.get("/items/{name}")
    async def item(name: str, request: Request) -> list[str]:
        return [name, request.url.path, request.url_for("item", name="b c")]

    exchange = await Client(app)("GET", path, root_path=root_path, path=path, raw_path=raw_path)
    assert exchange.status == status
    if status == 200:
        root = root_path.rstrip("/").replace(" ", "%20")
        url = f"http://127.0.0.1:8000{root}/items/b%20c"
        assert exchange.json() == ["a", path, url]


async def test_exception_handlers_go_by_the_closest_class_and_may_be_plain_functions() -> None:
    app = App()
    threads: list[int] = []

    @app.exception_handler(LookupError)
    def lookup(request: Request, exc: LookupError) -> dict[str, str]:
        threads.append(threading.get_ident())
        return {"handled": "LookupError"}

    @app.exception_handler(Exception)
    async def anything(request: Request, exc: Exception) -> dict[str, str]:
        return {"handled": "Exception"}

    @app.get("/{kind}")
    async def fail(kind: str) -> None:
        raise {"key": KeyError(), "os": OSError(), "http": HTTPException(404)}[kind]

    client = Client(app)
    key, other, http = [await client("GET", f"/{kind}") for kind in ("key", "os", "http")]
    assert (key.status, key.json()) == (500, {"handled": "LookupError"})
    assert (other.status, other.json()) == (500, {"handled": "Exception"})
    assert (http.status, http.json()) == (404, {"detail": "Not Found"})
    assert threads
    assert threads != [threading.get_ident()]


@pytest.mark.parametrize(
    ("wrong", "shown", "right"),
    [
        ("LookupError", "'LookupError'", "@app.exception_handler(LookupError)"),
        (int, "int", "@app.exception_handler(LookupError)"),
        (threading.get_ident, "get_ident", "@app.exception_handler(LookupError)"),
        (404, "404", "@app.exception_handler(HTTPException), and in it exc.status_code == 404"),
        (422, "422", "@app.exception_handler(RequestValidationError)"),
        (500, "500", "@app.exception_handler(Exception)"),
        ((KeyError, OSError), "(<class 'KeyError'>", "@app.exception_handler(...) once for each"),
        (trio.Cancelled, "Cancelled", "try: ... finally: ... in the handler"),
        (KeyboardInterrupt, "KeyboardInterrupt", "try: ... finally: ... in the handler"),
    ],
)
def test_an_exception_handler_is_for_a_class_of_failures(
    wrong: Any, shown: str, right: str
) -> None:
    with pytest.raises(RegistrationError) as refused:
        App().exception_handler(wrong)
    problem, wrong_line, right_line = str(refused.value).split("\n")
    assert problem == "exception_handler takes an exception class"
    assert wrong_line.startswith(f"    wrong:  @app.exception_handler({shown}")
    assert right_line.startswith(f"    right:  {right}")


class Handlers:
    def too_few(self, exc: Exception) -> None: ...

    def enough(self, first: object, exc: BaseException) -> None: ...


def by_name(request: int, *, exc: int) -> None: ...


WRONG_HANDLERS: list[tuple[Any, str, str]] = [
    (lambda: None, "<lambda> is called with", "<lambda>()"),
    (lambda request: None, "<lambda> is called with", "<lambda>(request)"),
    (lambda request, exc, db: None, "<lambda> is called with", "<lambda>(request, exc, db)"),
    (by_name, "by_name is called with", "by_name(request: int, *, exc: int)"),
    (Handlers().too_few, "Handlers.too_few is called with", "Handlers.too_few(exc: Exception)"),
    (lambda request, exc: (yield), "<lambda> yields: ", "<lambda>(request, exc)"),
]


@pytest.mark.parametrize(("handler", "problem", "shown"), WRONG_HANDLERS)
def test_handlers_that_cant_be_called_are_refused_when_they_are_registered(
    handler: Any, problem: str, shown: str
) -> None:
    app = App()
    for register, decorator, parameters in (
        (app.exception_handler(OSError), "@app.exception_handler(OSError)", "request, exc"),
        (app.on_task_error, "@app.on_task_error", "task, exc"),
    ):
        with pytest.raises(RegistrationError) as refused:
            register(handler)
        said, wrong, right = str(refused.value).split("\n")
        assert said.startswith(problem)
        assert wrong == f"    wrong:  {decorator} above def {shown}"
        assert right == f"    right:  {decorator} above async def report({parameters}): ..."
    app.exception_handler(OSError)(Handlers().enough)  # nothing of the others has stayed


@pytest.mark.parametrize(
    "handler",
    [
        Handlers().enough,
        functools.partial(Handlers.enough, Handlers()),
        lambda *args: None,
        lambda request, exc, more=1: None,
        print,
        max,
    ],
)
def test_whatever_can_be_called_with_both_is_a_handler(handler: Any) -> None:
    App().exception_handler(OSError)(handler)
    App().on_task_error(handler)


@pytest.mark.parametrize("handler", [None, 5, "report"])
def test_a_handler_is_a_function(handler: Any) -> None:
    with pytest.raises(RegistrationError, match=f"app.on_task_error\\({handler!r}\\)"):
        App().on_task_error(handler)
    with pytest.raises(RegistrationError, match=f"exception_handler.OSError..{handler!r}"):
        App().exception_handler(OSError)(handler)


async def test_a_second_handler_for_a_class_would_silence_the_first() -> None:
    app = App()

    def first(request: Request, exc: Exception) -> str:
        return "first"

    def second(request: Request, exc: Exception) -> str: ...  # type: ignore[empty-body]

    for kind in (OSError, HTTPException):  # ours for the latter give way once
        app.exception_handler(kind)(first)
        with pytest.raises(RegistrationError) as refused:
            app.exception_handler(kind)(second)
        assert str(refused.value).split("\n") == [
            f"{kind.__name__} has a handler: first; the second one would silence it",
            f"    wrong:  @app.exception_handler({kind.__name__}) above first and above second",
            f"    right:  @app.exception_handler({kind.__name__}) above one of them",
        ]
    app.exception_handler(FileNotFoundError)(second)  # a class of its own
    assert (await Client(app)("GET", "/nowhere")).json() == "first"


def test_url_for_takes_the_route_whose_parameters_fit() -> None:
    app, router = App(), Router("/users")

    @router.get("/{name}", name="user")
    @router.get("/{name}/{year:int}", name="user")
    async def user() -> None: ...

    app.include_router(router, prefix="/v1")
    assert app.url_for("user", name="ann/b") == "/v1/users/ann%2Fb"
    assert app.url_for("user", name="ann", year=2026) == "/v1/users/ann/2026"
    with pytest.raises(LookupError, match=r"'/v1/users/\{name\}/\{year:int\}'"):
        app.url_for("user")
    with pytest.raises(LookupError, match=r"known: \['user'\]"):
        app.url_for("nobody")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1"])
def test_a_limit_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match=r"Limits\(max_body_size="):
        Limits(max_body_size=value)


@pytest.mark.parametrize(
    ("root_path", "raw_path"),
    [
        ("/api", b"/api/x/y%2Fadmin"),
        ("/api", b"/%61pi/x/y%2Fadmin"),
        ("/a b", b"/a%20b/x/y%2fadmin"),
        ("/a/b", b"/a/%62/x/y%2fadmin"),
        ("", b"http://h/x/y%2Fadmin"),
        ("/api", b"HTTPS://h:8/api/x/y%2Fadmin"),
        ("", b"http://h%2Fx/x/y%2Fadmin"),
    ],
)
async def test_an_encoded_slash_never_splits_a_segment(root_path: str, raw_path: bytes) -> None:
    app = App()

    @app.get("/x/{name}")
    async def one(name: str, request: Request) -> list[str]:
        return [name, request.url.path, str(request.url)]

    app.get("/x/y/admin")(lambda: "the handler of another path")

    exchange = await Client(app)(
        "GET", "/", root_path=root_path, path=unquote(raw_path.decode()), raw_path=raw_path
    )
    name, path, url = exchange.json()
    assert (name, path) == ("y/admin", f"{root_path}/x/y%2Fadmin")
    assert url.startswith("http://127.0.0.1:8000/")
    assert url.endswith(raw_path.decode().rpartition("/x/")[2])


async def test_a_whole_url_as_target_goes_to_its_path() -> None:
    app = App()

    @app.get("/")
    async def home(request: Request) -> str:
        return str(request.url)

    for target in ("http://other.example/", "http://other.example"):
        exchange = await Client(app)("GET", target, headers={"host": "h"})
        assert exchange.json() == "http://h/"
    assert (await Client(app)("GET", "http:///")).status == 404


async def test_a_method_is_any_token() -> None:
    app = App()

    @app.route("/", methods=["M-SEARCH"])
    async def search() -> str:
        return "found"

    assert (await Client(app)("M-SEARCH", "/")).json() == "found"


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({"limits": {"max_body_size": 3}}, r"App\(limits=Limits\(max_body_size=...\)\)"),
        ({"drain_timeout": -1}, r"App\(drain_timeout=20.0\)"),
        ({"drain_timeout": float("nan")}, r"App\(drain_timeout=20.0\)"),
        ({"cleanup_timeout": "5"}, r"App\(cleanup_timeout=20.0\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], right: str) -> None:
    with pytest.raises(RegistrationError, match=f"right:  {right}"):
        App(**options)


class Told:
    """What a server listens with; an app keeps its server by that."""

    def listen(self, hear: object) -> None: ...


async def live(app: App, told: Told, **limits: int) -> list[str]:
    """A lifespan of the app, under a server that was told of these limits; what it answers."""
    said: list[str] = []
    asked = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> dict[str, str]:
        return {"type": next(asked)}

    async def send(message: Any) -> None:
        said.append(message["type"])

    settings = ServerSettings(limits=limits, listen=told.listen)
    await app({"type": "lifespan", "state": {}, SERVER_SETTINGS: settings}, receive, send)
    return said


async def test_a_limit_that_there_is_not_costs_one_start_and_no_other() -> None:
    app = App()
    assert await live(app, Told(), max_bodies=1) == ["lifespan.startup.failed"]
    assert app.limits == Limits()
    assert await live(app, Told(), max_body_size=1) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_an_app_does_not_keep_the_server_that_it_had() -> None:
    app, told = App(), Told()
    gone = weakref.ref(told)
    await live(app, told)
    del told
    gc.collect()
    assert gone() is None
