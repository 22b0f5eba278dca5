"""Validation of events, which both groups that serve them check by their inner form."""

from __future__ import annotations

from typing import Any

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object

__all__ = ["core_event", "core_event_update", "event", "event_update"]

_INNER = {
    "involvedObject": ("involvedObject", "regarding"),
    "reason": ("reason", "reason"),
    "message": ("message", "note"),
    "source": ("source", "deprecatedSource"),
    "firstTimestamp": ("firstTimestamp", "deprecatedFirstTimestamp"),
    "lastTimestamp": ("lastTimestamp", "deprecatedLastTimestamp"),
    "count": ("count", "deprecatedCount"),
    "type": ("type", "type"),
    "eventTime": ("eventTime", "eventTime"),
    "series": ("series", "series"),
    "action": ("action", "action"),
    "related": ("related", "related"),
    "reportingController": ("reportingComponent", "reportingController"),
    "reportingInstance": ("reportingInstance", "reportingInstance"),
}
"""The inner name of each field, with its names in the core group and in `events.k8s.io`."""
_IMMUTABLE = tuple(field for field in _INNER if field != "series")
_LENGTHS = {"reportingInstance": 128, "action": 128, "reason": 128, "message": 1024}
_OF_THE_SERVER = ("default", "kube-system")


def _inner(obj: Object, *, core: bool) -> Object:
    return {field: obj.get(found[0 if core else 1]) for field, found in _INNER.items()}


def core_event(errors: ErrorList, obj: Object) -> None:
    """Check an Event of the core group, its metadata apart."""
    _basics(errors, obj, _inner(obj, core=True))


def core_event_update(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check an Event of the core group that replaces another: anything may change."""
    core_event(errors, new)


def _basics(errors: ErrorList, obj: Object, event: Object) -> None:
    if event["eventTime"]:
        _new_fields(errors, event)
    namespace = (obj.get("metadata") or {}).get("namespace") or ""
    if not namespace:
        # It is the one of the path.
        return
    involved = (event["involvedObject"] or {}).get("namespace") or ""
    fits = bool(involved) or namespace in _OF_THE_SERVER if event["eventTime"] else namespace == (involved or "default")
    if not fits:
        errors.invalid(Path("involvedObject.namespace"), involved, "does not match event.namespace")
    checks.name(errors, Path("namespace"), namespace, names.dns1123_subdomain)


def _new_fields(errors: ErrorList, event: Object) -> None:
    controller = event["reportingController"] or ""
    if not controller:
        errors.required(Path("reportingController"))
    checks.name(errors, Path("reportingController"), controller, names.qualified_name)
    for field, length in _LENGTHS.items():
        value = event[field] or ""
        if not value and field != "message":
            errors.required(Path(field))
        if len(value.encode()) > length:
            errors.invalid(Path(field), "", f"can have at most {length} characters")


def event(errors: ErrorList, obj: Object) -> None:
    """Check an Event of `events.k8s.io`, its metadata apart."""
    found = _inner(obj, core=False)
    _basics(errors, obj, found)
    _series(errors, found["series"])
    if not found["eventTime"]:
        errors.required(Path("eventTime"))
    if found["type"] not in {"Normal", "Warning"}:
        errors.invalid(Path("type"), "", f"has invalid value: {found['type'] or ''}")
    for field in ("firstTimestamp", "lastTimestamp", "count", "source"):
        value: Any = found[field]
        if any(value.values()) if isinstance(value, dict) else value:
            errors.invalid(Path(field), "", "needs to be unset")


def _series(errors: ErrorList, series: Object | None) -> None:
    if series is None:
        return
    if (series.get("count") or 0) < 2:
        errors.invalid(Path("series.count"), "", "should be at least 2")
    if not series.get("lastObservedTime"):
        errors.required(Path("series.lastObservedTime"))


def event_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check an Event of `events.k8s.io` that replaces another: its series alone may change."""
    after, before = _inner(new, core=False), _inner(old, core=False)
    _basics(errors, new, after)
    if after["series"] != before["series"]:
        _series(errors, after["series"])
    for field in _IMMUTABLE:
        checks.immutable(errors, Path(field), after[field], before[field])
