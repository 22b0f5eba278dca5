"""Validation of what the subresources of a pod change: its status, its debug containers, its resources."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, Struct
from pilothouse.kinds.quantity import ZERO, parse
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.pods import pod_spec

__all__ = ["pod_debug_containers", "pod_resize", "pod_status"]

_STATUS = Path("status")
_MIRROR = "kubernetes.io/config.mirror"
_OF_THE_SYSTEM = frozenset({"PodScheduled", "Ready", "Initialized"})
_NOT_FOR_DEBUGGING = (
    "ports", "resources", "resizePolicy", "restartPolicy", "livenessProbe", "readinessProbe", "startupProbe",
    "lifecycle",
)  # fmt: skip
_COMPUTE = ("cpu", "memory")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")


def pod_status(errors: ErrorList, new: Object, old: Object) -> None:
    """Check the status of a Pod that replaces another: what ended stays so, its class of service too."""
    status, before, spec = new.get("status") or {}, old.get("status") or {}, new.get("spec") or {}
    former: Object = old.get("spec") or {}
    for position, condition in enumerate(items(status, "conditions")):
        kind = condition.get("type") or ""
        if kind not in _OF_THE_SYSTEM:
            # Kubernetes says so: these are not in the metadata, nor is the field's name upper case.
            place = Path("metadata.conditions").index(position).child("Type")
            checks.name(errors, place, kind, names.qualified_name)
    if (spec.get("nodeName") or "") != (former.get("nodeName") or ""):
        errors.forbidden(_STATUS.child("nodeName"), "may not be changed directly")
    nominated = status.get("nominatedNodeName") or ""
    if nominated and nominated != before.get("nominatedNodeName"):
        checks.name(errors, _STATUS.child("nominatedNodeName"), nominated, names.dns1123_subdomain)
    classes = [part.get("qosClass") or "" for part in (status, before)]
    checks.immutable(errors, _STATUS.child("qosClass"), *classes)
    policy = former.get("restartPolicy") or ""
    _transitions(errors, "containerStatuses", status, before, policy)
    sidecars = {each.get("name") for each in items(former, "initContainers") if each.get("restartPolicy") == "Always"}
    _transitions(errors, "initContainerStatuses", status, before, policy, sidecars)
    _transitions(errors, "ephemeralContainerStatuses", status, before, "Never")
    _claims(
        errors, items(status, "resourceClaimStatuses"), {each.get("name") for each in items(spec, "resourceClaims")}
    )
    _addresses(errors, "podIPs", items(status, "podIPs"), "PodIPs")
    _host_addresses(errors, status)


def _transitions(
    errors: ErrorList, field: str, status: Object, before: Object, policy: str, restarted: Any = frozenset()
) -> None:
    if policy == "Always":
        return
    now = {each.get("name"): each for each in items(status, field)}
    for position, container in enumerate(items(before, field)):
        ended = (container.get("state") or {}).get("terminated")
        name = container.get("name")
        if ended is None or name in restarted or name not in now:
            continue
        if policy == "OnFailure" and ended.get("exitCode"):
            continue
        if (now[name].get("state") or {}).get("terminated") is None:
            place = _STATUS.child(field).index(position).child("state")
            errors.forbidden(place, "may not be transitioned to non-terminated state")


def _claims(errors: ErrorList, statuses: Sequence[Object], known: set[Any]) -> None:
    seen: set[str] = set()
    for position, status in enumerate(statuses):
        at, name = _STATUS.child("resourceClaimStatuses").index(position).child("name"), status.get("name") or ""
        if name not in known:
            errors.invalid(at, name, "must match the name of an entry in `spec.resourceClaims`")
        if name in seen:
            errors.duplicate(at, name)
        seen.add(name)
        if claim := status.get("resourceClaimName"):
            checks.name(errors, at, claim, names.dns1123_subdomain)


def _addresses(errors: ErrorList, field: str, given: Sequence[Object], noun: str) -> None:
    at, ips = _STATUS.child(field), [each.get("ip") or "" for each in given]
    good = True
    for position, ip in enumerate(ips):
        messages = names.legacy_ip(ip)
        errors.invalid_each(at.index(position), ip, messages)
        good = good and not messages
    if len(ips) > 1 and good:
        families = {ipaddress.ip_address(ip).version for ip in ips}
        if len(families) < 2 or len(ips) > 2:
            shown = [Struct(IP=ip) for ip in ips]
            errors.invalid(at, shown, "may specify no more than one IP for each IP family")
        for position, ip in enumerate(ips):
            if ip in ips[:position]:
                errors.duplicate(at.index(position), Struct(IP=ip) if noun else ip)


def _host_addresses(errors: ErrorList, status: Object) -> None:
    given = items(status, "hostIPs")
    if given and (given[0].get("ip") or "") != (status.get("hostIP") or ""):
        place = _STATUS.child("hostIPs").index(0).child("ip")
        errors.invalid(place, given[0].get("ip") or "", "must be equal to `hostIP`")
    _addresses(errors, "hostIPs", given, "HostIPs")


def pod_debug_containers(errors: ErrorList, new: Object, old: Object) -> None:
    """Check what adds debug containers to a Pod: those that are there stay."""
    if _MIRROR in ((old.get("metadata") or {}).get("annotations") or {}):
        errors.clear()
        errors.forbidden(Path(), "static pods do not support ephemeral containers")
        return
    spec, at = new.get("spec") or {}, SPEC.child("ephemeralContainers")
    pod_spec(errors, SPEC, spec, is_pod=True)
    taken = {each.get("name") for field in ("containers", "initContainers") for each in items(spec, field)}
    targets = {each.get("name") for each in items(spec, "containers")}
    for position, container in enumerate(items(spec, "ephemeralContainers")):
        _debug_container(errors, at.index(position), container, taken, targets)
    now = {each.get("name"): each for each in items(spec, "ephemeralContainers")}
    for container in items(old.get("spec") or {}, "ephemeralContainers"):
        name = container.get("name") or ""
        if name not in now:
            errors.forbidden(at, f'existing ephemeral containers "{name}" may not be removed\n')
        elif now[name] != container:
            errors.forbidden(at, f'existing ephemeral containers "{name}" may not be changed\n')


def _debug_container(errors: ErrorList, at: Path, container: Object, taken: set[Any], targets: set[Any]) -> None:
    name = container.get("name") or ""
    if name:
        checks.name(errors, at.child("name"), name, names.dns1123_label)
    else:
        errors.required(at.child("name"))
    if not container.get("image"):
        errors.required(at.child("image"))
    checks.one_of(errors, at, container, "terminationMessagePolicy", _MESSAGE_POLICIES)
    checks.one_of(errors, at, container, "imagePullPolicy", _PULL_POLICIES)
    if name in taken:
        errors.duplicate(at.child("name"), name)
    taken.add(name)
    target = container.get("targetContainerName") or ""
    if target and target not in targets:
        errors.not_found(at.child("targetContainerName"), target)
    for field in _NOT_FOR_DEBUGGING:
        if container.get(field):
            errors.forbidden(at.child(field), "cannot be set for an Ephemeral Container")
    for position, mount in enumerate(items(container, "volumeMounts")):
        if mount.get("subPath") or mount.get("subPathExpr"):
            field = "subPath" if mount.get("subPath") else "subPathExpr"
            place = at.child("volumeMounts").index(position).child(field)
            errors.forbidden(place, "cannot be set for an Ephemeral Container")


def pod_resize(errors: ErrorList, new: Object, old: Object) -> None:
    """Check what changes the resources of a running Pod: processors and memory, nothing else."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    pod_spec(errors, SPEC, spec, is_pod=True)
    if problem := _not_resizable(old, spec, before):
        errors.clear()
        errors.forbidden(Path(), problem)
        return
    service = (old.get("status") or {}).get("qosClass") or _service_class(before)
    if service != _service_class(spec):
        shown = (new.get("status") or {}).get("qosClass") or ""
        errors.invalid(SPEC, shown, "Pod QOS Class may not change as a result of resizing")
    for container in items(old.get("status") or {}, "containerStatuses"):
        if (container.get("state") or {}).get("running") is not None:
            if container.get("resources") is None:
                errors.forbidden(SPEC, "Pod running on node without support for resize")
            break
    if _same_containers(errors, spec, before):
        _resized(errors, spec, before)


