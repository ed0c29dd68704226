"""The cancel scopes that a Trio task is in, and those that somebody left open in it.

Rules of this module:

* Who leaves a loop over an async generator may leave a scope within that open, and Trio cancels
  by it whatever the task does later.  What runs several calls in one task takes none of these
  cancellations for its own, and leaves such a scope when it is cancelled, or at the end.
* As long as it isn't, it may still be closed in order: calls of one list may share a generator.
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
        """Whether the task is cancelled by one of these."""
        self._keep_up()
        return self._status.effectively_cancelled

    def keep_to(self) -> bool:
        """Leave those that were left open, if they are cancelled; whether the task is cancelled by
        the others.

        To ask Trio's public functions would take a tenth of a small task.
        """
        if self.task._cancel_status is not self._status:
            self._keep_up()
            if self.task._cancel_status.effectively_cancelled:
                self.return_to()
        return self._status.effectively_cancelled

    def return_to(self) -> None:
        """Leave those that were left open."""
        self._keep_up()
        if not self.are_all():
            self.task._activate_cancel_status(self._status)

    def _keep_up(self) -> None:
        """Ours may have been left open by somebody, too, and be closed by now."""
        if not self._status.encloses(self.task._cancel_status):
            self._status = self.task._cancel_status
