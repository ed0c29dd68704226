"""What can be set: an option of the command line, and the settings that all of them make.

Rules of this module:

* An option goes before its variable, and that before the default.
* Whatever is wrong is said with the name under which it was given.
* A default stands where the field does; an option only says what `--help` calls it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from .._errors import CommandError
from ..server import ServerConfig
from .conversions import switch

PREFIX = "TRIOWEB_"

# Between the values of an option that can be given several times, in its variable.
SEPARATOR = ","


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of `run` and `dev`, read: those of the server, and what is the command's own."""

    app: str | None = None
    app_dir: str | None = None
    env_file: str | None = None
    workers: int = 1
    worker_timeout: float = 30.0  # a loop that is blocked for shorter may yet go on
    max_requests: float = math.inf
    workers_lifetime: float = math.inf
    supervised: bool = False  # a process of its own keeps the workers
    reload: bool = False
    reload_dirs: tuple[str, ...] = ()
    reload_includes: tuple[str, ...] = ()
    reload_excludes: tuple[str, ...] = ()
    log_config: str | None = None
    log_level: str | None = None
    server: ServerConfig


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    `convert` raises ValueError with what would be right.  `record` is the class whose field the
    option sets: the field has the option's name, or the one that `sets` gives.  `shown`: what
    `--help` says of the default, where that isn't the field's own.  `many`: it can be given several
    times, and sets a tuple; its variable has commas.  `aliases`: what other servers call it.
    """

    name: str
    convert: Callable[[str], Any]
    metavar: str
    help: str
    shown: str = ""
    group: str = "listening"
    record: type = ServerConfig
    sets: str = ""
    many: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        return flag(self.name)

    @property
    def key(self) -> str:
        """The name that the parser has for it."""
        return key(self.name)

    @property
    def field(self) -> str:
        """The field of `record` that it sets."""
        return self.sets or self.key

    @property
    def default(self) -> str:
        """As `--help` says it; empty where nothing is set by default."""
        return self.shown or _shown_default(self.record, self.field)

    @property
    def variable(self) -> str:
        return variable(self.name)

    @property
    def is_switch(self) -> bool:
        return self.convert is switch

    def is_given(self, given: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
        """Whether the command line has it, as the parser says in `given`, or the environment."""
        return any(self._sources(given, environ))

    def written(self, given: Mapping[str, Any], environ: Mapping[str, str]) -> str:
        """The name under which it is given, and its value, for an error to show."""
        name, separator, value = next(self._sources(given, environ))
        return f"{name}{separator}{value[0] if isinstance(value, list) else value}"

    def read(self, given: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
        """The value of an option that is given.  Raises CommandError."""
        name, separator, value = next(self._sources(given, environ))
        if isinstance(value, bool):
            return value
        if not self.many:
            return self._converted(name, separator, value)
        texts = value.split(SEPARATOR) if isinstance(value, str) else value
        return tuple(self._converted(name, separator, text.strip()) for text in texts)

    def _sources(
        self, given: Mapping[str, Any], environ: Mapping[str, str]
    ) -> Iterator[tuple[str, str, Any]]:
        """Where it is given, as (name, separator, value); the one that counts comes first."""
        names = (self.name, *self.aliases)
        for name in names:
            if given.get(key(name)) is not None:
                yield flag(name), " ", given[key(name)]
        for name in names:
            if len(name) > 1 and variable(name) in environ:
                yield variable(name), "=", environ[variable(name)]

    def _converted(self, name: str, separator: str, text: str) -> Any:
        if not text:
            raise CommandError(f"{name} is empty: give it a value, or leave it out")
        try:
            return self.convert(text)
        except ValueError as exc:
            raise CommandError(f"{name}{separator}{text}: {exc}{_hint(text)}") from None


def flag(name: str) -> str:
    """As it is typed: `--port`, `-b`."""
    return f"--{name}" if len(name) > 1 else f"-{name}"


def key(name: str) -> str:
    return name.replace("-", "_")


def variable(name: str) -> str:
    return PREFIX + key(name).upper()


def _shown_default(record: type, name: str) -> str:
    [default] = [field.default for field in fields(record) if field.name == name]
    if isinstance(default, tuple):
        return SEPARATOR.join(default)
    return "" if default is None or default is False else str(default)


def _hint(text: str) -> str:
    """Kubernetes sets TRIOWEB_PORT=tcp://... wherever a Service has the name trioweb."""
    if not text.startswith("tcp://"):
        return ""
    return " (set for a Service named trioweb? enableServiceLinks: false in the pod ends that)"
