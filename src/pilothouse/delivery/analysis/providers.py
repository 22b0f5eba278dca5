"""Who measures: one provider for each field of a metric's `provider`; plugins by their names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.analyses import AnalysisRun, Measurement, Metric
from pilothouse.kinds import times
from pilothouse.kinds.structs import to_dict

from .conditions import outcome, shown
from .expressions import ExpressionError
from .runs import COMPLETED, ERROR

__all__ = ["MetricError", "Provider", "Providers", "ended", "measured"]


_LONGEST: Final = 4096
"""Characters of a value that a status keeps; conditions have seen all of it."""


class MetricError(DeliveryError):
    """A value cannot be had now; the measurement counts as an error."""


class Provider(Protocol):
    """Measures metrics of one kind. What it raises as MetricError is said in the measurement; it never raises else."""

    async def measure(
        self, run: AnalysisRun, metric: Metric, started: Measurement | None, now: datetime
    ) -> Measurement:
        """Begin a measurement, or go on with one. One that is not completed says by `resume_at` when to ask again.

        run, metric: with all arguments filled in; their values may be secret, so messages have none of them.
        """

    async def end(self, run: AnalysisRun, metric: Metric, started: Measurement, now: datetime) -> Measurement:
        """End a measurement that goes on: nobody wants it any more. What it says then is completed."""


class Providers:
    """Chooses by what a metric asks for. known: by the field of `provider`, plugins by `plugin/NAME`."""

    def __init__(self, known: Mapping[str, Provider]) -> None:
        self._known = dict(known)

    def of(self, metric: Metric) -> Provider:
        """Return who measures a metric. Raises MetricError where nobody does, or where it says more than one."""
        given = _given(metric)
        if len(given) != 1:
            raise MetricError(f"metric '{metric.name}': provider: name one, not {len(given)} ({', '.join(given)})")
        if given[0] not in self._known:
            known = ", ".join(sorted(self._known))
            raise MetricError(f"metric '{metric.name}': provider '{given[0]}' is not there; there are {known}")
        return self._known[given[0]]


def _given(metric: Metric) -> list[str]:
    found: Mapping[str, Any] = to_dict(metric.provider)
    return [
        name
        for field, value in found.items()
        if value is not None
        for name in ([f"plugin/{plugin}" for plugin in value] if field == "plugin" else [field])
    ]


def measured(metric: Metric, value: Any, now: datetime, began: str | None = None) -> Measurement:
    """Return the completed measurement of a value: the metric's conditions say what it means."""
    try:
        phase, message = outcome(metric, value, now), None
    except ExpressionError as error:
        phase, message = ERROR, str(error)
    text = shown(value)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return ended(phase, now, began, message=message, value=text)


def ended(
    phase: str, now: datetime, began: str | None = None, *, message: str | None = None, value: str | None = None
) -> Measurement:
    """Return a completed measurement."""
    assert phase in COMPLETED  # noqa: S101  # a mistake of ours
    moment = times.format_micros(now)
    return Measurement(phase=phase, message=message, value=value, started_at=began or moment, finished_at=moment)
