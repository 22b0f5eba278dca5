"""What flow control tells: who was served, refused and how long they waited, by priority level."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

from pilothouse.apiserver.flow.levels import Level
from pilothouse.foundation.metrics import Metrics

__all__ = ["FlowMetrics"]

_ROOM = "pilothouse_apiserver_flowcontrol"


class FlowMetrics:
    """The metrics of flow control, named after Kubernetes' own."""

    def __init__(self, metrics: Metrics) -> None:
        by_both = ("priority_level", "flow_schema")
        self._dispatched = metrics.counter(f"{_ROOM}_dispatched_requests_total", "Requests that got a seat.", by_both)
        self._rejected = metrics.counter(
            f"{_ROOM}_rejected_requests_total", "Requests answered with 429.", (*by_both, "reason")
        )
        self._wait = metrics.histogram(
            f"{_ROOM}_request_wait_seconds", "Time in a queue of those that queued.", ("priority_level",)
        )
        level = ("priority_level",)
        self._executing = metrics.gauge(f"{_ROOM}_executing_requests", "Requests that have a seat now.", level)
        self._queued = metrics.gauge(f"{_ROOM}_inqueue_requests", "Requests that wait for a seat now.", level)
        self._nominal = metrics.gauge(f"{_ROOM}_nominal_seats", "Seats that are a level's share.", level)

    def dispatched(self, level: str, schema: str) -> Callable[[], None]:
        """Return what counts a request that got a seat."""
        return self._dispatched.labels(level, schema).inc

    def rejected(self, level: str, schema: str, reason: str) -> None:
        """Count a request that was refused."""
        self._rejected.labels(level, schema, reason).inc()

    def waited(self, level: str, seconds: float) -> None:
        """Note how long a request was in a queue, whatever its end."""
        self._wait.labels(level).observe(seconds)

    def levels(self, levels: Mapping[str, Level]) -> None:
        """Show the present levels."""
        for name, level in levels.items():
            # The registry outlives the server; it must not keep its levels.
            self._executing.labels(name).set_function(_field(weakref.ref(level), "executing"))
            self._queued.labels(name).set_function(_field(weakref.ref(level), "waiting"))
            self._nominal.labels(name).set(level.nominal)


def _field(reference: Callable[[], Level | None], name: str) -> Callable[[], float]:
    def value() -> float:
        level = reference()
        return float(getattr(level, name)) if level is not None else 0.0

    return value