def _not_resizable(old: Object, spec: Object, before: Object) -> str:
    if any((part.get("resources") or {}).get(field) for part in (spec, before) for field in ("requests", "limits")):
        return "pods with pod-level resources cannot be resized"
    if _MIRROR in ((old.get("metadata") or {}).get("annotations") or {}):
        return "static pods cannot be resized"
    windows = (before.get("os") or {}).get("name") == "windows"
    return "windows pods cannot be resized" if windows else ""


def _same_containers(errors: ErrorList, spec: Object, before: Object) -> bool:
    for field in ("containers", "initContainers"):
        if [each.get("name") for each in items(spec, field)] != [each.get("name") for each in items(before, field)]:
            errors.forbidden(SPEC, "only cpu and memory resources are mutable")
            return False
    return True


def _resized(errors: ErrorList, spec: Object, before: Object) -> None:
    found = len(errors)
    kept = dict(spec)
    for field in ("initContainers", "containers"):
        group = list(items(spec, field))
        for position, (container, former) in enumerate(zip(group, items(before, field), strict=True)):
            sidecar = field == "containers" or container.get("restartPolicy") == "Always"
            if sidecar:
                _kept_resources(errors, SPEC.child(field).index(position).child("resources"), container, former)
            group[position] = _without_compute(container, former) if sidecar else container
            if group[position] != former:
                errors.forbidden(SPEC, _resize_text(field, sidecar=sidecar))
        if field in spec:
            kept[field] = group
    if len(errors) == found and kept != before:
        errors.forbidden(SPEC, "only cpu and memory resources are mutable")


