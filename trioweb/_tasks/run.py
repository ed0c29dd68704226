"""One list on its way: its tasks in order, and beside them those that run at once.

Rules of this module:

* A list runs one task after another, in the order added, and beside them those
  that were given to `start_soon`.  One that fails doesn't keep the others from running;
  cancellation ends the list and goes on outwards, after the tasks
  that never ran were counted as cancelled.
* A task needs no Trio task of its own: its list steps through it, in the task's context.
* Tasks that never wait let others run all the same: when they have had their turn, the
  list makes a checkpoint.  One for each would cost as much as a small task does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Set as AbstractSet

import trio
from trio.lowlevel import enable_ki_protection

from .. import _errors, _limits
from .._concurrency.context import in_context
from .._concurrency.grace import Grace
from .._concurrency.scopes import Scopes
from .list import TaskQueue
from .options import When
from .runner import TaskRunner
from .task import BackgroundTask


class TaskRun:
    """Runs all of `queue` that are for these `outcomes` of their request.

    `scopes` are those that the run begins in, and the Trio task that it is in.
    """

    _concurrent = 0  # how many run beside the list's own
    _ended = False
    _changed: trio.Event | None = None  # made while the list waits for those beside it
    # The task that waits for something, and what is left of it.
    _begun: tuple[BackgroundTask, Awaitable[object]] | None = None
    # The turn, after which others have theirs: how many ran, and when it began and ended so far.
    _ran = 0
    _since = _until = 0.0

    def __init__(
        self, runner: TaskRunner, queue: TaskQueue, outcomes: AbstractSet[When], scopes: Scopes
    ) -> None:
        self._runner = runner
        self._queue = queue
        self._outcomes = outcomes
        self.scopes = scopes

    def begin(self) -> bool:
        """Run what never waits, as far as its turn allows; whether anything is left to `finish`."""
        # A thread may have added a task after the last look.
        return self._advance() or not self._queue.close_if_empty()

    def _advance(self) -> bool:
        """Run what never waits; whether anything is left."""
        runner, queue = self._runner, self._queue
        waiting = queue.waiting
        now = trio.lowlevel.current_clock().current_time
        while waiting and self._begun is None:
            is_cancelled = self.scopes.keep_to()
            task = waiting[0]
            if task.options.when not in self._outcomes:
                runner.ledger.end(waiting.popleft(), "skipped")
                continue
            is_plain = task.is_plain and runner.places is None
            if is_cancelled or not is_plain or (self._ran and self._turn_is_over()):
                break
            waiting.popleft()
            rest = runner.begin_plain(task, now)
            if rest is not None:
                self._begun = task, rest
            elif waiting:
                self._count(task)
        return self._begun is not None or bool(waiting or queue.concurrent)

    async def finish(self, grace: Grace, nursery: trio.Nursery) -> None:
        """Run what is left, and what joins meanwhile; those beside the list do so in `nursery`.

        Cancellation: what runs is cancelled, the rest is counted as cancelled, and
        `trio.Cancelled` goes on.
        """
        self._grace = grace
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._queue.notice = self._notice
        try:
            self._start_concurrent()
            await self._run_waiting()
            while self._concurrent or not self._queue.close_if_empty():
                self.scopes.return_to()
                await self._wait_for_change()
                await self._run_waiting()
        except BaseException as exc:
            self._grace.begin()
            self._end_list()
            if not _errors.is_only(exc, (trio.Cancelled,)):
                # It ends the nursery too, but only once it has come that far.
                self._nursery.cancel_scope.cancel()
            await self._wait_for_cleanup()
            raise
        finally:
            self._end_list()
            self.scopes.return_to()

    async def _run_waiting(self) -> None:
        while self._advance() and (self._begun is not None or self._queue.waiting):
            if self._begun is not None:
                (task, rest), self._begun = self._begun, None
                await self._run_one(task, rest)
            elif self._turn_is_over():
                self._ran = 0
                await trio.lowlevel.checkpoint()
            else:
                await self._run_one(self._queue.waiting.popleft())

    async def _run_one(self, task: BackgroundTask, begun: Awaitable[object] | None = None) -> None:
        run = self._runner.run(task, self._grace, self.scopes, begun)
        await in_context(task.context, run)
        self._count(task)

    def _count(self, task: BackgroundTask) -> None:
        assert task.started_at is not None  # one that never began was cancelled, and the list too
        assert task.ended_at is not None
        if not self._ran:
            self._since = task.started_at
        self._until = task.ended_at
        self._ran += 1

    def _turn_is_over(self) -> bool:
        took_long = self._until - self._since > _limits.TURN_TIME
        return self._ran >= _limits.TASKS_IN_A_TURN or (self._ran > 0 and took_long)

    def _start_concurrent(self) -> None:
        while (concurrent := self._queue.concurrent) and not self._ended:
            task = concurrent.popleft()
            if task.options.when not in self._outcomes:
                self._runner.ledger.end(task, "skipped")
                continue
            self._concurrent += 1
            task.context.run(self._nursery.start_soon, self._run_concurrent, task)
        self._set_changed()

    @enable_ki_protection
    async def _run_concurrent(self, task: BackgroundTask) -> None:
        try:
            await self._runner.run(task, self._grace, Scopes())
        except BaseException as exc:
            # The nursery may be the app's, which one task mustn't end.
            _errors.raise_rest(exc, _errors.log_bug)
        finally:
            self._concurrent -= 1
            self._set_changed()

    def _notice(self, task: BackgroundTask) -> None:
        """A task joined: one to start at once, or while the list may only wait for such."""
        react = self._start_concurrent if task.is_concurrent else self._set_changed
        in_trio_run, current_token = trio.lowlevel.in_trio_run, trio.lowlevel.current_trio_token
        if in_trio_run() and current_token() is self._token:
            react()
        else:
            self._token.run_sync_soon(react)

    def _set_changed(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _end_list(self) -> None:
        """What still waits is cancelled; what joins now isn't ours to start."""
        self._ended = True
        self._queue.notice = None
        if self._queue.is_waiting:
            self._queue.cancel()

    async def _wait_for_change(self) -> None:
        self._changed = trio.Event()
        await self._changed.wait()

    async def _wait_for_cleanup(self) -> None:
        """Cancelled: those beside are too, and what they use stays open until they have ended.

        As a nursery does, it waits for one behind a shield however long that takes.
        """
        with trio.CancelScope(shield=True):
            while self._concurrent:
                await self._wait_for_change()
