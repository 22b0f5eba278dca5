"""Defaults of the batch and autoscaling groups."""

from __future__ import annotations

from typing import Any

from pilothouse.kinds.defaults.fill import (
    Object,
    Table,
    child,
    empties,
    fill_empty,
    fill_missing,
    items,
    labels_from_template,
)
from pilothouse.kinds.defaults.pods import pod_template

__all__ = ["AUTOSCALING_V1", "AUTOSCALING_V2", "DEFAULTERS"]

_JOB: Table = (("parallelism", 1), ("completionMode", "NonIndexed"), ("suspend", False), ("manualSelector", False))
_CRON_JOB: Table = (("suspend", False), ("successfulJobsHistoryLimit", 3), ("failedJobsHistoryLimit", 1))
_BACKOFF_LIMIT = 6
_BACKOFF_UNLIMITED = 2**31 - 1
_CPU_UTILIZATION = 80
_METRICS_ANNOTATION = "autoscaling.alpha.kubernetes.io/metrics"
_PERIOD_SECONDS = 15


def _job(obj: Object) -> None:
    spec = child(obj, "spec")
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    fill_missing(spec, _JOB)
    limit = _BACKOFF_LIMIT if spec.get("backoffLimitPerIndex") is None else _BACKOFF_UNLIMITED
    replacement = "TerminatingOrFailed" if spec.get("podFailurePolicy") is None else "Failed"
    fill_missing(spec, (("backoffLimit", limit), ("podReplacementPolicy", replacement)))
    _job_template(spec)
    labels_from_template(obj, spec["template"])


def _cron_job(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_empty(spec, (("concurrencyPolicy", "Allow"),))
    fill_missing(spec, _CRON_JOB)
    template = child(spec, "jobTemplate")
    empties(template, ("metadata", "spec"))
    _job_template(template["spec"])


def _job_template(spec: Object) -> None:
    pod_template(spec)
    for rule in items(spec.get("podFailurePolicy") or {}, "rules"):
        for pattern in items(rule, "onPodConditions"):
            fill_empty(pattern, (("status", "True"),))


def _autoscaler_v1(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_missing(spec, (("minReplicas", 1),))
    if _METRICS_ANNOTATION not in ((obj.get("metadata") or {}).get("annotations") or {}):
        fill_missing(spec, (("targetCPUUtilizationPercentage", _CPU_UTILIZATION),))


def _autoscaler_v2(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_missing(spec, (("minReplicas", 1),))
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": _CPU_UTILIZATION}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is None:
        return
    up, down = child(behavior, "scaleUp"), child(behavior, "scaleDown")
    fill_missing(up, (("stabilizationWindowSeconds", 0),))
    for rules, policies in ((up, (("Pods", 4), ("Percent", 100))), (down, (("Percent", 100),))):
        fill_missing(rules, (("selectPolicy", "Max"),))
        if rules.get("policies") is None:
            rules["policies"] = [_policy(kind, value) for kind, value in policies]


def _policy(kind: str, value: int) -> dict[str, Any]:
    return {"type": kind, "value": value, "periodSeconds": _PERIOD_SECONDS}


DEFAULTERS = {"CronJob": _cron_job, "Job": _job}
AUTOSCALING_V1 = {"HorizontalPodAutoscaler": _autoscaler_v1}
AUTOSCALING_V2 = {"HorizontalPodAutoscaler": _autoscaler_v2}
