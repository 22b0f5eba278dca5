"""From objects to what pages show of them: a digest for each kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from pilothouse.delivery.gitops.health import health_of

from .feeds import Digest, Source
from .steps import described

__all__ = [
    "ANALYSIS_RUNS",
    "APPLICATIONS",
    "DEPLOYMENTS",
    "EVENTS",
    "NAMESPACES",
    "PODS",
    "REPLICA_SETS",
    "ROLLOUTS",
]

_ROLLOUT_HASH: Final = "rollouts-pod-template-hash"
_HASHES: Final = (_ROLLOUT_HASH, "pod-template-hash")
_REVISIONS: Final = ("rollout.argoproj.io/revision", "deployment.kubernetes.io/revision")
_TRAFFIC: Final = "pilothouse.dev/traffic"
_GATEWAY: Final = "argoproj-labs/gatewayAPI"
_REJECTED: Final = "pilothouse.dev/rejected-revisions"
_MOST_TEXT: Final = 2_000
_MOST_HISTORY: Final = 10
_Object = Mapping[str, Any]


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:_MOST_TEXT]


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _at(obj: Any, *names: str) -> Any:
    for name in names:
        obj = _map(obj).get(name)
    return obj


def _judged(obj: _Object) -> Digest:
    verdict = health_of(obj)
    found = {"health": "", "message": ""} if verdict is None else {"health": verdict.status, "message": verdict.message}
    return _base(obj) | {name: _text(value) for name, value in found.items()}


def _base(obj: _Object) -> Digest:
    metadata = _map(obj.get("metadata"))
    owner = next((each for each in _list(metadata.get("ownerReferences")) if _map(each).get("controller")), None)
    return {
        "namespace": _text(metadata.get("namespace")),
        "name": _text(metadata.get("name")),
        "uid": _text(metadata.get("uid")),
        "created": _text(metadata.get("creationTimestamp")),
        "deleting": bool(metadata.get("deletionTimestamp")),
        "owner": f"{_text(owner.get('kind'))}/{_text(owner.get('name'))}" if owner else "",
    }


def _hash(obj: _Object) -> str:
    labels = _map(_at(obj, "metadata", "labels"))
    return next((_text(labels[name]) for name in _HASHES if name in labels), "")


def _images(template: Any) -> list[str]:
    return [_text(_map(each).get("image")) for each in _list(_at(template, "spec", "containers"))]


def application(obj: _Object) -> Digest:
    """Return an application's digest."""
    status, spec = _map(obj.get("status")), _map(obj.get("spec"))
    source = _map(spec.get("source")) or _map(next(iter(_list(spec.get("sources"))), None))
    operation = _map(status.get("operationState"))
    automated = _at(spec, "syncPolicy", "automated")
    resources = [_resource(_map(each)) for each in _list(status.get("resources"))]
    return _base(obj) | {
        "health": _text(_at(status, "health", "status")) or "Unknown",
        "message": _text(_at(status, "health", "message")),
        "sync": _text(_at(status, "sync", "status")) or "Unknown",
        "revision": _text(_at(status, "sync", "revision")),
        "repo": _text(source.get("repoURL")),
        "path": _text(source.get("path")) or _text(source.get("chart")),
        "target": _text(source.get("targetRevision")) or "HEAD",
        "project": _text(spec.get("project")),
        "destination": _text(_at(spec, "destination", "namespace")),
        "images": [_text(each) for each in _list(_at(status, "summary", "images"))][:20],
        "automated": bool(automated) and _map(automated).get("enabled") is not False,
        "selfHeals": bool(_map(automated).get("selfHeal")),
        "busy": bool(obj.get("operation")) or operation.get("phase") in {"Running", "Terminating"},
        "rejected": _rejected(obj),
        "operation": _text(operation.get("phase")),
        "operationMessage": _text(operation.get("message")),
        "operationAt": _text(operation.get("finishedAt")) or _text(operation.get("startedAt")),
        "resources": resources[:1_000],
        "conditions": [
            {"type": _text(_map(each).get("type")), "message": _text(_map(each).get("message"))}
            for each in _list(status.get("conditions"))
        ][:20],
        "history": [_synced(_map(each)) for each in _list(status.get("history"))[-_MOST_HISTORY:]][::-1],
    }


def _synced(each: Mapping[str, Any]) -> Digest:
    by = _map(each.get("initiatedBy"))
    revisions = [_text(one) for one in _list(each.get("revisions"))]
    return {
        "id": _count(each.get("id")),
        "revision": ", ".join(revisions) or _text(each.get("revision")),
        "at": _text(each.get("deployedAt")),
        "by": "by itself" if by.get("automated") else _text(by.get("username")),
    }