def _resize_text(field: str, *, sidecar: bool) -> str:
    if field == "containers":
        return "only cpu and memory resources are mutable"
    if sidecar:
        return "only cpu and memory resources for sidecar containers are mutable"
    return "resources for non-sidecar init containers are immutable"


def _kept_resources(errors: ErrorList, at: Path, container: Object, former: Object) -> None:
    for field in ("requests", "limits"):
        after, before = ((part.get("resources") or {}).get(field) or {} for part in (container, former))
        if set(before) - set(after):
            errors.forbidden(at.child(field), f"resource {field} cannot be removed")


def _without_compute(container: Object, former: Object) -> Object:
    """Give a container with the processors and memory that it had before."""
    parts: Object = {}
    resources, before = container.get("resources") or {}, former.get("resources") or {}
    for field in ("limits", "requests"):
        amounts = {key: value for key, value in (resources.get(field) or {}).items() if key not in _COMPUTE}
        amounts |= {key: value for key, value in (before.get(field) or {}).items() if key in _COMPUTE}
        if amounts or field in before:
            parts[field] = amounts
    if "claims" in resources:
        parts["claims"] = resources["claims"]
    kept = {key: value for key, value in container.items() if key != "resources"}
    return {**kept, "resources": parts} if "resources" in former or parts else kept


def _service_class(spec: Object) -> str:
    """Compute the class of service that follows from requests and limits."""
    given, guaranteed = False, True
    for container in (*items(spec, "containers"), *items(spec, "initContainers")):
        resources: Object = container.get("resources") or {}
        requests, limits = (
            {key: parse(str(value)) for key, value in (resources.get(field) or {}).items() if key in _COMPUTE}
            for field in ("requests", "limits")
        )
        requests, limits = ({key: value for key, value in part.items() if value > ZERO} for part in (requests, limits))
        given = given or bool(requests or limits)
        guaranteed = guaranteed and set(limits) == set(_COMPUTE) and {**limits, **requests} == limits
    if not given:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
