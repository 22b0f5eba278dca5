"""The row of an autoscaler: what it measures against what it aims at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pilothouse.apiserver.tables.cells import NONE, UNSET, Object, age, quantity
from pilothouse.kinds.ages import Ages

__all__ = ["autoscaler"]

_EMPTY: Final[Mapping[str, Any]] = {}
_METRICS: Final = "autoscaling.alpha.kubernetes.io/metrics"
_CURRENT_METRICS: Final = "autoscaling.alpha.kubernetes.io/current-metrics"
_SHOWN_METRICS: Final = 2
_UNKNOWN: Final = "<unknown>"
_SOURCES: Final = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def _amount(value: Any) -> str:
    return "<nil>" if value is None else quantity(value)


def _percent(value: Any, missing: str) -> str:
    return missing if value is None else f"{value}%"


def _metric(spec: Object, status: Object | None) -> str:
    kind = spec.get("type", "")
    if kind not in _SOURCES:
        return "<unknown type>"
    source = spec.get(_SOURCES[kind]) or _EMPTY
    target = source.get("target") or _EMPTY
    found = (status or _EMPTY).get(_SOURCES[kind])
    current = None if found is None else found.get("current") or _EMPTY
    average = target.get("averageValue")
    if kind == "Pods":
        return f"{_UNKNOWN if current is None else _amount(current.get('averageValue'))}/{_amount(average)}"
    if kind in ("Resource", "ContainerResource"):
        name = source.get("name", "")
        if average is not None:
            told = _UNKNOWN if current is None else _amount(current.get("averageValue"))
            return f"{name}: {told}/{_amount(average)}"
        told = _percent((current or _EMPTY).get("averageUtilization"), _UNKNOWN)
        return f"{name}: {told}/{_percent(target.get('averageUtilization'), '<auto>')}"
    if average is not None:
        held = (current or _EMPTY).get("averageValue")
        return f"{_UNKNOWN if held is None else _amount(held)}/{_amount(average)} (avg)"
    return f"{_UNKNOWN if current is None else _amount(current.get('value'))}/{_amount(target.get('value'))}"


def _metrics(specs: Sequence[Object], statuses: Sequence[Object]) -> str:
    if not specs:
        return NONE
    told = [
        _metric(spec, statuses[place] if place < len(statuses) else None)
        for place, spec in enumerate(specs[:_SHOWN_METRICS])
    ]
    text = ", ".join(told)
    return text if len(specs) <= _SHOWN_METRICS else f"{text} + {len(specs) - _SHOWN_METRICS} more..."


def _in_version_2(metric: Object, side: str) -> Object:
    """Give a metric of version 1 in the terms of version 2. side: `target` or `current`."""
    field = _SOURCES.get(metric.get("type", ""), "")
    source = metric.get(field)
    if not isinstance(source, Mapping) or side in source:
        return metric
    value = {name: source[old] for name, old in _old_names(side) if old in source}
    return {**metric, field: {**source, side: value}}


def _old_names(side: str) -> Sequence[tuple[str, str]]:
    return (
        ("averageUtilization", f"{side}AverageUtilization"),
        ("averageValue", f"{side}AverageValue"),
        ("averageValue", "averageValue"),
        ("value", f"{side}Value"),
    )


def _annotated(obj: Object, name: str, side: str) -> list[Object]:
    """Return the metrics that version 1 keeps in an annotation."""
    text = (obj["metadata"].get("annotations") or _EMPTY).get(name)
    if not text:
        return []
    try:
        listed = json.loads(text)
    except ValueError:
        return []
    found = listed if isinstance(listed, list) else []
    return [_in_version_2(metric, side) for metric in found if isinstance(metric, Mapping)]


def _processor(side: str, value: Any) -> list[Object]:
    """Give the one metric that version 1 has fields for in the terms of version 2."""
    if value is None:
        return []
    return [{"type": "Resource", "resource": {"name": "cpu", side: {"averageUtilization": value}}}]


def _all_metrics(obj: Object, spec: Object, status: Object) -> str:
    if "metrics" in spec:
        return _metrics(spec["metrics"] or (), status.get("currentMetrics") or ())
    specs = _processor("target", spec.get("targetCPUUtilizationPercentage"))
    specs += _annotated(obj, _METRICS, "target")
    statuses = _annotated(obj, _CURRENT_METRICS, "current")
    if not statuses:
        statuses = _processor("current", status.get("currentCPUUtilizationPercentage"))
    return _metrics(specs, statuses)


def autoscaler(obj: Object, ages: Ages) -> list[Any]:
    """Give the cells of a horizontal pod autoscaler of either version."""
    spec, status = obj.get("spec") or _EMPTY, obj.get("status") or _EMPTY
    target = spec.get("scaleTargetRef") or _EMPTY
    least = spec.get("minReplicas")
    return [
        obj["metadata"].get("name", ""),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _all_metrics(obj, spec, status),
        UNSET if least is None else str(least),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age(obj, ages),
    ]
