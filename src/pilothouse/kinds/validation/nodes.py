"""Validation of nodes and runtime classes."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, FieldError, Path, Struct
from pilothouse.kinds.quantity import parse
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.metadata import labels
from pilothouse.kinds.validation.pods import tolerations
from pilothouse.kinds.validation.resources import amount, container_resources

__all__ = ["node", "node_update", "runtime_class", "runtime_class_update"]

_TAINTS = Path("metadata.taints")
"""Where Kubernetes says that taints are, though they are in the spec."""
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_STATUS = Path("status")


def node(errors: ErrorList, obj: Object) -> None:
    """Check a Node, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    _taints(errors, _TAINTS, items(spec, "taints"))
    _resources(errors, obj)
    cidrs, at = list(items(spec, "podCIDRs")), SPEC.child("podCIDRs")
    for position, cidr in enumerate(cidrs):
        checks.name(errors, at.index(position), cidr, names.legacy_cidr)
    if len(cidrs) > 1:
        if len(cidrs) > 2 or len({":" in cidr for cidr in cidrs}) < 2:
            errors.invalid(at, cidrs, "may specify no more than one CIDR for each IP family")
        for position, cidr in enumerate(cidrs):
            if cidr in cidrs[:position]:
                errors.duplicate(at.index(position), cidr)


def _taints(errors: ErrorList, at: Path, taints: Sequence[Object]) -> None:
    seen: set[tuple[str, str]] = set()
    for position, taint in enumerate(taints):
        place = at.index(position)
        key, value, effect = (taint.get(field) or "" for field in ("key", "value", "effect"))
        checks.name(errors, place.child("key"), key, names.label_key)
        if messages := names.label_value(value):
            errors.invalid(place.child("value"), value, ";".join(messages))
        checks.one_of(errors, place, taint, "effect", _EFFECTS)
        if (key, effect) in seen:
            shown = Struct(Key=key, Value=value, Effect=effect, TimeAdded=taint.get("timeAdded"))
            text = "taints must be unique by key and effect pair"
            errors.append(FieldError("FieldValueDuplicate", str(place), shown, text))
        seen.add((key, effect))


def _resources(errors: ErrorList, obj: Object) -> None:
    for field in ("capacity", "allocatable"):
        for key, value in ((obj.get("status") or {}).get(field) or {}).items():
            amount(errors, _STATUS.child(field, key), key, parse(str(value)))


def node_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a Node or its status that replaces another: networks and the provider's id are given once."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    _resources(errors, new)
    seen: list[Object] = []
    for position, address in enumerate(items(new.get("status") or {}, "addresses")):
        if address in seen:
            shown = Struct(Type=address.get("type") or "", Address=address.get("address") or "")
            errors.duplicate(_STATUS.child("addresses").index(position), shown)
        seen.append(address)
    _networks_update(errors, items(spec, "podCIDRs"), items(before, "podCIDRs"))
    if before.get("providerID") and before["providerID"] != spec.get("providerID"):
        text = 'node updates may not change providerID except from "" to valid'
        errors.forbidden(SPEC.child("providerID"), text)
    _taints(errors, _TAINTS, items(spec, "taints"))
    if (spec.get("externalID") or "") != (before.get("externalID") or ""):
        errors.forbidden(SPEC.child("externalID"), "may not be updated")


def _networks_update(errors: ErrorList, new: Sequence[str], old: Sequence[str]) -> None:
    text = 'node updates may not change podCIDR except from "" to valid'
    if old and len(new) != len(old):
        errors.forbidden(SPEC.child("podCIDRs"), text)
    elif old:
        for after, before in zip(new, old, strict=True):
            if after != before:
                errors.forbidden(SPEC.child("podCIDRs"), text)


def runtime_class(errors: ErrorList, obj: Object) -> None:
    """Check a RuntimeClass, its metadata apart."""
    checks.name(errors, Path("handler"), obj.get("handler") or "", names.dns1123_label)
    if (overhead := obj.get("overhead")) is not None:
        container_resources(errors, Path("overhead"), {"limits": overhead.get("podFixed") or {}})
    if (scheduling := obj.get("scheduling")) is not None:
        if selector := scheduling.get("nodeSelector"):
            labels(errors, Path("scheduling.nodeSelector"), selector)
        _scheduling_tolerations(errors, Path("scheduling.tolerations"), items(scheduling, "tolerations"))


def _scheduling_tolerations(errors: ErrorList, at: Path, given: Sequence[Object]) -> None:
    tolerations(errors, at, given)
    for position, toleration in enumerate(given):
        if toleration in given[:position]:
            errors.duplicate(at.index(position), toleration)


def runtime_class_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a RuntimeClass that replaces another: its handler stays."""
    checks.immutable(errors, Path("handler"), new.get("handler"), old.get("handler"))
