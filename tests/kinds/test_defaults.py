"""Defaults agree with recordings of a real kube-apiserver and with its rules."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pilothouse.kinds.defaults import default

GOLDEN = Path(__file__).parent.parent / "golden" / "defaults.json"
Object = dict[str, Any]
Step = dict[str, Any]

POD_ADMISSION = ("serviceAccountName", "serviceAccount", "tolerations", "priority", "preemptionPolicy")
"""Fields of a pod's spec that admission fills in: service account, tolerations of node conditions, priority."""
SERVICE_ALLOCATION = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
SERVER_METADATA = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "namespace")
ADMISSION_METADATA: dict[str, tuple[str, ...]] = {
    "PersistentVolumeClaim": ("finalizers",),
    "PersistentVolume": ("finalizers",),
    "DaemonSet": ("annotations",),
    "Pod": ("annotations",),
}
"""Storage protection, the template generation of the write strategy, the note of limit ranges."""


def recorded() -> list[Step]:
    steps: list[Step] = json.loads(GOLDEN.read_text())["steps"]
    return [step for step in steps if step["method"] == "POST" and step["status"] == 201]


def without_server(obj: Object) -> Object:
    """Take away what a server adds after defaulting; everything else has to agree."""
    obj = copy.deepcopy(obj)
    kind = obj["kind"]
    obj.pop("status", None)
    for name in (*SERVER_METADATA, *ADMISSION_METADATA.get(kind, ())):
        obj["metadata"].pop(name, None)
    spec = obj.get("spec", {})
    if kind == "Pod":
        _without_pod_admission(spec)
    elif kind == "Service":
        for name in SERVICE_ALLOCATION:
            spec.pop(name, None)
        for port in spec.get("ports", ()):
            port.pop("nodePort", None)
    elif kind == "Namespace":
        obj.pop("spec", None)  # the finalizer of the write strategy
    elif kind == "Node":
        spec.pop("taints", None)  # added until the node is ready
    elif kind == "Job":
        _without_generated_selector(spec)
        obj["metadata"].pop("labels", None)
    return obj


def _without_pod_admission(spec: Object) -> None:
    for name in POD_ADMISSION:
        spec.pop(name, None)
    token = [v["name"] for v in spec.get("volumes", ()) if v["name"].startswith("kube-api-access-")]
    if token:
        spec["volumes"] = [v for v in spec["volumes"] if v["name"] not in token]
        if not spec["volumes"]:
            del spec["volumes"]
    for container in spec["containers"]:
        mounts = [m for m in container.pop("volumeMounts", ()) if m["name"] not in token]
        if mounts:
            container["volumeMounts"] = mounts


def _without_generated_selector(spec: Object) -> None:
    spec.pop("selector", None)
    spec["template"]["metadata"].pop("labels", None)


def resources_of(obj: Object) -> list[Object]:
    return [c.pop("resources") for c in obj.get("spec", {}).get("containers", ()) if "resources" in c]