def _rejected(obj: _Object) -> list[str]:
    """Return the commits that are not to be synced again."""
    text = _map(_at(obj, "metadata", "annotations")).get(_REJECTED)
    try:
        text = str(text or "")
        listed: list[Any] = msgspec.json.decode(text, type=list[Any]) if text.startswith("[") else text.split(",")
    except (msgspec.DecodeError, msgspec.ValidationError):
        return []
    names = [_map(each).get("revision") if isinstance(each, Mapping) else each for each in listed]
    return [_text(each).strip() for each in names if each][-_MOST_HISTORY:]


def _resource(each: Mapping[str, Any]) -> Digest:
    return {
        "kind": _text(each.get("kind")),
        "group": _text(each.get("group")),
        "namespace": _text(each.get("namespace")),
        "name": _text(each.get("name")),
        "sync": _text(each.get("status")),
        "prune": bool(each.get("requiresPruning")),
        "health": _text(_at(each, "health", "status")),
        "message": _text(_at(each, "health", "message")),
    }


def rollout(obj: _Object) -> Digest:
    """Return a rollout's digest: steps in words, where it is, how traffic is split, and what it waits for."""
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    canary, blue = _map(_at(spec, "strategy", "canary")), _map(_at(spec, "strategy", "blueGreen"))
    weights = _map(_at(status, "canary", "weights"))
    phase = _text(status.get("phase")) or "Progressing"
    gateway = _map(_at(canary, "trafficRouting", "plugins", _GATEWAY))
    current, stable = _text(status.get("currentPodHash")), _text(status.get("stableRS"))
    return _base(obj) | {
        "health": "Suspended" if phase == "Paused" else phase,
        "message": _text(status.get("message")),
        "phase": phase,
        "strategy": "blueGreen" if blue else "canary",
        "steps": [described(_map(each)) for each in _list(canary.get("steps"))][:100],
        "step": _count(status.get("currentStepIndex")),
        "weight": _at(weights, "canary", "weight"),
        "current": current,
        "stable": stable,
        "updating": bool(stable) and current != stable,
        "paused": bool(spec.get("paused")) or bool(status.get("controllerPause")),
        "userPaused": bool(spec.get("paused")),
        "pauses": [
            {"reason": _text(_map(each).get("reason")), "since": _text(_map(each).get("startTime"))}
            for each in _list(status.get("pauseConditions"))
        ],
        "aborted": bool(status.get("abort")),
        "abortedAt": _text(status.get("abortedAt")),
        "services": {
            "canary": _text(canary.get("canaryService") or blue.get("previewService")),
            "stable": _text(canary.get("stableService") or blue.get("activeService")),
        },
        "routes": _routes(gateway, _text(_at(obj, "metadata", "namespace"))),
        "replicas": spec.get("replicas", 1),
        "ready": status.get("readyReplicas") or 0,
        "updated": status.get("updatedReplicas") or 0,
        "available": status.get("availableReplicas") or 0,
        "images": _images(spec.get("template")),
        "runs": [_text(name) for name in _run_names(status) if name],
        "conditions": [
            {key: _text(_map(each).get(key)) for key in ("type", "status", "reason", "message")}
            for each in _list(status.get("conditions"))
        ][:20],
    }


def _routes(gateway: Mapping[str, Any], namespace: str) -> list[str]:
    where = _text(gateway.get("namespace")) or namespace
    names = [gateway.get("httpRoute"), gateway.get("grpcRoute")]
    names += [_map(each).get("name") for key in ("httpRoutes", "grpcRoutes") for each in _list(gateway.get(key))]
    return [f"{where}/{name}" for name in names if name]


def _run_names(status: Mapping[str, Any]) -> list[Any]:
    canary, blue = _map(status.get("canary")), _map(status.get("blueGreen"))
    return [
        *(_at(canary, f"current{which}AnalysisRunStatus", "name") for which in ("Step", "Background")),
        *(_at(blue, f"{which}PromotionAnalysisRunStatus", "name") for which in ("pre", "post")),
    ]


def workload(obj: _Object) -> Digest:
    """Return a Deployment's or ReplicaSet's digest."""
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    notes = _map(_at(obj, "metadata", "annotations"))
    return _judged(obj) | {
        "replicas": spec.get("replicas", 1),
        "ready": status.get("readyReplicas") or 0,
        "updated": status.get("updatedReplicas") or 0,
        "available": status.get("availableReplicas") or 0,
        "images": _images(spec.get("template")),
        "revision": next((_text(notes[name]) for name in _REVISIONS if name in notes), ""),
        "hash": _hash(obj),
    }


