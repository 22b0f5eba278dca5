"""What an embedded store does by the clock: end leases, report progress to quiet watchers, compact by itself."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from pilothouse.store.commands import Command, Compact, RevokeLease
from pilothouse.store.errors import StoreError

if TYPE_CHECKING:
    import asyncio

    from pilothouse.foundation.clock import Timer
    from pilothouse.store.engine import EmbeddedStore

__all__ = ["Upkeep"]

_log = logging.getLogger(__name__)

_Action = Callable[[], None]

_EXPIRED_AT_ONCE = 1000
_SHORTEST = 0.01
_COMPLAINT_SECONDS = 10.0
_COMPACTIONS_A_PERIOD = 10


class Upkeep:
    """Timers of one store; each is set for when it is next needed, none ticks."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._clock = store.options.clock
        self._lease_timer: Timer | None = None
        self._lease_due = 0.0
        self._timers: dict[str, Timer] = {}
        self._marks: deque[int] = deque(maxlen=_COMPACTIONS_A_PERIOD)
        self._stopped = False
        self._complained = -_COMPLAINT_SECONDS

    def start(self) -> None:
        """Set the timers."""
        self._arm_leases()
        self._repeat("progress", self._store.options.progress_seconds, self._store.hub.idle_progress)
        if self._store.options.auto_compaction_seconds > 0:
            period = self._store.options.auto_compaction_seconds / _COMPACTIONS_A_PERIOD
            self._repeat("compaction", period, self._compact_by_age)
        elif self._store.options.auto_compaction_revisions > 0:
            self._repeat("compaction", 5.0, self._compact_by_count)
        if self._store.keys.sweepable(self._store.checkpointer.revision):
            self._store.checkpointer.compacted()

    def stop(self) -> None:
        """Take the timers back."""
        self._stopped = True
        for timer in (self._lease_timer, *self._timers.values()):
            if timer is not None:
                timer.cancel()

    def after(self, command: Command) -> None:
        """See to what an applied command calls for."""
        if isinstance(command, Compact):
            self._store.hub.compacted(command.revision)
            self._store.checkpointer.compacted()
        else:
            self._arm_leases()

    def _repeat(self, name: str, seconds: float, action: _Action) -> None:
        def run() -> None:
            if not self._stopped:
                self._timers[name] = self._clock.call_later(seconds, run)
                action()

        self._timers[name] = self._clock.call_later(seconds, run)

    def _arm_leases(self) -> None:
        due = self._store.machine.leases.next_deadline()
        if due is None or self._stopped or (self._lease_timer is not None and self._lease_due <= due):
            return
        if self._lease_timer is not None:
            self._lease_timer.cancel()
        self._lease_due = due
        self._lease_timer = self._clock.call_later(max(due - self._clock.monotonic(), _SHORTEST), self._end_leases)

    def _end_leases(self) -> None:
        self._lease_timer = None
        for lease_id in self._store.machine.leases.expired(_EXPIRED_AT_ONCE):
            self._propose(RevokeLease(lease_id))
        self._arm_leases()

    def _compact_by_age(self) -> None:
        if len(self._marks) == _COMPACTIONS_A_PERIOD:
            self._compact(self._marks[0])
        self._marks.append(self._store.keys.revision)

    def _compact_by_count(self) -> None:
        self._compact(self._store.keys.revision - self._store.options.auto_compaction_revisions)

    def _compact(self, revision: int) -> None:
        if revision > max(self._store.keys.compact_revision, 1):
            self._propose(Compact(revision))

    def _propose(self, command: Command) -> None:
        try:
            self._store.propose(command).add_done_callback(self._answered)
        except StoreError as error:
            self._complain(error.message)

    def _answered(self, future: asyncio.Future[object]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._complain(str(error))

    def _complain(self, message: str) -> None:
        """Log why upkeep is held up: once in a while, for a store that refuses refuses every lease's end."""
        now = self._clock.monotonic()
        if now - self._complained >= _COMPLAINT_SECONDS:
            self._complained = now
            _log.warning("upkeep waits: %s", message)
