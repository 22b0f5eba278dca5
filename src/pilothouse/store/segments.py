"""A map from points of the key space to the ranges that cover them.

The key space is cut at the ends of all ranges into elementary segments; each segment holds, as an immutable tuple,
the values whose ranges cover it. Finding what covers a key is one binary search, whatever lies elsewhere.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from sortedcontainers import SortedDict

__all__ = ["SegmentMap"]

T = TypeVar("T")


class SegmentMap(Generic[T]):
    """Values over half-open ranges [start, end) of byte strings; `end` None means to the end of all keys.

    Neighbouring segments are never covered by the same values, so what is removed leaves nothing behind.
    """

    __slots__ = ("_segments",)

    def __init__(self) -> None:
        # Segment start → the values over it, in the order in which they were added. The empty string is always there.
        self._segments: SortedDict[bytes, tuple[T, ...]] = SortedDict({b"": ()})

    def __len__(self) -> int:
        """Return the number of segments; an empty map has one."""
        return len(self._segments)

    def covering(self, key: bytes) -> tuple[T, ...]:
        """Return the values whose ranges contain `key`, oldest first."""
        segments = self._segments
        index = segments.bisect_right(key) - 1
        return segments.peekitem(index)[1]

    def add(self, start: bytes, end: bytes | None, value: T) -> None:
        """Cover [start, end) with `value`, which must not be in the map yet. The range must not be empty."""
        self._cut(start)
        if end is not None:
            self._cut(end)
        segments = self._segments
        for point in list(segments.irange(start, end, inclusive=(True, False))):
            segments[point] = (*segments[point], value)

    def remove(self, start: bytes, end: bytes | None, value: T) -> None:
        """Take away a `value` that was added with this very range."""
        segments = self._segments
        for point in list(segments.irange(start, end, inclusive=(True, False))):
            segments[point] = tuple(each for each in segments[point] if each is not value)
        self._join(start, end)

    def _cut(self, point: bytes) -> None:
        if point not in self._segments:
            self._segments[point] = self.covering(point)

    def _join(self, start: bytes, end: bytes | None) -> None:
        # Tuples of equal members have them in equal order, because values are only ever appended.
        segments = self._segments
        first = segments.bisect_left(start)
        before = segments.peekitem(first - 1)[1] if first else None
        for point in list(segments.irange(start, end)):
            cover = segments[point]
            if before is not None and cover == before:
                del segments[point]
            before = cover
