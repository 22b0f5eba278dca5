"""What the server counts of requests: how many, of which kind, with which end, how long.

Counting is plain additions, since it is done for every request; the registry asks for the numbers when it is read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from pilothouse.apiserver.model import RequestInfo
from pilothouse.foundation.metrics import PROGRAM, SECONDS_BUCKETS, Metrics

__all__ = ["RequestMetrics"]

_KINDS = 4096
"""Different kinds of requests counted apart; those beyond are counted together."""
_LABELS = ("verb", "group", "version", "resource", "subresource", "code")
_REQUESTS = "pilothouse_apiserver_requests"
_SECONDS = "pilothouse_apiserver_request_seconds"
_BUCKETS = tuple(SECONDS_BUCKETS)


class _Kind:
    """Requests of one kind: their number, the sum of their seconds, and how many fell into each bucket."""

    __slots__ = ("buckets", "labels", "seconds")

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.seconds = 0.0
        self.buckets = [0] * (len(_BUCKETS) + 1)


_MADE: WeakKeyDictionary[Metrics, RequestMetrics] = WeakKeyDictionary()


class RequestMetrics:
    """Counts requests by verb, resource and code. One per registry; what a request needs is one look-up."""

    def __init__(self, metrics: Metrics = PROGRAM) -> None:
        self._kinds: dict[tuple[Any, ...], _Kind] = {}
        self._other = _Kind(("other", "", "", "other", "", "other"))
        metrics.registry.register(self)

    @classmethod
    def of(cls, metrics: Metrics) -> RequestMetrics:
        """Return the one of a registry, made when it is first asked for: servers that share one count together."""
        found = _MADE.get(metrics)
        if found is None:
            found = _MADE[metrics] = cls(metrics)
        return found

    def observe(self, info: RequestInfo, code: int, seconds: float) -> None:
        """Count one request."""
        key = (info.verb, info.group, info.resource, info.subresource, code)
        found = self._kinds.get(key)
        if found is None:
            found = self._kind(key, info, code)
        found.seconds += seconds
        found.buckets[bisect_left(_BUCKETS, seconds)] += 1

    def _kind(self, key: tuple[Any, ...], info: RequestInfo, code: int) -> _Kind:
        if len(self._kinds) >= _KINDS:
            return self._other
        verb = info.verb if info.is_resource else "other"
        resource = info.resource if info.is_resource else ""
        made = self._kinds[key] = _Kind((verb, info.group, info.version, resource, info.subresource, str(code)))
        return made

    def describe(self) -> Iterator[Metric]:
        """Name the metrics, as the registry asks when they are registered."""
        yield CounterMetricFamily(_REQUESTS, "Requests answered.", labels=_LABELS)
        yield HistogramMetricFamily(_SECONDS, "Time from a request to its answer.", labels=("verb", "resource"))

    def collect(self) -> Iterator[Metric]:
        """Hand the numbers to the registry."""
        counts = CounterMetricFamily(_REQUESTS, "Requests answered.", labels=_LABELS)
        times = HistogramMetricFamily(_SECONDS, "Time from a request to its answer.", labels=("verb", "resource"))
        sums: dict[tuple[str, str], tuple[list[int], float]] = {}
        for kind in [*self._kinds.values(), self._other]:
            counts.add_metric(kind.labels, sum(kind.buckets))
            name = kind.labels[0], kind.labels[3]
            buckets, seconds = sums.get(name, ([0] * len(kind.buckets), 0.0))
            sums[name] = [a + b for a, b in zip(buckets, kind.buckets, strict=True)], seconds + kind.seconds
        yield counts
        for name, (buckets, seconds) in sums.items():
            total, shown = 0, []
            for bound, number in zip([*map(str, _BUCKETS), "+Inf"], buckets, strict=True):
                total += number
                shown.append((bound, total))
            times.add_metric(name, shown, seconds)
        yield times
