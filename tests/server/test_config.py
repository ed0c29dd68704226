"""The server's options are spelled once; `serve`, its help and its types follow from there."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import get_type_hints

import pytest
import trio

import trioweb
from trioweb.server import Server, ServerConfig, ServerOptions, _config, serve_config

from ..support.server_clients import connected, listening
from ..support.server_driver import GET, echo

NAMES = [field.name for field in fields(ServerConfig)]


def test_keywords_and_config_are_the_same_options() -> None:
    namespace = vars(_config)
    hints = get_type_hints(ServerOptions, namespace)
    assert hints == get_type_hints(ServerConfig, namespace)
    assert list(ServerOptions.__annotations__) == NAMES


def test_a_config_is_not_changed_later() -> None:
    config = ServerConfig(port=1)
    with pytest.raises(FrozenInstanceError):
        config.port = 2  # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_each_option_is(name: str) -> None:
    for documented in (trioweb.serve, ServerConfig):
        _, found, told = (documented.__doc__ or "").partition(f"`{name}`")
        assert found, name
        assert ":" in told


def test_without_docstrings_there_is_no_help() -> None:
    assert _config.with_options(None) is None


async def test_an_option_that_there_is_not_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match=r"serve\(\) has no option 'prot'; it has host, port, "):
        await trioweb.serve(echo, prot=8000)  # type: ignore[call-arg]


async def test_serve_takes_keywords_or_one_config() -> None:
    async with listening(echo, host="127.0.0.1") as server, connected(server.urls[0]) as client:
        assert (await client.ask(GET)).status == 200
    async with trio.open_nursery() as nursery:
        config = ServerConfig(port=0)
        server = await nursery.start(serve_config, echo, config)
        assert isinstance(server, Server)
        async with connected(server.urls[0]) as client:
            assert (await client.ask(GET)).status == 200
        await server.shutdown()
