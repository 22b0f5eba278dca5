"""How long a refused client is told to wait: longer while many are refused, as kube-apiserver computes it."""

from __future__ import annotations

from collections import deque

__all__ = ["Drops"]

_LONGEST = 32


class Drops:
    """What one priority level refused lately. `retry_after`: in seconds, from 1 to 32."""

    def __init__(self) -> None:
        self.retry_after = 1
        self._history: deque[tuple[int, int]] = deque(maxlen=_LONGEST + 1)
        self._second = 0
        self._count = 0
        self._doubled = -_LONGEST

    def record(self, second: int) -> None:
        """Count a refused request."""
        if second == self._second:
            self._count += 1
            return
        self._history.append((self._second, self._count))
        self._second, self._count = second, 1
        wait = self.retry_after
        dropped = sum(count for when, count in self._history if second - when <= wait)
        if second - self._doubled >= wait and dropped >= 3 * wait:
            self.retry_after = min(2 * wait, _LONGEST)
            self._doubled = second
        elif dropped < wait and wait > 1:
            self.retry_after -= 1
