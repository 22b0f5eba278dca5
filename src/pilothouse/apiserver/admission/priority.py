"""Priority: the number behind a pod's priority class, and at most one class as default."""

from __future__ import annotations

from typing import Any, Final

from pilothouse.apiserver.admission.plugin import Plugin, forbid, requested
from pilothouse.apiserver.ports import AdmissionRequest, Gvr, Object, Operation, View

__all__ = ["SYSTEM_CLASSES", "Priority"]

_CLASSES: Final = "priorityclasses.scheduling.k8s.io"
_PREEMPT: Final = "PreemptLowerPriority"

SYSTEM_CLASSES: Final = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
"""Classes that count even before their objects are made."""


class Priority(Plugin):
    """Resolves the priority of pods; refuses a second default class."""

    name = "Priority"

    def __init__(self, view: View) -> None:
        self._view = view

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Look at new and changed pods and priority classes."""
        group, _, plural = resource
        return (
            operation in {"CREATE", "UPDATE"}
            and not subresource
            and (group, plural) in {("", "pods"), ("scheduling.k8s.io", "priorityclasses")}
        )

    def mutate(self, request: AdmissionRequest) -> None:
        """Set a pod's priority and preemption policy. Raises Forbidden for what does not fit its class."""
        if request.resource[2] != "pods":
            return
        spec = requested(request).setdefault("spec", {})
        if request.operation == "UPDATE":
            _keep(spec, (request.old or {}).get("spec") or {})
            return
        value, policy = self._resolve(request, spec)
        told = spec.get("priority")
        if told is not None and told != value:
            raise forbid(
                request,
                f"the integer value of priority ({told}) must not be provided in pod spec; priority admission "
                f"controller computed {value} from the given PriorityClass name",
            )
        spec["priority"] = value
        if policy is None:
            return
        told = spec.get("preemptionPolicy")
        if told is not None and told != policy:
            raise forbid(
                request,
                f"the string value of PreemptionPolicy ({told}) must not be provided in pod spec; priority admission "
                f"controller computed {policy} from the given PriorityClass name",
            )
        spec["preemptionPolicy"] = policy

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for a second default class."""
        if request.resource[2] != "priorityclasses" or not requested(request).get("globalDefault"):
            return
        default = self._default()
        if default is None:
            return
        name = default["metadata"]["name"]
        own = (requested(request).get("metadata") or {}).get("name")
        if request.operation == "CREATE" or name != own:
            raise forbid(request, f"PriorityClass {name} is already marked as default. Only one default can exist")

    def _resolve(self, request: AdmissionRequest, spec: Object) -> tuple[int, Any]:
        """Find the number and the preemption policy of a pod's class; name the default class in the pod."""
        name = spec.get("priorityClassName") or ""
        if not name:
            found = self._default()
            if found is None:
                return 0, _PREEMPT
            spec["priorityClassName"] = found["metadata"]["name"]
        else:
            found = self._view.get(_CLASSES, "", name)
            if found is None:
                if name in SYSTEM_CLASSES:
                    return SYSTEM_CLASSES[name], _PREEMPT
                raise forbid(request, f"no PriorityClass with name {name} was found")
        return int(found.get("value") or 0), found.get("preemptionPolicy")

    def _default(self) -> Object | None:
        """Return the default class; the one of least value where a race made several."""
        defaults = [one for one in self._view.list(_CLASSES) if one.get("globalDefault")]
        return min(defaults, key=lambda one: int(one.get("value") or 0), default=None)


def _keep(spec: Object, old: Object) -> None:
    """Give an update that leaves out what cannot change the values that are there."""
    for field in ("priority", "preemptionPolicy"):
        if spec.get(field) is None and old.get(field) is not None:
            spec[field] = old[field]
