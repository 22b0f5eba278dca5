"""Samples that a worker takes of requests that failed or were slow; those that went well cost a comparison."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from pilothouse.traffic.numbers.samples import Sample
from pilothouse.traffic.plane.decisions import Decision
from pilothouse.traffic.plane.fields import trace_of

__all__ = ["FAILURE", "SLOW_SECONDS", "Sampler"]

FAILURE: Final = 500
SLOW_SECONDS: Final = 0.8
"""What takes longer is a sample: the limit of latency that versions are judged by unless they say otherwise."""
_EACH: Final = 3
_MOST: Final = 60
_MOST_TEXT: Final = 300


class Sampler:
    """A few samples of each second: 3 that failed and 3 that were slow of each route and version, 60 in all."""

    def __init__(self) -> None:
        self._taken: Counter[tuple[str, str, bool]] = Counter()
        self._samples: list[Sample] = []

    def add(self, exchange: Any, decision: Decision | None, seconds: float, now: float) -> None:
        """Take a sample of a request that is over, if there is room. now: seconds since 1970."""
        if decision is None or len(self._samples) >= _MOST:
            return
        status = exchange.status
        key = (decision.route, decision.version, status >= FAILURE)
        if self._taken[key] >= _EACH:
            return
        self._taken[key] += 1
        request = exchange.request
        self._samples.append(
            Sample(
                at=round(now - seconds, 6),
                route=decision.route,
                version=decision.version,
                region=exchange.region,
                method=request.method.decode("latin-1")[:_MOST_TEXT],
                path=request.path[:_MOST_TEXT],
                status=status,
                seconds=round(seconds, 6),
                trace=trace_of(exchange.fields),
            )
        )

    def take(self) -> list[Sample]:
        """Return those of this second, and begin the next."""
        if not self._samples:
            return []
        samples, self._samples = self._samples, []
        self._taken.clear()
        return samples
