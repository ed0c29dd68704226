"""Which files are watched, and that their changes are seen whatever else stands beside them."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
import watchfiles

from trioweb._cli import watching
from trioweb._cli.watching import Watcher, WatchRules, walk, watch_rules

from ..support.processes import LINE_TIMEOUT
from ..support.trioweb_process import trioweb_process


def rules(
    folder: Path, *, includes: tuple[str, ...] = (), excludes: tuple[str, ...] = ()
) -> WatchRules:
    return watch_rules((str(folder),), includes, excludes, None)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def seen(folder: Path, found: watching.Walk) -> list[str]:
    return sorted(relative(folder, found.files))


def relative(folder: Path, paths: Iterable[str]) -> set[str]:
    return {os.path.relpath(path, folder) for path in paths}


def test_code_counts_and_what_is_installed_or_made_does_not(tmp_path: Path) -> None:
    write(
        tmp_path,
        "main.py",
        "package/models.py",
        "log.txt",
        ".#main.py",
        "main.pyc",
        ".git/hook.py",
        ".venv/pyvenv.cfg",
        "environment/pyvenv.cfg",
        "environment/lib/python3/site-packages/x.py",
        "conda/conda-meta/history",
        "conda/x.py",
        "node_modules/gyp/x.py",
        "build/lib/x.py",
        "dist/x.py",
        "package/__pycache__/x.py",
        "vendor/site-packages/x.py",
    )
    found = walk(rules(tmp_path))
    assert seen(tmp_path, found) == ["main.py", "package/models.py"]
    assert relative(tmp_path, found.folders) == {".", "package", "vendor"}
    # What is named itself is watched, whatever it is.
    assert seen(tmp_path, walk(rules(tmp_path / "build"))) == ["build/lib/x.py"]


def test_patterns(tmp_path: Path) -> None:
    write(tmp_path, "main.py", ".env", "a/x.html", "a/x.css", "a/x.py", "b/x.py", "b/c/y.py")
    both = rules(tmp_path, includes=("*.html", ".env"), excludes=("b", "a/*.py"))
    assert seen(tmp_path, walk(both)) == [".env", "a/x.html", "main.py"]
    assert seen(tmp_path, walk(rules(tmp_path, excludes=("b/c/", "x.py")))) == ["main.py"]
    assert seen(tmp_path, walk(rules(tmp_path, excludes=(str(tmp_path / "a"), "./b")))) == [
        "main.py"
    ]
    assert both.describe() == f"*.py, *.html, .env in {tmp_path}"


def test_which_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "app/main.py", "other/x.py")
    here = str(tmp_path)
    assert watch_rules((), (), (), None).folders == (here,)
    assert watch_rules((), (), (), "../else").folders == (here, str(tmp_path.parent / "else"))
    assert watch_rules(("app", "app/"), (), (), "other").folders == (str(tmp_path / "app"),)


def test_links_that_lead_back_and_links_that_lead_nowhere(tmp_path: Path) -> None:
    write(tmp_path, "project/a/x.py", "library/y.py")
    project = tmp_path / "project"
    (project / "a" / "loop").symlink_to(project)
    (project / "self").symlink_to(project / "self")
    (project / "nowhere.py").symlink_to(tmp_path / "nowhere")
    (project / "library").symlink_to(tmp_path / "library")
    assert seen(project, walk(rules(project))) == ["a/x.py", "library/y.py"]


def test_what_vanishes_or_cant_be_read_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "main.py", "closed/x.py")
    scandir = os.scandir

    def refuse(folder: str) -> Any:
        if folder.endswith("closed"):
            raise PermissionError
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert seen(tmp_path, walk(rules(tmp_path))) == ["main.py"]
    assert walk(rules(tmp_path / "missing")).folders == []


def test_what_has_changed_between_two_walks(tmp_path: Path) -> None:
    write(tmp_path, "same.py", "gone.py", "longer.py", "later.py")
    before = walk(rules(tmp_path))
    (tmp_path / "gone.py").unlink()
    times = os.stat(tmp_path / "longer.py")
    (tmp_path / "longer.py").write_text("x")
    os.utime(tmp_path / "longer.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(tmp_path / "later.py", ns=(0, times.st_mtime_ns + 1))
    write(tmp_path, "new/new.py")
    changed = walk(rules(tmp_path)).changed_since(before)
    assert relative(tmp_path, changed) == {"gone.py", "later.py", "longer.py", "new/new.py"}


# --- For real


async def told_of(
    folder: Path, names: set[str], change: Callable[[int], object], **patterns: tuple[str, ...]
) -> set[str]:
    """What is told while `change` is called again and again, until these names have been."""
    told: set[str] = set()
    stop = trio.Event()

    async def keep_changing() -> None:
        count = 0
        while not stop.is_set():  # the watch begins at a time of its own
            change(count := count + 1)
            with trio.move_on_after(0.1):
                await stop.wait()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_changing)
            async for files in Watcher(rules(folder, **patterns)).changes(stop):
                told |= relative(folder, files)
                if names <= told:
                    stop.set()
    return told


async def test_changes_of_what_counts_are_told(tmp_path: Path) -> None:
    write(tmp_path, "environment/pyvenv.cfg", "package/__init__.py")

    def change(count: int) -> None:
        for name in ("log.txt", "environment/x.py", "package/x.html", "package/x.py", "main.py"):
            (tmp_path / name).write_text("x" * count)

    names = {"main.py", "package/x.py", "package/x.html"}
    assert await told_of(tmp_path, names, change, includes=("*.html",)) == names


async def test_a_new_folder_is_watched_and_what_was_in_it_told(tmp_path: Path) -> None:
    def change(count: int) -> None:
        if count == 5:
            (tmp_path / "new" / "deep").mkdir(parents=True)
            (tmp_path / "new" / "first.py").write_text("")
        if count > 10:
            (tmp_path / "new" / "deep" / "x.py").write_text("x" * count)

    names = {"new/first.py", "new/deep/x.py"}
    assert await told_of(tmp_path, names, change) == names


async def test_a_folder_that_is_taken_away(tmp_path: Path) -> None:
    def change(count: int) -> None:
        if count % 2:
            write(tmp_path, "package/sub/x.py")
        else:
            shutil.rmtree(tmp_path / "package")

    names = {"package/sub/x.py"}
    assert await told_of(tmp_path, names, change) == names


def watching_with(
    awatch: Callable[..., AsyncIterator[object]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[list[str], None]:
    monkeypatch.setattr(watchfiles, "awatch", awatch)
    return Watcher(rules(folder)).changes(trio.Event())


async def test_a_watch_that_fails_is_said_and_ends_only_the_watching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    polls: list[object] = []

    async def awatch(*folders: str, force_polling: bool | None, **_: Any) -> AsyncIterator[object]:
        polls.append(force_polling)
        if not force_polling:
            yield "something has happened that doesn't matter"
            write(tmp_path, "main.py")
            yield "something has happened"
        raise OSError("no more watches")

    changes = watching_with(awatch, tmp_path, monkeypatch)
    assert [files async for files in changes] == [[str(tmp_path / "main.py")]]
    assert polls == [None, True]
    assert caplog.messages == [
        "the system tells of no changes, they are looked for: no more watches",
        "changes aren't seen any more: no more watches",
    ]


async def test_a_folder_that_has_vanished_before_it_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    watched: list[tuple[str, ...]] = []

    async def awatch(*folders: str, **_: Any) -> AsyncIterator[object]:
        watched.append(folders)
        if len(watched) == 1:
            shutil.rmtree(tmp_path / "package")
            raise FileNotFoundError
        write(tmp_path, "main.py")
        yield "something has happened"

    write(tmp_path, "package/x.py")
    async with contextlib.aclosing(watching_with(awatch, tmp_path, monkeypatch)) as changes:
        assert await anext(changes) == [str(tmp_path / "package" / "x.py")]
        assert await anext(changes) == [str(tmp_path / "main.py")]
    assert watched == [(str(tmp_path), str(tmp_path / "package")), (str(tmp_path),)]


# As somebody who can't read everything, which root can as long as it has these capabilities.
AS_ANYBODY = """
import os, sys
command = [sys.executable, "-m", "trioweb", *sys.argv[1:]]
if os.geteuid() == 0:
    caps = "-dac_override,-dac_read_search"
    command = ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", *command]
