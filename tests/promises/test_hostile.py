"""Whatever a client sends: an answer that says what it did wrong, never a 500, nothing logged."""

import enum
import functools
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from trioweb import (
    App,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    Header,
    HTMLResponse,
    JSONResponse,
    Limits,
    PlainTextResponse,
    RedirectResponse,
    Request,
    Response,
    StreamingResponse,
)

from ..support.asgi import Client, Exchange, running
from ..support.log_records import messages

KIB = 1024
MAX_BODY_SIZE = 64 * KIB


class Color(enum.Enum):
    RED = "red"


class Line(msgspec.Struct):
    name: str
    count: int
    price: Decimal
    ratio: float = 0.0
    color: Color = Color.RED
    when: datetime | None = None
    inner: "Line | None" = None


class Order(msgspec.Struct):
    id: UUID
    day: date
    lines: list[Line]
    extra: dict[str, Any] = {}


@dataclass
class Note:
    text: str
    weight: int | float = 0


class Pair(TypedDict):
    a: int
    b: Literal["x", 1]


class Model(pydantic.BaseModel):
    name: str
    count: int
    weight: Decimal = Decimal(0)


def owner(x_owner: Annotated[int, Header()] = 0, sid: Annotated[str, Cookie()] = "") -> Any:
    return [x_owner, sid]


BODIES: dict[str, Any] = {
    "order": Order,
    "optional": Order | None,
    "note": Note,
    "pair": Pair,
    "model": Model,
    "dict": dict,
    "list": list[Line],
    "int": Annotated[int, Body()],
}
BODY_PATHS = [f"/body/{name}" for name in (*BODIES, "raw", "several")]


@functools.cache
def hostile_app() -> App:
    """Many kinds of parameters; every handler sends back what it got.

    One for all tests, which leave nothing behind in it: to make it takes longer than most of them.
    """
    app = App(limits=Limits(max_body_size=MAX_BODY_SIZE))

    @app.get("/")
    async def home(request: Request) -> Any:
        return [request.url.path, str(request.url), dict(request.headers), dict(request.cookies)]

    for name, annotation in {
        "str": str,
        "int": int,
        "float": float,
        "bool": bool,
        "uuid": UUID,
        "decimal": Decimal,
        "date": date,
        "datetime": datetime,
        "color": Color,
        "literal": Literal["a", 1],
        "union": int | float | date,
        "bounded": Annotated[int, msgspec.Meta(ge=0, lt=10, multiple_of=2)],
        "pattern": Annotated[str, msgspec.Meta(pattern="^(a|aa)+$", max_length=20)],
    }.items():
        app.get(f"/query/{name}", name=f"query {name}")(echo(annotation))
        app.get(f"/queries/{name}", name=f"queries {name}")(echo(list[annotation]))  # type: ignore[valid-type]
        if name not in ("bounded", "pattern"):
            app.get(f"/path/{name}/{{value}}", name=f"path {name}")(echo(annotation))
            app.get(f"/header/{name}")(echo(Annotated[annotation, Header()]))
            app.get(f"/cookie/{name}")(echo(Annotated[annotation, Cookie()]))
    for converter in ("int", "float", "uuid", "path", "str"):
        app.get(f"/converted/{converter}/{{value:{converter}}}")(echo(Any))
    for name, annotation in BODIES.items():
        app.post(f"/body/{name}")(echo(annotation))
    app.post("/body/raw")(raw)
    app.post("/body/several")(several)
    return app


def echo(annotation: Any) -> Any:
    async def handler(value: Any, request: Request, owner: Annotated[Any, Depends(owner)]) -> Any:
        return [value, str(request.url), owner, repr(request)]

    handler.__annotations__["value"] = annotation
    return handler


async def raw(request: Request, tasks: BackgroundTasks) -> Any:
    return [await request.json(), list(request.query_params.items()), dict(request.cookies)]


async def several(note: Note, pair: Pair, count: Annotated[int, Body()] = 0) -> Any:
    return [note, pair, count]


