"""No body at all has no media type: it is null, or the default, or what is required is missing."""

from typing import Annotated, Any, Optional

import msgspec
import pytest
import trio

from trioweb import App, Body, Depends, Request

from ..support.asgi import Client, running
from ..support.server_driver import serving

FORM = "application/x-www-form-urlencoded"


class Order(msgspec.Struct):
    id: int = 0


async def default(order: Order | None = None) -> Any:
    return order


async def optional(order: Optional[Order]) -> Any:  # noqa: UP045  both are written
    return order


async def annotated(order: Annotated[Annotated[int | None, "a remark"], Body()]) -> Any:
    return order


async def value(order: Annotated[int, Body()] = 5) -> Any:
    return order


async def required(order: Order) -> Any: ...


async def shared(order: Order | None = None, note: Annotated[str, Body()] = "") -> Any:
    return [order, note]


async def shared_required(order: Order, note: Annotated[str | None, Body()]) -> Any: ...


async def embedded(order: Annotated[Order | None, Body(embed=True)] = None) -> Any:
    return order


async def dependency(request: Request, order: Order | None = None) -> Any:
    return [order, (await request.body()).decode()]


async def depends(found: Annotated[Any, Depends(dependency)]) -> Any:
    return found


def app_with_bodies() -> App:
    app = App()
    for handler in HANDLERS:
        app.post(f"/{handler.__name__}")(handler)
    return app


HANDLERS = (
    default,
    optional,
    annotated,
    value,
    required,
    shared,
    shared_required,
    embedded,
    depends,
)
EXPECTED: dict[str, Any] = {
    "/default": None,
    "/optional": None,
    "/annotated": None,
    "/value": 5,
    "/required": [["body"]],
    "/shared": [None, ""],
    "/shared_required": [["body", "order"], ["body", "note"]],
    "/embedded": None,
    "/depends": [None, ""],
}


@pytest.mark.parametrize("path", EXPECTED)
@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"Content-Length: 0\r\n",
        b"Content-Length: 000\r\n",
        b"Content-Type: application/json\r\nContent-Length: 0\r\n",
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n",  # curl -d ''
        b"Content-Type: application/x-www-form-urlencoded\r\n",
        b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ],
)
async def test_no_body_has_no_type(path: str, head: bytes) -> None:
    end = b"0\r\n\r\n" if b"chunked" in head else b""
    request = b"POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (path.encode(), head, end)
    async with serving(app_with_bodies()) as running_server:
        client = running_server.connect()
        response = await client.ask(request, "POST")
        again = await client.ask(request, "POST")  # the connection goes on
    assert (again.status, again.body) == (response.status, response.body)
    answer = msgspec.json.decode(response.body)
    if response.status == 422:
        assert all(problem["msg"] == "Field required" for problem in answer["detail"])
        answer = [problem["loc"] for problem in answer["detail"]]
    assert answer == EXPECTED[path]


@pytest.mark.parametrize("chunks", [[b""], [b"", b"", b""]])
async def test_an_empty_body_in_pieces_has_no_type(chunks: list[bytes]) -> None:
    app = app_with_bodies()
    headers = {"content-type": FORM, "transfer-encoding": "chunked"}
    async with running(app) as client:
        exchange = await client("POST", "/default", body=chunks, headers=headers)
        assert (exchange.status, exchange.text) == (200, "null")
        exchange = await client("POST", "/depends", body=chunks, headers=headers)
        assert exchange.json() == [None, ""]


async def test_a_body_of_another_type_is_refused_with_its_first_piece() -> None:
    received = 0
    app = app_with_bodies()

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        async def receive_counted() -> Any:
            nonlocal received
            received += sent == []
            return await receive()

        async def send_noted(message: Any) -> None:
            sent.append(message)
            await send(message)

        sent: list[Any] = []
        await app(scope, receive_counted, send_noted)

    scope: dict[str, Any] = {"http_version": "2"}
    headers = {"content-type": FORM, "content-length": "0"}
    pieces = [b"", b"a=1", b"b" * 100, b"c"]
    async with running(app):
        with trio.fail_after(5):
            exchange = await Client(counting)(
                "POST", "/default", body=pieces, headers=headers, **scope
            )
    assert (exchange.status, received) == (415, 2)


async def test_a_body_of_another_type_is_refused_on_our_server_too() -> None:
    head = b"POST /default HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
    async with serving(app_with_bodies()) as running_server:
        for rest in (
            b"Content-Length: 3\r\n\r\na=1",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\na=1\r\n0\r\n\r\n",
        ):
            response = await running_server.connect().ask(head + rest, "POST")
            assert response.status == 415
            # In pieces: the body isn't there when the head is.
            client = running_server.connect([len(head + rest) - 6, 1, 1])
            assert (await client.ask(head + rest, "POST")).status == 415