os.execvp(command[0], command)
"""

APP = """
import trioweb
from a import A
from b import B
from c import C
app = trioweb.App()

@app.get("/")
async def index(): return A + B + C
"""


@pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which("setpriv"), reason="root reads everything"
)
@pytest.mark.slow
@pytest.mark.processes
def test_dev_beside_a_folder_that_cant_be_read(folder: Path) -> None:
    (folder / "main.py").write_text(APP)
    for name in "abc":
        write(folder, f"{name}/__init__.py")
        (folder / name / "__init__.py").write_text(f"{name.upper()} = 1")
    (folder / "closed" / "sub").mkdir(parents=True)
    (folder / "closed").chmod(0)
    with trioweb_process("dev", "--port=0", cwd=folder, program=("-c", AS_ANYBODY)) as server:
        for number, name in enumerate("abc", 1):
            value = 10**number
            give_up = time.monotonic() + LINE_TIMEOUT
            before = int(server.ask("GET", "/"))
            while int(server.ask("GET", "/")) == before:
                assert time.monotonic() < give_up, server.log
                # Again and again: the watch begins at a time of its own.
                (folder / name / "__init__.py").write_text(f"{name.upper()} = {value} #{give_up}")
                time.sleep(0.5)
        assert "Permission" not in server.log
        assert server.stop() == 0
    (folder / "closed").chmod(0o700)
