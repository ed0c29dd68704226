"""A real PostgreSQL, in a folder of its own, on a Unix socket in that folder.

Rules of this module:

* It is Debian's (`apt install postgresql`), or whatever has its programs on the PATH.
* PostgreSQL refuses to be run by root: as root, its own user runs it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

TIMEOUT = 60.0  # seconds

# Debian keeps each version's programs out of the PATH.
_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def find_programs() -> Path | None:
    """The folder with `initdb` and `pg_ctl`; None where PostgreSQL isn't installed."""
    found = shutil.which("initdb", path=os.pathsep.join([*map(str, _DEBIAN[-1:]), os.defpath]))
    return Path(found).parent if found else None


@contextlib.contextmanager
def postgresql(programs: Path) -> Iterator[dict[str, str]]:
    """It runs in the block; gives libpq's variables that lead to it."""
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="trioweb-pg-"))
    try:
        shutil.chown(folder, user or os.geteuid())
        data = str(folder / "data")
        as_anywhere = ("--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync")
        _run(user, programs / "initdb", "-D", data, "-U", "trioweb", *as_anywhere)
        options = f"-k {folder} -c listen_addresses='' -F"
        log = str(folder / "log")
        _run(user, programs / "pg_ctl", "-D", data, "-o", options, "-l", log, "-w", "start")
        try:
            yield {"PGHOST": str(folder), "PGUSER": "trioweb", "PGDATABASE": "postgres"}
        finally:
            _run(user, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def _run(user: str | None, program: Path, *arguments: str) -> None:
    # What it starts keeps the output open: nobody waits for its end.
    done = subprocess.run(
        [program, *arguments],
        user=user,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=TIMEOUT,
    )
    done.check_returncode()
