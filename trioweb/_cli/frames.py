"""Whose code a frame runs: the author's, who wrote the app, or somebody else's.

Rules of this module:

* Ours is the whole package, whichever room a frame stands in, and the script that an installer
  writes for the command.  Trio and the standard library aren't the author's either; all else is.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import FrameType

import outcome
import trio

_PACKAGE = f"{Path(__file__).parents[1]}/"
_LIBRARY = f"{Path(threading.__file__).parent}/"
_TRIO = tuple(f"{Path(str(module.__file__)).parent}/" for module in (trio, outcome))

# Installed packages may stand inside the standard library's folder, and are no part of it.
_INSTALLED = f"{_LIBRARY}site-packages/"


def is_the_authors(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if frame.f_globals.get("__name__") == "__main__":
        return False
    if file.startswith(("<frozen ", _PACKAGE, *_TRIO)):
        return False
    return file.startswith(_INSTALLED) or not file.startswith(_LIBRARY)
