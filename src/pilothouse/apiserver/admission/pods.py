"""Small steps for pods: tolerations, runtime classes, labels of the node's place, image pulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pilothouse.apiserver.admission.plugin import Plugin, containers, forbid, labels_of, requested, with_cause
from pilothouse.apiserver.admission.podresources import pod_resources, quantities
from pilothouse.apiserver.ports import AdmissionRequest, Object, View
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.quantity import ZERO

__all__ = [
    "AlwaysPullImages",
    "DefaultTolerationSeconds",
    "ExtendedResourceToleration",
    "PodResizeValidator",
    "PodTopologyLabels",
    "RuntimeClass",
    "is_extended",
    "merged_tolerations",
]

_PODS: Final = frozenset({("", "pods")})
_NOT_READY: Final = "node.kubernetes.io/not-ready"
_UNREACHABLE: Final = "node.kubernetes.io/unreachable"


class DefaultTolerationSeconds(Plugin):
    """Lets pods stay for a while on nodes that are not ready or not reachable."""

    OPERATIONS = frozenset({"CREATE", "UPDATE"})
    RESOURCES = _PODS
    name = "DefaultTolerationSeconds"

    def __init__(self, not_ready: int = 300, unreachable: int = 300) -> None:
        self._seconds = ((_NOT_READY, not_ready), (_UNREACHABLE, unreachable))

    def mutate(self, request: AdmissionRequest) -> None:
        """Add the two tolerations that are not there yet; seconds as configured."""
        spec = requested(request).setdefault("spec", {})
        present = spec.get("tolerations") or []
        added = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
            for key, seconds in self._seconds
            if not any(
                one.get("key", "") in {key, ""} and one.get("effect", "") in {"NoExecute", ""} for one in present
            )
        ]
        if added:
            spec["tolerations"] = [*present, *added]


class RuntimeClass(Plugin):
    """Gives pods the overhead and the placement of their runtime class."""

    OPERATIONS = frozenset({"CREATE"})
    RESOURCES = _PODS
    name = "RuntimeClass"

    def __init__(self, view: View) -> None:
        self._view = view

    def mutate(self, request: AdmissionRequest) -> None:
        """Set overhead, node selector and tolerations. Raises Forbidden where the pod says otherwise."""
        spec = requested(request).get("spec") or {}
        found = self._find(request, spec)
        if found is None:
            return
        overhead = (found.get("overhead") or {}).get("podFixed")
        if found.get("overhead") is not None:
            if spec.get("overhead") is not None and quantities(spec["overhead"]) != quantities(overhead):
                raise forbid(request, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
            if overhead is not None:
                spec["overhead"] = dict(overhead)
        if found.get("scheduling") is not None:
            _schedule(request, spec, found["scheduling"])

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for an overhead that is not the class'."""
        spec = requested(request).get("spec") or {}
        found = self._find(request, spec)
        if found is not None and found.get("overhead") is not None:
            if quantities(spec.get("overhead")) != quantities(found["overhead"].get("podFixed")):
                raise forbid(request, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        elif spec.get("overhead") is not None:
            raise forbid(request, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")

    def _find(self, request: AdmissionRequest, spec: Object) -> Object | None:
        name = spec.get("runtimeClassName")
        if name is None:
            return None
        found = self._view.get("runtimeclasses.node.k8s.io", "", name)
        if found is None:
            raise forbid(request, f"pod rejected: RuntimeClass {quote(name)} not found")
        return found


def _schedule(request: AdmissionRequest, spec: Object, scheduling: Mapping[str, Any]) -> None:
    wanted = scheduling.get("nodeSelector") or {}
    present = spec.get("nodeSelector") or {}
    for key, value in wanted.items():
        if key in present and present[key] != value:
            raise forbid(
                request,
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                f"pod.spec.nodeSelector[{key}] = {present[key]}",
            )
    if wanted:
        spec["nodeSelector"] = {**present, **wanted}
    if scheduling.get("tolerations"):
        spec["tolerations"] = merged_tolerations(spec.get("tolerations") or (), scheduling["tolerations"])


def merged_tolerations(first: Sequence[Object], second: Sequence[Object]) -> list[Object]:
    """Join two lists of tolerations without those that another one makes superfluous."""
    every = [*first, *second]
    kept: list[Object] = []
    for position, one in enumerate(every):
        later = (other for other in every[position + 1 :] if other != one)
        if not any(_covers(other, one) for other in [*kept, *later]):
            kept.append(dict(one))
    return kept


def _covers(wide: Object, narrow: Object) -> bool:
    """Whether whatever the narrow toleration tolerates, the wide one does at least as long."""
    if wide == narrow:
        return True
    keyless = not wide.get("key") and wide.get("operator") == "Exists"
    if wide.get("key", "") != narrow.get("key", "") and not keyless:
        return False
    if wide.get("effect") and wide.get("effect") != narrow.get("effect"):
        return False
    if wide.get("effect") == "NoExecute" and wide.get("tolerationSeconds") is not None:
        seconds = narrow.get("tolerationSeconds")
        if seconds is None or wide["tolerationSeconds"] < seconds:
            return False
    if wide.get("operator", "Equal") in {"Equal", ""}:
        return narrow.get("operator", "Equal") in {"Equal", ""} and wide.get("value", "") == narrow.get("value", "")
    return wide.get("operator") == "Exists"


class PodResizeValidator(Plugin):
    """Refuses to let a running pod grow beyond what its node has."""

    OPERATIONS = frozenset({"UPDATE"})
    RESOURCES = _PODS
    SUBRESOURCES = frozenset({"resize"})
    name = "PodResizeValidator"

    def __init__(self, view: View) -> None:
        self._view = view

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden with the cause NodeCapacity or UnsupportedPlatform."""
        spec = requested(request).get("spec") or {}
        name = spec.get("nodeName")
        if not name or spec == (request.old or {}).get("spec"):
            return
        node = self._view.get("nodes", "", name)
        if node is None:
            raise forbid(request, f"node {quote(name)} not found")
        has = quantities((node.get("status") or {}).get("allocatable"))
        wants = pod_resources(spec, "requests")
        short = []
        for resource, exponent in (("cpu", -3), ("memory", 0)):
            asked, free = (one.get(resource, ZERO).scaled_value(exponent) for one in (wants, has))
            if asked > free:
                short.append(f"{resource}, requested: {asked}, allocatable: {free}")
        if short:
            why = f"Node didn't have enough allocatable resources: {'; '.join(short)}"
            raise with_cause(forbid(request, why), {"reason": "NodeCapacity"})
        system = labels_of(node).get("kubernetes.io/os", "")
        if system != "linux":
            why = f"pod resize is only supported on linux nodes, node {quote(name)} is {quote(system)}"
            raise with_cause(forbid(request, why), {"reason": "UnsupportedPlatform"})


class PodTopologyLabels(Plugin):
    """Copies the labels for zone and region from a node to the pods bound to it."""

    OPERATIONS = frozenset({"CREATE"})
    RESOURCES = _PODS
    SUBRESOURCES = frozenset({"", "binding"})
    name = "PodTopologyLabels"

    LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")

    def __init__(self, view: View) -> None:
        self._view = view

    def mutate(self, request: AdmissionRequest) -> None:
        """Add the labels that the pod or the binding does not have."""
        item = requested(request)
        if request.subresource:
            target = item.get("target") or {}
            node = target.get("name") if target.get("kind", "Node") in {"Node", ""} else None
        else:
            node = (item.get("spec") or {}).get("nodeName")
        found = labels_of(self._view.get("nodes", "", node)) if node else {}
        copied = {key: found[key] for key in self.LABELS if key in found}
        if copied:
            metadata = item.setdefault("metadata", {})
            metadata["labels"] = {**copied, **(metadata.get("labels") or {})}


class AlwaysPullImages(Plugin):
    """Makes nodes ask the registry for each start, so that no pod runs an image it may not pull. Off by default."""

    OPERATIONS = frozenset({"CREATE", "UPDATE"})
    RESOURCES = _PODS
    name = "AlwaysPullImages"

    def mutate(self, request: AdmissionRequest) -> None:
        """Set each container's pull policy."""
        for container in containers(requested(request).get("spec") or {}):
            container["imagePullPolicy"] = "Always"


class ExtendedResourceToleration(Plugin):
    """Lets pods onto nodes reserved for the extended resources they ask for. Off by default."""

    OPERATIONS = frozenset({"CREATE", "UPDATE"})
    RESOURCES = _PODS
    name = "ExtendedResourceToleration"

    def mutate(self, request: AdmissionRequest) -> None:
        """Add a toleration per extended resource."""
        spec = requested(request).get("spec") or {}
        names = {
            name
            for container in containers(spec, ephemeral=False)
            for name in (container.get("resources") or {}).get("requests") or {}
            if is_extended(name)
        }
        present = spec.get("tolerations") or []
        added = [{"key": name, "operator": "Exists"} for name in sorted(names)]
        added = [one for one in added if one not in present]
        if added:
            spec["tolerations"] = [*present, *added]


def is_extended(name: str) -> bool:
    """Whether a resource is none of Kubernetes' own: it has a domain, which is not kubernetes.io."""
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")
