"""The measured rate of writes and the commit queue it asks for."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["WriteRates"]

_SECONDS = 600
_QUEUE_SECONDS = 0.050


class WriteRates:
    """Writes a second over the last ten minutes in which there were any."""

    def __init__(self) -> None:
        self._second = -1
        self._count = 0
        self._counts: deque[int] = deque(maxlen=_SECONDS)

    def add(self, count: int, now: float) -> None:
        """Count writes that were applied at `now`, in monotonic seconds."""
        second = int(now)
        if second != self._second:
            if self._count:
                self._counts.append(self._count)
            self._second = second
            self._count = 0
        self._count += count

    @property
    def p99(self) -> int:
        """The 99th percentile of the writes a second, 0 before the first whole second."""
        if not self._counts:
            return 0
        ordered = sorted(self._counts)
        return ordered[math.ceil(len(ordered) * 0.99) - 1]

    @property
    def commit_queue(self) -> int:
        """The commit queue that takes up 50 ms of writes at that rate."""
        return math.ceil(self.p99 * _QUEUE_SECONDS)
