"""How often names were counted in the last minutes, second by second: requests and failures of endpoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, TypeAlias

from .windows import last_whole

__all__ = ["Name", "Rates"]

Name: TypeAlias = tuple[str, str]
"""A backend, and an address of it."""

_MOST_NAMES: Final = 50_000


class Rates:
    """Requests and failures by name. Of a second what comes for names beyond 50,000 is dropped.

    keep: how far back a window may reach, in seconds.
    """

    def __init__(self, keep: int = 300) -> None:
        self._keep = keep
        self._seconds: deque[tuple[int, dict[Name, tuple[int, int]]]] = deque()

    def add(self, second: int, counted: Iterable[tuple[Name, int, int]]) -> None:
        """Take requests and failures of a second, also of one before the last."""
        mine = self._of(second)
        for name, requests, failures in counted:
            if name in mine or len(mine) < _MOST_NAMES:
                before = mine.get(name, (0, 0))
                mine[name] = before[0] + requests, before[1] + failures
        newest = self._seconds[-1][0]
        while self._seconds[0][0] < newest - self._keep:
            self._seconds.popleft()

    def _of(self, second: int) -> dict[Name, tuple[int, int]]:
        line = self._seconds
        place = len(line)
        while place and line[place - 1][0] > second:
            place -= 1
        if place and line[place - 1][0] == second:
            return line[place - 1][1]
        made: dict[Name, tuple[int, int]] = {}
        line.insert(place, (second, made))
        return made

    def over(self, seconds: int, now: float) -> dict[Name, tuple[int, int]]:
        """Return requests and failures in the last whole seconds before `now`, of names that have any."""
        last = last_whole(now)
        sums: dict[Name, tuple[int, int]] = {}
        for second, counted in self._seconds:
            if last - seconds < second <= last:
                for name, (requests, failures) in counted.items():
                    before = sums.get(name, (0, 0))
                    sums[name] = before[0] + requests, before[1] + failures
        return sums
