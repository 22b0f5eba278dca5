"""All that a gateway has counted since its start, for Prometheus: a collector that is read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import CollectorRegistry

from .histogram import bucket_of
from .windows import Key, Second

__all__ = ["Totals"]

_LABELS: Final = ("route", "rule", "backend", "version", "region")
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.8, 1.0, 2.5, 5.0, 10.0)
"""Seconds. What is counted is finer; a bucket that holds a bound counts as within it."""
_MOST_KEYS: Final = 10_000


class Totals:
    """Counts since the start, by key. Keys beyond 10,000 are counted as one without names."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._by_key: dict[Key, Second] = {}
        self._in_flight: dict[Key, int] = {}
        self._moved: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._happened: dict[str, int] = {}
        self.connections = 0
        """Open ones of clients, over all workers."""
        if registry is not None:
            registry.register(self)

    @property
    def requests(self) -> int:
        """How many are over."""
        return sum(sum(told.codes.values()) for told in self._by_key.values())

    @property
    def in_flight(self) -> Mapping[Key, int]:
        """How many are under way, by key."""
        return self._in_flight

    @property
    def moved(self) -> Mapping[str, int]:
        """How bytes were moved, by the names of `plane.messages.Moved`."""
        return self._moved

    @property
    def refused(self) -> Mapping[str, int]:
        """What was not let through, by kind."""
        return self._refused

    def add(self, counted: Iterable[tuple[Key, Second]]) -> None:
        """Take what a worker has told since it told last."""
        for key, told in counted:
            mine = self._by_key.get(key)
            if mine is None:
                known = key if len(self._by_key) < _MOST_KEYS else Key("", "", "", "", "")
                mine = self._by_key.setdefault(known, Second())
            mine.add(told)

    def set_in_flight(self, now: Mapping[Key, int]) -> None:
        """Take how many requests are under way."""
        self._in_flight = dict(now)

    def move(self, moved: Mapping[str, int]) -> None:
        """Take how bytes were moved (bytes_spliced, bytes_copied, vectored_writes, …) since that was told last."""
        _add(self._moved, moved)

    def refuse(self, refused: Mapping[str, int]) -> None:
        """Take what was not let through, by kind, since that was told last."""
        _add(self._refused, refused)

    def happen(self, happened: Mapping[str, int]) -> None:
        """Take what else was counted, by kind, since that was told last."""
        _add(self._happened, happened)

    def collect(self) -> Iterator[Metric]:
        """Give all metrics, as prometheus-client wants them of a collector."""
        prefix = "pilothouse_gateway"
        requests = CounterMetricFamily(f"{prefix}_requests", "Requests that are over", labels=(*_LABELS, "code"))
        received = CounterMetricFamily(f"{prefix}_received_bytes", "Bytes of requests' bodies", labels=_LABELS)
        sent = CounterMetricFamily(f"{prefix}_sent_bytes", "Bytes of answers' bodies", labels=_LABELS)
        latency = HistogramMetricFamily(
            f"{prefix}_request_seconds", "From a request's head to the end of its answer, in seconds", labels=_LABELS
        )
        for key, told in self._by_key.items():
            for code, count in sorted(told.codes.items()):
                requests.add_metric((*key, str(code)), count)
            received.add_metric(key, told.bytes_in)
            sent.add_metric(key, told.bytes_out)
            latency.add_metric(key, _cumulative(told.latency), told.latency_sum)
        yield from (requests, received, sent, latency)
        in_flight = GaugeMetricFamily(f"{prefix}_in_flight_requests", "Requests under way", labels=_LABELS)
        for key, count in self._in_flight.items():
            in_flight.add_metric(key, count)
        yield in_flight
        yield GaugeMetricFamily(f"{prefix}_client_connections", "Open connections of clients", self.connections)
        for name, total in sorted(self._moved.items()):
            yield CounterMetricFamily(f"{prefix}_{name}", f"How bodies moved: {name.replace('_', ' ')}", total)
        refused = CounterMetricFamily(f"{prefix}_refused", "What was not let through, by kind", labels=("kind",))
        for kind, total in sorted(self._refused.items()):
            refused.add_metric((kind,), total)
        yield refused
        events = CounterMetricFamily(f"{prefix}_events", "What else is worth knowing, by kind", labels=("kind",))
        for kind, total in sorted(self._happened.items()):
            events.add_metric((kind,), total)
        yield events


def _add(mine: dict[str, int], told: Mapping[str, int]) -> None:
    for name, count in told.items():
        mine[name] = mine.get(name, 0) + count


_LIMITS: Final = tuple(bucket_of(bound) for bound in _BOUNDS)


def _cumulative(latency: Mapping[int, int]) -> list[tuple[str, float]]:
    """Return Prometheus' buckets: of each bound, how many durations are within it."""
    counts = [0] * (len(_BOUNDS) + 1)
    for bucket, count in latency.items():
        place = next((place for place, limit in enumerate(_LIMITS) if bucket <= limit), len(_BOUNDS))
        counts[place] += count
    names = [*(str(bound) for bound in _BOUNDS), "+Inf"]
    return [(name, float(total)) for name, total in zip(names, accumulate(counts), strict=True)]
