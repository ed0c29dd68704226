"""`python -m trioweb`, and the command `trioweb`.

Rules of this module:

* It only ends the process; what a command does is decided below.
"""

from __future__ import annotations

import signal
import sys

from ._cli.main import main


def command() -> None:
    """Never returns: the process ends with the command's status."""
    status = main()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Who presses Ctrl-C now wants no traceback of the interpreter's last steps.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(status)


if __name__ == "__main__":
    command()
