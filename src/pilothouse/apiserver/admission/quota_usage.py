"""What objects count for in resource quotas: their usage, and which quotas look at them.

Pure functions, shared by admission, which reserves, and by the controller, which counts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pilothouse.apiserver.admission.plugin import containers
from pilothouse.apiserver.admission.podresources import Resources, add, is_best_effort, pod_resources, quantities, read
from pilothouse.apiserver.admission.pods import is_extended
from pilothouse.apiserver.admission.storage import claim_class
from pilothouse.apiserver.ports import Object
from pilothouse.kinds import labels, times
from pilothouse.kinds.quantity import Quantity
from pilothouse.kinds.status import qualified

__all__ = ["counted_resources", "in_scope", "matches", "missing", "observed", "relevant", "usage"]

_ONE: Final = Quantity(1)
_ZERO: Final = Quantity(0)
_BY_CLASS: Final = ".storageclass.storage.k8s.io/"
_COUNT: Final = "count/"
_DEVICES: Final = ".deviceclass.resource.k8s.io/devices"
_MOST_DEVICES: Final = 32
"""What a request for all devices of a class counts for: as many as a claim may get."""
_ALIASES: Final = frozenset({"configmaps", "resourcequotas", "replicationcontrollers", "secrets"})
"""Resources whose number has a name without `count/` as well."""
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_POD_NAMES: Final = frozenset({
    "pods", "count/pods", *_COMPUTE, *(f"requests.{one}" for one in _COMPUTE), *(f"limits.{one}" for one in _COMPUTE),
})  # fmt: skip
_SERVICE_NAMES: Final = frozenset({"count/services", "services", "services.nodeports", "services.loadbalancers"})
_CLAIM_NAMES: Final = frozenset({"count/persistentvolumeclaims", "persistentvolumeclaims", "requests.storage"})
_HUGE: Final = ("hugepages-", "requests.hugepages-")
_NEEDED: Final = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})


def relevant(group: str, plural: str, names: Iterable[str]) -> list[str]:
    """Return those of a quota's resources that objects of this kind count for, sorted."""
    return sorted({name for name in names if _counts(group, plural, name)})


def _counts(group: str, plural: str, name: str) -> bool:
    match (group, plural):
        case ("", "pods"):
            return name in _POD_NAMES or name.startswith(_HUGE) or _is_extended_request(name)
        case ("", "services"):
            return name in _SERVICE_NAMES
        case ("", "persistentvolumeclaims"):
            ends = (f"{_BY_CLASS}persistentvolumeclaims", f"{_BY_CLASS}requests.storage")
            return name in _CLAIM_NAMES or name.endswith(ends)
        case ("resource.k8s.io", "resourceclaims") if name.endswith(_DEVICES):
            return True
    return name == _COUNT + qualified(group, plural) or (not group and plural in _ALIASES and name == plural)


def _is_extended_request(name: str) -> bool:
    return name.startswith("requests.") and is_extended(name.removeprefix("requests."))


def counted_resources(hard: Iterable[str]) -> list[tuple[str, str]]:
    """Return which kinds (group, plural) have to be counted for a quota with these resources."""
    kinds: dict[tuple[str, str], None] = {}
    for name in hard:
        for kind in (("", "pods"), ("", "services"), ("", "persistentvolumeclaims")):
            if _counts(*kind, name):
                kinds[kind] = None
                break
        else:
            if name.startswith(_COUNT):
                plural, _, group = name.removeprefix(_COUNT).partition(".")
                kinds[group, plural] = None
            elif name in _ALIASES:
                kinds["", name] = None
            elif name.endswith(_DEVICES):
                kinds["resource.k8s.io", "resourceclaims"] = None
    return list(kinds)


def usage(group: str, plural: str, item: Object, now: datetime) -> Resources:
    """Return what one object counts for."""
    match (group, plural):
        case ("", "pods"):
            return _pod_usage(item, now)
        case ("", "services"):
            return _service_usage(item)
        case ("", "persistentvolumeclaims"):
            return _claim_usage(item)
        case ("resource.k8s.io", "resourceclaims"):
            return {f"{_COUNT}resourceclaims.resource.k8s.io": _ONE, **_devices(item)}
    counted = {_COUNT + qualified(group, plural): _ONE}
    if not group and plural in _ALIASES:
        counted[plural] = _ONE
    return counted


def _pod_usage(pod: Object, now: datetime) -> Resources:
    """Count a pod: as an object always, what it asks for until it has ended."""
    result: Resources = {"count/pods": _ONE}
    if _has_ended(pod, now):
        return result
    spec = pod.get("spec") or {}
    return add(result, _compute(pod_resources(spec, "requests"), pod_resources(spec, "limits")))


def _has_ended(pod: Object, now: datetime) -> bool:
    if (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}:
        return True
    metadata = pod.get("metadata") or {}
    deleted, grace = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if deleted is None or grace is None:
        return False
    return now > times.parse(deleted) + timedelta(seconds=grace)


def _compute(requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]) -> Resources:
    result: Resources = {"pods": _ONE}
    for name in _COMPUTE:
        if name in requests:
            result[name] = result[f"requests.{name}"] = requests[name]
        if name in limits:
            result[f"limits.{name}"] = limits[name]
    for name, value in requests.items():
        if name.startswith("hugepages-"):
            result[name] = result[f"requests.{name}"] = value
        elif is_extended(name):
            result[f"requests.{name}"] = value
    return result


