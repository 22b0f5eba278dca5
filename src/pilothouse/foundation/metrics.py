"""Metrics, one registry a program: names that follow one rule, buckets that suit, no double registration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

__all__ = [
    "BYTES_BUCKETS",
    "CONTENT_TYPE",
    "COUNT_BUCKETS",
    "PROGRAM",
    "SECONDS_BUCKETS",
    "MetricError",
    "Metrics",
]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What `Metrics.exposition` returns: Prometheus' text format."""

SECONDS_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""From a group commit on a fast disk to a slow start, in seconds."""

BYTES_BUCKETS = tuple(float(4**power) for power in range(3, 15))
"""From 64 B to 256 MiB, in powers of four."""

COUNT_BUCKETS = tuple(float(2**power) for power in range(13))
"""From 1 to 4,096, in powers of two: batch sizes, queue lengths."""

_NAME = re.compile(r"pilothouse_[a-z]+_[a-z0-9]+(_[a-z0-9]+)*")
_BUCKETS_OF_UNIT = {"seconds": SECONDS_BUCKETS, "bytes": BYTES_BUCKETS}

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class MetricError(ValueError):
    """A metric's name breaks the rule, or is taken by one that differs."""


class Metrics:
    """A registry whose metrics are called `pilothouse_<room>_<thing>_<unit>`.

    Asking again for the same metric returns the one that is there, so a room may be built twice in one program.
    Labels must have few values: never an object's name.
    """

    def __init__(self, *, process: bool = False) -> None:
        """Make an empty registry; `process` adds the process's and the interpreter's own metrics."""
        self.registry = CollectorRegistry()
        self._made: dict[str, tuple[object, ...]] = {}
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:  # noqa: A002
        """Return a counter; its name ends in `_total`."""
        if not name.endswith("_total"):
            raise MetricError(f"metric {name}: a counter's name ends in _total")
        return self._get(Counter, name, help, labels)

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Gauge:  # noqa: A002
        """Return a gauge; its name ends in its unit or in what it counts (`_bytes`, `_watchers`)."""
        if name.endswith("_total"):
            raise MetricError(f"metric {name}: _total is for counters; name a gauge by its unit or what it counts")
        return self._get(Gauge, name, help, labels)

    def histogram(
        self,
        name: str,
        help: str,  # noqa: A002
        labels: Sequence[str] = (),
        buckets: Sequence[float] | None = None,
    ) -> Histogram:
        """Return a histogram; buckets follow from the unit that its name ends in, unless given."""
        chosen = tuple(buckets) if buckets is not None else _BUCKETS_OF_UNIT.get(name.rpartition("_")[2], COUNT_BUCKETS)
        return self._get(Histogram, name, help, labels, buckets=chosen)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format, see `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _get(self, kind: type[_Metric], name: str, text: str, labels: Sequence[str], **settings: object) -> _Metric:
        if _NAME.fullmatch(name) is None or len(name.split("_")) < 4:
            raise MetricError(f"metric {name}: want pilothouse_<room>_<thing>_<unit> in lower case")
        wanted: tuple[object, ...] = (kind, text, tuple(labels), tuple(sorted(settings.items())))
        found = self._made.get(name)
        if found is None:
            metric = kind(name, text, labels, registry=self.registry, **settings)  # type: ignore[arg-type]
            self._made[name] = (metric, *wanted)
            return metric
        if found[1:] != wanted:
            raise MetricError(f"metric {name}: there already, as another type or with other help, labels or buckets")
        return cast("_Metric", found[0])


PROGRAM = Metrics(process=True)
"""The program's own registry, which `/metrics` shows. Parts take a `Metrics` and have this one as default."""
