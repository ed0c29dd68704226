"""The cancel scopes that a Trio task is in, and those that somebody left open in it.

Rules of this module:

* Who leaves a loop over an async generator may leave a scope within that open, and Trio cancels
  by it whatever the task does later.  So what runs several calls in one task leaves such
  scopes behind each, and takes none of their cancellations for its own.
* Nothing public tells of them: this is the place that looks at what Trio keeps private.
"""

from __future__ import annotations

import trio


class Scopes:
    """Those that the current task is in."""

    __slots__ = ("_status", "task")

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self._status = self.task._cancel_status

    def are_all(self) -> bool:
        """Whether none was left open within them."""
        return self.task._cancel_status is self._status

    def are_cancelled(self) -> bool:
        """Whether by one of these the task is."""
        return self._status.effectively_cancelled

    def return_to(self) -> bool:
        """Leave those that were left open; whether the task is cancelled by these.

        To ask Trio's public functions would take a tenth of a small task.
        """
        if self.task._cancel_status is not self._status:
            self.task._activate_cancel_status(self._status)
        return self._status.effectively_cancelled
