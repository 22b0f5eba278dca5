"""LimitRanger: defaults, bounds and ratios of the resources that pods and claims of a namespace ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pilothouse.apiserver.admission.plugin import Plugin, forbid, joined, requested
from pilothouse.apiserver.admission.podresources import Resources, pod_resources, quantities
from pilothouse.apiserver.ports import AdmissionRequest, Gvr, Object, Operation, View
from pilothouse.kinds.quantity import ZERO, Quantity

__all__ = ["ANNOTATION", "LimitRanger"]

ANNOTATION: Final = "kubernetes.io/limit-ranger"


class LimitRanger(Plugin):
    """Fills in what the namespace's limit ranges say and refuses what lies outside of them."""

    name = "LimitRanger"

    def __init__(self, view: View) -> None:
        self._view = view

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Look at new pods and claims, resized pods and changed claims; containers cannot change otherwise."""
        group, _, plural = resource
        if group or plural not in {"pods", "persistentvolumeclaims"}:
            return False
        if plural == "pods":
            return (operation, subresource) in {("CREATE", ""), ("UPDATE", "resize")}
        return operation in {"CREATE", "UPDATE"} and not subresource

    def mutate(self, request: AdmissionRequest) -> None:
        """Fill in the defaults."""
        if request.resource[2] != "pods":
            return
        for limits in self._limits(request):
            _fill(requested(request), limits)

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for what lies outside of the limits."""
        item = requested(request)
        for limits in self._limits(request):
            check = _pod_errors if request.resource[2] == "pods" else _claim_errors
            if errors := list(check(item, limits)):
                raise forbid(request, joined(errors))

    def _limits(self, request: AdmissionRequest) -> Iterator[list[Object]]:
        """Give the limits of each limit range, none for objects that are on their way out."""
        if request.old is not None and (request.old.get("metadata") or {}).get("deletionTimestamp"):
            return
        for found in self._view.list("limitranges", request.namespace):
            yield (found.get("spec") or {}).get("limits") or []


def _fill(pod: Object, limits: list[Object]) -> None:
    """Set the defaults and note in an annotation what was set."""
    defaults: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for limit in limits:
        if limit.get("type") == "Container":
            defaults["requests"].update(limit.get("defaultRequest") or {})
            defaults["limits"].update(limit.get("default") or {})
    if not defaults["requests"] and not defaults["limits"]:
        return
    spec = pod.get("spec") or {}
    said: list[str] = []
    for container in spec.get("containers") or ():
        said += _fill_container(container, defaults, "container")
    for container in spec.get("initContainers") or ():
        said += _fill_container(container, defaults, "init container")
    if said:
        metadata = pod.setdefault("metadata", {})
        noted = metadata["annotations"] = dict(metadata.get("annotations") or {})
        noted[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(said)


def _fill_container(container: Object, defaults: Mapping[str, Mapping[str, str]], what: str) -> Iterator[str]:
    for field in ("requests", "limits"):
        resources = container.get("resources") or {}
        present = resources.get(field) or {}
        added = {name: value for name, value in defaults[field].items() if name not in present}
        if added:
            container["resources"] = {**resources, field: {**present, **added}}
            yield f"{', '.join(sorted(added))} {field[:-1]} for {what} {container.get('name', '')}"


def _pod_errors(pod: Object, limits: list[Object]) -> Iterator[str]:
    spec = pod.get("spec") or {}
    for limit in limits:
        kind = limit.get("type")
        if kind == "Container":
            for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
                resources = container.get("resources") or {}
                asked = quantities(resources.get("requests")), quantities(resources.get("limits"))
                yield from _check(limit, *asked)
        elif kind == "Pod":
            asked = pod_resources(spec, "requests", overhead=False), pod_resources(spec, "limits", overhead=False)
            yield from _check(limit, *asked)


def _claim_errors(claim: Object, limits: list[Object]) -> Iterator[str]:
    asked = quantities(((claim.get("spec") or {}).get("resources") or {}).get("requests"))
    for limit in limits:
        if limit.get("type") != "PersistentVolumeClaim":
            continue
        for name, bound in quantities(limit.get("min")).items():
            yield from _below(name, "PersistentVolumeClaim", bound, asked, {})
        for name, bound in quantities(limit.get("max")).items():
            said = f"maximum {name} usage per PersistentVolumeClaim is {bound}"
            if name not in asked:
                yield f"{said}.  No request is specified"
            elif asked[name] > bound:
                yield f"{said}, but request is {asked[name]}"


def _check(limit: Mapping[str, Any], requests: Resources, limits: Resources) -> Iterator[str]:
    kind = limit["type"]
    for name, bound in quantities(limit.get("min")).items():
        yield from _below(name, kind, bound, requests, limits)
    for name, bound in quantities(limit.get("max")).items():
        said = f"maximum {name} usage per {kind} is {bound}"
        if name not in limits:
            yield f"{said}.  No limit is specified"
        elif limits[name] > bound:
            yield f"{said}, but limit is {limits[name]}"
        elif requests.get(name, ZERO) > bound:
            yield f"{said}, but request is {requests[name]}"
    for name, bound in quantities(limit.get("maxLimitRequestRatio")).items():
        yield from _ratio(name, kind, bound, requests.get(name, ZERO), limits.get(name, ZERO))


def _below(name: str, kind: str, bound: Quantity, requests: Resources, limits: Resources) -> Iterator[str]:
    said = f"minimum {name} usage per {kind} is {bound}"
    if name not in requests:
        yield f"{said}.  No request is specified"
    elif requests[name] < bound:
        yield f"{said}, but request is {requests[name]}"
    elif name in limits and limits[name] < bound:
        yield f"{said}, but limit is {limits[name]}"


def _ratio(name: str, kind: str, bound: Quantity, request: Quantity, limit: Quantity) -> Iterator[str]:
    said = f"{name} max limit to request ratio per {kind} is {bound}"
    if not request:
        yield f"{said}, but no request is specified or request is 0"
    elif not limit:
        yield f"{said}, but no limit is specified or limit is 0"
    else:
        ratio = float(limit.exact() / request.exact())
        if ratio > float(bound.exact()):
            yield f"{said}, but provided ratio is {ratio:f}"
