"""What TLS costs a server: the processor's time for so many bytes, beside Uvicorn's.

Rules of this module:

* Servers are compared within a round: each is started anew, asked for a little, then for all.
* The time is the server process's own, user and system, as Linux tells it; the client is another
  process, and so is what the machine does besides.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import trustme

from .apps.servers import HOST, ROOT, START_TIME

DESCRIPTION = """\
Starts each server with the same certificate, on the loopback interface, and measures the time of
the processor that it takes for one download, or upload, over TLS.
"""
EPILOG = """\
`to Uvicorn's` is the median of the ratios within a round: below 1 trioweb takes less.
"""

KIB, MIB = 1024, 1024 * 1024
PIECES = (4 * KIB, 64 * KIB, 256 * KIB, 0)  # 0 is all in one

_FILES = ("--ssl-certfile", "{folder}/cert.pem", "--ssl-keyfile", "{folder}/key.pem")
_UVICORN = ("-m", "uvicorn", "--log-level", "warning")
SERVERS = {
    "trioweb": ("-m", "trioweb", "run"),
    "Uvicorn, asyncio": (*_UVICORN, "--loop", "asyncio"),
    "Uvicorn, uvloop": (*_UVICORN, "--loop", "uvloop"),
}


def run(rounds: int, mebibytes: int) -> None:
    if sys.platform != "linux":
        raise SystemExit(
            "Linux says what a process has taken of the processor; this system doesn't."
        )
    with tempfile.TemporaryDirectory() as folder:
        context = _certified(Path(folder))
        print(f"{mebibytes} MiB over TLS, {rounds} rounds; CPU seconds of the server, medians\n")
        print("| what | trioweb | Uvicorn, asyncio | Uvicorn, uvloop | to Uvicorn's |")
        print("|---|---:|---:|---:|---:|")
        for what, request, size in _asked(mebibytes * MIB):
            costs = [
                [_cost(name, folder, context, request, size) for name in SERVERS]
                for _ in range(rounds)
            ]
            ratio = median(ours / min(theirs) for ours, *theirs in costs)
            cells = [f"{median(column):.2f}" for column in zip(*costs, strict=True)]
            print(f"| {what} | {' | '.join(cells)} | {ratio:.2f} |", flush=True)


def _certified(folder: Path) -> ssl.SSLContext:
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def _asked(size: int) -> Iterator[tuple[str, bytes, int]]:
    """What to call it, the head of the request, and how many bytes follow it."""
    end = f" HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
    for piece in PIECES:
        what = f"down, pieces of {piece // KIB} KiB" if piece else "down, in one piece"
        yield what, f"GET /down/{size}/{piece or size}{end}\r\n".encode(), 0
    yield "up", f"POST /up{end}Content-Length: {size}\r\n\r\n".encode(), size


def _cost(name: str, folder: str, context: ssl.SSLContext, request: bytes, size: int) -> float:
    """Seconds of the processor."""
    with _served(name, folder) as (pid, port):
        _ask(port, context, f"GET /down/1/1 HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode(), 0)
        before = _seconds(pid)
        _ask(port, context, request, size)
        return _seconds(pid) - before


@contextmanager
def _served(name: str, folder: str) -> Iterator[tuple[int, int]]:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port = sock.getsockname()[1]
    files = [word.format(folder=folder) for word in _FILES]
    options = ["benchmarks.apps.tls_app:app", "--port", str(port), "--no-access-log", *files]
    process = subprocess.Popen(
        [sys.executable, *SERVERS[name], *options], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_it_listens(port)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + START_TIME
    while True:
        try:
            socket.create_connection((HOST, port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise SystemExit("A server doesn't listen.") from None
            time.sleep(0.05)


def _ask(port: int, context: ssl.SSLContext, request: bytes, size: int) -> None:
    """Send the request and so many bytes, and read the answer to its end."""
    buffer = bytearray(256 * KIB)
    with (
        socket.create_connection((HOST, port)) as sock,
        context.wrap_socket(sock, server_hostname=HOST) as client,
    ):
        client.sendall(request)
        for _ in range(size // len(buffer)):
            client.sendall(buffer)
        if not client.recv_into(buffer):
            raise SystemExit("A server gave no answer.")
        while client.recv_into(buffer):
            pass


def _seconds(pid: int) -> float:
    """What the process has taken of the processor, `man 5 proc`."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks: Sequence[str] = fields[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
