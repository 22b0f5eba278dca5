"""Warnings about pods and the kinds that make them."""

from __future__ import annotations

from typing import Any

from pilothouse.kinds.fielderrors import Path
from pilothouse.kinds.warnings import parts
from pilothouse.kinds.warnings.pods import pod_warnings

__all__ = [
    "cron_job",
    "daemon_set",
    "job",
    "pod",
    "pod_template",
    "replicated",
    "replication_controller",
    "stateful_set",
]

Object = dict[str, Any]
_TEMPLATE = Path("spec.template")
_PODS = "Pod names and hostnames"
_COMPLETIONS, _PARALLELISM = 100_000, 10_000
_HISTORY = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
_INDEXES = (
    "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
    "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
)


def _name(obj: Object) -> str:
    name: str = obj["metadata"].get("name") or ""
    return name


def _is_same(new: Object, old: Object | None) -> bool:
    """Whether an update left what is wanted as it was."""
    return old is not None and new["metadata"].get("generation") == old["metadata"].get("generation")


def pod(new: Object, old: Object | None) -> list[str]:
    """Warn of a new Pod; updates come from programs, which are not told."""
    if old is not None:
        return []
    return [*parts.hostname(_name(new), "the Pod's hostname"), *pod_warnings(Path(), new, is_pod=True)]


def pod_template(new: Object, old: Object | None) -> list[str]:
    """Warn of a PodTemplate."""
    return [] if _is_same(new, old) else pod_warnings(Path("template"), new.get("template") or {})


def _spec(obj: Object) -> Object:
    spec: Object = obj.get("spec") or {}
    return spec


def replicated(new: Object, old: Object | None) -> list[str]:
    """Warn of a Deployment or ReplicaSet."""
    if _is_same(new, old):
        return []
    named = parts.hostname(_name(new), _PODS) if old is None else []
    return [*named, *pod_warnings(_TEMPLATE, _spec(new).get("template") or {})]


def replication_controller(new: Object, old: Object | None) -> list[str]:
    """Warn of a ReplicationController; of an update Kubernetes looks at the template that was."""
    return replicated(new, None) if old is None else replicated(old, new)


def daemon_set(new: Object, old: Object | None) -> list[str]:
    """Warn of a DaemonSet with another template."""
    template: Object = _spec(new).get("template") or {}
    if old is not None and template == (_spec(old).get("template") or {}):
        return []
    return pod_warnings(_TEMPLATE, template)


def stateful_set(new: Object, old: Object | None) -> list[str]:
    """Warn of a StatefulSet."""
    spec = _spec(new)
    warnings = [] if _is_same(new, old) else pod_warnings(_TEMPLATE, spec.get("template") or {})
    for position, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        at = Path("spec.volumeClaimTemplates").index(position)
        warnings += parts.storage_request(at if old is None else at.child("Spec"), claim.get("spec") or {})
    if (spec.get("revisionHistoryLimit") or 0) < 0:
        warnings.append(_HISTORY)
    return warnings


def job(new: Object, old: Object | None) -> list[str]:
    """Warn of a Job."""
    if _is_same(new, old):
        return []
    named = parts.hostname(_name(new), _PODS) if old is None else []
    return [*named, *_job(Path("spec"), _spec(new))]


def _job(at: Path, spec: Object) -> list[str]:
    many = (spec.get("completions") or 0) > _COMPLETIONS and (spec.get("parallelism") or 0) > _PARALLELISM
    indexed = [f"{at}: {_INDEXES}"] if many and spec.get("completionMode") == "Indexed" else []
    return [*indexed, *pod_warnings(at.child("template"), spec.get("template") or {})]


def cron_job(new: Object, old: Object | None) -> list[str]:
    """Warn of a CronJob."""
    spec = _spec(new)
    warnings = parts.hostname(_name(new), _PODS) if old is None else []
    if not _is_same(new, old):
        warnings += _job(Path("spec.jobTemplate.spec"), (spec.get("jobTemplate") or {}).get("spec") or {})
    if old is not None and "TZ" in (spec.get("schedule") or ""):
        see = "see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        warnings.append(f"cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, {see}")
    return warnings
