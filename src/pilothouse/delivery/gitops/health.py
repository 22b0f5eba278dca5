"""How an object is, read from its status, and how an application is: the worst of its objects. Facts: Argo CD's rules.

Argo's custom rules are Lua programs, which are not run. Ours are data: for a group and kind, conditions or values of
fields and what they mean (`HealthRule`). What no rule is for is judged by its condition Ready, Available, Programmed or
Established, where it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pilothouse.kinds.conditions import find

from .hooks import annotations_of, is_hook

__all__ = ["ORDER", "HealthRule", "Verdict", "health_of", "read_rules", "worst"]

ORDER: Final = ("Healthy", "Suspended", "Progressing", "Missing", "Degraded", "Unknown")
"""From best to worst."""
_GENERAL: Final = ("Ready", "Available", "Programmed", "Established")
_PAUSED: Final = "argocd.argoproj.io/ignore-healthcheck"


class Verdict(NamedTuple):
    """How an object is, and why."""

    status: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class HealthRule:
    """What a field or condition means for a kind.

    status: what it means. condition: of this type, with `value` as its status; else path: a field by dots, whose text
    is `value`, or is there at all where no value is given. message: the path of what to say.
    """

    status: str
    condition: str = ""
    path: str = ""
    value: str = ""
    message: str = ""

    def meets(self, obj: Mapping[str, Any]) -> Verdict | None:
        """Return the verdict where the object is like this."""
        if self.condition:
            found = find((obj.get("status") or {}).get("conditions"), self.condition)
            if found is None or (self.value and found.get("status") != self.value):
                return None
            return Verdict(self.status, str(found.get("message") or ""))
        found = _field(obj, self.path)
        if found is None or (self.value and str(found) != self.value):
            return None
        return Verdict(self.status, str(_field(obj, self.message) or "") if self.message else "")


def read_rules(listed: Any) -> tuple[HealthRule, ...]:
    """Read rules out of plain values, as a ConfigMap's YAML gives them. Raises ValueError for what is none."""
    made = []
    for each in listed if isinstance(listed, list) else ():
        known = {"status", "condition", "path", "value", "message"}
        if not isinstance(each, dict) or each.get("status") not in ORDER or not set(each) <= known:
            raise ValueError(f"health rule {each!r}: want status (one of {', '.join(ORDER)}) and condition or path")
        made.append(HealthRule(**{name: str(value) for name, value in each.items()}))
    return tuple(made)


def _field(obj: Any, path: str) -> Any:
    for name in path.strip(".").split("."):
        obj = obj.get(name) if isinstance(obj, Mapping) else None
    return obj


def worst(verdicts: Iterable[str]) -> str:
    """Return the worst of statuses; nothing at all is Healthy."""
    return max(verdicts, key=lambda status: ORDER.index(status) if status in ORDER else len(ORDER), default="Healthy")


def health_of(obj: Mapping[str, Any], rules: Sequence[HealthRule] = ()) -> Verdict | None:
    """Return how an object is; None for one of which nothing can be said, which is fine."""
    if obj["metadata"].get("deletionTimestamp"):
        return Verdict("Progressing", "Pending deletion")
    for rule in rules:
        if (met := rule.meets(obj)) is not None:
            return met
    group = str(obj["apiVersion"]).rpartition("/")[0]
    judge = _RULES.get((group, obj["kind"]))
    status: Mapping[str, Any] = obj.get("status") or {}
    return judge(obj, status) if judge is not None else _by_conditions(obj, status)


