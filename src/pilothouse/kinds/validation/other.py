"""Validation of autoscalers, disruption budgets, storage and priority classes, and leases."""

from __future__ import annotations

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, Struct
from pilothouse.kinds.quantity import ZERO, parse
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.metadata import label_selector
from pilothouse.kinds.validation.storage import driver_parameters

__all__ = [
    "autoscaler",
    "autoscaler_update",
    "disruption_budget",
    "lease",
    "priority_class",
    "priority_class_update",
    "storage_class",
    "storage_class_update",
]

_METRICS = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_TARGETS = ("Utilization", "Value", "AverageValue")
_EVICTION = ("AlwaysAllow", "IfHealthyBudget")
_RECLAIM = ("Delete", "Retain")
_BINDING = ("Immediate", "WaitForFirstConsumer")
_PREEMPTION = ("Never", "PreemptLowerPriority")
_PRIORITY_MAXIMUM = 1_000_000_000


def autoscaler(errors: ErrorList, obj: Object, *, same_target: bool = False) -> None:
    """Check a HorizontalPodAutoscaler of either version, its metadata apart.

    same_target: it replaces one for objects of the same kind and version, which are not looked at again.
    """
    spec: Object = obj.get("spec") or {}
    low, high = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if low is not None and low < 1:
        errors.invalid(SPEC.child("minReplicas"), low, "must be greater than or equal to 1")
    if high == 0:
        errors.required(SPEC.child("maxReplicas"), "must be set and greater than 0")
    elif high < 0:
        errors.invalid(SPEC.child("maxReplicas"), high, "must be greater than or equal to 1")
    if low is not None and high < low:
        errors.invalid(SPEC.child("maxReplicas"), high, "must be greater than or equal to `minReplicas`")
    target: Object = spec.get("scaleTargetRef") or {}
    for field in ("kind", "name"):
        if checks.required(errors, SPEC.child("scaleTargetRef"), target, field):
            checks.name(errors, SPEC.child("scaleTargetRef", field), target[field], names.path_segment)
    if not same_target:
        _api_version(errors, SPEC.child("scaleTargetRef"), target)
    for position, metric in enumerate(items(spec, "metrics")):
        _metric(errors, SPEC.child("metrics").index(position), metric)


