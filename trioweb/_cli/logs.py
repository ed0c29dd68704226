"""How the command line logs.

Rules of this module:

* Standard error, INFO and above, unless a file says otherwise; trioweb itself never
  configures logging anywhere else.
* A file configures `logging` by its own rules (`logging.config.dictConfig`), but for two
  traps: it needs no version, and loggers that exist already stay on unless it switches them off.
"""

from __future__ import annotations

import json
import logging
import logging.config
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._errors import CommandError

# Several processes may share the output, so each line has the number of its process.
FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"

_READERS: dict[str, Callable[[str], Any]] = {".json": json.loads, ".toml": tomllib.loads}


def configure_logging(file: str | None) -> None:
    """Raises CommandError."""
    if file is None:
        logging.basicConfig(level=logging.INFO, format=FORMAT)
        # watchfiles logs how many changes it has seen; `trioweb dev` says which files changed.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        return
    try:
        logging.config.dictConfig(_read(file))
    except (ValueError, TypeError, AttributeError, OSError) as exc:
        cause = f" ({exc.__cause__})" if exc.__cause__ else ""
        raise CommandError(f"--log-config {file}: {exc}{cause}") from None


def _read(file: str) -> dict[str, Any]:
    suffix = Path(file).suffix
    if suffix not in _READERS:
        raise ValueError(f"needs to be a {' or '.join(_READERS)} file")
    config = _READERS[suffix](Path(file).read_text("utf-8"))
    if not isinstance(config, dict):
        raise ValueError("needs an object, as logging.config.dictConfig takes")
    return {"version": 1, "disable_existing_loggers": False, **config}
