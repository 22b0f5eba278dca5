"""What a worker counts, and gives away once a second."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.traffic.numbers import Key, Second, bucket_of
from pilothouse.traffic.plane.messages import Counted, EndpointCounted, Moved, Numbers
from pilothouse.traffic.plane.wires import Counters

__all__ = ["Tally"]

_KEYS = 10_000
_PER_MESSAGE = 200


class Tally:
    """Counts of one worker since they were taken last. Keys beyond 10,000 are counted together."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._lines: dict[Key, Second] = {}
        self._in_flight: dict[Key, int] = {}
        self._refused: dict[str, int] = {}
        self._happened: dict[str, int] = {}
        self._moved = Moved()

    def begin(self, key: Key) -> None:
        """Count one request that begins; `add` and `end` come for it."""
        self._in_flight[key] = self._in_flight.get(key, 0) + 1

    def end(self, key: Key) -> None:
        """Count one request that began as over."""
        left = self._in_flight.get(key, 0) - 1
        if left > 0:
            self._in_flight[key] = left
        else:
            self._in_flight.pop(key, None)

    def add(self, key: Key, status: int, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """Count one request that is over."""
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= _KEYS:
                key = Key("", "", "", "", "")
            line = self._lines.setdefault(key, Second())
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

    def happen(self, kind: str) -> None:
        """Count something else worth knowing."""
        self._happened[kind] = self._happened.get(kind, 0) + 1

    def take(self, connections: int, at: int = 0, endpoints: Sequence[EndpointCounted] = ()) -> list[Numbers]:
        """Return what came since the last time; at: the second that it is of, endpoints: what came to them."""
        lines, self._lines = self._lines, {}
        refused, self._refused = self._refused, {}
        happened, self._happened = self._happened, {}
        flying = self._in_flight
        for key in flying:
            if key not in lines:
                lines[key] = Second()
        counted = [
            Counted(*key, line.codes, line.latency, line.latency_sum, line.bytes_in, line.bytes_out, flying.get(key, 0))
            for key, line in lines.items()
        ]
        names = Moved.__struct_fields__
        now = Moved(*[getattr(self._counters, name) for name in names])
        moved = Moved(*[getattr(now, name) - getattr(self._moved, name) for name in names])
        self._moved = now
        told = []
        for begin in range(0, max(len(counted), len(endpoints), 1), _PER_MESSAGE):
            some = slice(begin, begin + _PER_MESSAGE)
            told.append(
                Numbers(tuple(counted[some]), moved, refused, connections, at, tuple(endpoints[some]), happened)
            )
            moved, refused, happened = Moved(), {}, {}
        return told
