"""How objects are, by their status."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.gitops.health import ORDER, HealthRule, health_of, read_rules, worst


def obj(api_version: str, kind: str, status: Any = None, spec: Any = None, **metadata: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "x", "generation": 2, **metadata},
    }
    return made | ({"status": status} if status is not None else {}) | ({"spec": spec} if spec is not None else {})


def condition(kind: str, status: str = "True", **more: Any) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "message": "m", **more}]}


ROLLED = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}
WAITING = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no image"}}}]}
EXITED = {"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 3}}}]}
CASES = [
    (obj("apps/v1", "Deployment", ROLLED, {"replicas": 2}), "Healthy"),
    (obj("apps/v1", "Deployment", {**ROLLED, "observedGeneration": 1}, {"replicas": 2}), "Progressing"),
    (obj("apps/v1", "Deployment", {**ROLLED, "updatedReplicas": 1}, {"replicas": 2}), "Progressing"),
    (obj("apps/v1", "Deployment", {**ROLLED, "replicas": 3}, {"replicas": 2}), "Progressing"),
    (obj("apps/v1", "Deployment", {**ROLLED, "availableReplicas": 1}, {"replicas": 2}), "Progressing"),
    (obj("apps/v1", "Deployment", ROLLED, {"replicas": 2, "paused": True}), "Suspended"),
    (
        obj("apps/v1", "Deployment", {**ROLLED, **condition("Progressing", reason="ProgressDeadlineExceeded")}, {}),
        "Degraded",
    ),
    (obj("apps/v1", "ReplicaSet", ROLLED, {"replicas": 2}), "Healthy"),
    (obj("apps/v1", "ReplicaSet", {**ROLLED, **condition("ReplicaFailure")}, {"replicas": 2}), "Degraded"),
    (obj("apps/v1", "StatefulSet", {}, {"replicas": 2}), "Progressing"),
    (obj("apps/v1", "StatefulSet", ROLLED, {"replicas": 2}), "Healthy"),
    (obj("apps/v1", "StatefulSet", {**ROLLED, "readyReplicas": 1}, {"replicas": 2}), "Progressing"),
    (obj("apps/v1", "StatefulSet", {**ROLLED, "updateRevision": "b", "currentRevision": "a"}, {}), "Progressing"),
    (
        obj(
            "apps/v1",
            "StatefulSet",
            {**ROLLED, "updatedReplicas": 0},
            {"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}},
        ),
        "Progressing",
    ),
    (
        obj(
            "apps/v1",
            "DaemonSet",
            {"observedGeneration": 2, "desiredNumberScheduled": 1, "numberAvailable": 0, "updatedNumberScheduled": 1},
        ),
        "Progressing",
    ),
    (obj("apps/v1", "DaemonSet", {"observedGeneration": 2, "desiredNumberScheduled": 0}), "Healthy"),
    (obj("batch/v1", "Job", condition("Complete")), "Healthy"),
    (obj("batch/v1", "Job", condition("Failed")), "Degraded"),
    (obj("batch/v1", "Job", {}), "Progressing"),
    (obj("batch/v1", "Job", condition("Suspended")), "Suspended"),
    (obj("batch/v1", "CronJob", {}, {"suspend": True}), "Suspended"),
    (obj("v1", "Pod", {"phase": "Pending"}), "Progressing"),
    (obj("v1", "Pod", {"phase": "Pending", **WAITING}), "Degraded"),
    (obj("v1", "Pod", {"phase": "Running", **condition("Ready")}), "Healthy"),
    (obj("v1", "Pod", {"phase": "Running", **condition("Ready", "False")}), "Progressing"),
    (obj("v1", "Pod", {"phase": "Running"}, {"restartPolicy": "Never"}), "Progressing"),
    (obj("v1", "Pod", EXITED), "Degraded"),
    (obj("v1", "Pod", {"phase": "Succeeded"}), "Healthy"),
    (obj("v1", "PersistentVolumeClaim", {"phase": "Bound"}), "Healthy"),
    (obj("v1", "PersistentVolumeClaim", {"phase": "Lost"}), "Degraded"),
    (obj("v1", "Service", {}, {"type": "LoadBalancer"}), "Progressing"),
    (obj("v1", "Service", {"loadBalancer": {"ingress": [{"ip": "1"}]}}, {"type": "LoadBalancer"}), "Healthy"),
    (obj("v1", "Service", {}, {"type": "ClusterIP"}), "Healthy"),
    (obj("networking.k8s.io/v1", "Ingress", {}), "Progressing"),
    (obj("networking.k8s.io/v1", "Ingress", {"loadBalancer": {"ingress": [{}]}}), "Healthy"),
    (obj("autoscaling/v2", "HorizontalPodAutoscaler", condition("AbleToScale")), "Healthy"),
    (
        obj("autoscaling/v2", "HorizontalPodAutoscaler", condition("AbleToScale", "False", reason="FailedGetScale")),
        "Degraded",
    ),
    (obj("autoscaling/v2", "HorizontalPodAutoscaler", {}), "Progressing"),
    (obj("argoproj.io/v1alpha1", "Rollout", {"observedGeneration": "2", "phase": "Healthy"}), "Healthy"),
    (obj("argoproj.io/v1alpha1", "Rollout", {"observedGeneration": "2", "phase": "Paused"}), "Suspended"),
    (obj("argoproj.io/v1alpha1", "Rollout", {"observedGeneration": "2", "phase": "Degraded"}), "Degraded"),
    (obj("argoproj.io/v1alpha1", "Rollout", {"observedGeneration": "1", "phase": "Healthy"}), "Progressing"),
    (obj("argoproj.io/v1alpha1", "Application", {"health": {"status": "Missing"}}), "Missing"),
    (obj("apiregistration.k8s.io/v1", "APIService", condition("Available")), "Healthy"),
    (obj("example.com/v1", "Thing", condition("Ready")), "Healthy"),
    (obj("example.com/v1", "Thing", condition("Ready", "False")), "Progressing"),
    (obj("example.com/v1", "Thing", condition("Ready", observedGeneration=1)), "Progressing"),
    (obj("apps/v1", "Deployment", ROLLED, {"replicas": 2}, deletionTimestamp="2025-01-01T00:00:00Z"), "Progressing"),
]


@pytest.mark.parametrize(("found", "status"), CASES)
def test_health(found: dict[str, Any], status: str) -> None:
    verdict = health_of(found)
    assert verdict is not None
    assert verdict.status == status


def test_what_nothing_is_known_of_has_none() -> None:
    assert health_of(obj("v1", "ConfigMap")) is None
    assert health_of(obj("example.com/v1", "Thing", {"phase": "x"})) is None


def test_rules_go_first() -> None:
    rules = read_rules([{"status": "Suspended", "path": "status.phase", "value": "Paused"}])
    assert health_of(obj("apps/v1", "Deployment", {"phase": "Paused"}), rules) == ("Suspended", "")
    on = (HealthRule("Degraded", condition="Failed"),)
    assert health_of(obj("example.com/v1", "Thing", condition("Failed")), on) == ("Degraded", "m")
    for wrong in ([{"status": "Fine"}], [{"status": "Healthy", "lua": "x"}], ["x"]):
        with pytest.raises(ValueError, match="health rule"):
            read_rules(wrong)


@given(st.lists(st.sampled_from(ORDER)))
def test_the_worst_counts(listed: list[str]) -> None:
    assert worst(listed) == (max(listed, key=ORDER.index) if listed else "Healthy")