def autoscaler_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a HorizontalPodAutoscaler that replaces another."""
    after, before = ((part.get("spec") or {}).get("scaleTargetRef") or {} for part in (new, old))
    same = all((after.get(field) or "") == (before.get(field) or "") for field in ("apiVersion", "kind"))
    autoscaler(errors, new, same_target=same)


def _api_version(errors: ErrorList, at: Path, target: Object) -> None:
    version = target.get("apiVersion") or ""
    if version.count("/") > 1:
        errors.invalid(at.child("apiVersion"), version, f"unexpected GroupVersion string: {version}")
    elif target.get("kind") != "ReplicationController" and not version.rpartition("/")[0]:
        errors.invalid(at.child("apiVersion"), version, "apiVersion must specify API group")


def _metric(errors: ErrorList, at: Path, metric: Object) -> None:
    kind = metric.get("type") or ""
    if not kind:
        errors.required(at.child("type"), "must specify a metric source type")
    if kind not in _METRICS:
        errors.not_supported(at.child("type"), kind, _METRICS)
    expected = _METRICS.get(kind, "")
    given = [field for field in _METRICS.values() if metric.get(field) is not None]
    if "resource" in given:
        _resource_metric(errors, at.child("resource"), metric["resource"])
    if expected and expected not in given:
        errors.required(at.child(expected), "must populate information for the given metric source")
    if len(given) != 1:
        for field in given:
            if field != expected:
                errors.forbidden(at.child(field), "must populate the given metric source only")


def _resource_metric(errors: ErrorList, at: Path, metric: Object) -> None:
    if not metric.get("name"):
        errors.required(at.child("name"), "must specify a resource name")
    target, place = metric.get("target") or {}, at.child("target")
    kind = target.get("type") or ""
    if not kind:
        errors.required(place.child("type"), "must specify a metric target type")
    if kind not in _TARGETS:
        errors.invalid(place.child("type"), kind, "must be either Utilization, Value, or AverageValue")
    for field in ("value", "averageValue"):
        value = target.get(field)
        if value is not None and not parse(str(value)) > ZERO:
            errors.invalid(place.child(field), str(value), "must be positive")
    utilization, average = target.get("averageUtilization"), target.get("averageValue")
    if utilization is not None and utilization < 1:
        errors.invalid(place.child("averageUtilization"), utilization, "must be greater than 0")
    if utilization is None and average is None:
        text = "must set either a target raw value or a target utilization"
        errors.required(place.child("averageUtilization"), text)
    elif utilization is not None and average is not None:
        text = "may not set both a target raw value and a target utilization"
        errors.forbidden(place.child("averageValue"), text)


def disruption_budget(errors: ErrorList, obj: Object) -> None:
    """Check a PodDisruptionBudget, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    both = spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None
    if both:
        shown = Struct(
            MinAvailable=spec["minAvailable"],
            Selector=spec.get("selector"),
            MaxUnavailable=spec["maxUnavailable"],
            UnhealthyPodEvictionPolicy=spec.get("unhealthyPodEvictionPolicy"),
        )
        errors.invalid(SPEC, shown, "minAvailable and maxUnavailable cannot be both set")
    for field in ("minAvailable", "maxUnavailable"):
        if spec.get(field) is not None:
            checks.int_or_percent(errors, SPEC.child(field), spec[field])
            checks.not_above_100_percent(errors, SPEC.child(field), spec[field])
    label_selector(errors, SPEC.child("selector"), spec.get("selector"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _EVICTION:
        errors.not_supported(SPEC.child("unhealthyPodEvictionPolicy"), policy, _EVICTION)


def storage_class(errors: ErrorList, obj: Object) -> None:
    """Check a StorageClass, its metadata apart."""
    provisioner = obj.get("provisioner") or ""
    if provisioner:
        checks.name(errors, Path("provisioner"), provisioner.lower(), names.qualified_name)
    else:
        errors.required(Path("provisioner"))
    driver_parameters(errors, Path("parameters"), obj.get("parameters") or {})
    for field, values in (("reclaimPolicy", _RECLAIM), ("volumeBindingMode", _BINDING)):
        value = obj.get(field)
        if value and value not in values:
            errors.not_supported(Path(field), value, values)


def storage_class_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a StorageClass that replaces another: what it makes stays."""
    for field in ("parameters", "provisioner", "reclaimPolicy"):
        if (new.get(field) or None) != (old.get(field) or None):
            errors.forbidden(Path(field), f"updates to {field} are forbidden.")
    field = "volumeBindingMode"
    checks.immutable(errors, Path(field), new.get(field), old.get(field))


def priority_class(errors: ErrorList, obj: Object) -> None:
    """Check a PriorityClass, its metadata apart."""
    name = (obj.get("metadata") or {}).get("name") or ""
    system = name in {"system-node-critical", "system-cluster-critical"}
    if name.startswith("system-") and not system:
        text = (
            "priority class names with 'system-' prefix are reserved for system use only. "
            f"error: {name} is not a known system priority class"
        )
        errors.forbidden(Path("metadata.name"), text)
    elif not system and (obj.get("value") or 0) > _PRIORITY_MAXIMUM:
        text = f"maximum allowed value of a user defined priority is {_PRIORITY_MAXIMUM}"
        errors.forbidden(Path("value"), text)
    policy = obj.get("preemptionPolicy")
    if policy is not None and policy not in _PREEMPTION:
        errors.not_supported(Path("preemptionPolicy"), policy, ("PreemptLowerPriority", "Never"))


def priority_class_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a PriorityClass that replaces another: its value and policy stay."""
    if (new.get("value") or 0) != (old.get("value") or 0):
        errors.forbidden(Path("value"), "may not be changed in an update.")
    after, before = new.get("preemptionPolicy"), old.get("preemptionPolicy")
    checks.immutable(errors, Path("preemptionPolicy"), after, before)


def lease(errors: ErrorList, obj: Object) -> None:
    """Check a Lease, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    if spec.get("leaseDurationSeconds") is not None:
        checks.positive(errors, SPEC.child("leaseDurationSeconds"), spec["leaseDurationSeconds"])
    checks.non_negative(errors, SPEC, spec, "leaseTransitions")