def pod(obj: _Object) -> Digest:
    """Return a pod's digest; status as kubectl shows it."""
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    states = [_map(each) for each in _list(status.get("containerStatuses"))]
    names = [_text(_map(each).get("name")) for each in _list(spec.get("containers"))]
    return _judged(obj) | {
        "status": _pod_status(obj, status, states),
        "ready": sum(bool(each.get("ready")) for each in states),
        "containers": names,
        "init": [_text(_map(each).get("name")) for each in _list(spec.get("initContainers"))],
        "restarts": sum(_count(each.get("restartCount")) for each in states),
        "node": _text(spec.get("nodeName")),
        "address": _text(status.get("podIP")),
        "hash": _hash(obj),
        "images": _images(obj),
    }


def _pod_status(obj: _Object, status: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> str:
    if _at(obj, "metadata", "deletionTimestamp"):
        return "Terminating"
    for each in states:
        why = _at(each, "state", "waiting", "reason") or _at(each, "state", "terminated", "reason")
        if why and why != "Completed":
            return _text(why)
    return _text(status.get("reason")) or _text(status.get("phase")) or "Unknown"


def event(obj: _Object) -> Digest:
    """Return an event's digest, of either of the two groups that events are served in."""
    about = _map(obj.get("involvedObject")) or _map(obj.get("regarding"))
    series = _map(obj.get("series"))
    last = series.get("lastObservedTime") or obj.get("lastTimestamp") or obj.get("eventTime")
    last = last or obj.get("firstTimestamp") or _at(obj, "metadata", "creationTimestamp")
    return {
        "namespace": _text(_at(obj, "metadata", "namespace")),
        "name": _text(_at(obj, "metadata", "name")),
        "type": _text(obj.get("type")) or "Normal",
        "reason": _text(obj.get("reason")),
        "message": _text(obj.get("message")) or _text(obj.get("note")),
        "kind": _text(about.get("kind")),
        "object": _text(about.get("name")),
        "count": _count(series.get("count")) or _count(obj.get("count")) or 1,
        "at": _text(last),
        "by": _text(_at(obj, "source", "component")) or _text(obj.get("reportingComponent")),
    }


def analysis_run(obj: _Object) -> Digest:
    """Return an analysis run's digest: its phase, what each metric says, and the limits of our own judgement."""
    status = _map(obj.get("status"))
    results = {_text(_map(each).get("name")): _map(each) for each in _list(status.get("metricResults"))}
    metrics = []
    for each in _list(_at(obj, "spec", "metrics")):
        metric = _map(each)
        name = _text(metric.get("name"))
        result = results.get(name, {})
        last = _map(next(reversed(_list(result.get("measurements"))), None))
        plugin = _map(_at(metric, "provider", "plugin", _TRAFFIC))
        metrics.append(
            {
                "name": name,
                "phase": _text(result.get("phase")) or "Pending",
                "message": _text(result.get("message")) or _text(last.get("message")),
                "value": _text(last.get("value")),
                "failed": result.get("failed") or 0,
                "count": result.get("count") or 0,
                "limits": {key: _text(plugin[key]) for key in ("errors", "p95") if key in plugin} if plugin else None,
            }
        )
    return _base(obj) | {
        "phase": _text(status.get("phase")) or "Pending",
        "message": _text(status.get("message")),
        "started": _text(status.get("startedAt")),
        "completed": _text(status.get("completedAt")),
        "metrics": metrics[:50],
        "hash": _hash(obj),
    }


def named(obj: _Object) -> Digest:
    """Return the name alone."""
    return {"name": _text(_at(obj, "metadata", "name")), "namespace": ""}


_ARGO: Final = "argoproj.io"
APPLICATIONS: Final = Source("applications", _ARGO, "v1alpha1", "Application", application)
ROLLOUTS: Final = Source("rollouts", _ARGO, "v1alpha1", "Rollout", rollout)
ANALYSIS_RUNS: Final = Source("analysisruns", _ARGO, "v1alpha1", "AnalysisRun", analysis_run)
DEPLOYMENTS: Final = Source("deployments", "apps", "v1", "Deployment", workload)
REPLICA_SETS: Final = Source("replicasets", "apps", "v1", "ReplicaSet", workload)
PODS: Final = Source("pods", "", "v1", "Pod", pod)
EVENTS: Final = Source("events", "", "v1", "Event", event)
NAMESPACES: Final = Source("namespaces", "", "v1", "Namespace", named)
