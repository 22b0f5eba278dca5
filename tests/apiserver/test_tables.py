"""Objects as tables, cell by cell."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pilothouse.apiserver.tables import check_partial, columns, include_object, to_partial_list, to_table
from pilothouse.kinds.registry import Column, Resource, builtin
from pilothouse.kinds.status import BadRequest, NotAcceptable

GOLDEN = Path(__file__).parent.parent / "golden"
NOW = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def meta(**more: Any) -> dict[str, Any]:
    return {"name": "a", "creationTimestamp": ago(300), **more}


def cells(name: str, **obj: Any) -> list[Any]:
    resource = builtin().find(name)
    assert resource is not None
    obj.setdefault("metadata", meta())
    row: list[Any] = to_table([obj], resource, now=NOW)["rows"][0]["cells"]
    if name != "ipaddresses":
        assert len(row) == len(columns(resource))
    return row


# --- recorded ---


def steps(file: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((GOLDEN / f"{file}.json").read_text())["steps"]
    return listed


def recorded(file: str, label: str) -> Any:
    return next(step["response"] for step in steps(file) if step["label"] == label)


def fresh(obj: Any) -> Any:
    """Put a moment in place of the recording's placeholder."""
    return json.loads(json.dumps(obj).replace("<time>", ago(0)))


def without_descriptions(table: dict[str, Any]) -> dict[str, Any]:
    for column in table["columnDefinitions"] or ():
        column.pop("description")
    return table


@pytest.mark.parametrize(
    ("label", "source", "resource"),
    [("table", "", "configmaps"), ("dep table", "dep", "deployments"), ("pod table", "pod", "pods")],
)
def test_lists_as_recorded(label: str, source: str, resource: str) -> None:
    table = fresh(recorded("lists", label))
    if source:
        objects = [fresh(recorded("lists", source))]
        # what was recorded when it was created has no status that came later
        objects[0]["metadata"] = table["rows"][0]["object"]["metadata"]
    else:
        objects = [{"metadata": row["object"]["metadata"], "data": {"k": "v"}} for row in table["rows"]]
    found = builtin().find(resource)
    assert found is not None
    made = to_table(objects, found, now=NOW, list_metadata=table["metadata"])
    assert without_descriptions(made) == table
    assert list(made) == list(table)


@pytest.mark.parametrize(
    ("label", "include"), [("table one", "Metadata"), ("table object", "Object"), ("table none", "None")]
)
def test_include_object_as_recorded(label: str, include: Any) -> None:
    table = fresh(recorded("lists", label))
    obj = fresh(recorded("lists", "table object"))["rows"][0]["object"]
    found = builtin().find("configmaps")
    assert found is not None
    made = to_table([obj], found, now=NOW, list_metadata=table["metadata"], include_object=include)
    assert json.dumps(without_descriptions(made)) == json.dumps(table)


def test_custom_resource_as_recorded() -> None:
    table = fresh(recorded("crds", "table"))
    custom = Resource(
        "golden.example",
        "v1",
        "widgets",
        "Widget",
        "widget",
        True,
        ("get",),
        custom=True,
        columns=(
            Column("Size", "integer", json_path=".spec.size"),
            Column("Age", "date", json_path=".metadata.creationTimestamp"),
        ),
    )
    objects = [{"metadata": row["object"]["metadata"], "spec": {"size": 5}} for row in table["rows"]]
    made = to_table(objects, custom, now=NOW, list_metadata=table["metadata"])
    assert without_descriptions(made) == table


def test_partial_list_as_recorded() -> None:
    golden = recorded("lists", "partial list")
    made = to_partial_list(golden["items"], golden["metadata"])
    assert json.dumps(made) == json.dumps(golden)


# --- options ---


def test_include_object_that_is_none() -> None:
    assert include_object("") == "Metadata"
    with pytest.raises(BadRequest) as refused:
        include_object("All")
    assert refused.value.message == (
        'Unable to convert to Table as requested: includeObject: Invalid value: "All": '
        "must be 'Metadata', 'Object', 'None', or empty"
    )