@pytest.mark.parametrize("step", recorded(), ids=lambda step: str(step["label"]))
def test_agrees_with_the_recording(step: Step) -> None:
    body, response = copy.deepcopy(step["body"]), copy.deepcopy(step["response"])
    group, _, version = body["apiVersion"].rpartition("/")
    got, want = without_server(default(body, group, version, body["kind"])), without_server(response)
    if step["label"] == "pod under limitrange":  # limits are added by admission
        assert resources_of(got) == [{}]
        assert resources_of(want) == [{"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}]
    assert got == want


def test_every_recorded_create_is_compared() -> None:
    assert len(recorded()) == 37


@pytest.mark.parametrize("step", recorded(), ids=lambda step: str(step["label"]))
def test_defaulting_twice_changes_nothing(step: Step) -> None:
    body = copy.deepcopy(step["body"])
    group, _, version = body["apiVersion"].rpartition("/")
    once = copy.deepcopy(default(body, group, version, body["kind"]))
    assert default(body, group, version, body["kind"]) == once


def container(**fields: Any) -> Object:
    obj: Object = {"spec": {"containers": [{"name": "a", "image": "x", **fields}]}}
    found: Object = default(obj, "", "v1", "Pod")["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.25", "IfNotPresent"),
        ("registry:5000/a/b", "Always"),
        ("registry:5000/a/b:2", "IfNotPresent"),
        ("nginx@sha256:" + "a" * 64, "IfNotPresent"),
        ("nginx:latest@sha256:" + "a" * 64, "Always"),
        ("Not An Image", "IfNotPresent"),
        ("", "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert container(image=image)["imagePullPolicy"] == policy


def test_a_users_choice_stays() -> None:
    spec = {"terminationGracePeriodSeconds": 0, "enableServiceLinks": False, "restartPolicy": "Never", "containers": []}
    got = default({"spec": dict(spec)}, "", "v1", "Pod")["spec"]
    assert {name: got[name] for name in spec} == spec


def test_null_and_empty_count_as_not_set() -> None:
    got = container(imagePullPolicy="", resources=None, terminationMessagePath="")
    assert got["imagePullPolicy"] == "Always"
    assert got["resources"] == {}
    assert got["terminationMessagePath"] == "/dev/termination-log"


def test_requests_come_from_limits_in_pods_alone() -> None:
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}
    assert container(resources=copy.deepcopy(resources))["resources"]["requests"] == {"cpu": "100m", "memory": "1Gi"}
    template = {"spec": {"containers": [{"name": "a", "image": "x", "resources": copy.deepcopy(resources)}]}}
    got = default({"spec": {"template": template}}, "apps", "v1", "Deployment")
    assert got["spec"]["template"]["spec"]["containers"][0]["resources"] == resources


def test_host_network_copies_container_ports() -> None:
    obj: Object = {"spec": {"hostNetwork": True, "containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}}
    port = default(obj, "", "v1", "Pod")["spec"]["containers"][0]["ports"][0]
    assert port == {"containerPort": 80, "hostPort": 80, "protocol": "TCP"}


def test_resources_of_the_pod_come_from_its_containers() -> None:
    def asking(cpu: str, **fields: Any) -> Object:
        return {"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}, **fields}

    spec: Object = {
        "resources": {"limits": {"cpu": "4", "memory": "1Gi"}},
        "containers": [asking("500m"), asking("1")],
        "initContainers": [asking("250m", restartPolicy="Always"), asking("3")],
    }
    got = default({"spec": spec}, "", "v1", "Pod")["spec"]["resources"]
    assert got == {"limits": {"cpu": "4", "memory": "1Gi"}, "requests": {"cpu": "3250m", "memory": "1Gi"}}


def test_a_volume_without_source_is_an_empty_directory() -> None:
    obj: Object = {"spec": {"volumes": [{"name": "v"}, {"name": "w", "secret": {"secretName": "s"}}], "containers": []}}
    volumes = default(obj, "", "v1", "Pod")["spec"]["volumes"]
    assert volumes == [
        {"name": "v", "emptyDir": {}},
        {"name": "w", "secret": {"secretName": "s", "defaultMode": 420}},
    ]


def test_service_rules_depend_on_type_and_affinity() -> None:
    ports = [{"port": 80}]
    balancer = {"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "ports": ports}}
    got = default(balancer, "", "v1", "Service")["spec"]
    assert got["allocateLoadBalancerNodePorts"] is True
    assert got["externalTrafficPolicy"] == "Cluster"
    assert got["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    exposed = default({"spec": {"externalIPs": ["1.2.3.4"]}}, "", "v1", "Service")["spec"]
    assert exposed["externalTrafficPolicy"] == "Cluster"


def test_job_rules_depend_on_other_fields() -> None:
    indexed = default({"spec": {"parallelism": 3, "backoffLimitPerIndex": 1}}, "batch", "v1", "Job")["spec"]
    assert "completions" not in indexed
    assert indexed["backoffLimit"] == 2**31 - 1
    failing: Object = {"spec": {"podFailurePolicy": {"rules": [{"onPodConditions": [{"type": "X"}]}]}}}
    spec = default(failing, "batch", "v1", "Job")["spec"]
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["podFailurePolicy"]["rules"][0]["onPodConditions"] == [{"type": "X", "status": "True"}]


def test_string_data_is_written_over_data() -> None:
    got = default({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "é"}}, "", "v1", "Secret")
    assert got == {"data": {"a": "w6k=", "b": "eQ=="}, "type": "Opaque"}


def test_autoscaler_behavior_is_completed() -> None:
    behavior: Object = {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
    got = default({"spec": {"behavior": behavior}}, "autoscaling", "v2", "HorizontalPodAutoscaler")["spec"]["behavior"]
    assert got["scaleDown"] == {"policies": behavior["scaleDown"]["policies"], "selectPolicy": "Max"}
    assert got["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert [policy["type"] for policy in got["scaleUp"]["policies"]] == ["Pods", "Percent"]


def test_custom_resource_names_follow_the_kind() -> None:
    spec: Object = {"names": {"kind": "CronTab", "plural": "crontabs"}}
    got = default({"spec": spec}, "apiextensions.k8s.io", "v1", "CustomResourceDefinition")["spec"]
    assert got["names"] == {"kind": "CronTab", "plural": "crontabs", "singular": "crontab", "listKind": "CronTabList"}
    assert got["conversion"] == {"strategy": "None"}


def test_unknown_kinds_stay_as_they_are() -> None:
    obj = {"apiVersion": "x.example/v1", "kind": "Thing", "spec": {}}
    assert default(obj, "x.example", "v1", "Thing") == {"apiVersion": "x.example/v1", "kind": "Thing", "spec": {}}
