"""nginx, with the recipe of the deployment page: what stands there is what runs.

Rules of this module:

* Only where it listens, and where the app does, is other than on the page; and TLS is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"
READY_TIMEOUT = 60.0  # seconds

MISSING = "nginx isn't installed"

# Beside the recipe: nothing of the system's is used.
_CONFIG = """\
daemon off;
{user}
pid {folder}/nginx.pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {recipe}
}}
"""


def is_installed() -> bool:
    return _command() is not None


def _command() -> str | None:
    # Debian has it where only root's PATH leads.
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")


def recipe(upstream: Path, front: Path) -> str:
    """That of the page, from one Unix socket to the other."""
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    text = re.sub(r"\n *(ssl_certificate|ssl_certificate_key|server_name) [^;]*;", "", found[1])
    for there, here in (
        ("server unix:/run/app/web.sock;", f"server unix:{upstream};"),
        ("listen 443 ssl;", f"listen unix:{front};"),
    ):
        assert there in text, f"{PAGE} has no line {there!r}"
        text = text.replace(there, here)
    return text


@contextmanager
def nginx(folder: Path, upstream: Path) -> Iterator[Path]:
    """In front of the app that listens at `upstream`; the socket on which it listens itself."""
    front = folder / "front.sock"
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # may connect, as the page's group may
    config.write_text(_CONFIG.format(folder=folder, user=user, recipe=recipe(upstream, front)))
    command = _command()
    assert command is not None
    process = subprocess.Popen(
        [command, "-p", folder, "-c", config, "-g", "error_log stderr notice;"],
        stderr=subprocess.PIPE,
        text=True,
    )
    ready: Queue[bool] = Queue()
    reader = threading.Thread(target=_read, args=(process, ready))
    reader.start()
    try:
        assert ready.get(timeout=READY_TIMEOUT), "nginx didn't start"
        yield front
    finally:
        process.terminate()
        process.wait()
        reader.join()


def _read(process: subprocess.Popen[str], ready: Queue[bool]) -> None:
    """To the end: nobody else does, and a full pipe would hold it up."""
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if "start worker process " in line:
                ready.put(True)
    ready.put(False)
