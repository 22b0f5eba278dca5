"""Waits that grow, as a kubelet's: 10 s doubled up to 300 s, begun anew after twice the cap. Pure."""

from __future__ import annotations

__all__ = ["Backoff", "go_seconds"]


class Backoff:
    """The wait of one thing. Times are seconds of any clock that goes forward."""

    __slots__ = ("_cap", "_first", "_last", "seconds")

    def __init__(self, first: float = 10.0, cap: float = 300.0) -> None:
        self._first = first
        self._cap = cap
        self._last = 0.0
        self.seconds = 0.0
        """The wait that holds now; 0 before the first failure."""

    def remaining(self, since: float, now: float) -> float:
        """Return how long to wait yet for what failed at `since`; 0 or less means go on."""
        if not self.seconds or since - self._last > 2 * self._cap:
            return 0.0
        return since + self.seconds - now

    def next(self, since: float, now: float) -> None:
        """Take note of a try after what failed at `since`: the next wait is twice as long."""
        fresh = not self.seconds or since - self._last > 2 * self._cap
        self.seconds = self._first if fresh else min(self.seconds * 2, self._cap)
        self._last = now


def go_seconds(seconds: float) -> str:
    """Return whole seconds as Go writes a duration: 10s, 1m20s, 5m0s, 1h0m0s."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
