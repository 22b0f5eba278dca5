"""What a worker counts, and gives away once a second."""

from __future__ import annotations

from pilothouse.traffic.plane.messages import Counted, Moved, Numbers
from pilothouse.traffic.plane.wires import Counters

__all__ = ["Key", "Tally", "bucket_of"]

Key = tuple[str, str, str, str, str]
"""Route, rule, backend, version, region."""

_KEYS = 10_000
_PER_MESSAGE = 200


def bucket_of(seconds: float) -> int:
    """Return the bucket of a latency: microseconds, 32 to each power of two, so none is more than 3.2 % wide."""
    micros = int(seconds * 1e6)
    if micros < 32:
        return max(micros, 0)
    shift = micros.bit_length() - 6
    return (shift << 5) + (micros >> shift)


class _Line:
    __slots__ = ("bytes_in", "bytes_out", "codes", "in_flight", "latency", "latency_sum")

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.latency: dict[int, int] = {}
        self.latency_sum = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.in_flight = 0


class Tally:
    """Counts of one worker since they were taken last. Keys beyond 10,000 are counted together."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._lines: dict[Key, _Line] = {}
        self._refused: dict[str, int] = {}
        self._moved = Moved()

    def add(self, key: Key, status: int, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """Count one request that is over."""
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= _KEYS:
                key = ("", "", "", "", "")
            line = self._lines.setdefault(key, _Line())
        codes, latency = line.codes, line.latency
        codes[status] = codes.get(status, 0) + 1
        bucket = bucket_of(seconds)
        latency[bucket] = latency.get(bucket, 0) + 1
        line.latency_sum += seconds
        line.bytes_in += bytes_in
        line.bytes_out += bytes_out

    def refuse(self, kind: str) -> None:
        """Count what was not let through."""
        self._refused[kind] = self._refused.get(kind, 0) + 1

    def take(self, connections: int) -> list[Numbers]:
        """Return what came since the last time."""
        lines, self._lines = self._lines, {}
        refused, self._refused = self._refused, {}
        counted = [
            Counted(*key, line.codes, line.latency, line.latency_sum, line.bytes_in, line.bytes_out)
            for key, line in lines.items()
        ]
        names = Moved.__struct_fields__
        now = Moved(*[getattr(self._counters, name) for name in names])
        moved = Moved(*[getattr(now, name) - getattr(self._moved, name) for name in names])
        self._moved = now
        first = Numbers(tuple(counted[:_PER_MESSAGE]), moved, refused, connections)
        more = range(_PER_MESSAGE, len(counted), _PER_MESSAGE)
        return [first, *[Numbers(tuple(counted[at : at + _PER_MESSAGE]), connections=connections) for at in more]]
