"""One timer for the time limits of many tasks, all of the same length: a reconcile costs no timer of its own."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from pilothouse.foundation.clock import Clock, Timer

__all__ = ["Deadlines"]


class Deadlines:
    """Cancels tasks that are not at their end `seconds` after their begin; 0 is no limit."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.seconds: Final = seconds
        self._clock = clock
        self._ends: dict[asyncio.Task[Any], float] = {}
        """The first to end comes first, as all have the same time."""
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: Timer | None = None

    def begin(self, task: asyncio.Task[Any]) -> None:
        """Count the time of a task from now on."""
        if not self.seconds:
            return
        self._ends[task] = self._clock.monotonic() + self.seconds
        if self._timer is None:
            self._timer = self._clock.call_later(self.seconds, self._due)

    def end(self, task: asyncio.Task[Any]) -> bool:
        """Count no longer; return whether the task was cancelled for being late, and take that back."""
        self._ends.pop(task, None)
        if task not in self._late:
            return False
        self._late.discard(task)
        task.uncancel()
        return True

    def close(self) -> None:
        """Cancel nobody any more."""
        self._ends.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for task, end in list(self._ends.items()):
            if end > now + 1e-6:
                self._timer = self._clock.call_later(end - now, self._due)
                return
            del self._ends[task]
            self._late.add(task)
            task.cancel()
