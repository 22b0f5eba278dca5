"""Figures of informers and work queues for Prometheus, read from plain counters only when somebody asks."""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from pilothouse.foundation.metrics import Metrics

__all__ = ["Distribution", "Sample", "Source", "register"]

SECONDS: Final = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1_000.0)
"""Bounds for waits and work, as client-go has them from 0.1 ms on."""


class Distribution:
    """A histogram of seconds that costs a fraction of a microsecond an observation."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def merged(self, other: Distribution) -> Distribution:
        """Return the sum of both."""
        both = Distribution()
        both.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        both.total = self.total + other.total
        return both


class Sample(NamedTuple):
    """One value now. Names follow the rule of `pilothouse.foundation.metrics`."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: Mapping[str, str]
    value: float | Distribution


class Source(Protocol):
    """What has figures."""

    def samples(self) -> Iterable[Sample]:
        """Return the values now; those of several sources with the same name and labels are added up."""


class _Collector:
    """Gathers the sources of one registry that are still alive."""

    def __init__(self) -> None:
        self.sources: weakref.WeakSet[Any] = weakref.WeakSet()

    def collect(self) -> Iterator[Any]:
        """Give Prometheus' families."""
        found: dict[str, tuple[Sample, dict[tuple[str, ...], float | Distribution]]] = {}
        for source in list(self.sources):
            for sample in source.samples():
                _, values = found.setdefault(sample.name, (sample, {}))
                labels = tuple(sample.labels.values())
                values[labels] = _added(values.get(labels), sample.value)
        for first, values in found.values():
            yield _family(first, values)


def _added(one: float | Distribution | None, other: float | Distribution) -> float | Distribution:
    if one is None:
        return other
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        return one.merged(other)
    if isinstance(one, Distribution) or isinstance(other, Distribution):
        raise TypeError("a histogram and a number have the same name and labels; rename one")
    return one + other


def _family(sample: Sample, values: Mapping[tuple[str, ...], float | Distribution]) -> Any:
    from prometheus_client.core import (  # noqa: PLC0415  # wanted only by who asks for figures
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    names = list(sample.labels)
    if sample.kind == "histogram":
        histogram = HistogramMetricFamily(sample.name, sample.help, labels=names)
        for labels, value in values.items():
            if isinstance(value, Distribution):
                histogram.add_metric(list(labels), _buckets(value), value.total)
        return histogram
    family = (CounterMetricFamily if sample.kind == "counter" else GaugeMetricFamily)(
        sample.name, sample.help, labels=names
    )
    for labels, value in values.items():
        if not isinstance(value, Distribution):
            family.add_metric(list(labels), value)
    return family


def _buckets(value: Distribution) -> list[tuple[str, float]]:
    buckets, seen = [], 0
    for bound, count in zip((*map(str, SECONDS), "+Inf"), value.counts, strict=True):
        seen += count
        buckets.append((bound, float(seen)))
    return buckets


_collectors: weakref.WeakKeyDictionary[Metrics, _Collector] = weakref.WeakKeyDictionary()


def register(source: Source, metrics: Metrics | None = None) -> None:
    """Show a source's figures in a registry, the program's own by default, for as long as the source lives."""
    if metrics is None:
        from pilothouse.foundation.metrics import PROGRAM  # noqa: PLC0415  # loads the library

        metrics = PROGRAM
    collector = _collectors.get(metrics)
    if collector is None:
        collector = _collectors[metrics] = _Collector()
        metrics.registry.register(collector)
    collector.sources.add(source)
