"""wrk, which makes the load.

Rules of this module:

* Its requests are made once, before it starts: a Lua script that has no function for each
  request costs it nothing.  Only those that are to differ are made one by one.
* An answer that is an error, or doesn't come, spoils the run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .apps.endpoints import Endpoint, WrongAnswer
from .apps.servers import HOST

MISSING = """\
wrk makes the load, and is not installed:

    apt install wrk      (Debian, Ubuntu)
    brew install wrk     (macOS)
    https://github.com/wg/wrk, for all others"""

TIMEOUT = 10  # seconds for one answer, whole ones
CONNECTIONS = 32  # at once, unless told otherwise

SCRIPT = """\
wrk.method = {method}
wrk.body = {body}
wrk.headers["content-type"] = {content_type}
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '{{"requests": %d, "microseconds": %d, "failed": %d}}',
    summary.requests, summary.duration, failed
  ))
end
"""


VARYING = """\
local sent = 0
request = function()
  sent = sent + 1
  wrk.headers["x-request-id"] = string.format("%016d", sent)
  return wrk.format()
end
"""


@dataclass(frozen=True)
class Load:
    """What came of a run."""

    requests: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def is_less(seconds: int, enough: int, connections: int) -> list[str]:
    """What a load lacks of that of a whole run."""
    lacks = []
    if seconds < enough:
        lacks.append(f"less than {enough} s for each measurement")
    if connections != CONNECTIONS:
        lacks.append(f"{connections} connections in place of {CONNECTIONS}")
    return lacks


def require_wrk() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit(MISSING)


def offer(port: int, endpoint: Endpoint, seconds: int, connections: int) -> Load:
    """As many requests as the server takes.  Raises WrongAnswer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.lua"
        path.write_text(script(endpoint), "utf-8")
        command = ["wrk", "--threads", "1", "--connections", str(connections)]
        command += ["--duration", f"{seconds}s", "--timeout", f"{TIMEOUT}s"]
        command += ["--script", str(path), f"http://{HOST}:{port}{endpoint.target}"]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return read(ran.stdout)


def script(endpoint: Endpoint) -> str:
    """wrk's Lua for an endpoint."""
    # JSON's strings are Lua's, for what is asked here.
    varying = VARYING if endpoint.varies else ""
    return varying + SCRIPT.format(
        method=json.dumps(endpoint.method),
        body=json.dumps(endpoint.sent.decode()) if endpoint.sent else "nil",
        content_type=json.dumps(endpoint.headers["content-type"]) if endpoint.sent else "nil",
    )


def read(output: str) -> Load:
    """What the script has written behind wrk's own report."""
    summary = json.loads(output[output.rindex("{") :])
    if summary["failed"] or not summary["requests"]:
        raise WrongAnswer(f"under load: {output}")
    return Load(summary["requests"], summary["microseconds"] / 1e6)
