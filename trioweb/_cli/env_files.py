"""Files of variables: `--env-file`.

Rules of this module:

* python-dotenv reads them: their quoting is no simple matter, and what Uvicorn's users know is its.
* A variable that is set already stays as it is.
* Each process that imports the app reads the file itself, so that SIGHUP brings what changed in it.
"""

from __future__ import annotations

import os

from .._errors import CommandError


def read_env_file(file: str | None) -> dict[str, str]:
    """The variables of the file; none if there is no file.  Raises CommandError."""
    if file is None:
        return {}
    try:
        from dotenv import dotenv_values
    except ModuleNotFoundError:
        raise CommandError(
            "files of variables are read by python-dotenv, which is not installed",
            wrong=f"--env-file {file}",
            right="pip install python-dotenv",
        ) from None
    try:
        found = dotenv_values(file, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandError(f"--env-file {file}: {exc}") from None
    return {name: value for name, value in found.items() if value is not None}


def load_env_file(file: str | None) -> None:
    """Set its variables, for the app and for what that starts.  Raises CommandError."""
    for name, value in read_env_file(file).items():
        os.environ.setdefault(name, value)
