"""A log-linear histogram of durations: 32 buckets to each power of two of microseconds, so that none is 3.2 % wide.

What it says of a quantile is the middle of a bucket, so it is off by 1.6 % at most, however many durations there were
and however often histograms were added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["WIDTH", "Histogram", "bounds_of", "bucket_of"]

WIDTH: Final = 1 / 32
"""How wide a bucket is at most, as a part of its lower bound, from 32 µs on; below, each microsecond has its own."""

_BITS: Final = 5
_PER_OCTAVE: Final = 1 << _BITS
_LAST: Final = 2047
"""Beyond it, at two million years, all durations are one."""


def bucket_of(seconds: float) -> int:
    """Return the bucket of a duration; what is negative or no number counts as 0."""
    micros = int(seconds * 1e6) if 0 < seconds < math.inf else 0
    if micros < _PER_OCTAVE:
        return micros
    shift = micros.bit_length() - _BITS - 1
    return min(_LAST, (shift << _BITS) + (micros >> shift))


def bounds_of(bucket: int) -> tuple[float, float]:
    """Return the bounds of a bucket in seconds; the upper one is not in it."""
    if bucket < _PER_OCTAVE:
        return bucket / 1e6, (bucket + 1) / 1e6
    shift = (bucket >> _BITS) - 1
    low = (_PER_OCTAVE + (bucket & (_PER_OCTAVE - 1))) << shift
    return low / 1e6, (low + (1 << shift)) / 1e6


class Histogram:
    """Counts of durations by bucket. Empty buckets take no room."""

    __slots__ = ("counts", "total")

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})
        self.total = sum(self.counts.values())

    def add(self, counts: Mapping[int, int]) -> None:
        """Add another histogram's counts."""
        mine = self.counts
        for bucket, count in counts.items():
            mine[bucket] = mine.get(bucket, 0) + count
            self.total += count

    def quantiles(self, parts: Iterable[float]) -> list[float]:
        """Return the durations in seconds that these parts (0 to 1) of all do not exceed; 0 where there are none."""
        if not self.total:
            return [0.0 for _ in parts]
        ordered = sorted(self.counts.items())
        return [self._quantile(ordered, part) for part in parts]

    def _quantile(self, ordered: list[tuple[int, int]], part: float) -> float:
        rank, seen, last = max(1, math.ceil(part * self.total)), 0, 0
        for bucket, count in ordered:
            seen, last = seen + count, bucket
            if seen >= rank:
                break
        return sum(bounds_of(last)) / 2

    def over(self, seconds: float) -> int:
        """Return how many durations were longer, as far as buckets tell: one that holds the bound counts as not."""
        limit = bucket_of(seconds)
        return sum(count for bucket, count in self.counts.items() if bucket > limit)
