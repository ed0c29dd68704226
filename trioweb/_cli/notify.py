"""What a service manager is told: systemd's `Type=notify`, by the protocol of `sd_notify`.

Rules of this module:

* It is the process that the manager has started that speaks, never a worker of it.
* Nobody waits for the manager, and nothing ends because it can't be told: that is logged.
"""

from __future__ import annotations

import logging
import os
import socket
import time

logger = logging.getLogger("trioweb.run")

# The address of the manager's socket.
VARIABLE = "NOTIFY_SOCKET"


def notify_ready() -> None:
    """It listens, the app has started; after `notify_reloading`, all is new."""
    _tell("READY=1")


def notify_reloading() -> None:
    """`Type=notify-reload` wants to know since when."""
    _tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def notify_stopping() -> None:
    _tell("STOPPING=1")


def _tell(message: str) -> None:
    address = os.environ.get(VARIABLE)
    family = getattr(socket, "AF_UNIX", None)
    if not address or family is None:
        return
    if address.startswith("@"):  # a name without a file
        address = f"\0{address[1:]}"
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode(), address)
    except OSError as exc:
        logger.warning("%s can't be told %r: %s", VARIABLE, message, exc)
