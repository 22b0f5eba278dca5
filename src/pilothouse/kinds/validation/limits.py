"""Validation of limit ranges: the names of resources, and that minima, defaults and maxima are in order."""

from __future__ import annotations

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.quantity import Quantity, parse
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.resources import container_resource_name, may_overcommit, resource_name

__all__ = ["limit_range"]

_TYPES = ("Pod", "Container", "PersistentVolumeClaim")
_POD_FORBIDDEN = ("default", "defaultRequest")
_ONE = parse("1")
_ORDERED = (
    ("min", "max", "min", "min", "min value {} is greater than max value {}"),
    (
        "min",
        "defaultRequest",
        "defaultRequest",
        "defaultRequest",
        "min value {} is greater than default request value {}",
    ),
    (
        "defaultRequest",
        "max",
        "defaultRequest",
        "defaultRequest",
        "default request value {} is greater than max value {}",
    ),
    (
        "defaultRequest",
        "default",
        "defaultRequest",
        "defaultRequest",
        "default request value {} is greater than default limit value {}",
    ),
    ("min", "default", "default", "min", "min value {} is greater than default value {}"),
    ("default", "max", "default", "max", "default value {} is greater than max value {}"),
)
"""What is not above what; the field that is told, the field whose value is shown, and the text."""

_Amounts = dict[str, dict[str, Quantity]]


def limit_range(errors: ErrorList, obj: Object) -> None:
    """Check a LimitRange, its metadata apart."""
    seen: set[str] = set()
    for position, limit in enumerate(items(obj.get("spec") or {}, "limits")):
        at, kind = SPEC.child("limits").index(position), limit.get("type") or ""
        messages = names.qualified_name(kind)
        for message in messages:
            errors.invalid(at.child("type"), kind, message)
        if not messages and "/" not in kind and kind not in _TYPES:
            errors.invalid(at.child("type"), kind, "must be a standard limit type or fully qualified")
        if kind in seen:
            errors.duplicate(at.child("type"), kind)
        seen.add(kind)
        amounts = _amounts(errors, at, kind, limit)
        for key in dict.fromkeys(key for found in amounts.values() for key in found):
            _ordered(errors, at, key, amounts)


def _amounts(errors: ErrorList, at: Path, kind: str, limit: Object) -> _Amounts:
    """Return the amounts of a limit by field and resource; tell the names that no resource can have."""
    check = container_resource_name if kind in {"Pod", "Container"} else resource_name
    amounts: _Amounts = {}
    for field in ("max", "min", *_POD_FORBIDDEN, "maxLimitRequestRatio"):
        given: Object = limit.get(field) or {}
        if kind == "Pod" and field in _POD_FORBIDDEN:
            if given:
                errors.forbidden(at.child(field), "may not be specified when `type` is 'Pod'")
            continue
        bounded = field != "maxLimitRequestRatio" or "storage" in amounts["min"] or "storage" in amounts["max"]
        if kind == "PersistentVolumeClaim" and not bounded:
            text = "either minimum or maximum storage value is required, but neither was provided"
            errors.required(at.child("limits"), text)
        for key in given:
            check(errors, at.child(field).key(key), key)
        amounts[field] = {key: parse("0" if value is None else str(value)) for key, value in given.items()}
    return amounts


def _ordered(errors: ErrorList, at: Path, key: str, amounts: _Amounts) -> None:
    found = {field: values[key] for field, values in amounts.items() if key in values}
    for low, high, told, shown, text in _ORDERED:
        if low in found and high in found and found[high] < found[low]:
            errors.invalid(at.child(told).key(key), str(found[shown]), text.format(found[low], found[high]))
    if (ratio := found.get("maxLimitRequestRatio")) is not None:
        place = at.child("maxLimitRequestRatio").key(key)
        if ratio < _ONE:
            errors.invalid(place, str(ratio), f"ratio {ratio} is less than 1")
        if "min" in found and "max" in found and found["min"].exact():
            most = found["max"].exact() / found["min"].exact()
            if ratio.exact() > most:
                errors.invalid(place, str(ratio), f"ratio {ratio} is greater than max/min = {float(most):f}")
    if not may_overcommit(key) and "default" in found and "defaultRequest" in found:
        limit, request = found["default"], found["defaultRequest"]
        if limit != request:
            text = f"default value {limit} must equal to defaultRequest value {request} in {key}"
            errors.invalid(at.child("defaultRequest").key(key), str(request), text)
