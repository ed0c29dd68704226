"""The folders that tests of the command line are in, or serve."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioweb._cli import run
from trioweb._cli.signals import STOP_SIGNALS

from ..support.trioweb_process import ENDINGS

# A module with all that an import string can name.
NAMES = """
from typing import Annotated
from trioweb import App, BackgroundTasks, Depends, Header, Query, Router
import functools

app = App()
other = App()
class Kind: pass
async def bare(scope, receive, send): ...
def make_app(): return app
def make_nothing(): return {}
def fail_to_make(): return 1 / 0
async def zero(): ...
settings = {}

def token(x_token: Annotated[str, Header()]) -> str:
    return x_token

router = Router("/items", dependencies=[Depends(token)])

@router.get("/{item_id:int}", name="read")
async def read_item(item_id: int, limit: Annotated[list[int], Query(alias="max")] = []): ...

@app.post("/mail")
async def send_mail(mail: dict[str, str], tasks: BackgroundTasks): ...

@app.put("/two")
async def two(first: dict[str, int], second: list[dict[str, int]]): ...

app.include_router(router)
app.get("/partial")(functools.partial(read_item, item_id=1))
"""


@pytest.fixture(autouse=True)
def level_of_ours() -> Iterator[None]:
    """What the command line has set for its own logs is put back."""
    yield
    logging.getLogger("trioweb").setLevel(logging.NOTSET)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in; modules that a test imports from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def names(folder: Path) -> Path:
    """The same with a main.py of many names."""
    (folder / "main.py").write_text(NAMES)
    return folder


@pytest.fixture
def endings(tmp_path: Path) -> Path:
    """A folder to serve the app of `apps/endings.py` from, as its main.py."""
    (tmp_path / "main.py").write_text(ENDINGS)
    return tmp_path


@pytest.fixture
def in_a_terminal() -> Iterator[None]:
    """This process has the signal handlers of a program in a terminal, under `nohup` too.

    Afterwards it has its own again: it hasn't ended where another would have.
    """
    numbers = (*STOP_SIGNALS, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def in_process(in_a_terminal: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process isn't ended, and modules that a test imports are forgotten afterwards."""
    # The thread that hears signals keeps the limit beyond the end of what was served.
    monkeypatch.setattr(run, "hard_exit", lambda survivors: None)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