def _service_usage(service: Object) -> Resources:
    spec = service.get("spec") or {}
    ports = spec.get("ports") or []
    kind = spec.get("type")
    opened = 0
    if kind == "NodePort":
        opened = len(ports)
    elif kind == "LoadBalancer":
        allocates = spec.get("allocateLoadBalancerNodePorts") is not False
        opened = len(ports) if allocates else sum(1 for one in ports if one.get("nodePort"))
    return {
        "count/services": _ONE,
        "services": _ONE,
        "services.nodeports": Quantity(opened),
        "services.loadbalancers": _ONE if kind == "LoadBalancer" else _ZERO,
    }


def _claim_usage(claim: Object) -> Resources:
    result: Resources = {"persistentvolumeclaims": _ONE, "count/persistentvolumeclaims": _ONE}
    name = claim_class(claim)
    if name:
        result[f"{name}{_BY_CLASS}persistentvolumeclaims"] = _ONE
    asked = quantities(((claim.get("spec") or {}).get("resources") or {}).get("requests")).get("storage")
    if asked is not None:
        allocated = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage")
        size = max(asked, read(allocated)) if allocated is not None else asked
        if size.scale < 0:
            size = Quantity(size.value(), 0, size.format)
        result["requests.storage"] = size
        if name:
            result[f"{name}{_BY_CLASS}requests.storage"] = size
    return result


def _devices(claim: Object) -> Resources:
    """Count the devices that a claim asks for, by class; of alternatives the most of each class."""
    total: Resources = {}
    for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
        most: dict[str, int] = {}
        for one in request.get("firstAvailable") or [request.get("exactly") or request]:
            name = f"{one.get('deviceClassName') or ''}{_DEVICES}"
            count = _MOST_DEVICES if one.get("allocationMode") == "All" else int(one.get("count") or 1)
            most[name] = max(count, most.get(name, 0))
        total = add(total, {name: Quantity(count) for name, count in most.items()})
    return total


def matches(quota: Object, group: str, plural: str, item: Object) -> bool:
    """Whether a quota limits this object: it counts a resource of its kind, and all its scopes hold."""
    hard = (quota.get("status") or {}).get("hard") or {}
    return bool(relevant(group, plural, hard)) and in_scope(quota, group, plural, item)


def in_scope(quota: Object, group: str, plural: str, item: Object) -> bool:
    """Whether all scopes of a quota hold for an object; scopes are for pods and claims only."""
    spec = quota.get("spec") or {}
    selectors = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    selectors += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    if not selectors:
        return True
    match (group, plural):
        case ("", "pods"):
            return all(_pod_in_scope(selector, item) for selector in selectors)
        case ("", "persistentvolumeclaims"):
            return all(_claim_in_scope(selector, item) for selector in selectors)
    return False


def _pod_in_scope(selector: Object, pod: Object) -> bool:
    spec = pod.get("spec") or {}
    match selector.get("scopeName"):
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return is_best_effort(pod)
        case "NotBestEffort":
            return not is_best_effort(pod)
        case "PriorityClass":
            name = spec.get("priorityClassName") or ""
            return _selected(selector, [name] if name else [])
        case "CrossNamespacePodAffinity":
            return _reaches_out(spec.get("affinity") or {})
    return False


def _claim_in_scope(selector: Object, claim: Object) -> bool:
    if selector.get("scopeName") != "VolumeAttributesClass":
        return False
    state = claim.get("status") or {}
    names = (
        (claim.get("spec") or {}).get("volumeAttributesClassName"),
        state.get("currentVolumeAttributesClassName"),
        (state.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return _selected(selector, sorted({name for name in names if name}))


def _selected(selector: Object, names: Sequence[str]) -> bool:
    operator = str(selector.get("operator") or "Exists")
    if operator == "Exists":
        return bool(names)
    key = str(selector["scopeName"])
    wanted = {"key": key, "operator": operator, "values": selector.get("values") or []}
    chosen = labels.from_label_selector({"matchExpressions": [wanted]})
    return any(chosen.matches({key: name}) for name in names) if names else chosen.matches({})


def _reaches_out(affinity: Object) -> bool:
    """Whether an affinity looks at pods of other namespaces."""
    terms: list[Any] = []
    for kind in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(kind) or {}
        terms += found.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        preferred = found.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [one.get("podAffinityTerm") or {} for one in preferred]
    return any(one.get("namespaces") or one.get("namespaceSelector") is not None for one in terms)


def missing(pod: Object, names: Iterable[str]) -> str:
    """Say which of the resources that a quota counts a pod's containers do not state; empty for none."""
    needed = _NEEDED.intersection(names)
    lacking: dict[str, set[str]] = {}
    for container in containers(pod.get("spec") or {}, ephemeral=False):
        resources = container.get("resources") or {}
        stated = _compute(quantities(resources.get("requests")), quantities(resources.get("limits")))
        for name in needed.difference(stated):
            lacking.setdefault(name, set()).add(str(container.get("name", "")))
    if not lacking:
        return ""
    return "must specify " + "; ".join(f"{name} for: {','.join(sorted(lacking[name]))}" for name in sorted(lacking))


def observed(
    quota: Object, listing: Callable[[str, str], Iterable[Object]], now: datetime, group_names: Iterable[str] = ()
) -> dict[str, str]:
    """Count anew what a quota's namespace uses: the `status.used` that a quota should have.

    listing: gives the objects of a kind (group, plural) in the quota's namespace.
    group_names: kinds not to count though the quota names them, as nobody serves them.
    """
    hard = (quota.get("spec") or {}).get("hard") or {}
    skipped = frozenset(group_names)
    used: Resources = dict.fromkeys(hard, _ZERO)
    for group, plural in counted_resources(hard):
        if qualified(group, plural) in skipped:
            continue
        names = relevant(group, plural, hard)
        for item in listing(group, plural):
            if in_scope(quota, group, plural, item):
                counted = usage(group, plural, item, now)
                used = add(used, {name: counted[name] for name in names if name in counted})
    return {name: str(value) for name, value in used.items()}
