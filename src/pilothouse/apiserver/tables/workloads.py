"""The rows of what runs pods: deployments, jobs and their like."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pilothouse.apiserver.tables.autoscalers import autoscaler
from pilothouse.apiserver.tables.cells import (
    NONE,
    UNSET,
    Object,
    Printer,
    age,
    containers,
    format_labels,
    format_selector,
    selector_text,
    true_condition,
)
from pilothouse.apiserver.tables.pods import pod
from pilothouse.kinds import intstr
from pilothouse.kinds.ages import Ages, human_duration
from pilothouse.kinds.times import parse

__all__ = ["PRINTERS"]

_EMPTY: Final[Mapping[str, Any]] = {}


def _parts(obj: Object) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    return obj["metadata"].get("name", ""), obj.get("spec") or _EMPTY, obj.get("status") or _EMPTY


def _deployment(obj: Object, ages: Ages) -> list[Any]:
    name, spec, status = _parts(obj)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    selector = selector_text(spec.get("selector"), "<invalid>")
    return [name, ready, updated, available, age(obj, ages), *containers(spec.get("template")), selector]


def _replicas(obj: Object, ages: Ages) -> list[Any]:
    name, spec, status = _parts(obj)
    counts = spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)
    return [name, *counts, age(obj, ages), *containers(spec.get("template"))]


def _replica_set(obj: Object, ages: Ages) -> list[Any]:
    return [*_replicas(obj, ages), format_selector((obj.get("spec") or _EMPTY).get("selector"))]


def _replication_controller(obj: Object, ages: Ages) -> list[Any]:
    return [*_replicas(obj, ages), format_labels((obj.get("spec") or _EMPTY).get("selector"))]


def _stateful_set(obj: Object, ages: Ages) -> list[Any]:
    name, spec, status = _parts(obj)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name, ready, age(obj, ages), *containers(spec.get("template"))]


def _daemon_set(obj: Object, ages: Ages) -> list[Any]:
    name, spec, status = _parts(obj)
    fields = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    template = spec.get("template") or _EMPTY
    nodes = format_labels((template.get("spec") or _EMPTY).get("nodeSelector"))
    selector = format_selector(spec.get("selector"))
    counts = [status.get(field, 0) for field in fields]
    return [name, *counts, nodes, age(obj, ages), *containers(template), selector]


def _job_status(obj: Object, status: Object) -> str:
    for kind in ("Complete", "Failed"):
        if true_condition(status, kind):
            return kind
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget"):
        if true_condition(status, kind):
            return kind
    return "Running"


def _between(start: str, end: str) -> str:
    moments: list[datetime] = [parse(start), parse(end)]
    return human_duration((moments[1] - moments[0]).total_seconds())


def _job(obj: Object, ages: Ages) -> list[Any]:
    name, spec, status = _parts(obj)
    succeeded, parallelism = status.get("succeeded", 0), spec.get("parallelism") or 0
    if spec.get("completions") is not None:
        completions = f"{succeeded}/{spec['completions']}"
    else:
        completions = f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"
    start, end = status.get("startTime"), status.get("completionTime")
    lasted = "" if not start else _between(start, end) if end else ages.since(start)
    selector = format_selector(spec.get("selector"))
    state = _job_status(obj, status)
    return [name, state, completions, lasted, age(obj, ages), *containers(spec.get("template")), selector]


def _cron_job(obj: Object, ages: Ages) -> list[Any]:
    name, spec, status = _parts(obj)
    suspend = spec.get("suspend")
    job = (spec.get("jobTemplate") or _EMPTY).get("spec") or _EMPTY
    last = status.get("lastScheduleTime")
    return [
        name,
        spec.get("schedule", ""),
        NONE if spec.get("timeZone") is None else spec["timeZone"],
        UNSET if suspend is None else "True" if suspend else "False",
        len(status.get("active") or ()),
        ages.since(last) if last else NONE,
        age(obj, ages),
        *containers(job.get("template")),
        format_selector(job.get("selector")),
    ]


def _pod_template(obj: Object, ages: Ages) -> list[Any]:
    template = obj.get("template") or _EMPTY
    labels = (template.get("metadata") or _EMPTY).get("labels")
    return [obj["metadata"].get("name", ""), *containers(template), format_labels(labels)]


def _controller_revision(obj: Object, ages: Ages) -> list[Any]:
    metadata = obj["metadata"]
    controller = NONE
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            group, slash, _ = owner.get("apiVersion", "").partition("/")
            kind = f"{owner.get('kind', '')}.{group}" if slash else owner.get("kind", "")
            controller = f"{kind.lower()}/{owner.get('name', '')}" if kind else owner.get("name", "")
            break
    return [metadata.get("name", ""), controller, obj.get("revision", 0), age(obj, ages)]


def _disruption_budget(obj: Object, ages: Ages) -> list[Any]:
    name, spec, status = _parts(obj)
    bounds = [spec.get(field) for field in ("minAvailable", "maxUnavailable")]
    told = ["N/A" if bound is None else intstr.text(bound) for bound in bounds]
    return [name, *told, status.get("disruptionsAllowed", 0), age(obj, ages)]


def _scale(obj: Object, ages: Ages) -> list[Any]:
    name, spec, status = _parts(obj)
    return [name, spec.get("replicas", 0), status.get("replicas", 0), age(obj, ages)]


PRINTERS: Final[Mapping[tuple[str, str], Printer]] = {
    ("", "Pod"): pod,
    ("", "PodTemplate"): _pod_template,
    ("", "ReplicationController"): _replication_controller,
    ("apps", "ControllerRevision"): _controller_revision,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("autoscaling", "HorizontalPodAutoscaler"): autoscaler,
    ("autoscaling", "Scale"): _scale,
    ("batch", "CronJob"): _cron_job,
    ("batch", "Job"): _job,
    ("policy", "PodDisruptionBudget"): _disruption_budget,
}
