"""Resource quotas: what the objects of a namespace use of each, counted anew. Pure.

What one object counts for is said by `pilothouse.apiserver.admission.quota_usage`, by which admission reserves too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pilothouse.apiserver.admission.podresources import add
from pilothouse.apiserver.admission.quota_usage import counted_resources, in_scope, relevant, usage
from pilothouse.kinds.quantity import ZERO, Quantity, QuantityError, parse_json
from pilothouse.kinds.structs import Pod, ResourceQuota, Service, replace, to_dict

__all__ = ["Measure", "frees", "kinds_of", "measure", "needs_count", "status_of"]

_SCOPED: Final = frozenset({("", "pods"), ("", "persistentvolumeclaims")})


@dataclass(frozen=True, slots=True)
class Measure:
    """What one object counts for, and what scopes look at of it."""

    scoped: Mapping[str, Any]
    used: Mapping[str, Quantity]


def measure(group: str, plural: str, item: Mapping[str, Any], now: datetime) -> Measure:
    """Measure an object, as JSON has it."""
    scoped: Mapping[str, Any] = {}
    if (group, plural) in _SCOPED:
        spec, names = item.get("spec") or {}, ("activeDeadlineSeconds", "priorityClassName", "affinity")
        scoped = {"spec": {name: spec[name] for name in names if name in spec}}
        if plural == "pods":
            scoped["spec"]["containers"] = [_sizes(each) for each in spec.get("containers") or ()]
            scoped["spec"]["initContainers"] = [_sizes(each) for each in spec.get("initContainers") or ()]
            if "resources" in spec:
                scoped["spec"]["resources"] = spec["resources"]
        else:
            scoped = {"spec": spec, "status": item.get("status") or {}}
    return Measure(scoped, usage(group, plural, dict(item), now))


def _sizes(container: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": container.get("name"), "resources": container.get("resources") or {}}


def kinds_of(quota: ResourceQuota) -> list[tuple[str, str]]:
    """Return the kinds of objects, group and plural, that a quota counts."""
    return counted_resources(quota.spec.hard)


def status_of(quota: ResourceQuota, measured: Callable[[str, str], Iterable[Measure] | None]) -> ResourceQuota:
    """Return the quota with the status that it should have.

    measured: gives the objects of a kind in the quota's namespace, None for a kind that nobody serves, of which what
    was used stays.
    """
    hard, tree = quota.spec.hard, to_dict(quota)
    used = {name: amount for name, amount in quota.status.used.items() if name in hard}
    for group, plural in counted_resources(hard):
        found = measured(group, plural)
        if found is None:
            continue
        names = relevant(group, plural, hard)
        total: Mapping[str, Quantity] = dict.fromkeys(names, ZERO)
        for each in found:
            if in_scope(tree, group, plural, dict(each.scoped)):
                total = add(total, {name: each.used[name] for name in names if name in each.used})
        used |= {name: str(amount) for name, amount in total.items()}
    status = quota.status
    if _same(status.hard, hard) and _same(status.used, used):
        return quota
    return replace(quota, status__hard=dict(hard), status__used=used)


def needs_count(old: ResourceQuota, new: ResourceQuota) -> bool:
    """Whether a quota has to be counted because it changed: its usage alone is what admission reserves."""
    return not _same(old.spec.hard, new.spec.hard) or not _same(new.status.hard, new.spec.hard)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one.keys() != other.keys():
        return False
    try:
        return all(parse_json(one[name]) == parse_json(other[name]) for name in one)
    except QuantityError:
        return dict(one) == dict(other)


def frees(old: Pod | Service, new: Pod | Service) -> bool:
    """Whether an object counts for less, or for something else, than before."""
    if isinstance(old, Pod) and isinstance(new, Pod):
        ended = ("Succeeded", "Failed")
        return old.status.phase not in ended and new.status.phase in ended
    if isinstance(old, Service) and isinstance(new, Service):
        return old.spec.type != new.spec.type or len(old.spec.ports) != len(new.spec.ports)
    return False
