"""What a measured value means: success and failure conditions of a metric. Pure."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from typing import Any

from pilothouse.delivery.resources.analyses import Metric

from .expressions import ExpressionError, compiled
from .runs import FAILED, INCONCLUSIVE, SUCCESSFUL

__all__ = ["outcome", "shown"]


def outcome(metric: Metric, value: Any, now: datetime) -> str:
    """Return the phase that a value gives a measurement. Raises ExpressionError where a condition does not fit it.

    With both conditions a value that meets neither is inconclusive; with none any value is a success. now: what
    conditions that say `now()` get.
    """
    names = {"result": value, "now()": now}
    if metric.failure_condition and _is_met(metric.failure_condition, names):
        return FAILED
    if not metric.success_condition:
        return SUCCESSFUL
    if _is_met(metric.success_condition, names):
        return SUCCESSFUL
    return INCONCLUSIVE if metric.failure_condition else FAILED


def _is_met(condition: str, names: dict[str, Any]) -> bool:
    try:
        found = compiled(condition)(names)
    except ExpressionError as error:
        nothing = names["result"] is None or names["result"] == []
        raise ExpressionError(f"{error}; the answer has no data" if nothing else str(error)) from None
    if not isinstance(found, bool):
        raise ExpressionError(f"condition '{condition}' gives {shown(found)}; it has to be true or false")
    return found


def shown(value: Any) -> str:
    """Return a value as text for a status: numbers as they are, lists as `[1,2]`, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if isinstance(value, list):
        return f"[{','.join(shown(each) for each in value)}]"
    if isinstance(value, datetime | timedelta):
        return str(value)
    return json.dumps(value, separators=(",", ":"))
