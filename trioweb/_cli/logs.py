"""How the command line logs.

Rules of this module:

* Standard error, INFO and above, unless an option or a file says otherwise; trioweb itself never
  configures logging anywhere else.
* trioweb's loggers have a level of their own: an app that configures the root logger for itself,
  as Alembic does, doesn't silence them.
* A file configures `logging` by its own rules (`dictConfig`, or `fileConfig` for INI), but for two
  traps: it needs no version, and loggers that exist already stay on unless it switches them off.
  It may name what stands in the project's folder.
"""

from __future__ import annotations

import configparser
import contextlib
import functools
import json
import logging
import logging.config
import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .._errors import CommandError

# Several processes may share the output, so each line has the number of its process.
FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"

# As `--log-level` has them.
LEVELS = ("critical", "error", "warning", "info", "debug")

_OURS = logging.getLogger("trioweb")


def configure_logging(
    file: str | None, level: str | None = None, folder: str | None = None
) -> None:
    """`folder`: the project's, from which a file may name classes.  Raises CommandError."""
    if file is None:
        number = logging.getLevelNamesMapping()[(level or "info").upper()]
        logging.basicConfig(level=number, format=FORMAT)
        _OURS.setLevel(number)
        # watchfiles logs how many changes it has seen; `trioweb dev` says which files changed.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        return
    try:
        configure = _configuration(file)
        with _importable(folder or os.getcwd()):
            configure()
    except Exception as exc:  # whatever a class that the file names may raise
        cause = f" ({exc.__cause__})" if exc.__cause__ else ""
        raise CommandError(f"--log-config {file}: {exc}{cause}") from None
    if level is not None:
        _OURS.setLevel(level.upper())


@contextlib.contextmanager
def _importable(folder: str) -> Iterator[None]:
    """For so long, and no longer: a module of the project may have the name of a library's."""
    sys.path.insert(0, here := os.path.abspath(folder))
    try:
        yield
    finally:
        sys.path.remove(here)


def _configuration(file: str) -> Callable[[], None]:
    """What configures logging as the file says.  Raises ValueError, or OSError."""
    suffix = Path(file).suffix
    if suffix not in (*_READERS, *_INI):
        raise ValueError(f"needs to be a file of {', '.join((*_READERS, *_INI))}")
    text = Path(file).read_text("utf-8")
    if suffix in _INI:
        return functools.partial(_configure_by_ini, text)
    config = _READERS[suffix](text)
    if not isinstance(config, dict):
        raise ValueError("needs an object, as logging.config.dictConfig takes")
    whole = {"version": 1, "disable_existing_loggers": False, **config}
    return functools.partial(logging.config.dictConfig, whole)


def _configure_by_ini(text: str) -> None:
    parser = configparser.ConfigParser()
    try:
        parser.read_string(text)
        logging.config.fileConfig(parser, disable_existing_loggers=False)
    except KeyError as exc:
        raise ValueError(f"has no {exc}, which logging.config.fileConfig needs") from None
    except configparser.Error as exc:
        raise ValueError(" ".join(str(exc).split())) from None


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ValueError(
            "YAML is read by PyYAML, which is not installed: pip install pyyaml"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ValueError(" ".join(str(exc).split())) from None


_READERS: Mapping[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yaml": _yaml,
    ".yml": _yaml,
}
_INI = (".ini", ".cfg", ".conf")