def test_watch_without_headers_and_old_version() -> None:
    pods = builtin().find("pods")
    assert pods is not None
    made = to_table([{"metadata": meta()}], pods, now=NOW, version="v1beta1", headers=False)
    assert made["columnDefinitions"] is None
    assert made["apiVersion"] == made["rows"][0]["object"]["apiVersion"] == "meta.k8s.io/v1beta1"


def test_scale() -> None:
    deployments = builtin().find("deployments")
    assert deployments is not None
    scale = {"metadata": meta(), "spec": {"replicas": 3}, "status": {"replicas": 2}}
    made = to_table([scale], deployments, now=NOW, kind="Scale", include_object="Object")
    assert made["rows"][0]["cells"] == ["a", 3, 2, "5m"]
    assert made["rows"][0]["object"]["kind"] == "Scale"


def test_other_kinds() -> None:
    pods = builtin().find("pods")
    assert pods is not None
    status = {"metadata": {}, "status": "Failure", "reason": "Gone", "message": "no"}
    made = to_table([status], pods, now=NOW, kind="Status")
    assert [column["name"] for column in made["columnDefinitions"]] == ["Status", "Reason", "Message"]
    assert made["rows"][0]["cells"] == ["Failure", "Gone", "no"]
    made = to_table([{"metadata": meta()}], pods, now=NOW, kind="Binding")
    assert made["rows"][0]["cells"] == ["a", ago(300)]


def test_partial_of_the_wrong_shape() -> None:
    check_partial("PartialObjectMetadata", is_list=False)
    check_partial("PartialObjectMetadataList", is_list=True)
    check_partial("Table", is_list=True)
    with pytest.raises(NotAcceptable, match=r"is a list \(\*core.PodList\)"):
        check_partial("PartialObjectMetadata", is_list=True, go_type="*core.PodList")
    with pytest.raises(NotAcceptable, match="is not a list"):
        check_partial("PartialObjectMetadataList", is_list=False)


def test_every_built_in_resource_has_as_many_cells_as_columns() -> None:
    for resource in builtin():
        made = to_table([{"metadata": {"name": "a"}}], resource, now=NOW)
        row = made["rows"][0]["cells"]
        more = 1 if resource.resource == "ipaddresses" else 0
        assert len(row) == len(made["columnDefinitions"]) + more, resource.full_name
        assert "a" in row or "a (default)" in row


# --- pods ---


def container(name: str = "c", **more: Any) -> dict[str, Any]:
    return {"name": name, "ready": False, "restartCount": 0, "state": {}, **more}


RUNNING = container(ready=True, state={"running": {"startedAt": ago(10)}})
DONE = container(state={"terminated": {"exitCode": 0, "reason": "Completed"}})
READY = {"type": "Ready", "status": "True"}


def pod(status: dict[str, Any], spec: dict[str, Any] | None = None, **metadata: Any) -> list[Any]:
    return cells("pods", metadata=meta(**metadata), spec={"containers": [{}], **(spec or {})}, status=status)[1:4]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"phase": "Pending"}, ["0/1", "Pending", "0"]),
        ({"phase": "Running", "containerStatuses": [RUNNING]}, ["1/1", "Running", "0"]),
        ({"phase": "Failed", "reason": "Evicted"}, ["0/1", "Evicted", "0"]),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    container(
                        restartCount=3,
                        state={"waiting": {"reason": "CrashLoopBackOff"}},
                        lastState={"terminated": {"exitCode": 1, "finishedAt": ago(300)}},
                    )
                ],
            },
            ["0/1", "CrashLoopBackOff", "3 (5m ago)"],
        ),
        (
            {"phase": "Running", "containerStatuses": [container(state={"terminated": {"exitCode": 3}})]},
            ["0/1", "ExitCode:3", "0"],
        ),
        (
            {"phase": "Running", "containerStatuses": [container(state={"terminated": {"exitCode": 3, "signal": 9}})]},
            ["0/1", "Signal:9", "0"],
        ),
        ({"phase": "Succeeded", "containerStatuses": [DONE]}, ["0/1", "Completed", "0"]),
        (
            {"phase": "Running", "containerStatuses": [DONE, RUNNING], "conditions": [READY]},
            ["1/1", "Running", "0"],
        ),
        ({"phase": "Running", "containerStatuses": [DONE, RUNNING]}, ["1/1", "NotReady", "0"]),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}],
            },
            ["0/1", "SchedulingGated", "0"],
        ),
    ],
)
def test_pod_status(status: dict[str, Any], expected: list[str]) -> None:
    assert pod(status) == expected