def _observed(obj: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    return int(status.get("observedGeneration") or 0) >= int(obj["metadata"].get("generation") or 0)


def _deployment(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    spec, waiting = obj.get("spec") or {}, "Waiting for rollout to finish: "
    if spec.get("paused"):
        return Verdict("Suspended", "Deployment is paused")
    if not _observed(obj, status):
        return Verdict("Progressing", waiting + "observed deployment generation less than desired generation")
    wanted, updated = spec.get("replicas"), status.get("updatedReplicas", 0)
    replicas, available = status.get("replicas", 0), status.get("availableReplicas", 0)
    progress = find(status.get("conditions"), "Progressing")
    if progress is not None and progress.get("reason") == "ProgressDeadlineExceeded":
        return Verdict("Degraded", f'Deployment "{obj["metadata"]["name"]}" exceeded its progress deadline')
    if wanted is not None and updated < wanted:
        return Verdict("Progressing", f"{waiting}{updated} out of {wanted} new replicas have been updated...")
    if replicas > updated:
        return Verdict("Progressing", f"{waiting}{replicas - updated} old replicas are pending termination...")
    if available < updated:
        return Verdict("Progressing", f"{waiting}{available} of {updated} updated replicas are available...")
    return Verdict("Healthy")


def _replica_set(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    if not _observed(obj, status):
        return Verdict(
            "Progressing", "Waiting for rollout to finish: observed replica set generation less than desired"
        )
    failure = find(status.get("conditions"), "ReplicaFailure")
    if failure is not None and failure.get("status") == "True":
        return Verdict("Degraded", str(failure.get("message") or ""))
    wanted, available = (obj.get("spec") or {}).get("replicas"), status.get("availableReplicas", 0)
    if wanted is not None and available < wanted:
        return Verdict(
            "Progressing", f"Waiting for rollout to finish: {available} out of {wanted} new replicas are available..."
        )
    return Verdict("Healthy")


def _stateful_set(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    spec = obj.get("spec") or {}
    if not status.get("observedGeneration") or not _observed(obj, status):
        return Verdict("Progressing", "Waiting for statefulset spec update to be observed...")
    wanted, ready, updated = spec.get("replicas"), status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
    if wanted is not None and ready < wanted:
        return Verdict("Progressing", f"Waiting for {wanted - ready} pods to be ready...")
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return Verdict("Healthy", f"statefulset has {ready} ready pods")
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    if partition and wanted is not None:
        if updated < wanted - partition:
            text = f"{updated} out of {wanted - partition} new pods have been updated..."
            return Verdict("Progressing", f"Waiting for partitioned roll out to finish: {text}")
        return Verdict("Healthy", f"partitioned roll out complete: {updated} new pods have been updated...")
    if status.get("updateRevision") != status.get("currentRevision"):
        revision = status.get("updateRevision")
        return Verdict(
            "Progressing", f"waiting for statefulset rolling update to complete {updated} pods at {revision}"
        )
    return Verdict("Healthy")


def _daemon_set(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    waiting = "Waiting for daemon set rollout to finish: "
    if not _observed(obj, status):
        return Verdict("Progressing", waiting + "observed daemon set generation less than desired generation")
    wanted, updated = status.get("desiredNumberScheduled", 0), status.get("updatedNumberScheduled", 0)
    if ((obj.get("spec") or {}).get("updateStrategy") or {}).get("type") == "OnDelete":
        return Verdict("Healthy", f"daemon set {updated} out of {wanted} new pods have been updated")
    if updated < wanted:
        return Verdict("Progressing", f"{waiting}{updated} out of {wanted} new pods have been updated...")
    available = status.get("numberAvailable", 0)
    if available < wanted:
        return Verdict("Progressing", f"{waiting}{available} of {wanted} updated pods are available...")
    return Verdict("Healthy")


def _job(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    for each in status.get("conditions") or ():
        if each.get("status") != "True":
            continue
        if each.get("type") == "Failed":
            return Verdict("Degraded", str(each.get("message") or ""))
        if each.get("type") == "Complete":
            return Verdict("Healthy", str(each.get("message") or ""))
        if each.get("type") == "Suspended" and not is_hook(obj):
            return Verdict("Suspended", str(each.get("message") or ""))
    return Verdict("Progressing")


def _cron_job(obj: Mapping[str, Any], _: Mapping[str, Any]) -> Verdict:
    return (
        Verdict("Suspended", "CronJob is suspended") if (obj.get("spec") or {}).get("suspend") else Verdict("Healthy")
    )


def _pod(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    lasting = (obj.get("spec") or {}).get("restartPolicy", "Always") == "Always"
    containers = status.get("containerStatuses") or ()
    message = str(status.get("message") or "")
    if lasting:
        stuck = [one for each in containers if (one := (each.get("state") or {}).get("waiting")) and _is_stuck(one)]
        if stuck:
            return Verdict("Degraded", ", ".join(str(each.get("message") or each.get("reason")) for each in stuck))
    match status.get("phase"):
        case "Pending" | None:
            return Verdict("Progressing", message)
        case "Succeeded":
            return Verdict("Healthy", message)
        case "Failed":
            return Verdict("Degraded", message or _exit_of([*(status.get("initContainerStatuses") or ()), *containers]))
        case "Running" if not lasting:
            return Verdict("Progressing", message)
        case "Running":
            ready = find(status.get("conditions"), "Ready")
            if ready is not None and ready.get("status") == "True":
                return Verdict("Healthy", message)
            ended = any((each.get("lastState") or {}).get("terminated") for each in containers)
            return Verdict("Degraded" if ended else "Progressing", message)
    return Verdict("Unknown", message)


def _is_stuck(waiting: Mapping[str, Any]) -> bool:
    reason = str(waiting.get("reason") or "")
    return reason.startswith("Err") or reason.endswith(("Error", "BackOff"))


def _exit_of(containers: Iterable[Mapping[str, Any]]) -> str:
    for each in containers:
        ended = (each.get("state") or {}).get("terminated")
        if ended and (ended.get("message") or ended.get("reason") == "OOMKilled"):
            return str(ended.get("message") or ended["reason"])
        if ended and ended.get("exitCode"):
            return f'container "{each.get("name")}" failed with exit code {ended["exitCode"]}'
    return ""


def _claim(_: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    found = {"Lost": "Degraded", "Pending": "Progressing", "Bound": "Healthy"}
    return Verdict(found.get(str(status.get("phase")), "Unknown"))


def _service(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    balanced = (obj.get("spec") or {}).get("type") == "LoadBalancer"
    addresses = (status.get("loadBalancer") or {}).get("ingress")
    return Verdict("Progressing" if balanced and not addresses else "Healthy")


def _ingress(_: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    return Verdict("Healthy" if (status.get("loadBalancer") or {}).get("ingress") else "Progressing")


_HPA_BAD: Final = frozenset(
    {
        ("AbleToScale", "FailedGetScale"),
        ("AbleToScale", "FailedUpdateScale"),
        ("ScalingActive", "FailedGetResourceMetric"),
        ("ScalingActive", "FailedGetObjectMetric"),
        ("ScalingActive", "FailedGetPodsMetric"),
        ("ScalingActive", "FailedGetExternalMetric"),
        ("ScalingActive", "FailedComputeMetricsReplicas"),
        ("ScalingActive", "InvalidSelector"),
    }
)


def _autoscaler(_: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    listed = status.get("conditions") or ()
    for each in listed:
        if (each.get("type"), each.get("reason")) in _HPA_BAD:
            return Verdict("Degraded", str(each.get("message") or ""))
    for each in listed:
        if each.get("type") in {"AbleToScale", "ScalingLimited"} and each.get("status") == "True":
            return Verdict("Healthy", str(each.get("message") or ""))
    return Verdict("Progressing", "Waiting to Autoscale")


def _api_service(_: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    found = find(status.get("conditions"), "Available")
    good = found is not None and found.get("status") == "True"
    text = f"{found.get('reason')}: {found.get('message')}" if found is not None else "Waiting to be processed"
    return Verdict("Healthy" if good else "Progressing", text)


def _rollout(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    observed = str(status.get("observedGeneration") or "")
    if not observed.isdigit() or int(observed) < int(obj["metadata"].get("generation") or 0):
        return Verdict("Progressing", "Waiting for rollout spec update to be observed")
    found = str(status.get("phase") or "Progressing")
    health = {"Healthy": "Healthy", "Degraded": "Degraded", "Paused": "Suspended"}.get(found, "Progressing")
    return Verdict(health, str(status.get("message") or ""))


def _application(_: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    health = status.get("health") or {}
    return Verdict(str(health.get("status") or "Progressing"), str(health.get("message") or ""))


def _by_conditions(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict | None:
    listed = status.get("conditions")
    if not isinstance(listed, list) or annotations_of(obj).get(_PAUSED) == "true":
        return None
    for kind in _GENERAL:
        found = find(listed, kind)
        if found is not None:
            stale = found.get("observedGeneration", obj["metadata"].get("generation")) != obj["metadata"].get(
                "generation"
            )
            good = found.get("status") == "True" and not stale
            return Verdict("Healthy" if good else "Progressing", str(found.get("message") or ""))
    return None


_RULES: Final[dict[tuple[str, str], Callable[[Mapping[str, Any], Mapping[str, Any]], Verdict]]] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
    ("", "Pod"): _pod,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Service"): _service,
    ("networking.k8s.io", "Ingress"): _ingress,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("apiregistration.k8s.io", "APIService"): _api_service,
    ("argoproj.io", "Rollout"): _rollout,
    ("argoproj.io", "Application"): _application,
}
