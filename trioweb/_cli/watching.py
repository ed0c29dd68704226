"""Which files are watched, and what has become of them: for `trioweb dev`.

Rules of this module:

* Only files that the app is made of count: an app that writes its log beside its code mustn't start
  anew with each line, nor by what is installed into an environment beside it.
* Folders are walked here and watched one by one, not as a tree: a tree is watched up to the first
  folder that can't be read, and all of an environment would be watched to no use.
* watchfiles says that something has happened there; what has changed is seen by comparing two
  walks.  So a folder that is new is watched with all that was in it before anybody could watch.
* A watch that fails ends nothing but the watching: the app is served on.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath

import trio

from .._errors import CommandError

logger = logging.getLogger("trioweb.run")

SUFFIX = ".py"

# Folders that nobody writes in by hand, beside all that are hidden.
EXCLUDED_FOLDERS = frozenset({"__pycache__", "build", "dist", "node_modules", "site-packages"})

# What stands in the folder of a virtual environment, Python's or conda's.
_ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")

# How long to wait before folders are watched anew of which one has vanished.
PAUSE = 0.1  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRules:
    """What `--reload-dir`, `--reload-include` and `--reload-exclude` say.

    A pattern is one of `PurePath.match`: it fits a path from its end.  An excluded folder is so
    with all that is in it.  A folder that is named itself is watched, whatever its name.
    """

    folders: tuple[str, ...]
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"{', '.join((f'*{SUFFIX}', *self.includes))} in {', '.join(self.folders)}"

    def enters(self, folder: str) -> bool:
        """Whether a folder is watched, if the one that it is in is."""
        name = os.path.basename(folder)
        if name.startswith(".") or name in EXCLUDED_FOLDERS or _fits(folder, self.excludes):
            return False
        return not any(os.path.exists(os.path.join(folder, mark)) for mark in _ENVIRONMENT_MARKS)

    def counts(self, file: str) -> bool:
        """Whether a file counts, if the folder that it is in is watched."""
        is_code = file.endswith(SUFFIX) and not os.path.basename(file).startswith(".")
        return (is_code or _fits(file, self.includes)) and not _fits(file, self.excludes)


def _fits(path: str, patterns: Iterable[str]) -> bool:
    return any(PurePath(path).match(pattern) for pattern in patterns)


def watch_rules(
    folders: tuple[str, ...],
    includes: tuple[str, ...],
    excludes: tuple[str, ...],
    app_dir: str | None,
) -> WatchRules:
    """As the options say; without folders, the current one and the app's."""
    chosen = folders or (".", app_dir or ".")
    absolute = dict.fromkeys(os.path.abspath(folder) for folder in chosen)
    return WatchRules(folders=tuple(absolute), includes=includes, excludes=excludes)


@dataclass(slots=True)
class Walk:
    """What there is: the folders to watch, and of each file that counts its time and size."""

    folders: list[str] = field(default_factory=list)
    files: dict[str, tuple[int, int]] = field(default_factory=dict)

    def changed_since(self, before: Walk) -> set[str]:
        """The files that have come, gone or changed."""
        return {file for file, _ in self.files.items() ^ before.files.items()}


def walk(rules: WatchRules) -> Walk:
    """What can't be read, or vanishes in the meantime, isn't there."""
    found = Walk()
    seen: set[tuple[int, int]] = set()
    waiting = list(rules.folders)
    while waiting:
        folder = waiting.pop()
        with contextlib.suppress(OSError):
            status = os.stat(folder)
            # A link may lead back to where it is.
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                entries = list(os.scandir(folder))
                found.folders.append(folder)
                waiting += _sort(entries, rules, found.files)
    return found


def _sort(
    entries: Iterable[os.DirEntry[str]], rules: WatchRules, files: dict[str, tuple[int, int]]
) -> Iterator[str]:
    """Notes the files that count; returns the folders to go on with."""
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir():
                if rules.enters(entry.path):
                    yield entry.path
            elif rules.counts(entry.path):
                status = entry.stat()
                files[entry.path] = (status.st_mtime_ns, status.st_size)


class Watcher:
    """Tells of changes.  It is made before anything is served: raises CommandError if it can't."""

    def __init__(self, rules: WatchRules) -> None:
        try:
            import watchfiles
        except ModuleNotFoundError:
            raise CommandError(
                "changes are seen by watchfiles, which is not installed",
                wrong="trioweb dev",
                right="pip install watchfiles, or trioweb dev --no-reload",
            ) from None
        self._watch = watchfiles.awatch
        self._rules = rules
        self._polls = False
        self._has_failed = False

    async def changes(self, stop: trio.Event) -> AsyncGenerator[list[str], None]:
        """The files that have changed, each time that some have; ends when `stop` is set."""
        before = await self._walk()
        while not stop.is_set() and not self._has_failed:
            async with contextlib.aclosing(self._events(before, stop)) as events:
                async for _ in events:
                    now = await self._walk()
                    last, before = before, now
                    if files := now.changed_since(last):
                        yield _named(files)
                    if now.folders != last.folders:
                        break

    async def _walk(self) -> Walk:
        return await trio.to_thread.run_sync(walk, self._rules)

    async def _events(self, there: Walk, stop: trio.Event) -> AsyncGenerator[object, None]:
        """One whenever something has happened in these folders; ends when a new walk is due."""
        folders = set(there.folders)

        def matters(change: object, path: str) -> bool:
            if path in folders or self._rules.counts(path):
                return True
            return os.path.isdir(path) and self._rules.enters(path)

        events = self._watch(
            *there.folders,
            watch_filter=matters,
            stop_event=stop,
            recursive=False,
            force_polling=self._polls or None,
            ignore_permission_denied=True,
        )
        try:
            async with contextlib.aclosing(events):
                async for found in events:
                    yield found
        except FileNotFoundError:
            await trio.sleep(PAUSE)
            yield None
        except (OSError, RuntimeError) as exc:
            self._heed_failure(exc)

    def _heed_failure(self, exc: Exception) -> None:
        if self._polls:
            self._has_failed = True
            logger.error("changes aren't seen any more: %s", exc)
        else:
            self._polls = True
            logger.warning("the system tells of no changes, they are looked for: %s", exc)


def _named(files: Iterable[str]) -> list[str]:
    """As seen from the current folder, where they are in it."""
    return sorted(file.removeprefix(f"{os.getcwd()}{os.sep}") for file in files)