INITS = {"initContainers": [{"name": "one"}, {"name": "two"}]}


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (container("one", state={"running": {}}), ["0/1", "Init:0/2", "0"]),
        (container("one", state={"waiting": {"reason": "PodInitializing"}}), ["0/1", "Init:0/2", "0"]),
        (container("one", state={"waiting": {"reason": "ImagePullBackOff"}}), ["0/1", "Init:ImagePullBackOff", "0"]),
        (container("one", state={"terminated": {"exitCode": 1, "reason": "Error"}}), ["0/1", "Init:Error", "0"]),
        (container("one", state={"terminated": {"exitCode": 1}}, restartCount=2), ["0/1", "Init:ExitCode:1", "2"]),
        (container("one", state={"terminated": {"exitCode": 1, "signal": 6}}), ["0/1", "Init:Signal:6", "0"]),
        (container("one", state={"terminated": {"exitCode": 0}}), ["0/1", "Init:1/2", "0"]),
    ],
)
def test_pod_initializing(first: dict[str, Any], expected: list[str]) -> None:
    waiting = container("two", state={"waiting": {"reason": "PodInitializing"}})
    status = {"phase": "Pending", "initContainerStatuses": [first, waiting]}
    assert pod(status, INITS) == expected


def test_pod_with_sidecar() -> None:
    spec = {"initContainers": [{"name": "side", "restartPolicy": "Always"}, {"name": "once"}]}
    last = {"terminated": {"exitCode": 1, "finishedAt": ago(60)}}
    side = container("side", started=True, ready=True, restartCount=2, lastState=last, state={"running": {}})
    once = container("once", restartCount=7, state={"terminated": {"exitCode": 0}})
    status = {"phase": "Running", "initContainerStatuses": [side, once], "containerStatuses": [RUNNING]}
    assert pod(status, spec) == ["2/2", "Running", "2 (60s ago)"]
    assert pod({**status, "phase": "Pending", "containerStatuses": []}, spec)[0] == "1/2"


def test_pod_deleted() -> None:
    running = {"phase": "Running", "containerStatuses": [RUNNING]}
    assert pod(running, deletionTimestamp=ago(1))[1] == "Terminating"
    assert pod({**running, "reason": "NodeLost"}, deletionTimestamp=ago(1))[1] == "Unknown"
    assert pod({"phase": "Succeeded", "containerStatuses": [DONE]}, deletionTimestamp=ago(1))[1] == "Completed"


