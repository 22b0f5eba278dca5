"""Validation of statuses that replace others: counts that fit together, phases, addresses of load balancers."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.quantity import parse
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object, items
from pilothouse.kinds.validation.conditions import conditions
from pilothouse.kinds.validation.resources import amount, quota_resource_name

__all__ = [
    "api_service",
    "autoscaler",
    "claim",
    "daemon_set",
    "deployment",
    "disruption_budget",
    "ingress",
    "namespace",
    "replica_set",
    "resource_quota",
    "service",
    "stateful_set",
]

_STATUS = Path("status")
_MODES = ("Proxy", "VIP")
_CONDITION_STATUSES = ("False", "True", "Unknown")
_MORE_THAN_ALL = "cannot be greater than status.replicas"
_Update = Callable[[ErrorList, Object, Object], None]


def _counts(*fields: str, of_all: Sequence[str] = (), ready: str = "") -> _Update:
    """Make a check of counts: none below zero, some not above `replicas`, the available not above the ready."""

    def check(errors: ErrorList, new: Object, old: Object) -> None:
        """Check the counts of a status that replaces another."""
        status: Object = new.get("status") or {}
        checks.non_negative(errors, _STATUS, status, *fields)
        collisions, before = (
            (part.get("status") or {}).get("collisionCount") if "collisionCount" in fields else None
            for part in (new, old)
        )
        everything = status.get("replicas") or 0
        for field in of_all:
            value = status.get(field) or 0
            if value > everything:
                errors.invalid(_STATUS.child(field), value, _MORE_THAN_ALL)
        available = status.get("availableReplicas") or 0
        if ready and available > (status.get("readyReplicas") or 0):
            errors.invalid(_STATUS.child("availableReplicas"), available, ready)
        if before is not None and (collisions is None or collisions < before):
            shown = 0 if collisions is None else collisions
            errors.invalid(_STATUS.child("collisionCount"), shown, "cannot be decremented")

    return check


replica_set = _counts(
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "observedGeneration",
    of_all=("fullyLabeledReplicas", "readyReplicas", "availableReplicas"),
    ready="cannot be greater than readyReplicas",
)
deployment = _counts(
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "collisionCount",
    of_all=("updatedReplicas", "readyReplicas", "availableReplicas"),
    ready="cannot be greater than readyReplicas",
)
stateful_set = _counts(
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
    "collisionCount",
    of_all=("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"),
    ready="cannot be greater than status.readyReplicas",
)
daemon_set = _counts(
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
)
autoscaler = _counts("currentReplicas", "desiredReplicas")


def disruption_budget(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check the status of a PodDisruptionBudget."""
    status: Object = new.get("status") or {}
    conditions(errors, _STATUS.child("conditions"), items(status, "conditions"))
    fields = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    checks.non_negative(errors, _STATUS, status, *fields)


def namespace(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check the status of a Namespace: its phase tells whether it is being deleted."""
    phase, at = (new.get("status") or {}).get("phase") or "", _STATUS.child("Phase")
    deleted = (new.get("metadata") or {}).get("deletionTimestamp") is not None
    if not deleted and phase != "Active":
        errors.invalid(at, phase, "may only be 'Active' if `deletionTimestamp` is empty")
    if deleted and phase != "Terminating":
        errors.invalid(at, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")


def resource_quota(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check the status of a ResourceQuota."""
    for field in ("hard", "used"):
        for key, value in ((new.get("status") or {}).get(field) or {}).items():
            place = _STATUS.child(field).key(key)
            quota_resource_name(errors, place, key)
            amount(errors, place, key, parse(str(value)))


def claim(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check the status of a PersistentVolumeClaim."""
    if not (new.get("spec") or {}).get("accessModes"):
        errors.required(Path("Spec.accessModes"))
    for key, value in ((new.get("status") or {}).get("capacity") or {}).items():
        size = parse(str(value)).value()
        if size < 0:
            errors.invalid(_STATUS.child("capacity").key(key), size, "must be a valid resource quantity")


def service(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check the status of a Service: only those of type LoadBalancer have addresses."""
    given, at = _ingress_points(new), _STATUS.child("loadBalancer", "ingress")
    if given and (new.get("spec") or {}).get("type") != "LoadBalancer":
        errors.forbidden(at, "may only be used when `spec.type` is 'LoadBalancer'")
        return
    for position, point in enumerate(given):
        place, mode = at.index(position), point.get("ipMode")
        _point(errors, place, point)
        if point.get("ip") and mode is None:
            errors.required(place.child("ipMode"), "must be specified when `ip` is set")
        if not point.get("ip") and mode is not None:
            errors.forbidden(place.child("ipMode"), "may not be specified when `ip` is not set")
        if mode is not None and mode not in _MODES:
            errors.not_supported(place.child("ipMode"), mode, _MODES)


def ingress(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check the status of an Ingress."""
    for position, point in enumerate(_ingress_points(new)):
        _point(errors, _STATUS.child("loadBalancer", "ingress").index(position), point)


def _ingress_points(obj: Object) -> Sequence[Object]:
    return items((obj.get("status") or {}).get("loadBalancer") or {}, "ingress")


def _point(errors: ErrorList, at: Path, point: Object) -> None:
    if ip := point.get("ip"):
        checks.name(errors, at.child("ip"), ip, names.legacy_ip)
    hostname = point.get("hostname")
    if not hostname:
        return
    checks.name(errors, at.child("hostname"), hostname, names.dns1123_subdomain)
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return
    errors.invalid(at.child("hostname"), hostname, "must be a DNS name, not an IP address")


def api_service(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check the status of an APIService."""
    for position, condition in enumerate(items(new.get("status") or {}, "conditions")):
        status = condition.get("status") or ""
        if status not in _CONDITION_STATUSES:
            place = _STATUS.child("conditions").index(position).child("status")
            errors.not_supported(place, status, _CONDITION_STATUSES)
