"""Ranges of keys that a user may reach, merged so that one search answers for a whole range."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

__all__ = ["KeyRanges", "interval"]


class KeyRanges:
    """Half-open ranges of keys, those that touch merged into one."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[bytes, bytes | None]]) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes | None] = []
        for start, end in sorted(ranges, key=lambda each: each[0]):
            last = self._ends[-1] if self._ends else b""
            if self._ends and (last is None or start <= last):
                self._ends[-1] = None if last is None or end is None else max(last, end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def contain(self, start: bytes, end: bytes | None) -> bool:
        """Whether one merged range holds `start` and reaches to `end`."""
        index = bisect_right(self._starts, start) - 1
        if index < 0:
            return False
        limit = self._ends[index]
        return limit is None or (start < limit and end is not None and end <= limit)


def interval(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    """Return [start, end) with None for no end; a single key ends before its successor.

    An empty key stands for the smallest one, as it does for a watch.
    """
    key = key or b"\0"
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == b"\0" else range_end