def test_pod_wide() -> None:
    spec = {"containers": [{}], "nodeName": "n", "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]}
    conditions = [{"type": "x", "status": "True"}, {"type": "y", "status": "False"}]
    status = {"phase": "Running", "podIPs": [{"ip": "10.1.2.3"}], "conditions": conditions}
    assert cells("pods", spec=spec, status=status)[5:] == ["10.1.2.3", "n", "<none>", "1/2"]


@pytest.mark.parametrize(("phase", "message"), [("Succeeded", "completed successfully"), ("Failed", "pod failed")])
def test_pod_conditions(phase: str, message: str) -> None:
    pods = builtin().find("pods")
    assert pods is not None
    row = to_table([{"metadata": meta(), "status": {"phase": phase}}], pods, now=NOW)["rows"][0]
    assert list(row) == ["cells", "conditions", "object"]
    assert row["conditions"][0]["type"] == "Completed"
    assert message in row["conditions"][0]["message"]


# --- others ---

TEMPLATE = {"spec": {"containers": [{"name": "x", "image": "x:1"}, {"name": "y", "image": "y:2"}]}}
SELECTOR = {"matchLabels": {"b": "2", "a": "1"}}


@pytest.mark.parametrize(
    ("resource", "obj", "expected"),
    [
        (
            "deployments",
            {
                "spec": {"replicas": 3, "template": TEMPLATE, "selector": SELECTOR},
                "status": {"readyReplicas": 2, "updatedReplicas": 1},
            },
            ["a", "2/3", 1, 0, "5m", "x,y", "x:1,y:2", "a=1,b=2"],
        ),
        (
            "replicasets",
            {"spec": {"replicas": 3, "template": TEMPLATE}, "status": {"replicas": 2}},
            ["a", 3, 2, 0, "5m", "x,y", "x:1,y:2", "<none>"],
        ),
        (
            "statefulsets",
            {"spec": {"replicas": 3, "template": TEMPLATE}, "status": {"readyReplicas": 1}},
            ["a", "1/3", "5m", "x,y", "x:1,y:2"],
        ),
        (
            "daemonsets",
            {
                "spec": {"template": {"spec": {"nodeSelector": {"k": "v"}}}, "selector": {}},
                "status": {"numberReady": 4},
            },
            ["a", 0, 0, 4, 0, 0, "k=v", "5m", "", "", "<none>"],
        ),
        (
            "jobs",
            {
                "spec": {
                    "completions": 2,
                    "selector": {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v", "u"]}]},
                },
                "status": {
                    "succeeded": 2,
                    "startTime": ago(100),
                    "completionTime": ago(40),
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            },
            ["a", "Complete", "2/2", "60s", "5m", "", "", "k in (u,v)"],
        ),
        (
            "jobs",
            {"spec": {"parallelism": 5}, "status": {"startTime": ago(30)}},
            ["a", "Running", "0/1 of 5", "30s", "5m", "", "", "<none>"],
        ),
        (
            "cronjobs",
            {
                "spec": {
                    "schedule": "* * * * *",
                    "suspend": False,
                    "jobTemplate": {"spec": {"template": TEMPLATE}},
                },
                "status": {"active": [{}], "lastScheduleTime": ago(61)},
            },
            ["a", "* * * * *", "<none>", "False", 1, "61s", "5m", "x,y", "x:1,y:2", "<none>"],
        ),
        (
            "services",
            {
                "spec": {
                    "type": "LoadBalancer",
                    "clusterIPs": ["10.0.0.1"],
                    "externalIPs": ["1.2.3.4"],
                    "ports": [{"port": 80, "protocol": "TCP"}, {"port": 1, "nodePort": 30001, "protocol": "UDP"}],
                    "selector": {"app": "web"},
                },
                "status": {"loadBalancer": {"ingress": [{"hostname": "h"}, {"ip": "5.5.5.5"}]}},
            },
            ["a", "LoadBalancer", "10.0.0.1", "5.5.5.5,h,1.2.3.4", "80/TCP,1:30001/UDP", "5m", "app=web"],
        ),
        (
            "services",
            {"spec": {"type": "ExternalName", "externalName": "x.example"}},
            ["a", "ExternalName", "<none>", "x.example", "<none>", "5m", "<none>"],
        ),
        (
            "services",
            {"spec": {"type": "LoadBalancer"}},
            ["a", "LoadBalancer", "<none>", "<pending>", "<none>", "5m", "<none>"],
        ),
        (
            "endpoints",
            {
                "subsets": [
                    {"addresses": [{"ip": "1.1.1.1"}, {"ip": "::2"}], "ports": [{"port": 80}, {"port": 443}]},
                ]
            },
            ["a", "1.1.1.1:80,[::2]:80,1.1.1.1:443 + 1 more...", "5m"],
        ),
        ("endpoints", {}, ["a", "<none>", "5m"]),
        (
            "endpointslices",
            {
                "addressType": "IPv4",
                "ports": [{"port": 80}, {"name": "x"}, {}],
                "endpoints": [{"addresses": ["1.1.1.1"]}],
            },
            ["a", "IPv4", "80,x,*", "1.1.1.1", "5m"],
        ),
        (
            "ingresses",
            {
                "spec": {
                    "ingressClassName": "nginx",
                    "rules": [{"host": "a.b"}, {}, {"host": "c"}, {"host": "d"}, {"host": "e"}],
                    "tls": [{}],
                },
                "status": {"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}]}},
            },
            ["a", "nginx", "a.b,c,d + 2 more...", "9.9.9.9", "80, 443", "5m"],
        ),
        (
            "nodes",
            {
                "metadata": meta(labels={"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "db"}),
                "spec": {"unschedulable": True},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1.36.0"},
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
                },
            },
            ["a", "Ready,SchedulingDisabled", "db,worker", "5m", "v1.36.0", "10.0.0.2", "<none>", *["<unknown>"] * 3],
        ),
        ("secrets", {"type": "Opaque", "data": {"x": "", "y": ""}}, ["a", "Opaque", 2, "5m"]),
        ("configmaps", {"data": {"x": ""}, "binaryData": {"y": ""}}, ["a", 2, "5m"]),
        ("namespaces", {"status": {"phase": "Active"}}, ["a", "Active", "5m"]),
        (
            "persistentvolumeclaims",
            {
                "spec": {"volumeName": "pv", "storageClassName": "fast", "volumeMode": "Filesystem"},
                "status": {"phase": "Bound", "capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteOnce"]},
            },
            ["a", "Bound", "pv", "1Gi", "RWO", "fast", "<unset>", "5m", "Filesystem"],
        ),
        (
            "persistentvolumes",
            {
                "metadata": meta(deletionTimestamp=ago(1)),
                "spec": {
                    "capacity": {"storage": "5Gi"},
                    "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"namespace": "n", "name": "c"},
                },
                "status": {"phase": "Bound"},
            },
            ["a", "5Gi", "RWO,RWX", "Retain", "Terminating", "n/c", "", "<unset>", "", "5m", "<unset>"],
        ),
        (
            "storageclasses",
            {
                "metadata": meta(annotations={"storageclass.kubernetes.io/is-default-class": "true"}),
                "provisioner": "p",
            },
            ["a (default)", "p", "Delete", "Immediate", False, "5m"],
        ),
        (
            "resourcequotas",
            {
                "status": {
                    "hard": {"pods": "10", "limits.cpu": "4", "cpu": "2"},
                    "used": {"pods": "1", "limits.cpu": "500m"},
                }
            },
            ["a", "cpu: 0/2, pods: 1/10", "limits.cpu: 500m/4", "5m"],
        ),
        (
            "events",
            {
                "lastTimestamp": ago(60),
                "firstTimestamp": ago(120),
                "type": "Normal",
                "reason": "Created",
                "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"},
                "source": {"component": "kubelet", "host": "n"},
                "message": " made it \n",
                "count": 4,
            },
            ["60s", "Normal", "Created", "pod/p", "spec", "kubelet, n", "made it", "2m", 4, "a"],
        ),
        (
            "events.v1.events.k8s.io",
            {
                "eventTime": ago(90)[:-1] + ".000000Z",
                "series": {"count": 6, "lastObservedTime": ago(30)},
                "type": "Normal",
                "reason": "R",
                "regarding": {"kind": "Node"},
                "note": "n",
                "reportingController": "c",
            },
            ["30s", "Normal", "R", "node", "", "c", "n", "90s", 6, "a"],
        ),
        (
            "rolebindings",
            {
                "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [
                    {"kind": "User", "name": "u"},
                    {"kind": "User", "name": "v"},
                    {"kind": "Group", "name": "g"},
                    {"kind": "ServiceAccount", "name": "s", "namespace": "n"},
                ],
            },
            ["a", "Role/r", "5m", "u, v", "g", "n/s"],
        ),
        ("roles", {}, ["a", ago(300)]),
        (
            "certificatesigningrequests",
            {
                "spec": {"signerName": "s", "username": "u", "expirationSeconds": 3600},
                "status": {"conditions": [{"type": "Approved"}], "certificate": "x"},
            },
            ["a", "5m", "s", "u", "60m", "Approved,Issued"],
        ),
        (
            "hpa",
            {
                "spec": {
                    "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                    "maxReplicas": 9,
                    "minReplicas": 1,
                    "metrics": [
                        {
                            "type": "Resource",
                            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                        },
                        {"type": "Pods", "pods": {"target": {"averageValue": "1000m"}}},
                        {"type": "External", "external": {"target": {"value": "5"}}},
                    ],
                },
                "status": {
                    "currentReplicas": 2,
                    "currentMetrics": [{"type": "Resource", "resource": {"current": {"averageUtilization": 10}}}],
                },
            },
            ["a", "Deployment/d", "cpu: 10%/80%, <unknown>/1 + 1 more...", "1", 9, 2, "5m"],
        ),
        (
            "hpa.v1.autoscaling",
            {"spec": {"maxReplicas": 9, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {}}},
            ["a", "/", "cpu: <unknown>/50%", "<unset>", 9, 0, "5m"],
        ),
        (
            "hpa.v1.autoscaling",
            {
                "metadata": meta(
                    annotations={
                        "autoscaling.alpha.kubernetes.io/metrics": json.dumps(
                            [
                                {"type": "Resource", "resource": {"name": "memory", "targetAverageUtilization": 70}},
                                {"type": "Pods", "pods": {"target": {"averageValue": "5"}}},
                            ]
                        ),
                        "autoscaling.alpha.kubernetes.io/current-metrics": json.dumps(
                            [{"type": "Resource", "resource": {"name": "memory", "currentAverageUtilization": 20}}]
                        ),
                    }
                ),
                "spec": {"maxReplicas": 9},
            },
            ["a", "/", "memory: 20%/70%, <unknown>/5", "<unset>", 9, 0, "5m"],
        ),
        (
            "pdb",
            {"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}},
            ["a", "50%", "N/A", 1, "5m"],
        ),
        ("netpol", {"spec": {"podSelector": {}}}, ["a", "<none>", "5m"]),
        (
            "apiservices",
            {
                "spec": {"service": {"namespace": "n", "name": "s"}},
                "status": {"conditions": [{"type": "Available", "status": "False", "reason": "Missing"}]},
            },
            ["a", "n/s", "False (Missing)", "5m"],
        ),
        ("leases", {"spec": {"holderIdentity": "h"}}, ["a", "h", "5m"]),
        ("priorityclasses", {"value": 5, "preemptionPolicy": "Never"}, ["a", 5, False, "5m", "Never"]),
        ("resourceclaims", {"status": {"allocation": {}, "reservedFor": [{}]}}, ["a", "allocated,reserved", "5m"]),
        (
            "validatingadmissionpolicies",
            {"spec": {"validations": [{}], "paramKind": {"apiVersion": "x/v1", "kind": "K"}}},
            ["a", 1, "x/v1/K", "5m"],
        ),
        (
            "validatingadmissionpolicybindings",
            {"spec": {"policyName": "p", "paramRef": {"selector": {"matchLabels": {"k": "v"}}}}},
            [
                "a",
                "p",
                "&LabelSelector{MatchLabels:map[string]string{k: v,},MatchExpressions:[]LabelSelectorRequirement{},}",
                "5m",
            ],
        ),
        (
            "prioritylevelconfigurations",
            {
                "spec": {
                    "type": "Limited",
                    "limited": {
                        "nominalConcurrencyShares": 10,
                        "limitResponse": {"queuing": {"queues": 64, "handSize": 6, "queueLengthLimit": 50}},
                    },
                }
            },
            ["a", "Limited", 10, 64, 6, 50, "5m"],
        ),
        (
            "controllerrevisions",
            {
                "metadata": meta(
                    ownerReferences=[{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "controller": True}]
                ),
                "revision": 3,
            },
            ["a", "statefulset.apps/s", 3, "5m"],
        ),
        (
            "ipaddresses",
            {"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}},
            ["a", "services/n/s", "5m"],
        ),
    ],
)
def test_cells(resource: str, obj: dict[str, Any], expected: list[Any]) -> None:
    assert cells(resource, **obj) == expected


def test_flow_schemas_go_by_precedence() -> None:
    schemas = builtin().find("flowschemas")
    assert schemas is not None
    objects = [
        {"metadata": {"name": name}, "spec": {"matchingPrecedence": rank}}
        for name, rank in (("z", 1), ("b", 9), ("a", 9))
    ]
    rows = to_table(objects, schemas, now=NOW)["rows"]
    assert [row["cells"][0] for row in rows] == ["z", "a", "b"]