@asynccontextmanager
async def unimpressed(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Client]:
    """The hostile app; afterwards nothing was logged."""
    async with running(hostile_app()) as client:
        yield client
    assert messages(caplog, level=logging.WARNING) == []


def check(answer: Exchange) -> None:
    assert 200 <= answer.status < 500, answer.text
    assert answer.headers["content-type"] == "application/json"
    answer.json()


TEXTS = [
    "",
    " ",
    "null",
    "None",
    "NaN",
    "-NaN",
    "sNaN",
    "inf",
    "-Infinity",
    "1e308",
    "1e309",
    "-1e999999999",
    "1e-999999999",
    "1E+99999999999999999999",
    "0x10",
    "1_000",
    "+5",
    "--5",
    "%2B5",
    "%D9%A3",  # an Arabic digit
    "%EF%BC%95",  # a wide digit
    "9" * 300,
    "9" * 4300,
    "9" * 4301,
    "9" * 5000,
    "-" + "9" * 5000,
    "0." + "9" * 5000,
    "0" * 5000,
    "true%00",
    "%00",
    "%0D%0AX-Evil:1",
    "%C3%A4",
    "%F0%9F%98%80",
    "red",
    "RED",
    "Color.RED",
    "0000-00-00",
    "0001-01-01",
    "9999-12-31",
    "10000-01-01",
    "2026-02-29",
    "-0001-01-01",
    "2026-1-1",
    "0001-01-01T00:00:00%2B23:59",
    "9999-12-31T23:59:59-23:59",
    "2026-11-22T24:00:00Z",
    "2026-11-22T23:59:60Z",
    "2026-11-22T00:00:00.9999999999999999Z",
    "99999999999999999999",
    "-99999999999999999",
    "253402300800",
    "12345678123456781234567812345678",
    "%7B12345678-1234-5678-1234-567812345678%7D",
    "a" * 29 + "b",
    "..",
    "%2E%2E",
    "%252F",
    "%25",
]
SOURCES = ("path", "query", "queries", "header", "cookie")
KINDS = (
    "str",
    "int",
    "float",
    "bool",
    "uuid",
    "decimal",
    "date",
    "datetime",
    "color",
    "literal",
    "union",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", SOURCES)
async def test_text_in_every_slot(source: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as client:
        for text in TEXTS:
            answer = await _with_text(client, source, kind, text)
            check(answer)
            assert answer.status in ((200, 404, 422) if source == "path" else (200, 422))
            if answer.status == 422:
                (problem,) = answer.json()["detail"]
                assert problem["loc"][1] == "value"
                assert len(answer.body) < 2 * KIB


async def _with_text(client: Client, source: str, kind: str, text: str) -> Exchange:
    if source == "path":
        return await client("GET", f"/path/{kind}/{text}")
    if source in ("query", "queries"):
        return await client("GET", f"/{source}/{kind}?value={text}")
    field = f"value={text}" if source == "cookie" else text
    return await client(
        "GET",
        f"/{source}/{kind}",
        headers={source: "", "value": field} | {"cookie": field if source == "cookie" else ""},
    )


@pytest.mark.parametrize("kind", ["bounded", "pattern"])
async def test_text_with_limits(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as client:
        for text in TEXTS:
            check(await client("GET", f"/query/{kind}?value={text}"))


@pytest.mark.parametrize("converter", ["int", "float", "uuid", "path", "str"])
async def test_text_for_every_converter(converter: str, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as client:
        for text in TEXTS:
            answer = await client("GET", f"/converted/{converter}/{text}")
            check(answer)
            assert answer.status in (200, 404)


# Paths


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({"raw_path": None}, 200),
        ({"raw_path": None, "path": "/path/str/\x00"}, 200),
        ({"raw_path": "/path/str/ä".encode("latin-1")}, 400),
        ({"raw_path": "/path/str/ä".encode()}, 400),
        ({"raw_path": b"/path/str/%C3%28"}, 400),
        ({"raw_path": b"/path/str/%FF"}, 400),
        ({"raw_path": b"/path/str/%ED%A0%80"}, 400),
        ({"raw_path": b"/path/str/%"}, 400),
        ({"raw_path": b"/path/str/%4"}, 400),
        ({"raw_path": b"/path/str/%zz"}, 400),
        ({"raw_path": b"/path/str/%00"}, 200),
        ({"raw_path": b"/path/str/%2e%2e%2fetc"}, 200),
        ({"raw_path": b"/path/str/a%2Fb"}, 200),
        ({"raw_path": b"/path/str/a%252Fb"}, 200),
        ({"raw_path": b"", "path": ""}, 404),
        ({"raw_path": b"*", "path": "*"}, 404),
        ({"raw_path": b"path/str/a", "path": "path/str/a"}, 404),
        ({"raw_path": b"http://h/path/str/a", "path": "http://h/path/str/a"}, 200),
        ({"raw_path": b"//path/str/a", "path": "//path/str/a"}, 404),
        ({"raw_path": b"/" * 5000, "path": "/" * 5000}, 404),
        ({"raw_path": b"/a" * 5000, "path": "/a" * 5000}, 404),
        ({"root_path": "/path"}, 404),
        ({"root_path": "/%"}, 200),
    ],
)
async def test_path(scope: Any, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as client:
        answer = await client("GET", "/path/str/x", **scope)
        check(answer)
        assert answer.status == status


@pytest.mark.parametrize("method", ["", "get", "G\nT", "PROPFIND", "CONNECT", "X" * 5000, "\x00"])
async def test_method(method: str, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as client:
        answer = await client(method, "/")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


# Query strings


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("&&&;;;===", 422),
        ("value", 422),
        ("value=1&value=x", 422),
        ("value=x&value=1", 200),
        ("VALUE=1", 422),
        ("value[]=1", 422),
        ("value=1#value=2", 422),
        ("value=1;value=2", 422),
        ("value=%FF", 400),
        ("%FF=1&value=1", 400),
        ("value=%ED%A0%80", 400),
        ("value=\xff", 400),
        ("value=1&" + "a=1&" * 900, 200),
        ("a=1&" * 10_000 + "value=1", 400),
        ("value=1&" * 10_000, 400),
        ("&" * 10_000 + "value=1", 400),
        ("value=" + "1" * (KIB * KIB), 422),
        ("a" * (KIB * KIB) + "=1&value=1", 200),
        ("value=1&x=" + "%41" * 100_000, 200),
    ],
    ids=lambda part: part[:20] if isinstance(part, str) else None,
)
async def test_query_string(query: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as client:
        answer = await client("GET", f"/query/int?{query}")
        check(answer)
    assert answer.status == status


async def test_ten_thousand_values_of_one_list_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with unimpressed(caplog) as client:
        assert (await client("GET", "/queries/int?" + "value=1&" * 10_000)).status == 400
        bad = await client("GET", "/queries/int?" + "value=x&" * 900)
    assert bad.status == 422
    assert len(bad.json()["detail"]) == 100


# Header fields


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        ";;;=;==;= ",
        "value",
        "=value",
        'value="',
        'value="\\777"',
        'value="\\',
        "value=" + "\\" * 5000,
        "value=1; value=2; value=3",
        "$Version=1; value=1; $Path=/",
        "value=\x00\x01\x7f",
        "value=\xff\xfe",
        "value=" + "a" * 100_000,
        "; ".join(f"c{i}={i}" for i in range(10_000)),
        "__proto__=1; constructor=2",
    ],
    ids=lambda cookie: cookie[:12],
)
async def test_cookies(cookie: str, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as client:
        for target in ("/", "/cookie/str", "/cookie/int", "/cookie/datetime"):
            answer = await client("GET", target, headers=[("cookie", cookie), ("cookie", cookie)])
            check(answer)
            assert answer.status in (200, 422)


@pytest.mark.parametrize(
    "host",
    [
        "a/b?c",
        "a#b",
        "evil.example/@good.example",
        "user:password@host",
        "host:port",
        "host:99999999999999999999",
        "[::1",
        "[::1]:80:80",
        "a b",
        "",
        "\x00",
        "\xe4.example",
        "a\\b",
        "http://evil.example",
        "a" * 10_000 + "/",
    ],
    ids=lambda host: host[:12],
)
async def test_host_decides_nothing_but_the_host(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with unimpressed(caplog) as client:
        answer = await client("GET", "/?q=1", headers=[("host", host)])
        path, url, *_ = answer.json()
        assert path == "/"
        assert url == "http://127.0.0.1:8000/?q=1"
        twice = await client("GET", "/?q=1", headers=[("host", "a"), ("host", "b")])
        assert twice.json()[:2] == [path, url]


async def test_good_host_is_in_the_url(caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as client:
        for host in ("example.org", "example.org:81", "[::1]:81", "127.0.0.1"):
            answer = await client("GET", "/", headers={"host": host})
            assert answer.json()[1] == f"http://{host}/"


async def test_path_of_the_url_is_the_one_that_was_routed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with unimpressed(caplog) as client:
        answer = await client("GET", "/path/str/a%3Fb%23c%2Fd%20%0A", headers={"host": "a/b?c"})
    value, url, _, request = answer.json()
    assert value == "a?b#c/d \n"
    assert url == "http://127.0.0.1:8000/path/str/a%3Fb%23c%2Fd%20%0A"
    assert "\n" not in request


@pytest.mark.parametrize("name", ["", "\x00", "\xff", "a b", "content-length\x00", "x" * 10_000])
async def test_name_of_a_header_field(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as client:
        check(await client("GET", "/", headers=[(name, "a\x00\xff\t")]))


# Bodies


DEEP = 20_000
JSON_BODIES: list[bytes] = [
    b"",
    b" ",
    b"{",
    b"}",
    b"{}",
    b"[]",
    b"[[]]",
    b"null",
    b"true",
    b'""',
    b"1",
    b"-0",
    b"01",
    b"1.",
    b"NaN",
    b"-Infinity",
    b"1e308",
    b"1e309",
    b"-1e999999999999",
    b"1e-999999999999",
    b"9" * 5000,
    b"1." + b"9" * 5000,
    b"[" * DEEP,
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * 9000 + b"1" + b"}" * 9000,
    b'{"inner":' * 6000,
    b'{"a":1,"a":2}',
    b'{"a":1,"b":"x","b":1}',
    b'{"a":1,"b":"x"}',
    b'{"name":"\\ud800","count":1}',
    b'{"\\ud800":1}',
    b'{"name":"\\u0000","count":1}',
    b'{"text":"\\ud83d\\ude00"}',
    b'{"text":"\xff"}',
    b'{"text":"\xed\xa0\x80"}',
    b"\xef\xbb\xbf{}",
    '{"text":"a"}'.encode("utf-16"),
    b'{"text":"a"}\x00',
    b'{"text":"a"}{"text":"b"}',
    b'{"text":"a",}',
    b"{'text':'a'}",
    b'{"text":"a"/**/}',
    b'{"text":"a","weight":1e400}',
    b'{"text":"a","weight":' + b"9" * 5000 + b"}",
    b'{"text":"a","weight":' + b"9" * 300 + b"}",
    b'{"name":"a","count":1,"weight":"NaN"}',
    b'{"name":"a","count":1,"weight":"1e999999999"}',
    b'{"name":"a","count":' + b"9" * 5000 + b"}",
    b'[{"name":"a","count":1,"price":"sNaN"}]',
    b'[{"name":"a","count":1,"price":"1e999999999999999999999"}]',
    b'[{"name":"a","count":1,"price":1e400}]',
    b'[{"name":"a","count":1,"price":"-Infinity"}]',
    b'[{"name":"a","count":18446744073709551616,"price":"1"}]',
    b'[{"name":"a","count":1.0,"price":"1"}]',
    b'[{"name":"a","count":1e3,"price":"1"}]',
    b'[{"name":"a","count":1,"price":"1","color":"RED"}]',
    b'[{"name":"a","count":1,"price":"1","when":"0001-01-01T00:00:00+23:59"}]',
    b'[{"name":"a","count":1,"price":"1","when":1e300}]',
    b'[{"name":"a","count":1,"price":"1","inner":' * 500,
    b'{"__class__":"Order","__init__":1,"constructor":{},"__proto__":{}}',
    b"text=a&weight=1",
    b"--x\r\nContent-Disposition: form-data\r\n\r\n--x--",
    b"\x1f\x8b\x08\x00",
    b"\x00" * 1000,
    b"[" + b"1," * 20_000 + b"1]",
    b'["' + b"a" * 60_000 + b'"]',
    b'{"' + b"a" * 60_000 + b'":1}',
]


@pytest.mark.parametrize("path", BODY_PATHS)
async def test_body(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with unimpressed(caplog) as client:
        for body in JSON_BODIES:
            answer = await client("POST", path, body=body)
            check(answer)
            assert answer.status in (200, 422), (body[:50], answer.text[:200])
            if answer.status == 422:
                assert all(p["loc"][0] == "body" for p in answer.json()["detail"])
                assert len(answer.body) < 32 * KIB


async def test_good_bodies_are_good(caplog: pytest.LogCaptureFixture) -> None:
    line = {"name": "a", "count": 1, "price": "1.5"}
    order = {"id": str(UUID(int=1)), "day": "2026-11-22", "lines": [line]}
    note, pair, model = {"text": "a"}, {"a": 1, "b": "x"}, {"name": "a", "count": 1}
    several = {"note": note, "pair": pair}
    good = [order, order, note, pair, model, {}, [line], 5, "raw", several]
    async with unimpressed(caplog) as client:
        for path, body in zip(BODY_PATHS, good, strict=True):
            assert (await client("POST", path, json=body)).status == 200


async def test_nine_errors_in_one_body_are_nine_entries(caplog: pytest.LogCaptureFixture) -> None:
    line = {"name": 1, "count": "1", "price": "x", "ratio": "y", "color": "RED", "when": "noon"}
    async with unimpressed(caplog) as client:
        answer = await client("POST", "/body/order", json={"id": 1, "lines": [line, 2]})
    assert answer.status == 422
    problems = answer.json()["detail"]
    assert sorted(map(str, (problem["loc"] for problem in problems))) == sorted(
        map(
            str,
            [
                ["body", "id"],
                ["body", "day"],
                *(["body", "lines", 0, name] for name in line),
                ["body", "lines", 1],
            ],
        )
    )
    assert len(problems) == 9


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=" + "x" * 1000}, 415),
        ({"content-type": "application/json; charset=utf-16"}, 200),
        ({"content-type": "application/json, text/plain"}, 415),
        ({"content-type": "\x00\xff\r\n"}, 415),
        ({"content-type": ";;;"}, 200),
        ({"content-type": "+json"}, 200),
        ({"content-length": "x"}, 400),
        ({"content-length": ""}, 400),
        ({"content-length": "-1"}, 400),
        ({"content-length": "+14"}, 400),
        ({"content-length": "1_4"}, 400),
        ({"content-length": "14.0"}, 400),
        ({"content-length": "\xb2"}, 400),
        ({"content-length": "14, 14"}, 400),
        ({"content-length": "9" * 5000}, 413),
        ({"content-length": "0" * 5000}, 413),
        ({"content-length": str(MAX_BODY_SIZE + 1)}, 413),
        ({"content-length": str(MAX_BODY_SIZE)}, 200),
        ({"content-length": "0"}, 200),
        ({"content-encoding": "gzip"}, 200),
    ],
    ids=lambda part: (
        ", ".join(f"{k}: {v[:20]!r}" for k, v in part.items()) if isinstance(part, dict) else None
    ),
)
async def test_fields_that_describe_the_body(
    headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with unimpressed(caplog) as client:
        answer = await client("POST", "/body/note", body=b'{"text": "aa"}', headers=headers)
        check(answer)
    assert answer.status == status


class Received:
    """Passes requests on; counts what was received before the answer began."""

    def __init__(self, app: App) -> None:
        self.count = 0
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        begun = False

        async def receive_counted() -> Any:
            self.count += not begun
            return await receive()

        async def send_noted(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        await self._app(scope, receive_counted, send_noted)


@pytest.mark.parametrize(
    ("size", "status", "declared", "received"),
    [
        (MAX_BODY_SIZE, 422, True, 64),
        (MAX_BODY_SIZE + KIB, 413, True, 0),
        (MAX_BODY_SIZE, 422, False, 64),
        (MAX_BODY_SIZE + KIB, 413, False, 65),
        (MAX_BODY_SIZE + 100 * KIB, 413, False, 65),
    ],
)
async def test_body_over_the_limit(
    size: int,
    status: int,
    declared: bool,
    received: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = hostile_app()
    counted = Received(app)
    length = ("content-length", str(size)) if declared else ("transfer-encoding", "chunked")
    fields: Sequence[tuple[str, str]] = [length]
    async with running(app):
        for path in ("/body/note", "/body/raw", "/body/several"):
            counted.count = 0
            answer = await _send_chunks(Client(counted), path, size, fields)
            assert (answer.status, counted.count) == (status, received)
    assert caplog.records == []


async def _send_chunks(
    client: Client, path: str, size: int, fields: Sequence[tuple[str, str]]
) -> Exchange:
    async def without_length(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = [(k.encode(), v.encode()) for k, v in fields]
        await client._app(scope, receive, send)

    return await Client(without_length)("POST", path, body=[b"x" * KIB] * (size // KIB))


async def test_client_that_leaves_within_its_body(caplog: pytest.LogCaptureFixture) -> None:
    async def leaving(scope: Any, receive: Any, send: Any) -> None:
        async def receive_some() -> Any:
            message = await receive()
            if message["body"] == b"the end":
                return {"type": "http.disconnect"}
            return message

        await app(scope, receive_some, send)

    app = hostile_app()
    async with running(app):
        for path in ("/body/note", "/body/raw", "/body/several"):
            answer = await Client(leaving)("POST", path, body=[b"{", b"the end"])
            assert answer.status == 400
    assert caplog.records == []


# Answers


INJECTIONS = ["a\r\nset-cookie: evil=1", "a\nb", "a\rb", "a\x00b", "\r\n\r\n<script>", "\x7f"]
SLOTS: dict[str, Callable[[str], Response]] = {
    "header": lambda text: Response(headers={"x-echo": text}),
    "header name": lambda text: Response(headers={text: "x"}),
    "media type": lambda text: Response("x", media_type=text),
    "redirect": lambda text: RedirectResponse(text),
    "cookie": lambda text: _with_cookie(key="a", value=text),
    "cookie name": lambda text: _with_cookie(key=text, value="a"),
    "cookie path": lambda text: _with_cookie(key="a", path=text),
    "cookie domain": lambda text: _with_cookie(key="a", domain=text),
    "streamed": lambda text: StreamingResponse(iter(["x"]), headers={"x-echo": text}),
}


def _with_cookie(**options: Any) -> Response:
    response = Response()
    response.set_cookie(**options)
    return response


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("slot", SLOTS)
async def test_nothing_is_injected_into_the_head_of_a_response(slot: str, text: str) -> None:
    app = App()

    @app.post("/")
    async def handler(text: Annotated[str, Body()]) -> Response:
        return SLOTS[slot](text)

    async with running(app) as client:
        answer = await client("POST", "/", json=text)
    # What the author passes on unchecked is the author's failure: refused before the first byte.
    assert answer.status == 500
    assert len(answer.raw_headers) == 2
    assert not any(c in field for pair in answer.raw_headers for field in pair for c in b"\r\n\0")


@pytest.mark.parametrize("slot", SLOTS)
async def test_harmless_text_goes_into_every_slot(slot: str) -> None:
    app = App()
    app.get("/")(lambda: SLOTS[slot]("harmless"))
    async with running(app) as client:
        answer = await client("GET", "/")
    assert answer.status < 400
    assert any("harmless" in name + value for name, value in answer.headers.items())


@pytest.mark.parametrize("text", INJECTIONS)
async def test_what_goes_into_a_body_goes_as_it_is(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    app.get("/plain")(lambda text: PlainTextResponse(text))
    app.get("/html")(lambda text: HTMLResponse(text))
    app.get("/json")(lambda text: JSONResponse(text))
    quoted = "".join(f"%{byte:02x}" for byte in text.encode())
    async with running(app) as client:
        assert (await client("GET", f"/plain?text={quoted}")).text == text
        assert (await client("GET", f"/html?text={quoted}")).text == text
        assert (await client("GET", f"/json?text={quoted}")).json() == text
    assert caplog.records == []


async def test_path_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/{name}")
    async def handler(name: str) -> None:
        raise LookupError

    async with running(app) as client:
        await client("GET", "/a%0D%0AERROR%20forged%00")
        await client("GET", "/x", raw_path=None, path="/a\r\nERROR forged\x00")
    for record in caplog.records:
        assert record.getMessage() == "GET /a%0D%0AERROR%20forged%00 failed"


# At random


@pytest.mark.parametrize("seed", range(20))
async def test_random_requests(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    async with unimpressed(caplog) as client:
        for _ in range(40):
            method, path, query, fields, body = _random_request(rng)
            answer = await client(
                method,
                "/",
                body=body,
                headers=fields,
                raw_path=path,
                path=path.decode("utf-8", "replace"),
                query_string=query,
            )
            assert 200 <= answer.status < 500, (method, path, query, fields, body)


def _random_request(
    rng: random.Random,
) -> tuple[str, bytes, bytes, list[tuple[str, str]], bytes]:
    if rng.random() < 0.4:
        path = rng.choice(BODY_PATHS).encode()
        body = json.dumps(_random_json(rng)).encode()
        return "POST", path, b"", [], _mutilated(rng, body)
    source, kind = rng.choice(SOURCES), rng.choice(KINDS)
    value = _random_text(rng)
    path = f"/{source}/{kind}".encode() + (b"/" + value if source == "path" else b"")
    query = b"value=" + value + b"&" * rng.randrange(3) + _random_text(rng)
    text = value.decode("latin-1")
    fields = [("value", text), ("cookie", f"value={text}"), ("x-owner", text), ("host", text)]
    return rng.choice(["GET", "GET", "HEAD", "POST"]), path, query, fields, b""


def _random_text(rng: random.Random) -> bytes:
    alphabet = b'0123456789-+.eE:TZ%&=;/ abf\x00\xff\xc3\xa4"\\{}'
    length = rng.choice([0, 1, 2, 5, 20, 400])
    text = bytes(rng.choice(alphabet) for _ in range(length))
    return text if rng.random() < 0.5 else b"%" + text.hex("%").encode() if text else b""


def _random_json(rng: random.Random, depth: int = 0) -> Any:
    names = [
        "name",
        "count",
        "price",
        "id",
        "day",
        "lines",
        "text",
        "a",
        "b",
        "note",
        "pair",
        "inner",
    ]
    choice = rng.randrange(10 if depth < 4 else 7)
    if choice < 7:
        scalars = [None, True, 0, -1, 10**40, 1.5, float("nan")]
        return rng.choice([*scalars, _random_text(rng).decode("latin-1"), "2026-11-22"])
    if choice == 7:
        return [_random_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {name: _random_json(rng, depth + 1) for name in rng.sample(names, rng.randrange(12))}


def _mutilated(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.5:
        return data
    place = rng.randrange(len(data) + 1)
    return data[:place] + bytes([rng.randrange(256)]) + data[place + rng.randrange(3) :]
